//! One run of a whole cluster: a load of many values through a follower, a checking client beside it, and the leader
//! killed with -9 in the middle and started again. Both clients should see a pause, and no error.
//!
//! `cargo test --release --test failover` writes a million values and prints what `docs/first-light.md` records.

mod checker;
#[path = "../cluster/mod.rs"]
mod cluster;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::{Cluster, eventually, installed, say};

const VALUE_BYTES: usize = 128;

#[test]
fn clients_of_a_follower_see_a_pause_and_no_error() {
    if !installed("redis-benchmark") {
        assert!(std::env::var_os("CI").is_none(), "redis-tools are missing");
        say("skipped: clients_of_a_follower_see_a_pause_and_no_error: redis-benchmark is not installed");
        return;
    }
    let values: u64 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let entry = leader % 3 + 1;
    let survivors: Vec<usize> = (1..=3).filter(|id| *id != leader).collect();
    let done = AtomicBool::new(false);
    let address = cluster.address(entry);
    let started = Instant::now();
    let mut load = Load::start(&address, values);
    let (checked, without_leader) = std::thread::scope(|scope| {
        let checker = scope.spawn(|| checker::write_until(&done, &address));
        wait_until_applied(&cluster, entry, values / 4);
        cluster.kill(leader);
        let killed = Instant::now();
        cluster.leader_among(&survivors);
        let without_leader = killed.elapsed();
        wait_until_applied(&cluster, entry, values / 2);
        cluster.run(leader);
        load.finish();
        // It has caught up while it was written to, or it does now.
        cluster.leader();
        done.store(true, Ordering::Relaxed);
        (checker.join().expect("the checking client does not panic"), without_leader)
    });
    let seconds = started.elapsed().as_secs_f64();
    assert!(checked.confirmed.len() > 20, "only {} numbered keys were confirmed", checked.confirmed.len());
    assert_eq!(checked.errors, Vec::<String>::new(), "the checking client was told of errors");
    for id in 1..=3 {
        let missing = checker::missing(&mut cluster.client(id), &checked.confirmed);
        assert_eq!(missing, Vec::<u64>::new(), "confirmed writes are missing on node {id}");
    }
    cluster.settle();
    cluster.expect_match();
    let (confirmed, longest) = (checked.confirmed.len(), checked.longest.as_millis());
    for line in [
        format!("redis-benchmark: {values} values of {VALUE_BYTES} bytes in {seconds:.1} s, errors: 0"),
        format!("checking client: {confirmed} confirmed, errors: 0, missing afterwards on any node: 0"),
        format!("without a leader: {} ms; longest wait for one confirmation: {longest} ms", without_leader.as_millis()),
        "state hashes of the three nodes: equal, recomputed from every byte".to_owned(),
    ] {
        say(&line);
    }
}

/// `redis-benchmark`, which ends with an error at the first error reply.
struct Load(Child);

impl Load {
    fn start(address: &str, values: u64) -> Load {
        let port = address.rsplit(':').next().expect("a port");
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", port, "-t", "set", "-c", "64", "-P", "16", "-r", "1000000", "-q"]);
        command.args(["-n", &values.to_string(), "-d", &VALUE_BYTES.to_string()]);
        Load(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs"))
    }

    /// Waits for its end, and expects no error.
    fn finish(&mut self) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("it can be waited for") {
                break status;
            }
            assert!(started.elapsed() < Duration::from_secs(600), "redis-benchmark does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let output = std::mem::take(&mut self.0.stderr).map(std::io::read_to_string);
        let errors = output.and_then(Result::ok).unwrap_or_default();
        assert!(status.success() && errors.is_empty(), "redis-benchmark ended with {status}: {errors}");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until_applied(cluster: &Cluster, id: usize, index: u64) {
    eventually(&format!("index {index} applied on node {id}"), || {
        let applied = cluster.ask(id).and_then(|status| status["applied"].as_u64()).ok_or("no answer")?;
        if applied >= index { Ok(()) } else { Err("not yet") }
    });
}
