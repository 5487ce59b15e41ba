//! What the store keeps for a key.

use std::fmt;

use bytes::Bytes;
use kv_wal::Index;

/// Names a write: no two writes of one history share it, and a later write has a greater one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The entry that wrote.
    pub index: Index,
    /// Which write of that entry, counted from 0.
    pub op: u32,
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
}
