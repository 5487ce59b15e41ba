//! The fields of each kind of frame, in order. One line a field, the same order in `put_head` and `take_head`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame::Frame;
use crate::message::{
    AppendEntries, AppendEntriesReply, AppendResult, FetchEntries, FetchEntriesReply, FetchResult, Forward,
    InstallSnapshot, InstallSnapshotReply, Marked, Message, Proposal, ReadIndex, ReadIndexReply, SnapshotResult,
    TimeoutNow, VoteReply, VoteRequest,
};
use crate::types::{Entries, EntryId, Incarnation, Index, Kind, Member, NodeId, Term};

/// Opens a connection; sent by the dialer first, then by the acceptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version the sender speaks.
    pub version_min: u16,
    /// Highest protocol version the sender speaks.
    pub version_max: u16,
    /// Who sends this.
    pub from: Member,
    /// Whom the sender takes the receiver for.
    pub to: NodeId,
    /// The cluster the sender belongs to; `None` while it is empty.
    pub cluster: Option<[u8; 32]>,
    /// The nodes the sender was started with, sorted.
    pub listed: Vec<NodeId>,
    /// Where the sender's clients connect.
    pub client_address: String,
}

/// First bytes of the head of a Hello, so that a stranger is recognised as one.
const MAGIC: u64 = u64::from_le_bytes(*b"KVREPL\r\n");

const LISTED_MAX: usize = 64;
const ADDRESS_BYTES_MAX: usize = 1024;

mod tag {
    pub(super) const HELLO: u8 = 1;
    pub(super) const REFUSED: u8 = 2;
    pub(super) const FOUND: u8 = 3;
    pub(super) const PRE_VOTE: u8 = 16;
    pub(super) const PRE_VOTE_REPLY: u8 = 17;
    pub(super) const REQUEST_VOTE: u8 = 18;
    pub(super) const REQUEST_VOTE_REPLY: u8 = 19;
    pub(super) const APPEND_ENTRIES: u8 = 20;
    pub(super) const APPEND_ENTRIES_REPLY: u8 = 21;
    pub(super) const INSTALL_SNAPSHOT: u8 = 22;
    pub(super) const INSTALL_SNAPSHOT_REPLY: u8 = 23;
    pub(super) const READ_INDEX: u8 = 24;
    pub(super) const READ_INDEX_REPLY: u8 = 25;
    pub(super) const FORWARD: u8 = 26;
    pub(super) const TIMEOUT_NOW: u8 = 27;
    pub(super) const FETCH_ENTRIES: u8 = 28;
    pub(super) const FETCH_ENTRIES_REPLY: u8 = 29;
    pub(super) const MARKED: u8 = 30;
}

/// Writes the head of `frame` and gives its tag. Entries are not part of the head.
pub(super) fn put_head(frame: &Frame, out: &mut BytesMut) -> u8 {
    match frame {
        Frame::Hello(hello) => put_hello(hello, out),
        Frame::Refused(reason) => {
            out.put_slice(reason.as_bytes());
            tag::REFUSED
        }
        Frame::Found(record) => {
            out.put_slice(record);
            tag::FOUND
        }
        Frame::Message(message) => put_message(message, out),
    }
}

/// Reads a head. `None` if the fields make no sense or bytes are left over.
pub(super) fn take_head(tag: u8, mut head: Bytes) -> Option<Frame> {
    let frame = match tag {
        tag::HELLO => Frame::Hello(take_hello(&mut head)?),
        tag::REFUSED => Frame::Refused(String::from_utf8_lossy(&head.split_off(0)).into_owned()),
        tag::FOUND => Frame::Found(head.split_off(0)),
        _ => Frame::Message(take_message(tag, &mut head)?),
    };
    head.is_empty().then_some(frame)
}

fn put_hello(hello: &Hello, out: &mut BytesMut) -> u8 {
    out.put_u64_le(MAGIC);
    out.put_u16_le(hello.version_min);
    out.put_u16_le(hello.version_max);
    out.put_u64_le(hello.from.id.get());
    out.put_u64_le(hello.from.incarnation.get());
    out.put_u64_le(hello.to.get());
    out.put_u8(u8::from(hello.cluster.is_some()));
    out.put_slice(&hello.cluster.unwrap_or_default());
    out.put_u16_le(hello.listed.len() as u16);
    for id in &hello.listed {
        out.put_u64_le(id.get());
    }
    out.put_slice(hello.client_address.as_bytes());
    tag::HELLO
}

