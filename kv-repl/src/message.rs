//! What nodes say to each other once a connection has been opened.

use bytes::Bytes;

use crate::types::{Entries, Entry, EntryId, Index, Kind, Member, Term};

/// Longest payload of one proposal, in bytes, and most bytes of entries in one message, unless one entry is longer. A frame
/// holds any message that keeps to it.
pub const PROPOSAL_BYTES_MAX: usize = 24 << 20;

/// A message of the Raft core. The sender is known from the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Would you vote for me, if I asked? Changes nothing at the receiver (thesis, section 9.6).
    PreVote(VoteRequest),
    /// Answer to [`Message::PreVote`].
    PreVoteReply(VoteReply),
    /// Vote for me (Raft paper, section 5.2).
    RequestVote(VoteRequest),
    /// Answer to [`Message::RequestVote`]. Sent only when term and vote are durable.
    RequestVoteReply(VoteReply),
    /// The leader wants the receiver to lead: it is to stand for election at once (thesis, section 3.10).
    TimeoutNow(TimeoutNow),
    /// Log records and the commit index (Raft paper, section 5.3). Without entries: a heartbeat.
    AppendEntries(AppendEntries),
    /// Answer to [`Message::AppendEntries`]. Acceptance is sent only when the entries are durable.
    AppendEntriesReply(AppendEntriesReply),
    /// A piece of a checkpoint (Raft paper, section 7).
    InstallSnapshot(InstallSnapshot),
    /// Answer to [`Message::InstallSnapshot`].
    InstallSnapshotReply(InstallSnapshotReply),
    /// A replica has applied a mark, with this state hash.
    Marked(Marked),
    /// Entries that were lost, and another node may have.
    FetchEntries(FetchEntries),
    /// Answer to [`Message::FetchEntries`].
    FetchEntriesReply(FetchEntriesReply),
    /// A follower asks up to where it must have applied to read without being stale (thesis, section 6.4).
    ReadIndex(ReadIndex),
    /// Answer to [`Message::ReadIndex`].
    ReadIndexReply(ReadIndexReply),
    /// Commands that a follower hands to the leader.
    Forward(Forward),
}

/// Fields of RequestVote and PreVote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteRequest {
    /// The candidate's term; for a pre-vote the term it would have.
    pub term: Term,
    /// The candidate's last entry.
    pub last: EntryId,
    /// The leader has told the candidate to stand: whoever still hears the leader may vote all the same (thesis, section
    /// 4.2.3).
    pub is_ordered: bool,
}

/// Answer to a vote or pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteReply {
    /// The voter's current term: a rejection teaches it. For a granted pre-vote the term that was asked for.
    pub term: Term,
    /// Whether the vote is given.
    pub granted: bool,
}

/// Fields of TimeoutNow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
}

/// Fields of AppendEntries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The entry before the first one sent.
    pub prev: EntryId,
    /// The leader's commit index.
    pub committed: Index,
    /// Number of this leader's confirmation round; echoed, so that an old answer never confirms a new read.
    pub round: u64,
    /// The leader's connection to this peer; echoed, so that an answer from before a reconnect is recognised.
    pub connection: u64,
    /// Entries after `prev`, consecutive.
    pub entries: Entries,
}

/// Answer to AppendEntries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendEntriesReply {
    /// The follower's current term.
    pub term: Term,
    /// Echo of the round.
    pub round: u64,
    /// Echo of the connection.
    pub connection: u64,
    /// What became of it.
    pub result: AppendResult,
}

/// What a follower says to AppendEntries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendResult {
    /// The follower's log equals the leader's up to here, and that is durable.
    Durable(Index),
    /// The follower is alive and follows this leader; says nothing about its log. Independent of its disk.
    Alive,
    /// `prev` is not in the follower's log.
    Mismatch {
        /// The `prev` index that was refused.
        refused: Index,
        /// The follower's last entry with an index not above `refused` whose term is not above the term asked for: the
        /// leader can go on searching from there (fast backtracking, Raft paper, end of section 5.3).
        hint: EntryId,
    },
    /// The sender of AppendEntries is no leader any more: the term is higher.
    StaleTerm,
}

/// A piece of a checkpoint. Says also, like a heartbeat, that the leader is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// The leader's connection to this peer; echoed.
    pub connection: u64,
    /// Last entry the checkpoint covers.
    pub last: EntryId,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Where `data` belongs.
    pub offset: u64,
    /// A piece of the file; empty to ask how far the follower has got.
    pub data: Bytes,
}

/// Answer to InstallSnapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallSnapshotReply {
    /// The follower's current term.
    pub term: Term,
    /// Echo of the connection.
    pub connection: u64,
    /// Echo of the checkpoint's last entry.
    pub last: EntryId,
    /// What became of it.
    pub result: SnapshotResult,
}

/// What a follower says to a piece of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotResult {
    /// Send the piece at this offset next.
    Continue {
        /// Bytes the follower holds.
        offset: u64,
    },
    /// The checkpoint and everything up to its last entry is durable at the follower.
    Installed,
    /// The file was damaged or could not be written: begin again.
    Failed,
    /// The sender is no leader any more.
    StaleTerm,
}

