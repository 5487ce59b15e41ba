//! The program: one subcommand per file.

pub mod client;
mod cluster;
mod nodes;
mod serve;
mod status;
mod verify;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A replicated key-value server that any Redis client can use.
#[derive(Debug, Parser)]
#[command(name = "kv-node", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole cluster on this machine, each node a process of its own
    Cluster(cluster::ClusterArgs),
    /// Run one node
    Serve(serve::ServeArgs),
    /// Show where every node stands
    Status(status::StatusArgs),
    /// Prove that all nodes hold the same state, or name the keys in which they differ
    Verify(verify::VerifyArgs),
}

/// Does what the command line asks for.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Cluster(args) => cluster::run(&args),
        Command::Serve(args) => serve::run(args),
        Command::Status(args) => status::run(&args),
        Command::Verify(args) => verify::run(&args),
    }
}

/// Log lines go to standard error; `KV_LOG` chooses which, in the way of tracing's `EnvFilter`.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("KV_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only if there is one already, which is as good.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init();
}

/// Writes a line for the user. Nobody reads it any more if that fails, which is no reason to stop.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Says on standard error why the program cannot do what it should.
fn complain(error: impl Display) {
    let _ = writeln!(io::stderr().lock(), "kv-node: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_of_cluster() {
        let Ok(Command::Cluster(args)) = parse("kv-node cluster") else { panic!("cluster needs no options") };
        assert_eq!((args.nodes, args.port, args.dir.to_str()), (3, 7001, Some("./kv-cluster")));
    }

    #[test]
    fn every_subcommand_takes_its_options() {
        for line in [
            "kv-node cluster --nodes 5 --dir /tmp/c --port 8001",
            "kv-node serve --id 1 --dir d --listen :7001 --peer-listen h:1 --peers 1=h:1,2=h:2,3=h:3",
            "kv-node status --addr 127.0.0.1:7001 --json",
            "kv-node verify --addr 127.0.0.1:7001 --json",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "kv-node",
            "kv-node cluster --nodes 0",
            "kv-node cluster --nodes 8",
            "kv-node cluster --port 0",
            "kv-node serve --id 1",
            "kv-node serve --id 0 --dir d --listen h:1 --peer-listen h:1 --peers 1=h:1",
            "kv-node serve --id 1 --dir d --listen h:1 --peer-listen h:1 --peers h:1",
            "kv-node serve --id 1 --dir d --listen h:1 --peer-listen h:1 --peers x=h:1",
            "kv-node status",
            "kv-node verify",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
