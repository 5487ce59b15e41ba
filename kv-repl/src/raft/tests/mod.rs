//! Several cores on one thread: a fake clock, fake disks with a live and a durable image, a network that loses, doubles,
//! reorders and delays. The same seed gives the same run.

mod agreement;
mod damage;
mod lease;
mod limits;
mod lone;
mod membership;
mod random;
mod rules;
mod scenario;
mod sim;
mod trace;

use bytes::BytesMut;

use crate::types::{Entry, EntryId, Index, Term, kind};

pub(crate) fn index(index: u64) -> Index {
    Index::new(index)
}

pub(crate) fn id(term: u64, at: u64) -> EntryId {
    EntryId::new(Term::new(term), index(at))
}

pub(crate) fn entry(term: u64, at: u64) -> Entry {
    Entry::encode(&mut BytesMut::new(), id(term, at), 0, kind::COMMAND, b"payload")
}

pub(crate) fn entries(term: u64, range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(|at| entry(term, at)).collect()
}
