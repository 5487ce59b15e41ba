//! What the store keeps for a key.

use std::fmt;
use std::sync::Arc;

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

/// A value and when it was written, as a view of a store that holds it.
#[derive(Clone, Copy)]
pub struct PairRef<'a> {
    /// The value.
    pub value: &'a [u8],
    /// The last write of the key.
    pub version: Version,
    /// The entry that made the key, since it was last absent.
    pub created: Index,
    /// When the pair expires, by the replicated clock: from this millisecond on, the key is absent. `None` is never.
    /// No stored pair has 0, which has passed on every clock.
    pub deadline_ms: Option<u64>,
    /// Memory of its own that the value is in.
    shared: Option<&'a Arc<[u8]>>,
}

/// Values from this length on are given away without a copy, if they are in memory of their own.
const SHARED_BYTES_MIN: usize = 4096;

impl<'a> PairRef<'a> {
    pub(crate) const fn new(value: &'a [u8], version: Version, created: Index, deadline_ms: Option<u64>) -> Self {
        PairRef { value, version, created, deadline_ms, shared: None }
    }

    /// The value is in this memory.
    pub(crate) fn sharing(self, memory: &'a Arc<[u8]>) -> Self {
        PairRef { shared: Some(memory), ..self }
    }

    /// Whether the pair is absent for all who read at this time of the replicated clock.
    pub fn is_expired(&self, clock_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= clock_ms)
    }

    /// The value, to be kept: a large one shares the memory of the store, a small one is copied.
    pub fn value_bytes(&self) -> Bytes {
        match self.shared {
            Some(memory) if self.value.len() >= SHARED_BYTES_MIN => {
                Bytes::from_owner(memory.clone()).slice_ref(self.value)
            }
            _ => Bytes::copy_from_slice(self.value),
        }
    }

    /// The same, to be kept.
    pub fn to_pair(&self) -> Pair {
        let PairRef { version, created, deadline_ms, .. } = *self;
        Pair { value: self.value_bytes(), version, created, deadline_ms }
    }

    fn fields(&self) -> (&[u8], Version, Index, Option<u64>) {
        (self.value, self.version, self.created, self.deadline_ms)
    }
}

impl PartialEq for PairRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.fields() == other.fields()
    }
}

impl Eq for PairRef<'_> {}

impl fmt::Debug for PairRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_pair().fmt(f)
    }
}

/// A value and when it was written, in memory of its own: see [`PairRef`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The value.
    pub value: Bytes,
    /// The last write of the key.
    pub version: Version,
    /// The entry that made the key, since it was last absent.
    pub created: Index,
    /// When the pair expires.
    pub deadline_ms: Option<u64>,
}

impl Pair {
    /// Whether the pair is absent for all who read at this time of the replicated clock.
    pub fn is_expired(&self, clock_ms: u64) -> bool {
        self.as_ref().is_expired(clock_ms)
    }

    /// The same, as a view.
    pub fn as_ref(&self) -> PairRef<'_> {
        PairRef::new(&self.value, self.version, self.created, self.deadline_ms)
    }
}
