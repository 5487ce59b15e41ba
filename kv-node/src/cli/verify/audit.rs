//! What a node noted at a mark.

use std::thread::sleep;
use std::time::{Duration, Instant};

use kv_repl::state_hash;
use kv_store::Index;

use super::{ANSWER_TIME_MAX, Difference};
use crate::cli::client::Client;
use crate::cli::nodes::NodeReport;
use crate::hex::parse_hash;
use crate::resp::Frame;

/// How long a node may take to apply everything up to the mark.
const APPLY_TIME_MAX: Duration = Duration::from_secs(30);
/// Between two questions whether it has.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// A node's note, with the connection to ask it more.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) id: u64,
    pub(super) client: Client,
    /// The state hash it noted.
    pub(super) hash: [u8; 32],
    /// The part of it for what kv-repl keeps.
    pub(super) replication: [u8; 32],
    /// The part of it for the pairs.
    pub(super) digest: [u8; 32],
    /// The same, computed again from every stored byte.
    pub(super) audit: [u8; 32],
}

/// Waits until the node has applied the mark at `index`, and takes its note; on failure says why there is none.
pub(super) fn note_of(node: &NodeReport, index: Index) -> Result<Noted, String> {
    let address = node.addr.as_ref().filter(|_| node.reachable).ok_or("cannot be reached")?;
    let mut client = Client::connect(address, ANSWER_TIME_MAX).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + APPLY_TIME_MAX;
    let question = ["KV.HASH".to_owned(), index.to_string(), "AUDIT".to_owned()];
    let fields = loop {
        match client.call(&question).map_err(|error| error.to_string())? {
            Frame::Null if Instant::now() < deadline => sleep(ASK_PAUSE),
            Frame::Null => return Err(format!("did not get to index {index} within {APPLY_TIME_MAX:?}")),
            Frame::Array(fields) => break fields,
            _ => return Err("answered something that is no note".to_owned()),
        }
    };
    let field = |name: &str| hash_field(&fields, name).ok_or_else(|| format!("its note has no usable field {name}"));
    Ok(Noted {
        id: node.id,
        hash: field("hash")?,
        replication: field("replication")?,
        digest: field("digest")?,
        audit: field("audit")?,
        client,
    })
}

fn hash_field(fields: &[Frame], name: &str) -> Option<[u8; 32]> {
    let (pairs, _) = fields.as_chunks::<2>();
    pairs.iter().find_map(|pair| match pair {
        [Frame::Bulk(key), Frame::Bulk(value)] if key == name => parse_hash(value),
        _ => None,
    })
}

impl Noted {
    /// In what the note contradicts itself.
    pub(super) fn contradictions(&self, index: Index) -> impl Iterator<Item = Difference> {
        let audit = (self.audit != self.digest).then_some(Difference::Audit { node: self.id });
        let made = state_hash(index, &self.digest, &self.replication);
        let hash = (made != self.hash).then_some(Difference::Hash { node: self.id });
        audit.into_iter().chain(hash)
    }
}
