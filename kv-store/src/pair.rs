//! What the store keeps for a key.

use std::fmt;

use bytes::Bytes;
use kv_wal::Index;

use crate::wire::{Reader, Sink};

/// Names a write: no two writes of one history share it, and a later write has a greater one. The default, 0.0, is
/// before all writes, and stands for a key that is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The entry that wrote.
    pub index: Index,
    /// Which change of that entry, counted from 0: each pair that its ops write or remove is one, as is a clear. Pairs
    /// that go because they have expired are none.
    pub op: u32,
}

impl Version {
    pub(crate) fn write(self, out: &mut impl Sink) {
        out.varint(self.index.get());
        out.varint(u64::from(self.op));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Version> {
        Some(Version { index: Index::new(reader.varint()?), op: reader.varint_u32()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.op)
    }
}

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The value, in memory of its own: it keeps no log segment and no network buffer alive.
    pub value: Bytes,
    /// The last write of the key.
    pub version: Version,
    /// The entry that made the key, since it was last absent.
    pub created: Index,
    /// When the pair expires, by the replicated clock: from this millisecond on, the key is absent. `None` is never.
    /// No stored pair has 0, which has passed on every clock.
    pub deadline_ms: Option<u64>,
}

impl Pair {
    /// Whether the pair is absent for all who read at this time of the replicated clock.
    pub fn is_expired(&self, clock_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= clock_ms)
    }
}
