//! `kv-node cluster`: a whole cluster on this machine, for trying it out. Each node is a process of its own, so that it
//! can be killed, paused and started again like a real one.

mod children;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::nodes::ask;
use super::{complain, say};
use children::{Children, Ended};

/// From the port for clients to the port for the other nodes.
const PEER_PORT_OFFSET: u16 = 100;
/// Between two questions who leads.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    pub(super) nodes: u16,
    /// Where the nodes keep their data; a later start finds it there
    #[arg(long, default_value = "./kv-cluster")]
    pub(super) dir: PathBuf,
    /// Clients of the first node connect here; the other nodes follow, and peers connect 100 above
    #[arg(long, default_value_t = 7001, value_parser = clap::value_parser!(u16).range(1..=65_400))]
    pub(super) port: u16,
}

/// Why there is no cluster. One line that says what to do.
#[derive(Debug, Error)]
enum ClusterError {
    #[error("{address} is taken: {source}; end what listens there, or choose other ports with --port")]
    PortTaken { address: String, source: std::io::Error },
    #[error("cannot use the directory {}: {source}; choose another with --dir", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("cannot start a node: {0}")]
    Spawn(std::io::Error),
    #[error("the operating system refused: {0}")]
    System(#[from] std::io::Error),
    #[error("every node has ended")]
    AllEnded,
}

/// One node of the cluster to be started.
#[derive(Clone, Debug)]
struct NodePlan {
    id: u16,
    clients: String,
    peers: String,
    dir: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
}

/// Signals that end the cluster.
struct StopSignals([Signal; 3]);

pub(super) fn run(args: &ClusterArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(ClusterError::from).and_then(|runtime| runtime.block_on(cluster(args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

async fn cluster(args: &ClusterArgs) -> Result<(), ClusterError> {
    let mut stop = StopSignals::watch()?;
    let plans = plan(args)?;
    check_ports(&plans)?;
    let mut children = Children::default();
    for plan in &plans {
        let pid = children.start(plan)?;
        introduce(plan, pid);
    }
    let result = watch(&plans, &mut children, &mut stop).await;
    say("stopping all nodes");
    for ended in children.stop().await {
        if !ended.well() {
            say(ended);
        }
    }
    result
}

/// Names the leader, then reports what happens until a signal comes.
async fn watch(plans: &[NodePlan], children: &mut Children, stop: &mut StopSignals) -> Result<(), ClusterError> {
    let leader = wait_for_leader(plans);
    tokio::pin!(leader);
    let mut leading = false;
    loop {
        tokio::select! {
            biased;
            () = stop.received() => return Ok(()),
            ended = children.next_end() => match ended {
                Some(ended) => report(&ended, children.count()),
                None => return Err(ClusterError::AllEnded),
            },
            leader = &mut leader, if !leading => {
                leading = true;
                say(format_args!("\nleader: node {} ({})", leader.id, leader.clients));
                invite(plans);
            }
        }
    }
}

async fn wait_for_leader(plans: &[NodePlan]) -> NodePlan {
    loop {
        for plan in plans {
            let address = plan.clients.clone();
            // The client blocks; a node that is not there yet refuses at once.
            let status = tokio::task::spawn_blocking(move || ask(&address)).await;
            if let Ok(Ok(status)) = status
                && status.role == "leader"
            {
                return plan.clone();
            }
        }
        sleep(LEADER_PAUSE).await;
    }
}

fn introduce(plan: &NodePlan, pid: u32) {
    say(format_args!("node {}: pid {pid}, clients {}, peers {}", plan.id, plan.clients, plan.peers));
    say(format_args!("  {}", plan.command_line()));
}

fn report(ended: &Ended, remaining: usize) {
    say(ended);
    say(format_args!("{remaining} nodes are running; start it again with the command shown above"));
}

fn invite(plans: &[NodePlan]) {
    let port = |number: usize| plans[number % plans.len()].clients.rsplit(':').next().unwrap_or_default().to_owned();
    say("\nTry, in another terminal:");
    say(format_args!("  redis-cli -p {} set greeting hello", port(0)));
    say(format_args!("  redis-cli -p {} get greeting", port(1)));
    say(format_args!("  kv-node status --addr {}", plans[0].clients));
    say(format_args!("  kv-node verify --addr {}", plans[0].clients));
    say("\nCtrl-C stops all nodes; the same command starts them again with their data.");
}

fn plan(args: &ClusterArgs) -> Result<Vec<NodePlan>, ClusterError> {
    let program = std::env::current_exe()?;
    let ports = |id: u16| (args.port + id - 1, args.port + id - 1 + PEER_PORT_OFFSET);
    let all: Vec<String> = (1..=args.nodes).map(|id| format!("{id}=127.0.0.1:{}", ports(id).1)).collect();
    (1..=args.nodes)
        .map(|id| {
            let (client_port, peer_port) = ports(id);
            let dir = args.dir.join(format!("node{id}"));
            let failed = |source| ClusterError::Directory { path: dir.clone(), source };
            std::fs::create_dir_all(&dir).map_err(failed)?;
            let (clients, peers) = (format!("127.0.0.1:{client_port}"), format!("127.0.0.1:{peer_port}"));
            let options = [
                ("--id", id.to_string()),
                ("--dir", dir.display().to_string()),
                ("--listen", clients.clone()),
                ("--peer-listen", peers.clone()),
                ("--peers", all.join(",")),
            ];
            let options = options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
            let arguments = std::iter::once("serve".to_owned()).chain(options).collect();
            Ok(NodePlan { id, clients, peers, dir, program: program.clone(), arguments })
        })
        .collect()
}

/// Before anything is started every port must be free. All are held until the last has been tried.
fn check_ports(plans: &[NodePlan]) -> Result<(), ClusterError> {
    let addresses = plans.iter().flat_map(|plan| [&plan.clients, &plan.peers]);
    let held: Result<Vec<TcpListener>, ClusterError> = addresses
        .map(|address| {
            TcpListener::bind(address).map_err(|source| ClusterError::PortTaken { address: address.clone(), source })
        })
        .collect();
    held.map(drop)
}

impl NodePlan {
    fn log_path(&self) -> PathBuf {
        self.dir.join("kv-node.log")
    }

    /// What to paste to start the node by hand.
    fn command_line(&self) -> String {
        let program = self.program.display().to_string();
        let words = std::iter::once(&program).chain(&self.arguments).map(|word| quote(word));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=,".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The last line of a node's log, which says why it ended if it did so by itself.
fn last_line(path: &Path) -> Option<String> {
    let log = std::fs::read(path).ok()?;
    let last = log.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(last).into_owned())
}

impl StopSignals {
    fn watch() -> std::io::Result<StopSignals> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(StopSignals([interrupt?, terminate?, hangup?]))
    }

    async fn received(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_shell() {
        assert_eq!(quote("1=127.0.0.1:7101,2=[::1]:1"), "'1=127.0.0.1:7101,2=[::1]:1'");
        assert_eq!(quote("./kv-cluster/node1"), "./kv-cluster/node1");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn a_taken_port_is_found_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let plan = NodePlan {
            id: 1,
            clients: "127.0.0.1:0".to_owned(),
            peers: format!("127.0.0.1:{port}"),
            dir: dir.path().to_owned(),
            program: PathBuf::new(),
            arguments: Vec::new(),
        };
        let error = check_ports(&[plan]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("127.0.0.1:{port} is taken")), "{error}");
    }

    #[test]
    fn every_node_gets_ports_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let args = ClusterArgs { nodes: 3, dir: dir.path().join("c"), port: 9001 };
        let plans = plan(&args).unwrap();
        let addresses: Vec<_> = plans.iter().map(|plan| (plan.clients.as_str(), plan.peers.as_str())).collect();
        let expected = [1, 2, 3].map(|n| (format!("127.0.0.1:900{n}"), format!("127.0.0.1:910{n}")));
        assert_eq!(addresses, expected.each_ref().map(|(clients, peers)| (clients.as_str(), peers.as_str())));
        assert!(plans.iter().all(|plan| plan.dir.is_dir()));
        assert!(plans[1].arguments.contains(&"1=127.0.0.1:9101,2=127.0.0.1:9102,3=127.0.0.1:9103".to_owned()));
    }
}
