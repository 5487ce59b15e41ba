//! A cluster in which nothing happens by itself, for scenarios.

use bytes::BytesMut;

use super::super::trace::say;
use super::disk::Disk;
use super::{Flying, Sim, position};
use crate::raft::Options;
use crate::types::{Entry, EntryId, HardState, Index, Term, kind};

impl Sim {
    /// A cluster in which nothing happens by itself.
    pub(crate) fn manual(count: usize, spares: usize, options: Options) -> Sim {
        let mut sim = Sim::with_options(count, spares, 1, options);
        (sim.is_manual, sim.checkpoint_pieces) = (true, 1);
        sim
    }

    pub(super) fn note(&mut self, node: usize, said: &str) {
        if self.is_manual {
            self.trace.push(format!("{} {said}", node + 1));
        }
    }

    /// The next moment that a node waits for has come.
    pub(crate) fn time_out(&mut self, node: usize) {
        self.now = self.raft(node).poll_timeout().map_or(self.now, |at| at.max(self.now));
        let now = self.now;
        self.raft(node).handle_timeout(now);
        self.drain(node);
    }

    /// The messages between two nodes that wait now arrive, in order, at most `count` of them.
    pub(crate) fn deliver(&mut self, from: usize, to: usize, count: usize) {
        let mut left = count;
        let is_due = |flying: &Flying| {
            let is_due = left > 0 && position(flying.from.id) == from && position(flying.to.id) == to;
            left -= usize::from(is_due);
            is_due
        };
        let (due, later): (Vec<Flying>, _) = std::mem::take(&mut self.flying).into_iter().partition(is_due);
        self.flying = later;
        for flying in due {
            let is_there = self.nodes[to].raft.is_some() && self.nodes[to].me == flying.to;
            if is_there && !self.cuts.contains(&(from, to)) {
                self.trace.push(format!("{} -> {} {}", from + 1, to + 1, say(&flying.message)));
                let now = self.now;
                self.raft(to).handle_message(now, flying.from, flying.message);
                self.drain(to);
                self.check_log(to);
            }
        }
    }

    /// Those messages are lost.
    pub(crate) fn discard(&mut self, from: usize, to: usize) {
        self.flying.retain(|flying| position(flying.from.id) != from || position(flying.to.id) != to);
    }

    /// Those messages will come twice.
    pub(crate) fn double(&mut self, from: usize, to: usize) {
        let is_meant = |flying: &&Flying| position(flying.from.id) == from && position(flying.to.id) == to;
        let doubled: Vec<Flying> = self.flying.iter().filter(is_meant).cloned().collect();
        self.flying.extend(doubled);
    }

    /// Syncs and deliveries, until nothing waits any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            (0..self.nodes.len()).for_each(|node| self.sync(node));
            (0..self.nodes.len()).for_each(|node| self.give_up(node));
            match self.flying.first().map(|first| (position(first.from.id), position(first.to.id))) {
                Some((from, to)) => self.deliver(from, to, usize::MAX),
                None if self.nodes.iter().all(|node| node.hangs || node.queue.is_empty() && node.repair.is_empty()) => {
                    return;
                }
                None => {}
            }
        }
        panic!("messages go to and fro for ever");
    }

    /// A node starts with entries of these terms on its disk, each too large to share a message with another.
    pub(crate) fn set_log(&mut self, node: usize, terms: impl Iterator<Item = u64>, term: u64) {
        self.crash_losing_all(node);
        let payload = [b'x'; 150];
        let entry = |(at, term): (u64, u64)| {
            let id = EntryId::new(Term::new(term), Index::new(at));
            Entry::encode(&mut BytesMut::new(), id, 0, kind::COMMAND, &payload)
        };
        let entries = (1..).zip(terms).map(entry).collect();
        let hard_state = HardState { term: Term::new(term), voted_for: None };
        self.nodes[node].disk = Disk { entries, hard_state, ..Disk::default() };
        self.start(node);
    }

    /// Power off: nothing that was not synced survives.
    pub(crate) fn crash_losing_all(&mut self, node: usize) {
        self.nodes[node].queue.clear();
        self.crash(node);
        self.flying.retain(|flying| position(flying.to.id) != node);
    }
}
