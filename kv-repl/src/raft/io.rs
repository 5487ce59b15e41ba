//! What goes into the core and what comes out of it: closed sets of plain types.
//!
//! Order is a type. A [`Write`] is the only thing that can be turned into a [`Durable`], only a `Durable` makes the core
//! believe that something is on the disk, and nothing that depends on the disk leaves the core before. So every
//! [`Output::Send`] may be sent at once, also before the writes that came out ahead of it.

use crate::message::{InstallSnapshot, Message};
use crate::types::{Configuration, Entries, EntryId, HardState, Index, Member, NodeId, Term};

/// What the disk held when the node started.
///
/// Log and checkpoint fit together: `base.index <= applied <= last`, and the log's entry at `applied`, or its `base`, is
/// the one that the checkpoint ends with. A log for which this does not hold is first reset to the checkpoint. If that entry
/// is lost in the log, it is made the log's base.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Term and vote.
    pub hard_state: HardState,
    /// Who belongs to the cluster, as of `applied`.
    pub configuration: Configuration,
    /// The configurations in the log after `applied`, with their positions: payloads of entries of the kind
    /// [`kind::CONFIGURATION`](crate::types::kind::CONFIGURATION).
    pub configurations: Vec<(Index, Configuration)>,
    /// The entry before the first one in the log.
    pub base: EntryId,
    /// The first entry of each run of equal terms in the log after `base`.
    pub terms: Vec<EntryId>,
    /// Index of the last entry in the log; that of `base` if there is none.
    pub last: Index,
    /// What the restored state machine holds. All of it is committed.
    pub applied: Index,
    /// The greatest stamp on any entry in the state machine or the log.
    pub stamp_ms: u64,
    /// What can't be read of the log after `applied`, in order. The last entry, and the hard state, are known for certain: a
    /// node that has lost them begins again with an empty disk and another incarnation.
    pub lost: Vec<Lost>,
    /// The last that was known of the state is that it is not the majority's: see [`super::Raft::handle_diverged`].
    pub is_diverged: bool,
}

impl Boot {
    /// An empty disk, of a node of this cluster.
    pub fn first(configuration: Configuration) -> Boot {
        Boot {
            hard_state: HardState::default(),
            configuration,
            configurations: Vec::new(),
            base: EntryId::ZERO,
            terms: Vec::new(),
            last: Index::ZERO,
            applied: Index::ZERO,
            stamp_ms: 0,
            lost: Vec::new(),
            is_diverged: false,
        }
    }
}

/// A range of lost entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first one.
    pub first: Index,
    /// The entry after the last one, which is there.
    pub next: EntryId,
}

/// What a node is at the moment (Raft paper, figure 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Answers leaders and candidates.
    Follower,
    /// Asks whether it would be elected, before it disturbs anyone (thesis, section 9.6).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Takes proposals and replicates them.
    Leader,
}

/// Something for the driver to do. Outputs are carried out in the order they come.
#[derive(Debug)]
pub enum Output {
    /// Send this, or lose it: the core copes with lost, repeated and reordered messages.
    Send {
        /// The receiver.
        to: Member,
        /// What to send.
        message: Message,
    },
    /// Write this to the log, after all earlier ones.
    Write(Write),
    /// Run these committed entries through the state machine, after all earlier ones.
    Apply(Apply),
    /// Read entries that are not in memory any more.
    ReadLog(ReadLog),
    /// Put these entries in the place of lost ones, and answer with [`super::Raft::handle_repaired`] when that is durable.
    Repair(Entries),
    /// Entries from here on are lost, and no longer to be had: this disk is to be replaced. Begin again with an empty one
    /// and another incarnation.
    LogLost {
        /// The first one.
        first: Index,
    },
    /// The disk cannot give an entry that is needed, and no checkpoint can stand for it, since it is not known to be committed.
    /// End this node: when it is started again it finds what is lost, and asks the others for it.
    Unreadable {
        /// That entry.
        first: Index,
    },
    /// The received checkpoint that ends with this entry covers some of the lost ones: forget the log up to and including
    /// it, before any later [`Output::Write`]. Nothing is to be reported.
    ForgetPrefix(EntryId),
    /// Send a piece of a checkpoint.
    SendSnapshot(SendSnapshot),
    /// A follower could not use the checkpoint that ends with `last`. The damage may be on this side: if so, send it no
    /// more.
    VerifySnapshot {
        /// Last entry that the checkpoint covers.
        last: EntryId,
    },
    /// Store a piece of a checkpoint and answer with [`super::Raft::handle_snapshot`].
    SnapshotPiece {
        /// The leader.
        from: Member,
        /// What it sent.
        piece: InstallSnapshot,
    },
    /// Load the received checkpoint that ends with `last` into the state machine, in order with [`Output::Apply`].
    Restore {
        /// Last entry that the checkpoint covers.
        last: EntryId,
    },
    /// The read may be done as soon as everything up to `index` has been applied.
    ReadReady {
        /// As given to [`super::Raft::read`].
        token: u64,
        /// Everything that was confirmed before the question is at or before this.
        index: Index,
    },
    /// No leader could be asked, or none confirmed that it is one. The read has no effect; ask again if it is still
    /// wanted.
    ReadRejected {
        /// As given to [`super::Raft::read`].
        token: u64,
    },
    /// Role, term or leader have changed.
    Role(RoleChange),
}

