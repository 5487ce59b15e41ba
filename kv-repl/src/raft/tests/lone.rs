//! One core alone: the others are what the test says they are.

use std::time::Duration;

use super::sim::member;
use super::{entries, id, index};
use crate::message::{AppendEntries, AppendEntriesReply, AppendResult, Message, VoteReply, VoteRequest};
use crate::raft::{Boot, Options, Output, Raft, Role};
use crate::types::{Configuration, Entries, EntryId, HardState, Term};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A lone core of three, with entries of term 1 up to `last` on its disk.
pub(super) fn follower(last: u64) -> Raft {
    follower_with(last, Options::default())
}

pub(super) fn follower_with(last: u64, options: Options) -> Raft {
    let terms = if last > 0 { vec![id(1, 1)] } else { Vec::new() };
    let boot = Boot {
        hard_state: HardState { term: Term::new(1), voted_for: None },
        terms,
        last: index(last),
        ..Boot::first(Configuration::new((0..3).map(member).collect()))
    };
    Raft::new(member(0), options, boot, Duration::ZERO)
}

/// Takes all outputs: messages out at once, and those that a sync releases.
pub(super) fn outputs(raft: &mut Raft, now: Duration) -> (Vec<Message>, Vec<Message>) {
    let (mut before, mut done) = (Vec::new(), Vec::new());
    while let Some(output) = raft.poll_output() {
        match output {
            Output::Send { message, .. } => before.push(message),
            Output::Write(write) => done.push(write.into_durable()),
            _ => {}
        }
    }
    done.into_iter().for_each(|durable| raft.handle_durable(now, durable));
    let mut after = Vec::new();
    while let Some(output) = raft.poll_output() {
        if let Output::Send { message, .. } = output {
            after.push(message);
        }
    }
    (before, after)
}

pub(super) fn append(term: u64, prev: EntryId, committed: u64, new: std::ops::RangeInclusive<u64>) -> Message {
    let (term, entries) = (Term::new(term), entries(term, new).into());
    Message::AppendEntries(AppendEntries { term, prev, committed: index(committed), round: 1, connection: 1, entries })
}

/// AppendEntries without any.
pub(super) fn heartbeat(term: u64, prev: EntryId, committed: u64) -> Message {
    let mut message = append(term, prev, committed, 1..=1);
    *message.entries_mut().expect("it has some") = Entries::default();
    message
}

pub(super) fn vote(term: u64, last: EntryId) -> Message {
    Message::RequestVote(VoteRequest { term: Term::new(term), last, is_ordered: false })
}

pub(super) fn granted(messages: &[Message]) -> Vec<bool> {
    let granted = |message: &Message| match message {
        Message::RequestVoteReply(VoteReply { granted, .. }) => Some(*granted),
        _ => None,
    };
    messages.iter().filter_map(granted).collect()
}

pub(super) fn results(messages: &[Message]) -> Vec<AppendResult> {
    let result = |message: &Message| match message {
        Message::AppendEntriesReply(AppendEntriesReply { result, .. }) => Some(*result),
        _ => None,
    };
    messages.iter().filter_map(result).collect()
}

/// Votes for itself, collects the others', and gives the core as leader of term 2 with its no-op at 6.
pub(super) fn elected() -> Raft {
    elected_with(Options::default())
}

pub(super) fn elected_with(options: Options) -> Raft {
    let mut raft = follower_with(5, options);
    let later = SECOND * 3;
    raft.handle_connected(later, member(1), 1);
    raft.handle_connected(later, member(2), 2);
    raft.handle_timeout(later);
    let (asked, _) = outputs(&mut raft, later);
    assert!(matches!(asked[0], Message::PreVote(_)), "thesis 9.6: it asks first");
    let yes = VoteReply { term: Term::new(2), granted: true };
    raft.handle_message(later, member(1), Message::PreVoteReply(yes));
    outputs(&mut raft, later);
    raft.handle_message(later, member(1), Message::RequestVoteReply(yes));
    assert_eq!(raft.role(), Role::Leader);
    assert_eq!(raft.last(), id(2, 6), "section 8: a leader begins with an entry of its own");
    raft
}

pub(super) fn durable_at(raft: &mut Raft, from: usize, at: u64) {
    let result = AppendResult::Durable(index(at));
    let connection = from as u64;
    let reply = AppendEntriesReply { term: raft.term(), round: 1, connection, result };
    raft.handle_message(SECOND * 3, member(from), Message::AppendEntriesReply(reply));
}