fn take_hello(head: &mut Bytes) -> Option<Hello> {
    if head.try_get_u64_le().ok()? != MAGIC {
        return None;
    }
    let version_min = head.try_get_u16_le().ok()?;
    let version_max = head.try_get_u16_le().ok()?;
    let id = NodeId::new(head.try_get_u64_le().ok()?);
    let incarnation = Incarnation::new(head.try_get_u64_le().ok()?);
    let to = NodeId::new(head.try_get_u64_le().ok()?);
    let founded = take_bool(head)?;
    let mut cluster = [0; 32];
    head.try_copy_to_slice(&mut cluster).ok()?;
    let count = usize::from(head.try_get_u16_le().ok()?);
    if count > LISTED_MAX {
        return None;
    }
    let mut listed = Vec::with_capacity(count);
    for _ in 0..count {
        listed.push(NodeId::new(head.try_get_u64_le().ok()?));
    }
    if head.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    let client_address = String::from_utf8(head.split_off(0).to_vec()).ok()?;
    let from = Member::new(id, incarnation);
    let cluster = founded.then_some(cluster);
    Some(Hello { version_min, version_max, from, to, cluster, listed, client_address })
}

fn put_message(message: &Message, out: &mut BytesMut) -> u8 {
    match message {
        Message::PreVote(request) => put_vote(request, out, tag::PRE_VOTE),
        Message::PreVoteReply(reply) => put_vote_reply(reply, out, tag::PRE_VOTE_REPLY),
        Message::RequestVote(request) => put_vote(request, out, tag::REQUEST_VOTE),
        Message::RequestVoteReply(reply) => put_vote_reply(reply, out, tag::REQUEST_VOTE_REPLY),
        Message::TimeoutNow(order) => {
            put_term(order.term, out);
            tag::TIMEOUT_NOW
        }
        Message::AppendEntries(append) => put_append(append, out),
        Message::AppendEntriesReply(reply) => put_append_reply(reply, out),
        Message::InstallSnapshot(piece) => put_install(piece, out),
        Message::InstallSnapshotReply(reply) => put_install_reply(reply, out),
        Message::Marked(marked) => {
            put_term(marked.term, out);
            put_index(marked.index, out);
            out.put_slice(&marked.hash);
            tag::MARKED
        }
        Message::FetchEntries(request) => put_fetch(request, out),
        Message::FetchEntriesReply(reply) => put_fetch_reply(reply, out),
        Message::ReadIndex(request) => {
            put_term(request.term, out);
            out.put_u64_le(request.token);
            tag::READ_INDEX
        }
        Message::ReadIndexReply(reply) => {
            put_term(reply.term, out);
            out.put_u64_le(reply.token);
            out.put_u8(u8::from(reply.index.is_some()));
            put_index(reply.index.unwrap_or_default(), out);
            tag::READ_INDEX_REPLY
        }
        Message::Forward(forward) => put_forward(forward, out),
    }
}

fn take_message(tag: u8, head: &mut Bytes) -> Option<Message> {
    Some(match tag {
        tag::PRE_VOTE => Message::PreVote(take_vote(head)?),
        tag::PRE_VOTE_REPLY => Message::PreVoteReply(take_vote_reply(head)?),
        tag::REQUEST_VOTE => Message::RequestVote(take_vote(head)?),
        tag::REQUEST_VOTE_REPLY => Message::RequestVoteReply(take_vote_reply(head)?),
        tag::TIMEOUT_NOW => Message::TimeoutNow(TimeoutNow { term: take_term(head)? }),
        tag::APPEND_ENTRIES => Message::AppendEntries(take_append(head)?),
        tag::APPEND_ENTRIES_REPLY => Message::AppendEntriesReply(take_append_reply(head)?),
        tag::INSTALL_SNAPSHOT => Message::InstallSnapshot(take_install(head)?),
        tag::INSTALL_SNAPSHOT_REPLY => Message::InstallSnapshotReply(take_install_reply(head)?),
        tag::MARKED => {
            let (term, index) = (take_term(head)?, take_index(head)?);
            let mut hash = [0; 32];
            head.try_copy_to_slice(&mut hash).ok()?;
            Message::Marked(Marked { term, index, hash })
        }
        tag::FETCH_ENTRIES => Message::FetchEntries(take_fetch(head)?),
        tag::FETCH_ENTRIES_REPLY => Message::FetchEntriesReply(take_fetch_reply(head)?),
        tag::READ_INDEX => {
            let term = take_term(head)?;
            Message::ReadIndex(ReadIndex { term, token: head.try_get_u64_le().ok()? })
        }
        tag::READ_INDEX_REPLY => {
            let term = take_term(head)?;
            let token = head.try_get_u64_le().ok()?;
            let confirmed = take_bool(head)?;
            let index = take_index(head)?;
            Message::ReadIndexReply(ReadIndexReply { term, token, index: confirmed.then_some(index) })
        }
        tag::FORWARD => Message::Forward(take_forward(head)?),
        _ => return None,
    })
}

