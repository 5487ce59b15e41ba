//! Group commit by the callers themselves.
//!
//! Whoever finds nobody leading leads one round: takes all that waits, stages it, syncs once for all, applies, answers,
//! and hands over to the first of those who have come meanwhile. There is no timer: take all that is there, never wait for
//! more.
//!
//! Why not a thread that writes for all: measured in its place, it was 10 % faster for 8 callers and 6 to 8 % slower for
//! one and for 64 (the crate's README has the figures). It would have to be watched and ended, and a store could not be
//! driven by one thread step by step, as the crash tests do. Why it is handed over last, though the next leader could
//! begin earlier: handed over before the answers, whether before or after applying, a put took 27 to 29 % longer with 8
//! callers, presumably since whoever is answered comes too late for the next sync.
//!
//! Why it is right:
//!
//! - Only the leader touches the log, and it hands over when it has applied: entries are applied in the order of the log.
//! - An entry is applied after its sync has returned: readers see nothing that a crash can take back.
//! - The request of a leader is the first in the queue when it takes its round, so nobody leads for others only.
//! - A request that is dropped is answered by that, and a leader that ends before it has answered, by an error or by a panic,
//!   poisons the store and answers all: nobody waits for ever.
//!
//! The queue has no limit of its own: each caller waits with one request, whose bytes it holds anyhow.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, Thread};

use kv_wal::Entry;

use super::error::DurableError;
use super::journal::{Change, Journal};
use super::shared::{Shared, lock, write};
use crate::outcome::Outcome;

/// Bytes of entries that one sync covers, unless one request alone has more.
const ROUND_BYTES_MAX: usize = 16 << 20;

pub(super) type Answer = Result<Vec<Outcome>, DurableError>;

/// What waits for the next round.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: VecDeque<Request>,
    /// Somebody leads, or has been told to.
    led: bool,
    standing: Standing,
}

/// Whether requests are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    #[default]
    Open,
    /// A write has failed, or a leader has panicked.
    Poisoned,
    Closed,
}

impl Standing {
    pub(super) fn check(self) -> Result<(), DurableError> {
        match self {
            Standing::Open => Ok(()),
            Standing::Poisoned => Err(DurableError::Poisoned),
            Standing::Closed => Err(DurableError::Closed),
        }
    }
}

/// The queue, and what tells that nobody leads any more.
#[derive(Debug, Default)]
pub(super) struct Commit {
    queue: Mutex<Queue>,
    unled: Condvar,
}

/// A change, and who waits for it.
#[derive(Debug)]
struct Request {
    change: Change,
    /// `None` when it has been answered.
    slot: Option<Arc<Slot>>,
    /// It may be in the log.
    is_taken: bool,
}

impl Request {
    fn answer(mut self, answer: Answer) {
        self.give(answer);
    }

    fn give(&mut self, answer: Answer) {
        if let Some(slot) = self.slot.take() {
            slot.tell(|said| said.answer = Some(answer));
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let dropped = match self.is_taken {
            true => DurableError::Failed(kv_wal::Error::Poisoned),
            false => DurableError::Poisoned,
        };
        self.give(Err(dropped));
    }
}

/// Where a caller waits.
#[derive(Debug)]
struct Slot {
    said: Mutex<Said>,
    caller: Thread,
}

#[derive(Debug, Default)]
struct Said {
    lead: bool,
    answer: Option<Answer>,
}

enum Told {
    Lead,
    Answer(Answer),
}

impl Slot {
    fn tell(&self, tell: impl FnOnce(&mut Said)) {
        tell(&mut lock(&self.said));
        self.caller.unpark();
    }

    /// Waits for an answer, or for being told to lead. Who is told both leads first: others wait for that.
    fn wait(&self) -> Told {
        loop {
            let mut said = lock(&self.said);
            if std::mem::take(&mut said.lead) {
                return Told::Lead;
            }
            if let Some(answer) = said.answer.take() {
                return Told::Answer(answer);
            }
            drop(said);
            thread::park();
        }
    }
}

impl Queue {
    /// The next round's requests.
    fn take(&mut self) -> Vec<Request> {
        let mut bytes = 0;
        let count = self.requests.iter().take_while(|request| {
            let first = bytes == 0;
            bytes += request.change.bytes();
            first || bytes <= ROUND_BYTES_MAX
        });
        let count = count.count();
        self.requests
            .drain(..count)
            .map(|mut request| {
                request.is_taken = true;
                request
            })
            .collect()
    }
}

impl Commit {
    pub(super) fn standing(&self) -> Standing {
        lock(&self.queue).standing
    }

