//! What the handle, the core's task and the applier share. Each lock is held for moments and never two at once, except
//! that the applier publishes what it applied while it holds nothing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use super::replicated::Replicated;
use super::traits::StateMachine;
use crate::raft::Role;
use crate::types::{Configuration, Index, NodeId, Term};

/// States kept for those who asked for a mark.
const MARKS_KEPT: usize = 8;
/// Hashes kept for comparison: those of all marks that a leader may still compare.
const HASHES_KEPT: usize = 2 * crate::raft::MARKS_MAX;

/// The deadline of a state in which nothing expires.
const NEVER: u64 = u64::MAX;

pub(crate) struct Shared<S: StateMachine> {
    /// The replicated state: written by the applier, read by everybody.
    pub(crate) state: RwLock<Replicated<S>>,
    applied: AtomicU64,
    /// When something in it expires next; `NEVER` if nothing does.
    next_deadline_ms: AtomicU64,
    waiting_reads: Mutex<Vec<(Index, oneshot::Sender<Index>)>>,
    pending: Mutex<PendingWrites<S::Outcome>>,
    /// The core waits for answers, to have room for more commands.
    is_awaited: AtomicBool,
    marks: Mutex<VecDeque<Mark<S>>>,
    /// The state is not that of the majority.
    pub(crate) is_diverged: AtomicBool,
    /// State hashes at the last marks.
    hashes: Mutex<VecDeque<(Index, [u8; 32])>>,
    /// Where the core stands, as of its last turn.
    pub(crate) core: watch::Sender<CoreView>,
    /// What is known of the other nodes.
    pub(crate) peers: Mutex<BTreeMap<NodeId, PeerView>>,
    /// Why the node has stopped, once it has; empty if it was asked to.
    pub(crate) stopped: watch::Sender<Option<String>>,
}

/// A state hash noted when a mark was applied, with the state it was computed from.
pub struct Mark<S: StateMachine> {
    /// The mark's position.
    pub index: Index,
    /// The state hash there.
    pub hash: [u8; 32],
    /// The part of it that covers what kv-repl keeps beside the state machine.
    pub blob_hash: [u8; 32],
    /// The state machine's state there.
    pub view: S::View,
}

impl<S: StateMachine> Clone for Mark<S> {
    fn clone(&self) -> Self {
        Mark { index: self.index, hash: self.hash, blob_hash: self.blob_hash, view: self.view.clone() }
    }
}

/// The core's positions for the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoreView {
    pub(crate) role: Role,
    pub(crate) term: Term,
    pub(crate) leader: Option<NodeId>,
    pub(crate) last: Index,
    pub(crate) committed: Index,
    /// This node leads, and its log has no room.
    pub(crate) is_disk_full: bool,
    /// This node leads, and hands leadership to this one.
    pub(crate) transfer_to: Option<NodeId>,
    /// Entries of its log are lost and not repaired yet.
    pub(crate) is_damaged: bool,
    /// Who belongs to the cluster.
    pub(crate) configuration: Arc<Configuration>,
}

/// A peer as its last greeting and the connection to it show it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerView {
    pub(crate) peer_address: String,
    pub(crate) client_address: Option<String>,
    pub(crate) connected: bool,
}

/// What a command of this node answers.
#[derive(Debug)]
pub(crate) enum Answer<O> {
    Outcome(O),
    Marked(Index),
    /// Its outcome did not reach this node, or its client gave it up.
    Lost,
}

/// One batch that waits for its answers.
struct Pending<O> {
    first: u64,
    count: usize,
    answers: Vec<Answer<O>>,
    reply: oneshot::Sender<Vec<Answer<O>>>,
}

/// Batches in the order of their sequence numbers.
struct PendingWrites<O> {
    batches: VecDeque<Pending<O>>,
    /// Number of the next command to be answered.
    next: u64,
}

impl<S: StateMachine> Shared<S> {
    pub(crate) fn new(state: Replicated<S>) -> Shared<S> {
        let applied = AtomicU64::new(state.applied.index.get());
        let next_deadline_ms = AtomicU64::new(state.machine.next_deadline_ms().unwrap_or(NEVER));
        Shared {
            state: RwLock::new(state),
            applied,
            next_deadline_ms,
            waiting_reads: Mutex::new(Vec::new()),
            pending: Mutex::new(PendingWrites { batches: VecDeque::new(), next: 1 }),
            is_awaited: AtomicBool::new(false),
            marks: Mutex::new(VecDeque::new()),
            is_diverged: AtomicBool::new(false),
            hashes: Mutex::new(VecDeque::new()),
            core: watch::Sender::new(CoreView {
                role: Role::Follower,
                term: Term::ZERO,
                leader: None,
                last: Index::ZERO,
                committed: Index::ZERO,
                is_disk_full: false,
                transfer_to: None,
                is_damaged: false,
                configuration: Arc::default(),
            }),
            peers: Mutex::new(BTreeMap::new()),
            stopped: watch::Sender::new(None),
        }
    }

    /// The core stands there now. Who waits is told of what concerns leadership, not of each position.
    pub(crate) fn see_core(&self, now: CoreView) {
        self.core.send_if_modified(|core| {
            let leadership = |view: &CoreView| (view.role, view.term, view.leader, view.transfer_to);
            let has_changed = leadership(core) != leadership(&now);
            *core = now;
            has_changed
        });
    }

