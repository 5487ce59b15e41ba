//! The log on real files, ended by force: a child process appends and reports what is durable, and is killed with -9 at
//! random moments, or the file system under it is shut down, which really loses what was not synced. What was reported
//! must be there afterwards, byte by byte.

mod child;
mod disk;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use kv_wal::Log;
use kv_wal::testing::random;

use disk::Disk;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [word, dir, round] if word == "append" => {
            child::append(Path::new(dir), round.parse().expect("a number"));
            return ExitCode::SUCCESS;
        }
        [word, ..] if word == "--list" => return ExitCode::SUCCESS,
        _ => {}
    }
    let rounds = if cfg!(debug_assertions) { 40 } else { 300 };
    report(&format!("kill -9, {rounds} times: {}", kill_nine(rounds)));
    let mut passed = 1;
    for kind in ["xfs", "ext4"] {
        match Disk::new(kind) {
            Ok(disk) => {
                report(&format!("power loss on {kind}, {} times: {}", rounds / 4, power_loss(disk, rounds / 4)));
                passed += 1;
            }
            Err(why) => report(&format!("skipped: power loss on {kind}: {why}")),
        }
    }
    report(&format!("{passed} passed, 0 failed"));
    ExitCode::SUCCESS
}

/// Kills the child in the same directory again and again.
fn kill_nine(rounds: u64) -> String {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
    let mut seed = 11;
    let mut total = 0;
    for round in 1..=rounds {
        let mut appender = Appender::start(dir.path(), round);
        appender.let_run(&mut seed);
        total += check(dir.path(), &appender.end(), round);
    }
    format!("{total} appends reported durable, 0 missing")
}

/// Takes the file system away from under the child again and again.
fn power_loss(mut disk: Disk, rounds: u64) -> String {
    let mut seed = 12;
    let mut total = 0;
    for round in 1..=rounds {
        let dir = disk.mounted().join("log");
        let mut appender = Appender::start(&dir, round);
        appender.let_run(&mut seed);
        disk.shut_down();
        let reported = appender.end();
        disk.remount();
        total += check(&dir, &reported, round);
    }
    format!("{total} appends reported durable, 0 missing")
}

/// What the child has last reported.
#[derive(Debug, Default)]
struct Reported {
    base: u64,
    last: u64,
    /// The newest append that is durable, by its number.
    number: u64,
}

struct Appender(Child);

impl Appender {
    fn start(dir: &Path, round: u64) -> Appender {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg("append").arg(dir).arg(round.to_string());
        Appender(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the child starts"))
    }

    /// Until it has reported something, and then a moment longer.
    fn let_run(&mut self, seed: &mut u64) {
        let mut byte = [0];
        let output = self.0.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(output, &mut byte).expect("the child reports");
        assert_eq!(&byte, b"\n", "each report starts on a fresh line");
        std::thread::sleep(Duration::from_micros(random(seed) % 60_000));
    }

    /// Kills it and reads what it has reported. A report that was cut short counts for nothing.
    fn end(mut self) -> Reported {
        self.0.kill().expect("it can be killed");
        let output = BufReader::new(self.0.stdout.take().expect("piped"));
        let mut reported = Reported::default();
        for line in output.lines().map_while(Result::ok) {
            if let [base, last, number, "."] = line.split(' ').collect::<Vec<_>>()[..] {
                let [base, last, number] = [base, last, number].map(|word| word.parse().expect("a number"));
                reported = Reported { base, last, number };
            }
        }
        self.0.wait().expect("it has ended");
        reported
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens the log and expects everything that was reported, and nothing that was not appended.
fn check(dir: &Path, reported: &Reported, round: u64) -> u64 {
    let (log, recovery) = Log::open(dir, child::OPTIONS).expect("the log opens");
    assert!(!recovery.is_damaged(), "round {round}: {recovery}");
    let (base, last) = (log.base().index.get(), log.last().index.get());
    assert!(last >= reported.last, "round {round}: {reported:?} was reported, {recovery}");
    assert!(base >= reported.base, "round {round}: {reported:?} was reported, {recovery}");
    let newest = child::newest_append(&log, round);
    assert!(newest >= reported.number, "round {round}: append {newest} is the newest; {reported:?} was reported");
    child::check_entries(&log);
    log.close().expect("it closes");
    reported.number
}

#[expect(clippy::print_stdout, reason = "a test without a harness reports by itself")]
fn report(line: &str) {
    println!("{line}");
}
