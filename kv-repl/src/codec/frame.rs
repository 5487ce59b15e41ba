//! The frame around everything that nodes send to each other.
//!
//! ```text
//!  0        4        8     9            13
//!  +--------+--------+-----+------------+----------------+----------------------+
//!  | length | crc32c | tag | head_bytes | head           | entries              |
//!  +--------+--------+-----+------------+----------------+----------------------+
//!     u32      u32     u8      u32        `head_bytes`     the rest of `length`
//! ```
//!
//! Little-endian. `length` counts everything after the checksum. The checksum covers the length, the tag and the head;
//! log entries follow as they are in the log, each with its own checksum, which is verified here: a byte is never
//! summed twice, and an entry's checksum stays the one its leader computed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use tokio_util::codec::{Decoder, Encoder};

use super::message::{self, Hello};
use crate::message::{Message, PROPOSAL_BYTES_MAX};
use crate::types::Entry;

/// Longest frame accepted, in bytes. Commands, messages and checkpoint pieces are limited well below it.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

/// Longest frame accepted from somebody who has not greeted yet, in bytes.
pub const GREETING_BYTES_MAX: usize = 4 << 10;

/// What a proposal that is accepted can't be sent in would stop replication for ever.
const _: () = assert!(PROPOSAL_BYTES_MAX + 4096 <= FRAME_BYTES_MAX, "a frame holds the longest entry and its own head");

const PREFIX_BYTES: usize = 8;
const FIXED_BYTES: usize = 5;

/// What one frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a connection, in both directions.
    Hello(Hello),
    /// Ends a connection: why, and what to do.
    Refused(String),
    /// The founding record for a node that has none.
    Found(Bytes),
    /// A message of the Raft core.
    Message(Message),
}