/// A replica's state hash at a mark, told to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The sender's term.
    pub term: Term,
    /// The mark's position.
    pub index: Index,
    /// The state hash there.
    pub hash: [u8; 32],
}

/// Asks for entries that the sender's log has lost, of whoever has the same log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchEntries {
    /// The sender's term. Changes nothing at the receiver.
    pub term: Term,
    /// Fresh for each question; echoed.
    pub token: u64,
    /// The first entry that is lost.
    pub first: Index,
    /// The entry after the last one that is lost: whose log contains this has what was lost (Log Matching, Raft paper,
    /// section 5.3).
    pub next: EntryId,
}

/// Answer to FetchEntries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchEntriesReply {
    /// The receiver's term.
    pub term: Term,
    /// Echo of the token.
    pub token: u64,
    /// What was found.
    pub result: FetchResult,
}

/// What a node has of entries that another one has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchResult {
    /// These, from the first one on, or as many as fit in a message.
    Entries(Entries),
    /// Its log does not contain the entry after them, or begins later.
    Absent,
    /// It has lost some of them itself, or its disk holds others at this moment.
    Damaged,
    /// It is the leader of its term, its log does not contain the entry after them, and it has a majority without the one
    /// who asks. So they were never committed.
    Needless,
}

/// A follower's request for a read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// The follower's term.
    pub term: Term,
    /// The follower's own token, fresh for each request.
    pub token: u64,
}

/// The leader's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndexReply {
    /// The leader's term.
    pub term: Term,
    /// Echo of the token.
    pub token: u64,
    /// Read when this has been applied; `None` if the answerer is not the leader or could not confirm that it is.
    pub index: Option<Index>,
}

/// Commands of one node process for the leader, in the order of their sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The term in which the sender takes the receiver for the leader; refused in any other.
    pub term: Term,
    /// What to propose, in order.
    pub proposals: Vec<Proposal>,
}

/// What someone wants appended to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What the entry is for.
    pub kind: Kind,
    /// What it carries.
    pub payload: Bytes,
}

impl Message {
    /// The sender's term; for a pre-vote the term it would have.
    pub fn term(&self) -> Term {
        match self {
            Message::PreVote(request) | Message::RequestVote(request) => request.term,
            Message::PreVoteReply(reply) | Message::RequestVoteReply(reply) => reply.term,
            Message::TimeoutNow(order) => order.term,
            Message::AppendEntries(append) => append.term,
            Message::AppendEntriesReply(reply) => reply.term,
            Message::InstallSnapshot(piece) => piece.term,
            Message::InstallSnapshotReply(reply) => reply.term,
            Message::Marked(marked) => marked.term,
            Message::FetchEntries(request) => request.term,
            Message::FetchEntriesReply(reply) => reply.term,
            Message::ReadIndex(request) => request.term,
            Message::ReadIndexReply(reply) => reply.term,
            Message::Forward(forward) => forward.term,
        }
    }

    /// The entries in it, which are sent as they are in the log.
    pub fn entries(&self) -> &[Entry] {
        match self {
            Message::AppendEntries(append) => &append.entries,
            Message::FetchEntriesReply(FetchEntriesReply { result: FetchResult::Entries(entries), .. }) => entries,
            _ => &[],
        }
    }

    /// Where the entries in it are, if it is of a kind that can have some.
    pub(crate) fn entries_mut(&mut self) -> Option<&mut Entries> {
        match self {
            Message::AppendEntries(append) => Some(&mut append.entries),
            Message::FetchEntriesReply(FetchEntriesReply { result: FetchResult::Entries(entries), .. }) => {
                Some(entries)
            }
            _ => None,
        }
    }

    /// The name used in logs and transcripts.
    pub fn name(&self) -> &'static str {
        match self {
            Message::PreVote(_) => "PreVote",
            Message::PreVoteReply(_) => "PreVoteReply",
            Message::RequestVote(_) => "RequestVote",
            Message::RequestVoteReply(_) => "RequestVoteReply",
            Message::TimeoutNow(_) => "TimeoutNow",
            Message::AppendEntries(_) => "AppendEntries",
            Message::AppendEntriesReply(_) => "AppendEntriesReply",
            Message::InstallSnapshot(_) => "InstallSnapshot",
            Message::InstallSnapshotReply(_) => "InstallSnapshotReply",
            Message::Marked(_) => "Marked",
            Message::FetchEntries(_) => "FetchEntries",
            Message::FetchEntriesReply(_) => "FetchEntriesReply",
            Message::ReadIndex(_) => "ReadIndex",
            Message::ReadIndexReply(_) => "ReadIndexReply",
            Message::Forward(_) => "Forward",
        }
    }
}

/// A message with the member that sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender, as its connection's handshake named it.
    pub from: Member,
    /// What it says.
    pub message: Message,
}