    /// When something in the state expires next.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        Some(self.next_deadline_ms.load(Ordering::Acquire)).filter(|deadline_ms| *deadline_ms != NEVER)
    }

    /// That is `deadline_ms` now. True if it was something else.
    pub(crate) fn set_next_deadline_ms(&self, deadline_ms: Option<u64>) -> bool {
        let deadline_ms = deadline_ms.unwrap_or(NEVER);
        self.next_deadline_ms.swap(deadline_ms, Ordering::AcqRel) != deadline_ms
    }

    pub(crate) fn applied(&self) -> Index {
        Index::new(self.applied.load(Ordering::Acquire))
    }

    /// The applier has published the state up to here: reads that waited for it may go on.
    pub(crate) fn advance_applied(&self, applied: Index) {
        let mut waiting = self.waiting_reads.lock();
        self.applied.store(applied.get(), Ordering::Release);
        waiting.retain_mut(|(index, reply)| {
            if *index > applied {
                return true;
            }
            let (closed, _) = oneshot::channel();
            // A reader that gave up is nobody's loss.
            let _ = std::mem::replace(reply, closed).send(applied);
            false
        });
    }

    /// Answers `reply` as soon as `index` has been applied.
    pub(crate) fn answer_when_applied(&self, index: Index, replies: impl Iterator<Item = oneshot::Sender<Index>>) {
        let mut waiting = self.waiting_reads.lock();
        let applied = self.applied();
        for reply in replies {
            if index <= applied {
                let _ = reply.send(applied);
                continue;
            }
            if waiting.len() == waiting.capacity() {
                // Readers that gave up make room before others get more.
                waiting.retain(|(_, reply)| !reply.is_closed());
            }
            waiting.push((index, reply));
        }
    }

    /// A batch with these numbers waits for its answers.
    pub(crate) fn expect(&self, numbers: Range<u64>, reply: oneshot::Sender<Vec<Answer<S::Outcome>>>) {
        let (first, count) = (numbers.start, (numbers.end - numbers.start) as usize);
        let answers = Vec::with_capacity(count);
        self.pending.lock().batches.push_back(Pending { first, count, answers, reply });
    }

    /// Hands out answers, in the order of their numbers. One that was passed over is lost.
    pub(crate) fn answer(&self, answers: impl Iterator<Item = (u64, Answer<S::Outcome>)>) {
        let mut pending = self.pending.lock();
        for (sequence, answer) in answers {
            pending.skip_to(sequence);
            if pending.next == sequence {
                pending.push(answer);
            }
        }
    }

    /// Everything up to and including `sequence` was executed, with outcomes that did not reach this node.
    pub(crate) fn answers_lost_up_to(&self, sequence: u64) {
        self.pending.lock().skip_to(sequence + 1);
    }

    /// The session has ended: nothing that waits will be answered, and numbers begin again at 1.
    pub(crate) fn answers_lost(&self) {
        let mut pending = self.pending.lock();
        let end = pending.batches.back().map_or(pending.next, |last| last.first + last.count as u64);
        pending.skip_to(end);
        pending.next = 1;
    }

    /// The core is to be told of the next answers.
    pub(crate) fn await_answers(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
    }

    /// Whether the core is to be told that there are answers. Then it is.
    pub(crate) fn take_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::SeqCst) && self.is_awaited.swap(false, Ordering::SeqCst)
    }

    /// Number of the next command to be answered: all before it are done.
    pub(crate) fn next_unanswered(&self) -> u64 {
        self.pending.lock().next
    }

    /// The node stops: nobody will answer any more.
    pub(crate) fn close(&self) {
        self.pending.lock().batches.clear();
        self.waiting_reads.lock().clear();
    }

    pub(crate) fn note_mark(&self, mark: Mark<S>) {
        keep(&mut self.marks.lock(), MARKS_KEPT, mark);
    }

    /// This replica's state hash at a mark.
    pub(crate) fn note_hash(&self, index: Index, hash: [u8; 32]) {
        keep(&mut self.hashes.lock(), HASHES_KEPT, (index, hash));
    }

    /// What was noted at a mark, if it is among the last.
    pub(crate) fn hash_at(&self, index: Index) -> Option<[u8; 32]> {
        self.hashes.lock().iter().find(|(at, _)| *at == index).map(|(_, hash)| *hash)
    }

    pub(crate) fn mark(&self, index: Index) -> Option<Mark<S>> {
        self.marks.lock().iter().find(|mark| mark.index == index).cloned()
    }
}

impl<O> PendingWrites<O> {
    fn skip_to(&mut self, sequence: u64) {
        while self.next < sequence {
            self.push(Answer::Lost);
        }
    }

    fn push(&mut self, answer: Answer<O>) {
        self.next += 1;
        let Some(front) = self.batches.front_mut() else { return };
        debug_assert_eq!(front.first + front.answers.len() as u64 + 1, self.next);
        front.answers.push(answer);
        if front.answers.len() == front.count {
            let done = self.batches.pop_front().expect("the front exists");
            // A client that gave up is nobody's loss.
            let _ = done.reply.send(done.answers);
        }
    }
}

/// Adds to what is kept, `max` at most.
fn keep<T>(kept: &mut VecDeque<T>, max: usize, new: T) {
    if kept.len() == max {
        kept.pop_front();
    }
    kept.push_back(new);
}

/// Computes the mark that `state` passes now.
pub(crate) fn mark_of<S: StateMachine>(state: &Replicated<S>) -> Mark<S> {
    let blob: Bytes = state.blob();
    Mark {
        index: state.applied.index,
        hash: state.state_hash(),
        blob_hash: super::replicated::blob_hash(&blob),
        view: state.machine.view(),
    }
}