/// Why bytes from a peer could not be understood. The connection is closed; nothing else is affected.
#[derive(Debug, Error)]
pub enum WireError {
    /// The connection failed.
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// A frame claims more than may come now.
    #[error("frame of {bytes} bytes is above the limit of {bytes_max}; is this a peer port of kv-repl?")]
    TooLong {
        /// Bytes the frame claims.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A frame's checksum does not match.
    #[error("frame checksum is wrong; is this a peer port of kv-repl?")]
    Checksum,
    /// A frame's fields make no sense.
    #[error("malformed frame with tag {tag}")]
    Malformed {
        /// The frame's tag.
        tag: u8,
    },
    /// An entry in a frame is damaged.
    #[error("entry in a frame: {0}")]
    Entry(#[from] kv_wal::record::DecodeError),
}

/// Encodes and decodes [`Frame`]s.
#[derive(Debug)]
pub struct FrameCodec {
    /// Longest frame that is decoded.
    bytes_max: usize,
}

impl Default for FrameCodec {
    fn default() -> FrameCodec {
        FrameCodec { bytes_max: FRAME_BYTES_MAX }
    }
}

impl FrameCodec {
    /// A codec for a connection to a stranger: nothing longer than [`GREETING_BYTES_MAX`] is taken in before
    /// [`FrameCodec::greeted`].
    pub fn greeting() -> FrameCodec {
        FrameCodec { bytes_max: GREETING_BYTES_MAX }
    }

    /// The other end is known now.
    pub fn greeted(&mut self) {
        *self = FrameCodec::default();
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = WireError;

    fn encode(&mut self, frame: Frame, wire: &mut BytesMut) -> Result<(), WireError> {
        let start = wire.len();
        wire.put_bytes(0, PREFIX_BYTES + FIXED_BYTES);
        let tag = message::put_head(&frame, wire);
        let head_end = wire.len();
        if let Frame::Message(message) = &frame {
            wire.reserve(message.entries().iter().map(|entry| entry.frame().len()).sum());
            for entry in message.entries() {
                wire.put_slice(entry.frame());
            }
        }
        let length = wire.len() - start - PREFIX_BYTES;
        if length > FRAME_BYTES_MAX {
            wire.truncate(start);
            return Err(WireError::TooLong { bytes: length, bytes_max: FRAME_BYTES_MAX });
        }
        let head_bytes = head_end - start - PREFIX_BYTES - FIXED_BYTES;
        let frame = &mut wire[start..head_end];
        frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
        frame[8] = tag;
        frame[9..13].copy_from_slice(&(head_bytes as u32).to_le_bytes());
        let crc = checksum(&frame[..4], &frame[PREFIX_BYTES..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = WireError;

    fn decode(&mut self, wire: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        if wire.len() < PREFIX_BYTES {
            return Ok(None);
        }
        let length = u32_at(wire, 0) as usize;
        if length > self.bytes_max {
            return Err(WireError::TooLong { bytes: length, bytes_max: self.bytes_max });
        }
        if length < FIXED_BYTES {
            return Err(WireError::Checksum);
        }
        if wire.len() < PREFIX_BYTES + length {
            // The length is not verified yet: grow with what arrives, up to a bounded step.
            wire.reserve((PREFIX_BYTES + length - wire.len()).min(1 << 20));
            return Ok(None);
        }
        let mut body = wire.split_to(PREFIX_BYTES + length).freeze();
        let prefix = body.split_to(PREFIX_BYTES);
        let head_bytes = u32_at(&body, 1) as usize;
        if head_bytes > length - FIXED_BYTES {
            return Err(WireError::Checksum);
        }
        if u32_at(&prefix, 4) != checksum(&prefix[..4], &body[..FIXED_BYTES + head_bytes]) {
            return Err(WireError::Checksum);
        }
        let tag = body[0];
        body.advance(FIXED_BYTES);
        let head = body.split_to(head_bytes);
        decode_body(tag, head, body).map(Some)
    }
}

fn decode_body(tag: u8, head: Bytes, mut rest: Bytes) -> Result<Frame, WireError> {
    let mut frame = message::take_head(tag, head).ok_or(WireError::Malformed { tag })?;
    if let Frame::Message(message) = &mut frame
        && let Some(entries) = message.entries_mut()
    {
        let mut batch = Vec::new();
        while !rest.is_empty() {
            batch.push(Entry::split_from(&mut rest)?);
        }
        *entries = batch.into();
    }
    if !rest.is_empty() {
        return Err(WireError::Malformed { tag });
    }
    Ok(frame)
}

fn checksum(length: &[u8], head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), head)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::*;
    use crate::types::{EntryId, Incarnation, Index, Kind, Member, NodeId, Term};
    use proptest::prelude::*;

    fn entry(index: u64, payload: &[u8]) -> Entry {
        Entry::encode(&mut BytesMut::new(), EntryId::new(Term::new(2), Index::new(index)), 5, Kind(1), payload)
    }

    fn samples() -> Vec<Frame> {
        let id = EntryId::new(Term::new(3), Index::new(9));
        let vote = VoteRequest { term: Term::new(4), last: id, is_ordered: true };
        let reply = VoteReply { term: Term::new(4), granted: true };
        let append = AppendEntries {
            term: Term::new(4),
            prev: id,
            committed: Index::new(8),
            round: 11,
            connection: 12,
            entries: vec![entry(10, b"ten"), entry(11, b"")].into(),
        };
        let answer = |result| {
            let term = Term::new(4);
            Message::AppendEntriesReply(AppendEntriesReply { term, round: 11, connection: 12, result })
        };
        let installed = |result| {
            Message::InstallSnapshotReply(InstallSnapshotReply { term: Term::new(4), connection: 12, last: id, result })
        };
        let mut messages = vec![
            Message::PreVote(vote),
            Message::PreVoteReply(reply),
            Message::RequestVote(vote),
            Message::RequestVoteReply(VoteReply { granted: false, ..reply }),
            Message::AppendEntries(append),
            Message::InstallSnapshot(InstallSnapshot {
                term: Term::new(4),
                connection: 12,
                last: id,
                file_bytes: 100,
                offset: 10,
                data: Bytes::from_static(b"piece"),
            }),
            Message::TimeoutNow(TimeoutNow { term: Term::new(4) }),
            Message::Marked(Marked { term: Term::new(4), index: Index::new(7), hash: [9; 32] }),
            Message::FetchEntries(FetchEntries { term: Term::new(4), token: 78, first: Index::new(7), next: id }),
            Message::ReadIndex(ReadIndex { term: Term::new(4), token: 77 }),
            Message::ReadIndexReply(ReadIndexReply { term: Term::new(4), token: 77, index: Some(Index::new(3)) }),
            Message::ReadIndexReply(ReadIndexReply { term: Term::new(4), token: 77, index: None }),
            Message::Forward(Forward {
                term: Term::new(4),
                proposals: vec![Proposal { kind: Kind(1), payload: Bytes::from_static(b"command") }],
            }),
        ];
        let results = [
            AppendResult::Durable(Index::new(4)),
            AppendResult::Alive,
            AppendResult::Mismatch { refused: Index::new(9), hint: id },
            AppendResult::StaleTerm,
        ];
        messages.extend(results.map(answer));
        let entries = FetchResult::Entries(vec![entry(7, b"seven")].into());
        let results = [entries, FetchResult::Absent, FetchResult::Damaged, FetchResult::Needless];
        let fetched = |result| Message::FetchEntriesReply(FetchEntriesReply { term: Term::new(4), token: 78, result });
        messages.extend(results.map(fetched));
        let results = [
            SnapshotResult::Continue { offset: 6 },
            SnapshotResult::Installed,
            SnapshotResult::Failed,
            SnapshotResult::StaleTerm,
        ];
        messages.extend(results.map(installed));
        let mut frames: Vec<Frame> = messages.into_iter().map(Frame::Message).collect();
        frames.push(Frame::Refused("why".into()));
        frames.push(Frame::Found(Bytes::from_static(b"record")));
        frames.push(Frame::Hello(Hello {
            version_min: 1,
            version_max: 1,
            from: Member::new(NodeId::new(1), Incarnation::new(99)),
            to: NodeId::new(2),
            cluster: Some([7; 32]),
            listed: vec![NodeId::new(1), NodeId::new(2)],
            client_address: "127.0.0.1:7001".into(),
        }));
        frames
    }

    fn encoded(frame: &Frame) -> BytesMut {
        let mut wire = BytesMut::new();
        FrameCodec::default().encode(frame.clone(), &mut wire).unwrap();
        wire
    }

    #[test]
    fn a_stranger_can_only_greet() {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            from: Member::new(NodeId::new(u64::MAX), Incarnation::new(9)),
            to: NodeId::new(2),
            cluster: Some([7; 32]),
            listed: (1..=64).map(NodeId::new).collect(),
            client_address: "x".repeat(1024),
        };
        let mut wire = BytesMut::new();
        FrameCodec::default().encode(Frame::Hello(hello.clone()), &mut wire).expect("encodes");
        let mut codec = FrameCodec::greeting();
        assert_eq!(codec.decode(&mut wire).expect("the longest greeting fits"), Some(Frame::Hello(hello)));
        let long = Frame::Found(vec![0; GREETING_BYTES_MAX].into());
        codec.encode(long.clone(), &mut wire).expect("encodes");
        let mut begun = BytesMut::from(&wire[..PREFIX_BYTES]);
        assert!(matches!(codec.decode(&mut begun), Err(WireError::TooLong { .. })), "refused before it has come");
        codec.greeted();
        assert_eq!(codec.decode(&mut wire).expect("known now"), Some(long));
    }

    #[test]
    fn every_kind_comes_back_from_any_split() {
        for frame in samples() {
            let whole = encoded(&frame);
            for cut in 0..whole.len() {
                let mut wire = BytesMut::from(&whole[..cut]);
                assert!(FrameCodec::default().decode(&mut wire).unwrap().is_none(), "{frame:?} cut at {cut}");
                wire.extend_from_slice(&whole[cut..]);
                assert_eq!(FrameCodec::default().decode(&mut wire).unwrap().as_ref(), Some(&frame));
                assert!(wire.is_empty());
            }
        }
    }

    #[test]
    fn no_flipped_bit_is_accepted() {
        for frame in samples() {
            let whole = encoded(&frame);
            for bit in 0..whole.len() * 8 {
                let mut wire = whole.clone();
                wire[bit / 8] ^= 1 << (bit % 8);
                if let Ok(Some(_)) = FrameCodec::default().decode(&mut wire) {
                    panic!("accepted {frame:?} with bit {bit} flipped");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = FrameCodec::default().decode(&mut BytesMut::from(&bytes[..]));
        }

        /// Past the checksum, where only a hostile peer gets: the fields themselves must be checked too.
        #[test]
        fn arbitrary_fields_never_panic(tag in any::<u8>(), head in proptest::collection::vec(any::<u8>(), 0..120),
                                        rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode_body(tag, Bytes::from(head), Bytes::from(rest));
        }
    }
}