fn put_vote(request: &VoteRequest, out: &mut BytesMut, tag: u8) -> u8 {
    put_term(request.term, out);
    put_id(request.last, out);
    out.put_u8(u8::from(request.is_ordered));
    tag
}

fn take_vote(head: &mut Bytes) -> Option<VoteRequest> {
    Some(VoteRequest { term: take_term(head)?, last: take_id(head)?, is_ordered: take_bool(head)? })
}

fn put_vote_reply(reply: &VoteReply, out: &mut BytesMut, tag: u8) -> u8 {
    put_term(reply.term, out);
    out.put_u8(u8::from(reply.granted));
    tag
}

fn take_vote_reply(head: &mut Bytes) -> Option<VoteReply> {
    Some(VoteReply { term: take_term(head)?, granted: take_bool(head)? })
}

fn put_append(append: &AppendEntries, out: &mut BytesMut) -> u8 {
    put_term(append.term, out);
    put_id(append.prev, out);
    put_index(append.committed, out);
    out.put_u64_le(append.round);
    out.put_u64_le(append.connection);
    tag::APPEND_ENTRIES
}

fn take_append(head: &mut Bytes) -> Option<AppendEntries> {
    Some(AppendEntries {
        term: take_term(head)?,
        prev: take_id(head)?,
        committed: take_index(head)?,
        round: head.try_get_u64_le().ok()?,
        connection: head.try_get_u64_le().ok()?,
        entries: Entries::default(),
    })
}

fn put_append_reply(reply: &AppendEntriesReply, out: &mut BytesMut) -> u8 {
    put_term(reply.term, out);
    out.put_u64_le(reply.round);
    out.put_u64_le(reply.connection);
    let (code, index, hint) = match reply.result {
        AppendResult::Durable(index) => (0, index, EntryId::ZERO),
        AppendResult::Alive => (1, Index::ZERO, EntryId::ZERO),
        AppendResult::Mismatch { refused, hint } => (2, refused, hint),
        AppendResult::StaleTerm => (3, Index::ZERO, EntryId::ZERO),
    };
    out.put_u8(code);
    put_index(index, out);
    put_id(hint, out);
    tag::APPEND_ENTRIES_REPLY
}

fn take_append_reply(head: &mut Bytes) -> Option<AppendEntriesReply> {
    let term = take_term(head)?;
    let round = head.try_get_u64_le().ok()?;
    let connection = head.try_get_u64_le().ok()?;
    let code = head.try_get_u8().ok()?;
    let index = take_index(head)?;
    let hint = take_id(head)?;
    let result = match code {
        0 => AppendResult::Durable(index),
        1 => AppendResult::Alive,
        2 => AppendResult::Mismatch { refused: index, hint },
        3 => AppendResult::StaleTerm,
        _ => return None,
    };
    Some(AppendEntriesReply { term, round, connection, result })
}

fn put_install(piece: &InstallSnapshot, out: &mut BytesMut) -> u8 {
    put_term(piece.term, out);
    out.put_u64_le(piece.connection);
    put_id(piece.last, out);
    out.put_u64_le(piece.file_bytes);
    out.put_u64_le(piece.offset);
    out.put_slice(&piece.data);
    tag::INSTALL_SNAPSHOT
}

fn take_install(head: &mut Bytes) -> Option<InstallSnapshot> {
    Some(InstallSnapshot {
        term: take_term(head)?,
        connection: head.try_get_u64_le().ok()?,
        last: take_id(head)?,
        file_bytes: head.try_get_u64_le().ok()?,
        offset: head.try_get_u64_le().ok()?,
        data: head.split_off(0),
    })
}

