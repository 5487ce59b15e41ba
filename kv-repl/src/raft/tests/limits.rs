//! What is bounded, and what comes from beyond the bounds.

use std::time::Duration;

use super::id;
use super::lone::{append, follower};
use super::sim::{Sim, member};
use crate::message::{
    AppendEntries, AppendEntriesReply, AppendResult, InstallSnapshot, InstallSnapshotReply, Message, Proposal,
    ReadIndex, ReadIndexReply, SnapshotResult, TimeoutNow, VoteReply, VoteRequest,
};
use crate::raft::{Boot, Options, Output, ProposeError, Raft, SnapshotProgress};
use crate::types::{Configuration, Entries, EntryId, HardState, Index, Term, kind};

const LATER: Duration = Duration::from_secs(3);

/// One core of a cluster of `count`, with an empty log.
fn core(count: usize, options: Options) -> Raft {
    let boot = Boot {
        hard_state: HardState { term: Term::new(1), voted_for: None },
        stamp_ms: 5000,
        ..Boot::first(Configuration::new((0..count).map(member).collect()))
    };
    Raft::new(member(0), options, boot, Duration::ZERO)
}

/// Carries out every write.
fn settle(raft: &mut Raft) {
    while let Some(output) = raft.poll_output() {
        if let Output::Write(write) = output {
            raft.handle_durable(LATER, write.into_durable());
        }
    }
}

#[test]
fn a_proposal_above_the_limit_is_taken_when_nothing_waits() {
    let mut raft = core(1, Options { uncommitted_bytes_max: 100, ..Options::default() });
    raft.handle_timeout(LATER);
    settle(&mut raft);
    let large = Proposal { kind: kind::COMMAND, payload: vec![0; 1000].into() };
    let propose = |raft: &mut Raft| raft.propose(LATER, 0, std::slice::from_ref(&large));
    assert_eq!(propose(&mut raft), Ok(id(2, 2)));
    assert!(matches!(propose(&mut raft), Err(ProposeError::Busy { .. })), "one at a time");
    settle(&mut raft);
    assert_eq!(propose(&mut raft), Ok(id(2, 3)));
}

/// Terms can't go on from the last one: whoever learnt of it could never be led again.
#[test]
fn a_term_that_no_cluster_reaches_is_not_believed() {
    let (last, connection, round, token) = (EntryId::ZERO, 1, 1, 1);
    for term in [Term::new(u64::MAX), Term::new(u64::MAX - 1), Term::new(1 << 40)] {
        let vote = VoteRequest { term, last, is_ordered: false };
        let no = VoteReply { term, granted: false };
        let (prev, committed, entries) = (EntryId::ZERO, Index::ZERO, Entries::default());
        let messages = [
            Message::PreVote(vote),
            Message::PreVoteReply(no),
            Message::RequestVote(vote),
            Message::RequestVoteReply(no),
            Message::TimeoutNow(TimeoutNow { term }),
            Message::AppendEntries(AppendEntries { term, prev, committed, round, connection, entries }),
            Message::AppendEntriesReply(AppendEntriesReply {
                term,
                round,
                connection,
                result: AppendResult::StaleTerm,
            }),
            Message::InstallSnapshot(InstallSnapshot {
                term,
                connection,
                last,
                file_bytes: 1,
                offset: 0,
                data: bytes::Bytes::new(),
            }),
            Message::InstallSnapshotReply(InstallSnapshotReply {
                term,
                connection,
                last,
                result: SnapshotResult::StaleTerm,
            }),
            Message::ReadIndex(ReadIndex { term, token }),
            Message::ReadIndexReply(ReadIndexReply { term, token, index: None }),
        ];
        for message in messages {
            let mut raft = core(3, Options::default());
            raft.handle_timeout(LATER);
            settle(&mut raft);
            let name = message.name();
            raft.handle_message(LATER, member(1), message);
            assert_eq!(raft.term(), Term::new(1), "{name}");
            assert!(raft.poll_output().is_none(), "{name}");
        }
    }
}