    /// Takes no requests from now on. Those that wait are dropped, and so answered.
    pub(super) fn poison(&self) {
        let mut queue = lock(&self.queue);
        if queue.standing == Standing::Open {
            tracing::error!("a write has failed: the store takes no more of them until it is opened again");
        }
        queue.standing = Standing::Poisoned;
        let requests = std::mem::take(&mut queue.requests);
        drop(queue);
        drop(requests);
    }

    /// Tells the first who waits to lead the next round.
    fn hand_over(&self) {
        let mut queue = lock(&self.queue);
        match queue.requests.front().and_then(|next| next.slot.as_ref()) {
            Some(slot) => slot.tell(|said| said.lead = true),
            None => {
                queue.led = false;
                self.unled.notify_all();
            }
        }
    }

    /// Takes no more requests, and returns when nobody needs the log any more for those that it has.
    pub(super) fn close(&self) -> Standing {
        let mut queue = lock(&self.queue);
        if queue.standing == Standing::Open {
            queue.standing = Standing::Closed;
        }
        while queue.led {
            queue = self.unled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.standing
    }
}

impl Shared {
    /// Returns when the change is durable and applied.
    pub(super) fn submit(&self, change: Change) -> Answer {
        let slot = Arc::new(Slot { said: Mutex::default(), caller: thread::current() });
        let mut queue = lock(&self.commit.queue);
        queue.standing.check()?;
        queue.requests.push_back(Request { change, slot: Some(slot.clone()), is_taken: false });
        let leads = !std::mem::replace(&mut queue.led, true);
        drop(queue);
        if leads {
            self.lead();
        }
        loop {
            match slot.wait() {
                Told::Lead => self.lead(),
                Told::Answer(answer) => return answer,
            }
        }
    }

    fn lead(&self) {
        let mut leader = Leader { commit: &self.commit, is_done: false };
        let is_due = self.round();
        leader.is_done = true;
        drop(leader);
        if is_due {
            self.checkpoint_is_due();
        }
    }

    /// One round. Tells whether the log has grown so much that a checkpoint is due.
    fn round(&self) -> bool {
        let mut journal = lock(&self.journal);
        let Some(open) = journal.as_mut() else { unreachable!("it is closed only when nobody leads") };
        // Taken now: what has gathered while the log was shortened after a checkpoint is in it.
        let requests = lock(&self.commit.queue).take();
        let staged = stage_all(open, requests, (self.clock)());
        if let Err(error) = open.sync() {
            self.commit.poison();
            staged.into_iter().for_each(|(request, _)| request.answer(Err(error.clone())));
            return false;
        }
        let is_due = self.is_checkpoint_due(open);
        drop(journal);
        let answers: Vec<_> =
            staged.into_iter().map(|(request, entries)| (request, self.apply_durable(&entries))).collect();
        self.deadline_may_have_changed();
        answers.into_iter().for_each(|(request, outcomes)| request.answer(Ok(outcomes)));
        is_due
    }

    /// Applies the entries of one request, which are durable. Readers see all of them or none.
    fn apply_durable(&self, entries: &[Entry]) -> Vec<Outcome> {
        let mut live = write(&self.live);
        entries.iter().filter_map(|entry| live.apply(entry)).collect()
    }
}

/// Stages what can be staged, and answers the others.
fn stage_all(journal: &mut Journal, requests: Vec<Request>, now_ms: u64) -> Vec<(Request, Vec<Entry>)> {
    let mut staged = Vec::with_capacity(requests.len());
    let mut full = None;
    for request in requests {
        // A full disk is asked once for all, not by each request anew.
        let entries = full.clone().map_or_else(|| journal.stage(&request.change, now_ms), Err);
        match entries {
            Ok(entries) => staged.push((request, entries)),
            Err(error) => {
                full = Some(error.clone()).filter(|error| matches!(error, DurableError::DiskFull { .. }));
                request.answer(Err(error));
            }
        }
    }
    staged
}

/// Who leads a round. If it ends without having done so, the store is poisoned and everybody is told.
struct Leader<'a> {
    commit: &'a Commit,
    is_done: bool,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.commit.poison();
        }
        self.commit.hand_over();
    }
}