fn put_install_reply(reply: &InstallSnapshotReply, out: &mut BytesMut) -> u8 {
    put_term(reply.term, out);
    out.put_u64_le(reply.connection);
    put_id(reply.last, out);
    let (code, offset) = match reply.result {
        SnapshotResult::Continue { offset } => (0, offset),
        SnapshotResult::Installed => (1, 0),
        SnapshotResult::Failed => (2, 0),
        SnapshotResult::StaleTerm => (3, 0),
    };
    out.put_u8(code);
    out.put_u64_le(offset);
    tag::INSTALL_SNAPSHOT_REPLY
}

fn take_install_reply(head: &mut Bytes) -> Option<InstallSnapshotReply> {
    let term = take_term(head)?;
    let connection = head.try_get_u64_le().ok()?;
    let last = take_id(head)?;
    let code = head.try_get_u8().ok()?;
    let offset = head.try_get_u64_le().ok()?;
    let result = match code {
        0 => SnapshotResult::Continue { offset },
        1 => SnapshotResult::Installed,
        2 => SnapshotResult::Failed,
        3 => SnapshotResult::StaleTerm,
        _ => return None,
    };
    Some(InstallSnapshotReply { term, connection, last, result })
}

fn put_fetch(request: &FetchEntries, out: &mut BytesMut) -> u8 {
    put_term(request.term, out);
    out.put_u64_le(request.token);
    put_index(request.first, out);
    put_id(request.next, out);
    tag::FETCH_ENTRIES
}

fn take_fetch(head: &mut Bytes) -> Option<FetchEntries> {
    Some(FetchEntries {
        term: take_term(head)?,
        token: head.try_get_u64_le().ok()?,
        first: take_index(head)?,
        next: take_id(head)?,
    })
}

fn put_fetch_reply(reply: &FetchEntriesReply, out: &mut BytesMut) -> u8 {
    put_term(reply.term, out);
    out.put_u64_le(reply.token);
    out.put_u8(match reply.result {
        FetchResult::Entries(_) => 0,
        FetchResult::Absent => 1,
        FetchResult::Damaged => 2,
        FetchResult::Needless => 3,
    });
    tag::FETCH_ENTRIES_REPLY
}

fn take_fetch_reply(head: &mut Bytes) -> Option<FetchEntriesReply> {
    let term = take_term(head)?;
    let token = head.try_get_u64_le().ok()?;
    let result = match head.try_get_u8().ok()? {
        0 => FetchResult::Entries(Entries::default()),
        1 => FetchResult::Absent,
        2 => FetchResult::Damaged,
        3 => FetchResult::Needless,
        _ => return None,
    };
    Some(FetchEntriesReply { term, token, result })
}

fn put_forward(forward: &Forward, out: &mut BytesMut) -> u8 {
    put_term(forward.term, out);
    out.reserve(forward.proposals.iter().map(|proposal| 5 + proposal.payload.len()).sum());
    for proposal in &forward.proposals {
        out.put_u8(proposal.kind.0);
        out.put_u32_le(proposal.payload.len() as u32);
        out.put_slice(&proposal.payload);
    }
    tag::FORWARD
}

fn take_forward(head: &mut Bytes) -> Option<Forward> {
    let term = take_term(head)?;
    let mut proposals = Vec::new();
    while !head.is_empty() {
        let kind = Kind(head.try_get_u8().ok()?);
        let payload_bytes = head.try_get_u32_le().ok()? as usize;
        if payload_bytes > head.len() {
            return None;
        }
        proposals.push(Proposal { kind, payload: head.split_to(payload_bytes) });
    }
    Some(Forward { term, proposals })
}

fn put_term(term: Term, out: &mut BytesMut) {
    out.put_u64_le(term.get());
}

fn take_term(head: &mut Bytes) -> Option<Term> {
    head.try_get_u64_le().ok().map(Term::new)
}

fn put_index(index: Index, out: &mut BytesMut) {
    out.put_u64_le(index.get());
}

fn take_index(head: &mut Bytes) -> Option<Index> {
    head.try_get_u64_le().ok().map(Index::new)
}

fn put_id(id: EntryId, out: &mut BytesMut) {
    put_term(id.term, out);
    put_index(id.index, out);
}

fn take_id(head: &mut Bytes) -> Option<EntryId> {
    Some(EntryId::new(take_term(head)?, take_index(head)?))
}

fn take_bool(head: &mut Bytes) -> Option<bool> {
    match head.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