/// Followers answer, and no disk takes anything: the leader's term has no committed entry, so no read is safe.
#[test]
fn a_read_on_a_leader_that_can_commit_nothing_is_refused_in_time() {
    let mut sim = Sim::new(3, 11);
    let leader = sim.elect();
    sim.nodes.iter_mut().for_each(|node| node.hangs = true);
    sim.read(leader);
    sim.read((leader + 1) % 3);
    sim.run_until("both are refused", LATER, |sim| sim.reads_waiting() == 0);
    assert_eq!((sim.reads_answered, sim.leader()), (0, Some(leader)));
}

/// The replicated clock never goes back, whatever the wall clock of a new leader says, and whatever it was told by.
#[test]
fn stamps_go_on_from_the_log_and_from_a_received_checkpoint() {
    let stamp = |raft: &mut Raft| {
        let command = Proposal { kind: kind::COMMAND, payload: bytes::Bytes::new() };
        raft.propose(LATER, 7, &[command]).expect("it leads");
        let mut stamps = std::iter::from_fn(|| raft.poll_output()).filter_map(|output| match output {
            Output::Write(write) => write.entries.last().map(|entry| entry.stamp_ms()),
            _ => None,
        });
        stamps.next()
    };
    let mut raft = core(1, Options::default());
    raft.handle_timeout(LATER);
    settle(&mut raft);
    assert_eq!(stamp(&mut raft), Some(5000));

    let mut raft = core(3, Options::default());
    let configuration = raft.configuration().clone();
    let piece = SnapshotProgress::Received { last: id(1, 9), stamp_ms: 9000, configuration };
    raft.handle_snapshot(LATER, member(1), piece);
    settle(&mut raft);
    let later = LATER * 2;
    raft.handle_timeout(later);
    settle(&mut raft);
    let yes = VoteReply { term: Term::new(2), granted: true };
    raft.handle_message(later, member(1), Message::PreVoteReply(yes));
    settle(&mut raft);
    raft.handle_message(later, member(1), Message::RequestVoteReply(yes));
    assert_eq!(stamp(&mut raft), Some(9000));
}

#[test]
fn a_checkpoint_that_a_follower_refuses_is_doubted() {
    let boot = Boot {
        hard_state: HardState { term: Term::new(1), voted_for: None },
        base: id(1, 5),
        last: Index::new(5),
        applied: Index::new(5),
        ..Boot::first(Configuration::new((0..3).map(member).collect()))
    };
    let mut raft = Raft::new(member(0), Options::default(), boot, Duration::ZERO);
    raft.handle_connected(LATER, member(1), 1);
    raft.handle_timeout(LATER);
    settle(&mut raft);
    let (term, connection) = (Term::new(2), 1);
    let yes = VoteReply { term, granted: true };
    raft.handle_message(LATER, member(1), Message::PreVoteReply(yes));
    settle(&mut raft);
    raft.handle_message(LATER, member(1), Message::RequestVoteReply(yes));
    settle(&mut raft);
    let empty = AppendResult::Mismatch { refused: Index::new(5), hint: EntryId::ZERO };
    let reply = AppendEntriesReply { term, round: 1, connection, result: empty };
    raft.handle_message(LATER, member(1), Message::AppendEntriesReply(reply));
    settle(&mut raft);
    let reply = InstallSnapshotReply { term, connection, last: id(1, 5), result: SnapshotResult::Failed };
    raft.handle_message(LATER, member(1), Message::InstallSnapshotReply(reply));
    let mut outputs = std::iter::from_fn(|| raft.poll_output());
    assert!(outputs.any(|output| matches!(output, Output::VerifySnapshot { last } if last == id(1, 5))));
}

/// The checkpoint has them, but the disk would be given what comes after a gap.
#[test]
fn entries_that_are_still_to_be_written_are_not_forgotten() {
    let mut raft = follower(0);
    raft.handle_message(LATER, member(1), append(1, EntryId::ZERO, 0, 1..=9));
    let configuration = Configuration::new((0..3).map(member).collect());
    let received = SnapshotProgress::Received { last: id(1, 7), stamp_ms: 0, configuration };
    raft.handle_snapshot(LATER, member(1), received);
    assert!(!raft.handle_truncated(id(1, 7)));
    let written = std::iter::from_fn(|| raft.poll_output()).find_map(|output| match output {
        Output::Write(write) => Some(write.entries),
        _ => None,
    });
    assert_eq!(written.map(|entries| entries.len()), Some(9));
    assert!(raft.handle_truncated(id(1, 7)));
}
