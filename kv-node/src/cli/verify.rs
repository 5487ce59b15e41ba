//! `kv-node verify`: proves that all nodes hold the same state, or says what differs.
//!
//! 1. A mark goes through the log. Every node notes its state hash there, at one index, and keeps the state.
//! 2. Every node is asked for what it noted, and computes it again from every stored byte (the audit).
//! 3. Equal hashes, each confirmed by its audit: the states are equal.
//! 4. Otherwise the state that most nodes hold is taken for reference, and for each other node the differing keys are
//!    found by bisection over the kept states.
//!
//! Three results: equal, different, and could not tell, when a node did not answer. What does not answer is never taken
//! for equal.

mod audit;
mod compare;

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use kv_store::Index;
use serde::Serialize;
use serde_json::json;

use super::client::{Client, ClientError};
use super::nodes::{NodeReport, discover};
use super::{complain, say};
use crate::hex::hex;
use crate::resp::Frame;
use audit::{Noted, note_of};
use compare::differences;

/// Differing keys listed for a node.
const DIFFERENCES_COUNT_MAX: usize = 100;
/// How long an answer may take; an audit reads the whole state.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);
const COULD_NOT_TELL: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Client address of any node, for example 127.0.0.1:7001
    #[arg(long, value_name = "ADDR")]
    addr: String,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Something in which the nodes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Difference {
    /// The node has a key, or a value or version of it, that the reference has not.
    Key { node: u64, reference: u64, key: String, how: &'static str },
    /// There may be more keys than are listed.
    MoreKeys { node: u64, listed: usize },
    /// What kv-repl keeps beside the pairs differs.
    ReplicationState { node: u64, reference: u64 },
    /// What is stored is not what the node's own sums say.
    Audit { node: u64 },
    /// The parts the node gives don't make the hash it noted.
    Hash { node: u64 },
}

/// What came out.
struct Verdict {
    index: Index,
    nodes: Vec<NodeReport>,
    differences: Vec<Difference>,
    /// Why it is not known whether all nodes are equal.
    obstacles: Vec<String>,
}

pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    let verdict = match verify(&args.addr) {
        Ok(verdict) => verdict,
        Err(error) => {
            if args.json {
                say(json!({ "nodes": [], "match": null, "differences": [], "error": error.to_string() }));
            }
            complain(format_args!("could not verify: {error}"));
            return ExitCode::from(COULD_NOT_TELL);
        }
    };
    if args.json {
        say(verdict.to_json());
    } else {
        say(&verdict);
    }
    match verdict.matches() {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => ExitCode::from(COULD_NOT_TELL),
    }
}

fn verify(address: &str) -> Result<Verdict, ClientError> {
    let mut client = Client::connect(address, ANSWER_TIME_MAX)?;
    let index = match client.call(&["KV.MARK"])? {
        Frame::Integer(index) => Index::new(index.unsigned_abs()),
        _ => return Err(client.nonsense("the mark has no index")),
    };
    // Asked after the mark, so that a node that came up meanwhile is among them.
    Ok(Verdict::of(index, discover(address)?))
}

/// What each node noted at the mark; asked all at a time, since an audit takes as long as the state is large.
fn note_of_each(nodes: &[NodeReport], index: Index) -> Vec<Result<Noted, String>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = nodes.iter().map(|node| (node, scope.spawn(move || note_of(node, index)))).collect();
        let answers = asked.into_iter().map(|(node, answer)| {
            let answer = answer.join().unwrap_or_else(|_| Err("the question failed".to_owned()));
            answer.map_err(|error| format!("{}: {error}", node.name()))
        });
        answers.collect()
    })
}

impl Verdict {
    /// Asks these nodes for what they noted at `index`, and compares.
    fn of(index: Index, nodes: Vec<NodeReport>) -> Verdict {
        let mut verdict = Verdict { index, nodes, differences: Vec::new(), obstacles: Vec::new() };
        let mut noted = Vec::new();
        for result in note_of_each(&verdict.nodes, index) {
            match result {
                Ok(note) => {
                    verdict.show(&note);
                    noted.push(note);
                }
                Err(obstacle) => verdict.obstacles.push(obstacle),
            }
        }
        verdict.judge(&mut noted);
        verdict
    }

    /// The report on a node shows what it noted at the mark, not what it has got to since.
    fn show(&mut self, note: &Noted) {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.id == note.id) {
            (node.hash_index, node.state_hash) = (Some(self.index.get()), Some(hex(&note.hash)));
        }
    }

    fn judge(&mut self, noted: &mut [Noted]) {
        for node in noted.iter() {
            self.differences.extend(node.contradictions(self.index));
        }
        let Some(reference) = most_common(noted) else { return };
        for other in 0..noted.len() {
            if let Ok([reference, other]) = noted.get_disjoint_mut([reference, other]) {
                match differences(reference, other, self.index, DIFFERENCES_COUNT_MAX) {
                    Ok(found) => self.differences.extend(found),
                    Err(error) => {
                        self.obstacles.push(format!("node {} against node {}: {error}", other.id, reference.id));
                    }
                }
            }
        }
    }

    /// `None`: could not tell.
    fn matches(&self) -> Option<bool> {
        match (self.differences.is_empty(), self.obstacles.is_empty()) {
            (false, _) => Some(false),
            (true, true) => Some(true),
            (true, false) => None,
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "nodes": self.nodes,
            "index": self.index.get(),
            "match": self.matches(),
            "differences": self.differences,
            "obstacles": self.obstacles,
        })
    }
}

/// The first of those whose hash most nodes share.
fn most_common(noted: &[Noted]) -> Option<usize> {
    let shared_by = |hash: &[u8; 32]| noted.iter().filter(|node| node.hash == *hash).count();
    (0..noted.len()).rev().max_by_key(|number| shared_by(&noted[*number].hash))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        for obstacle in &self.obstacles {
            writeln!(f, "{obstacle}")?;
        }
        let (count, index) = (self.nodes.len(), self.index);
        match self.matches() {
            Some(true) => {
                write!(
                    f,
                    "MATCH at index {index}: {count} of {count} nodes hold the same state, every stored byte audited"
                )
            }
            Some(false) => write!(f, "DIFFERENT at index {index}"),
            None => write!(f, "COULD NOT TELL at index {index}: not every node answered"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Key { node, reference, key, how } => {
                write!(f, "node {node}: key \"{key}\": {how} (compared with node {reference})")
            }
            Difference::MoreKeys { node, listed } => {
                write!(f, "node {node}: there may be more than these {listed} keys")
            }
            Difference::ReplicationState { node, reference } => {
                write!(f, "node {node}: replication state differs from that of node {reference}")
            }
            Difference::Audit { node } => {
                write!(f, "node {node}: the stored bytes do not add up to the node's own digest; restart it")
            }
            Difference::Hash { node } => write!(f, "node {node}: its parts do not make the state hash it noted"),
        }
    }
}

#[cfg(test)]
mod tests;
