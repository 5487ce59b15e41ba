//! `kv-node status`: where every node stands.

use std::fmt::Display;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::nodes::{NodeReport, discover};
use super::{complain, say};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Client address of any node, for example 127.0.0.1:7001
    #[arg(long, value_name = "ADDR")]
    addr: String,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> ExitCode {
    let nodes = match discover(&args.addr) {
        Ok(nodes) => nodes,
        Err(error) => {
            complain(format_args!("{error}; is a node running there? Try the address of another one"));
            return ExitCode::FAILURE;
        }
    };
    if args.json {
        say(json!({ "nodes": nodes }));
    } else {
        table(&nodes).iter().for_each(say);
    }
    ExitCode::SUCCESS
}

const TITLES: [&str; 9] =
    ["id", "address", "pid", "role", "term", "last", "committed", "applied", "state hash @ index"];

fn table(nodes: &[NodeReport]) -> Vec<String> {
    let rows: Vec<[String; 9]> = nodes.iter().map(row).collect();
    let widths: [usize; 9] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].len()).chain([TITLES[column].len()]).max().unwrap_or(0)
    });
    let line = |cells: &[String; 9]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(&TITLES.map(str::to_owned)).chain(&rows).map(line).collect()
}

fn row(node: &NodeReport) -> [String; 9] {
    let hash = node.state_hash.as_ref().zip(node.hash_index);
    [
        node.id.to_string(),
        node.addr.clone().unwrap_or_else(|| format!("peers: {}", node.peer_addr)),
        cell(node.pid),
        node.role.clone().unwrap_or_else(|| "unreachable".to_owned()),
        cell(node.term),
        cell(node.last),
        cell(node.committed),
        cell(node.applied),
        hash.map_or_else(|| "-".to_owned(), |(hash, index)| format!("{} @ {index}", hash.get(..16).unwrap_or(hash))),
    ]
}

fn cell(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