/// Role, term and leader as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// What this node is.
    pub role: Role,
    /// In which term.
    pub term: Term,
    /// Who leads in this term, if known; may be this node.
    pub leader: Option<NodeId>,
}

/// Something to write to the log: first the reset, then entries and hard state together. The log may take several writes
/// before one sync.
#[derive(Debug)]
#[must_use = "what is not written is never acknowledged"]
pub struct Write {
    /// Consecutive entries. If the first index is present in the log already, they replace everything from there on.
    pub entries: Entries,
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
    /// The log drops all its entries and starts again after this one.
    pub reset: Option<EntryId>,
    pub(super) sequence: u64,
}

impl Write {
    /// To be called only when a sync that began after this write has returned. Covers all earlier writes too, so that
    /// one sync needs to report only the last one.
    pub fn into_durable(self) -> Durable {
        Durable { sequence: self.sequence }
    }
}

/// Proof that a [`Write`] and all before it are durable.
#[derive(Debug)]
#[must_use = "the core waits for it"]
pub struct Durable {
    pub(super) sequence: u64,
}

/// Committed entries.
#[derive(Debug)]
pub enum Apply {
    /// Here they are, in pieces, none of which is empty. They need not be durable in this node's own log: a majority of
    /// others has them.
    Entries(Vec<Entries>),
    /// They are durable in this node's own log but no longer in memory.
    Stored {
        /// The first one.
        first: Index,
        /// The last one.
        last: Index,
    },
}

/// A request for entries that are older than the tail, answered by [`super::Raft::handle_log_read`]. A newer request for
/// the same peer makes the answer to an older one worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLog {
    /// For whom.
    pub peer: Member,
    /// To be repeated in the answer.
    pub token: u64,
    /// The first entry to read.
    pub from: Index,
    /// Bytes of entries to read at most; one entry is read however large it is.
    pub bytes_max: usize,
}

/// The answer to a [`ReadLog`].
#[derive(Clone, Debug)]
pub struct LogRead {
    /// As in the request.
    pub peer: Member,
    /// As in the request.
    pub token: u64,
    /// What was found.
    pub result: LogReadResult,
}

/// What a [`ReadLog`] found.
#[derive(Clone, Debug)]
pub enum LogReadResult {
    /// Consecutive entries, at least one, the first at the index asked for.
    Entries(Entries),
    /// The log does not hold that entry any more.
    Gone,
}

/// A request for one [`InstallSnapshot`] to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendSnapshot {
    /// The follower.
    pub to: Member,
    /// To be put into the message.
    pub term: Term,
    /// To be put into the message.
    pub connection: u64,
    /// Which checkpoint, by its last entry, and which offset. `None`, or a checkpoint that is gone: the newest one at
    /// offset 0 without data, upon which the follower says how much of it it has.
    pub wanted: Option<(EntryId, u64)>,
    /// The log cannot give the entries up to here, all of which have been given out to be applied. If the newest checkpoint
    /// ends before, which it does only if the disk has lost entries after it, a new one is to be taken, and nothing to be
    /// sent: this will be asked for again.
    pub needed: Index,
}

/// What became of an [`Output::SnapshotPiece`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotProgress {
    /// The piece is stored, or was not the next one.
    Continue {
        /// The checkpoint's last entry.
        last: EntryId,
        /// Where the next piece begins.
        offset: u64,
    },
    /// The file is damaged or could not be stored: it begins again.
    Failed {
        /// The checkpoint's last entry.
        last: EntryId,
    },
    /// The file is complete, verified, and durable.
    Received {
        /// The checkpoint's last entry.
        last: EntryId,
        /// The greatest stamp on any entry in it.
        stamp_ms: u64,
        /// Who belongs to the cluster, as of `last`.
        configuration: Configuration,
    },
}
