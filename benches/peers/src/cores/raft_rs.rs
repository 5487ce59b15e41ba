//! The core of TiKV, a port of etcd's.

use std::collections::VecDeque;

use raft::eraftpb::{Entry, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole, Storage};
use slog::{Discard, Logger, o};

use super::{COMMAND_BYTES, Cores, LOG_ENTRIES_MAX};

struct Three {
    nodes: Vec<RawNode<MemStorage>>,
    flying: VecDeque<Message>,
    /// Commands applied, on all nodes together.
    applied: u64,
    leader: usize,
}

fn node(id: u64) -> RawNode<MemStorage> {
    let config = Config {
        id,
        election_tick: 10,
        heartbeat_tick: 3,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        pre_vote: true,
        check_quorum: true,
        ..Config::default()
    };
    let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
    RawNode::new(&config, storage, &Logger::root(Discard, o!())).expect("the settings make sense")
}

/// Three cores with a leader.
pub fn start() -> Box<dyn Cores> {
    let nodes = (1..=3).map(node).collect();
    let mut three = Three { nodes, flying: VecDeque::new(), applied: 0, leader: 0 };
    three.nodes[0].campaign().expect("a voter may stand");
    three.settle();
    let leads = |node: &RawNode<MemStorage>| node.raft.state == StateRole::Leader;
    three.leader = three.nodes.iter().position(leads).expect("one was elected");
    Box::new(three)
}

fn commands(entries: &[Entry]) -> u64 {
    entries.iter().filter(|entry| !entry.data.is_empty()).count() as u64
}

impl Three {
    fn settle(&mut self) {
        (0..3).for_each(|node| self.drain(node));
        while let Some(message) = self.flying.pop_front() {
            let to = message.to as usize - 1;
            self.nodes[to].step(message).expect("from one of the three");
            self.drain(to);
        }
    }

    /// As its documentation says: messages, committed entries, entries and hard state, messages that follow these, and then
    /// the same again for what that has led to.
    fn drain(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        while node.has_ready() {
            let store = node.raft.raft_log.store.clone();
            let mut ready = node.ready();
            self.flying.extend(ready.take_messages());
            self.applied += commands(&ready.take_committed_entries());
            if !ready.entries().is_empty() {
                store.wl().append(ready.entries()).expect("they follow the last");
            }
            if let Some(hard_state) = ready.hs() {
                store.wl().set_hardstate(hard_state.clone());
            }
            self.flying.extend(ready.take_persisted_messages());
            let mut light = node.advance(ready);
            if let Some(commit) = light.commit_index() {
                store.wl().mut_hard_state().set_commit(commit);
            }
            self.flying.extend(light.take_messages());
            self.applied += commands(&light.take_committed_entries());
            node.advance_apply();
        }
    }
}

impl Cores for Three {
    fn commit(&mut self, count: usize) {
        let goal = self.applied + 3 * count as u64;
        for _ in 0..count {
            self.nodes[self.leader].propose(Vec::new(), vec![7; COMMAND_BYTES]).expect("it leads");
        }
        self.settle();
        assert_eq!(self.applied, goal, "all three have applied them");
        for node in &self.nodes {
            let store = &node.raft.raft_log.store;
            let (first, last) = (store.first_index().expect("in memory"), store.last_index().expect("in memory"));
            if last - first > LOG_ENTRIES_MAX as u64 {
                store.wl().compact(last).expect("all of it is applied");
            }
        }
    }
}
