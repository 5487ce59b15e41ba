//! Finds in which keys two nodes differ, by bisection over the states they kept at a mark.

use bytes::Bytes;
use kv_store::diff::{self, DiffError, DifferenceKind, DigestSource, KeyRange, PairSummary};
use kv_store::{Index, RangeDigest, Sum, Version};

use super::Difference;
use super::audit::Noted;
use crate::cli::client::{Client, ClientError};
use crate::hex::parse_hash;
use crate::resp::Frame;

/// In what `other` differs from `reference`, at most `count_max` keys of it.
pub(super) fn differences(
    reference: &mut Noted,
    other: &mut Noted,
    index: Index,
    count_max: usize,
) -> Result<Vec<Difference>, DiffError<ClientError, ClientError>> {
    let (node, reference_id) = (other.id, reference.id);
    let mut found = Vec::new();
    if other.replication != reference.replication {
        found.push(Difference::ReplicationState { node, reference: reference_id });
    }
    if other.digest != reference.digest {
        let mut a = Kept { client: &mut reference.client, index };
        let mut b = Kept { client: &mut other.client, index };
        let keys = diff::diff(&mut a, &mut b, count_max)?;
        let count = keys.len();
        found.extend(keys.into_iter().map(|difference| Difference::Key {
            node,
            reference: reference_id,
            key: difference.key.escape_ascii().to_string(),
            how: match difference.kind {
                DifferenceKind::OnlyInA => "missing here",
                DifferenceKind::OnlyInB => "only here",
                DifferenceKind::Differs => "another value or version",
            },
        }));
        if count == count_max {
            found.push(Difference::MoreKeys { node, listed: count });
        }
    }
    Ok(found)
}

/// The state a node kept at a mark.
struct Kept<'a> {
    client: &'a mut Client,
    index: Index,
}

impl Kept<'_> {
    fn ask(&mut self, command: &'static str, range: &KeyRange) -> Result<Frame, ClientError> {
        let index = self.index.to_string();
        let mut request = vec![command.as_bytes(), index.as_bytes(), &range.from];
        request.extend(range.to.as_deref());
        self.client.call(&request)
    }
}

impl DigestSource for Kept<'_> {
    type Error = ClientError;

    fn digest_of(&mut self, range: &KeyRange) -> Result<RangeDigest, ClientError> {
        let reply = self.ask("KV.DIGEST", range)?;
        parse_digest(&reply).ok_or_else(|| self.client.nonsense("no digest"))
    }

    fn middle_of(&mut self, range: &KeyRange) -> Result<Option<Bytes>, ClientError> {
        match self.ask("KV.SPLIT", range)? {
            Frame::Null => Ok(None),
            Frame::Bulk(key) => Ok(Some(key)),
            _ => Err(self.client.nonsense("no key")),
        }
    }

    fn pairs_of(&mut self, range: &KeyRange) -> Result<Vec<PairSummary>, ClientError> {
        let reply = self.ask("KV.PAIRS", range)?;
        parse_pairs(&reply).ok_or_else(|| self.client.nonsense("no list of pairs"))
    }
}

fn parse_digest(reply: &Frame) -> Option<RangeDigest> {
    let Frame::Array(fields) = reply else { return None };
    let [Frame::Integer(count), Frame::Integer(bytes), Frame::Bulk(sum)] = &fields[..] else { return None };
    Some(RangeDigest {
        count: u64::try_from(*count).ok()?,
        bytes: u64::try_from(*bytes).ok()?,
        sum: Sum::from_bytes(parse_hash(sum)?),
    })
}

fn parse_pairs(reply: &Frame) -> Option<Vec<PairSummary>> {
    let Frame::Array(pairs) = reply else { return None };
    pairs.iter().map(parse_pair).collect()
}

fn parse_pair(pair: &Frame) -> Option<PairSummary> {
    let Frame::Array(fields) = pair else { return None };
    let [Frame::Bulk(key), Frame::Integer(index), Frame::Integer(op), Frame::Bulk(sum)] = &fields[..] else {
        return None;
    };
    let version = Version { index: Index::new(u64::try_from(*index).ok()?), op: u32::try_from(*op).ok()? };
    Some(PairSummary { key: key.clone(), version, contribution: Sum::from_bytes(parse_hash(sum)?) })
}
