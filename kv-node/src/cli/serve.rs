//! `kv-node serve`: one node, until it is told to stop.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kv_repl::{NodeId, Replica, ReplicaConfig, StartError};
use kv_store::Store;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{complain, log_to_stderr};
use crate::node::{About, Node};
use crate::server;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Number of this node, one of those in --peers
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// Directory of this node's data; made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// Where clients connect
    #[arg(long, value_name = "ADDR")]
    listen: String,
    /// Where the other nodes connect
    #[arg(long, value_name = "ADDR")]
    peer_listen: String,
    /// Every node, this one too, with the address for the other nodes: 1=ADDR,2=ADDR,3=ADDR
    #[arg(long, value_name = "ID=ADDR,...", required = true, value_delimiter = ',', value_parser = parse_peer)]
    peers: Vec<(u64, String)>,
    /// How long a client's write or read waits for a leader before it is refused, or called unknown
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    write_timeout_ms: u64,
    /// Write a checkpoint after this much log; the log on disk stays a little over twice as long
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_log_bytes: u64,
    /// Length of a log file: a multiple of 4096, from 64 KiB to 1 GiB
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    log_segment_bytes: u64,
}

/// Why a node does not run. One line that says what to do.
#[derive(Debug, Error)]
enum ServeError {
    #[error("cannot make the directory {}: {source}; choose another with --dir", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("cannot listen on {address}: {source}; end what listens there, or choose another with {option}")]
    Listen { option: &'static str, address: String, source: std::io::Error },
    #[error("cannot start: {0}")]
    Start(#[from] StartError),
    #[error("the operating system refused: {0}")]
    System(#[from] std::io::Error),
    #[error("stopped: {0}")]
    Stopped(String),
}

fn parse_peer(text: &str) -> Result<(u64, String), String> {
    let (id, address) = text.split_once('=').ok_or("want ID=ADDR, for example 1=127.0.0.1:7101")?;
    let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(|| format!("{id:?} is no node number"))?;
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.ok_or_else(|| format!("{address:?} has no port"))?;
    Ok((id, address.to_owned()))
}

pub(super) fn run(args: ServeArgs) -> ExitCode {
    log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(ServeError::from(error));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    // Watched from the beginning: a signal during the start must not be the end without a word.
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    make_directory(&args.dir)?;
    let clients = listen("--listen", &args.listen).await?;
    let peers = listen("--peer-listen", &args.peer_listen).await?;

    let replica = start_replica(&args, peers).await?;
    let about = About { client_address: args.listen, peer_address: args.peer_listen, dir: args.dir };
    info!(id = args.id, clients = about.client_address, peers = about.peer_address, "ready");
    let node = Node::new(Arc::new(replica.clone()), about);
    let stop = CancellationToken::new();
    let server = tokio::spawn(server::run(clients, node, stop.clone()));

    let failure = tokio::select! {
        _ = terminated.recv() => None,
        _ = interrupted.recv() => None,
        failure = replica.stopped() => Some(failure),
    };
    info!("stopping");
    stop.cancel();
    // Clients first: what they have asked for is still answered.
    if let Err(panic) = server.await {
        error!(%panic, "the server did not end well");
    }
    match failure {
        None => {
            replica.shutdown().await;
            info!("stopped");
            Ok(())
        }
        Some(reason) => Err(ServeError::Stopped(reason.unwrap_or_else(|| "the replica ended".to_owned()))),
    }
}

fn make_directory(dir: &Path) -> Result<(), ServeError> {
    std::fs::create_dir_all(dir).map_err(|source| ServeError::Directory { path: dir.to_owned(), source })
}

async fn listen(option: &'static str, address: &str) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen { option, address: address.to_owned(), source };
    TcpListener::bind(address).await.map_err(failed)
}

async fn start_replica(args: &ServeArgs, listener: TcpListener) -> Result<Replica<Store>, ServeError> {
    let peers = args.peers.iter().map(|(id, address)| (NodeId::new(*id), address.clone())).collect();
    let mut config = ReplicaConfig::new(NodeId::new(args.id), args.dir.clone(), peers);
    config.client_address.clone_from(&args.listen);
    config.write_timeout = Duration::from_millis(args.write_timeout_ms);
    config.read_timeout = config.write_timeout;
    config.checkpoint_log_bytes = args.checkpoint_log_bytes;
    config.log_segment_bytes = args.log_segment_bytes;
    Ok(Replica::open(config, listener).await?)
}
