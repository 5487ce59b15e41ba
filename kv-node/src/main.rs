//! The `kv-node` binary.

use std::process::ExitCode;

use clap::Parser;
use kv_node::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
