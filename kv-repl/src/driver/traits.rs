//! The three seams: what an embedder may bring of its own. Log and state machine here, the transport in
//! [`crate::transport`].

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::types::{Entry, EntryId, Index};

/// What is replicated.
///
/// # Contract
///
/// `apply` is deterministic: the same commands in the same order give the same state, outcomes and digest on every
/// machine. It must not read a clock, a random source or an unordered map. A command it does not understand gets an
/// outcome that says so; a panic stops the node.
///
/// `apply` need not be quick, but must not wait for anything that waits for this node. Commands that take microseconds are
/// applied on the runtime's thread where they were committed, longer ones on a thread of their own.
pub trait StateMachine: Sized + Send + Sync + 'static {
    /// What a command answers.
    type Outcome: Send + 'static;
    /// A frozen image of the state, cheap to take and to clone, that later commands do not change.
    type View: Clone + Send + Sync + 'static;

    /// The empty state of a new cluster. The secret is the same on every node and unknown to clients.
    fn create(secret: [u8; 32]) -> Self;

    /// Executes a command. `index` is its entry's position, `stamp_ms` the replicated clock.
    fn apply(&mut self, index: Index, stamp_ms: u64, command: &Bytes) -> Self::Outcome;

    /// The replicated clock has come to `stamp_ms` with an entry that holds no command. For a state machine in which
    /// something expires; by default nothing happens.
    fn advance_clock(&mut self, _stamp_ms: u64) {}

    /// When something expires next: if no command comes until then, the leader appends an entry that only advances the
    /// clock. What has expired already and is not dealt with yet counts too. By default nothing ever expires.
    fn next_deadline_ms(&self) -> Option<u64> {
        None
    }

    /// The state as it is now.
    fn view(&self) -> Self::View;

    /// A hash of the whole state: equal states have equal digests, and unequal ones differ.
    fn digest(&self) -> [u8; 32];

    /// Writes a checkpoint of `view` that [`StateMachine::load`] reads back, `meta` included.
    ///
    /// # Errors
    ///
    /// Whatever writing to `out` fails with.
    fn save(view: &Self::View, meta: &CheckpointMeta, out: &mut dyn io::Write) -> io::Result<()>;

    /// Reads a checkpoint and verifies every byte of it.
    ///
    /// # Errors
    ///
    /// The checkpoint is damaged, of a newer version, or cannot be read.
    fn load(input: &mut dyn io::Read) -> Result<(Self, CheckpointMeta), BoxError>;
}

/// Any error of an embedder's log or state machine.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a checkpoint says besides the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointMeta {
    /// The last entry that the state contains.
    pub last: EntryId,
    /// What kv-repl keeps beside the state machine; opaque to it.
    pub blob: Bytes,
}

/// Where entries and the hard state are kept. One thread at a time drives it.
///
/// A log that fails must not be used again before it has been reopened, with one exception: if the error is
/// [`LogError::disk_full`], nothing has been taken, the log goes on, and the call is made again after a while.
pub trait Log: Send + 'static {
    /// Gives readers on other threads the entries that have been written.
    type Reader: LogReader;

    /// Takes consecutive entries and, if given, a new state blob, which replaces the one before. The first index is at
    /// most one above the last entry; an index that is present already means that the entries from there on are
    /// replaced, all or nothing. Nothing counts before [`Log::sync`] has returned.
    ///
    /// # Errors
    ///
    /// The log could not be written.
    fn append(&mut self, entries: &[Entry], state: Option<&[u8]>) -> Result<(), LogError>;

    /// Drops all entries; the log begins again after `base`.
    ///
    /// # Errors
    ///
    /// As for [`Log::append`].
    fn reset(&mut self, base: EntryId) -> Result<(), LogError>;

    /// Drops the entries up to and including `upto`.
    ///
    /// # Errors
    ///
    /// As for [`Log::append`].
    fn truncate_prefix(&mut self, upto: EntryId) -> Result<(), LogError>;

    /// Returns when everything taken so far is durable.
    ///
    /// # Errors
    ///
    /// Something may not be durable. This is final even if the disk is full.
    fn sync(&mut self) -> Result<(), LogError>;

    /// Whether its methods may have to wait, as for a disk: then they are called on a thread of their own. A log that never
    /// waits spares its writes two changes of thread; that it has no room is final for it.
    fn waits(&self) -> bool {
        true
    }

    /// The last state blob.
    fn state(&self) -> Option<Bytes>;

    /// What cannot be read any more of what was durable once. A log that never finds out has none, which is the default.
    /// While there is any, the log takes states and [`Log::repair`], and no entries.
    fn damage(&self) -> LogDamage {
        LogDamage::default()
    }

    /// Puts true entries in the place of lost ones, and returns when that is durable.
    ///
    /// # Errors
    ///
    /// As for [`Log::append`]; or the log does not know what damage is.
    fn repair(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        let _ = entries;
        Err(LogError::new("this log cannot be repaired"))
    }

    /// A reader of what has been written.
    fn reader(&self) -> Self::Reader;
}

/// What a log has lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDamage {
    /// Ranges of entries, first and last, in order, apart from each other. Nobody may know the end of the last one.
    pub ranges: Vec<(Index, Option<Index>)>,
    /// Whether a newer state blob than [`Log::state`] gives may be lost.
    pub is_state_in_doubt: bool,
}

impl LogDamage {
    /// Whether nothing is lost.
    pub fn is_none(&self) -> bool {
        self.ranges.is_empty() && !self.is_state_in_doubt
    }
}

/// Reads entries from any thread while the log is written.
pub trait LogReader: Clone + Send + Sync + 'static {
    /// The entries of `range`, as many as fit in `bytes_max` but at least one.
    ///
    /// # Errors
    ///
    /// The range is not in the log (any more), or an entry is damaged.
    fn read(&self, range: Range<Index>, bytes_max: usize) -> Result<Vec<Entry>, LogError>;

    /// The entry before the first one.
    fn base(&self) -> EntryId;

    /// The last entry.
    fn last(&self) -> EntryId;

    /// The first entry of each run of equal terms.
    fn term_runs(&self) -> Vec<EntryId>;
}

/// A log failed.
#[derive(Debug)]
pub struct LogError {
    source: BoxError,
    is_disk_full: bool,
}

impl LogError {
    /// Wraps what the log said.
    pub fn new(source: impl Into<BoxError>) -> Self {
        LogError { source: source.into(), is_disk_full: false }
    }

    /// For the operator: there is no room. Nothing was taken, and the same call can succeed later.
    pub fn disk_full(source: impl Into<BoxError>) -> Self {
        LogError { source: source.into(), is_disk_full: true }
    }

    /// Whether this was made by [`LogError::disk_full`].
    pub fn is_disk_full(&self) -> bool {
        self.is_disk_full
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)
    }
}

impl Error for LogError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}
