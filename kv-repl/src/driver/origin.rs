//! The writes of this node's own clients, on their way to the leader.
//!
//! ```text
//!  queue of submissions --take--> unanswered: | sent ............ | not sent |   --answered--> gone
//!                                             ^ first             ^ next_sent
//! ```
//!
//! A submission that has been taken has sequence numbers in this process's session and will be sent until it is
//! answered: whenever the leader changes, the connection to it is new, or an entry shows a gap, sending begins again at
//! `first`. Doubles are harmless, because the session executes each number once (see `sessions`). A submission that has
//! not been taken has entered no log, and can still be refused; so none is taken while there is no leader. One that has
//! been taken and whose client has given it up is sent again without its commands: if they have not been executed yet,
//! they never will be.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::replicated::{COMMAND_HEADER_BYTES, put_command, session_payload};
use super::shared::Answer;
use crate::message::Proposal;
use crate::types::{Kind, NodeId, Term, kind};

/// Bytes of commands without an answer. With seven nodes this stays below the core's bound on uncommitted bytes.
const WINDOW_BYTES: usize = 8 << 20;
/// Commands without an answer.
const WINDOW_COMMANDS: usize = 64 << 10;
/// Sending again for want of an answer begins after this, and then waits twice as long each time.
const RESEND_WAIT: Duration = Duration::from_secs(1);
const RESEND_WAIT_MAX: Duration = Duration::from_secs(30);
/// A gap shows in every entry behind it; one resend mends them all.
const GAP_RESEND_PAUSE: Duration = Duration::from_millis(50);

/// Commands of one client, to be executed in this order.
pub(crate) struct Submission<O> {
    pub(crate) reply: oneshot::Sender<Vec<Answer<O>>>,
    pub(crate) ticket: Ticket,
}

/// Holds the commands of a submission, and decides the race between giving it up and sending it.
///
/// ```text
///  Queued --take--> Taken --give_up--> Abandoned
///     `-----give_up----> GivenUp
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Ticket(Arc<Mutex<Stage>>);

#[derive(Debug)]
enum Stage {
    /// The commands, and the room that they take up in the queue. Whoever leaves this stage leaves nothing of them behind.
    Queued {
        commands: Vec<(Kind, Bytes)>,
        _room: OwnedSemaphorePermit,
    },
    Taken,
    GivenUp,
    Abandoned,
}

impl Ticket {
    pub(crate) fn new(commands: Vec<(Kind, Bytes)>, room: OwnedSemaphorePermit) -> Ticket {
        Ticket(Arc::new(Mutex::new(Stage::Queued { commands, _room: room })))
    }

    /// The commands, unless the submission had been given up; now it never can be.
    fn take(&self) -> Option<Vec<(Kind, Bytes)>> {
        let mut stage = self.0.lock();
        match &mut *stage {
            Stage::Queued { commands, .. } => {
                let commands = mem::take(commands);
                *stage = Stage::Taken;
                Some(commands)
            }
            _ => None,
        }
    }

    /// True if the submission had not been taken, and now never will be. Otherwise it is not executed any more if that can
    /// be avoided.
    pub(crate) fn give_up(&self) -> bool {
        let mut stage = self.0.lock();
        let unsent = matches!(*stage, Stage::Queued { .. } | Stage::GivenUp);
        *stage = if unsent { Stage::GivenUp } else { Stage::Abandoned };
        unsent
    }

    fn is_abandoned(&self) -> bool {
        matches!(*self.0.lock(), Stage::Abandoned)
    }
}

/// See the file's documentation.
pub(crate) struct Origin {
    node: NodeId,
    nonce: u64,
    session: Option<u64>,
    /// Leader, its term, and when it was asked to open the session.
    session_asked: Option<(NodeId, Term, Duration)>,
    unanswered: VecDeque<Proposal>,
    /// The submissions that the unanswered commands came with: number behind the last, and the ticket.
    tickets: VecDeque<(u64, Ticket)>,
    bytes: usize,
    first: u64,
    next_sent: u64,
    /// Whom `next_sent` is about.
    target: Option<(NodeId, Term)>,
    resend_at: Duration,
    resend_wait: Duration,
    gap_resent_at: Option<Duration>,
}

impl Origin {
    pub(crate) fn new(node: NodeId, nonce: u64) -> Origin {
        Origin {
            node,
            nonce,
            session: None,
            session_asked: None,
            unanswered: VecDeque::new(),
            tickets: VecDeque::new(),
            bytes: 0,
            first: 1,
            next_sent: 1,
            target: None,
            resend_at: Duration::ZERO,
            resend_wait: RESEND_WAIT,
            gap_resent_at: None,
        }
    }

    /// Whether another submission may be taken.
    pub(crate) fn has_room(&self) -> bool {
        let room = self.bytes < WINDOW_BYTES && self.unanswered.len() < WINDOW_COMMANDS;
        self.session.is_some() && self.target.is_some() && room
    }

    /// Gives numbers to the commands of a submission, and says which; `None` if its client has given it up.
    pub(crate) fn take(&mut self, ticket: &Ticket) -> Option<Range<u64>> {
        let session = self.session.expect("submissions are taken within a session");
        let commands = ticket.take()?;
        let first = self.first + self.unanswered.len() as u64;
        let end = first + commands.len() as u64;
        let payload_bytes: usize = commands.iter().map(|(_, command)| COMMAND_HEADER_BYTES + command.len()).sum();
        let mut buffer = BytesMut::with_capacity(payload_bytes);
        for (sequence, (kind, command)) in (first..).zip(commands) {
            put_command(session, sequence, &command, &mut buffer);
            self.unanswered.push_back(Proposal { kind, payload: buffer.split().freeze() });
        }
        self.bytes += payload_bytes;
        self.tickets.push_back((end, ticket.clone()));
        Some(first..end)
    }

    /// Everything before `next` has its answer.
    pub(crate) fn answered(&mut self, now: Duration, next: u64) {
        if next <= self.first {
            return;
        }
        for _ in self.first..next {
            let done = self.unanswered.pop_front().expect("only what was taken is answered");
            self.bytes -= done.payload.len();
        }
        while self.tickets.front().is_some_and(|(end, _)| *end <= next) {
            self.tickets.pop_front();
        }
        self.first = next;
        self.next_sent = self.next_sent.max(next);
        self.resend_wait = RESEND_WAIT;
        self.resend_at = now + self.resend_wait;
    }

    /// The leader is this one: begins again if it is another than before.
    pub(crate) fn aim(&mut self, now: Duration, target: Option<(NodeId, Term)>) {
        if self.target != target {
            self.target = target;
            self.send_again(now);
        }
    }

    /// The connection to the leader is a new one: what was on the old one may be lost.
    pub(crate) fn send_again(&mut self, now: Duration) {
        self.next_sent = self.first;
        self.session_asked = None;
        self.resend_at = now + self.resend_wait;
        self.drop_abandoned();
    }

    /// Replaces the commands that nobody waits for by ones without effect, which take their numbers.
    fn drop_abandoned(&mut self) {
        let mut position = 0;
        for (end, ticket) in &self.tickets {
            let end = (end - self.first) as usize;
            if ticket.is_abandoned() {
                for proposal in self.unanswered.range_mut(position..end) {
                    self.bytes -= proposal.payload.len() - COMMAND_HEADER_BYTES;
                    proposal.kind = kind::SKIP;
                    proposal.payload.truncate(COMMAND_HEADER_BYTES);
                }
            }
            position = end;
        }
    }

    /// An entry showed that a command before it is missing.
    pub(crate) fn gap_seen(&mut self, now: Duration) {
        if self.gap_resent_at.is_none_or(|at| now >= at + GAP_RESEND_PAUSE) {
            self.gap_resent_at = Some(now);
            self.send_again(now);
        }
    }

    /// Nothing was answered for long: a message must have been lost.
    pub(crate) fn resend_if_stuck(&mut self, now: Duration) {
        if !self.unanswered.is_empty() && now >= self.resend_at {
            self.resend_wait = (self.resend_wait * 2).min(RESEND_WAIT_MAX);
            self.send_again(now);
        }
    }

    /// The session is open: its number.
    pub(crate) fn session_opened(&mut self, session: u64) {
        self.session = Some(session);
    }

    /// The session has ended, or never was: begins again as the process `nonce`. What was unanswered stays so.
    pub(crate) fn session_replaced(&mut self, nonce: u64) {
        *self = Origin { target: self.target, ..Origin::new(self.node, nonce) };
    }

    /// What opens the session, if that has to be asked for now.
    pub(crate) fn session_request(&self, now: Duration) -> Option<Proposal> {
        let (leader, term) = self.target?;
        let asked = self.session_asked.is_some_and(|(l, t, at)| (l, t) == (leader, term) && now < at + RESEND_WAIT);
        let needed = self.session.is_none() && !asked;
        needed.then(|| Proposal { kind: kind::SESSION, payload: session_payload(self.node, self.nonce) })
    }

    /// The request for the session has been sent.
    pub(crate) fn session_requested(&mut self, now: Duration) {
        self.session_asked = self.target.map(|(leader, term)| (leader, term, now));
    }

    /// The next commands to send, at most `bytes_max` of them but at least one; empty if all have been sent.
    pub(crate) fn unsent(&self, bytes_max: usize) -> Vec<Proposal> {
        let skip = (self.next_sent - self.first) as usize;
        let mut bytes = 0;
        let fits = |proposal: &&Proposal| {
            let first = bytes == 0;
            bytes += proposal.payload.len();
            first || bytes <= bytes_max
        };
        self.unanswered.iter().skip(skip).take_while(fits).cloned().collect()
    }

    /// This many more have been sent.
    pub(crate) fn sent(&mut self, now: Duration, count: usize) {
        if self.next_sent == self.first {
            self.resend_at = now + self.resend_wait;
        }
        self.next_sent += count as u64;
    }

    /// When something has to be looked at again, if nothing else happens.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let asked = self.session_asked.filter(|_| self.session.is_none()).map(|(_, _, at)| at + RESEND_WAIT);
        let stuck = (!self.unanswered.is_empty()).then_some(self.resend_at);
        asked.into_iter().chain(stuck).min()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const LEADER: (NodeId, Term) = (NodeId::new(2), Term::new(1));

    fn origin() -> Origin {
        let mut origin = Origin::new(NodeId::new(1), 5);
        origin.aim(NOW, Some(LEADER));
        origin.session_opened(9);
        origin
    }

    fn submission(commands: usize) -> Ticket {
        let commands = (0..commands).map(|_| (kind::COMMAND, Bytes::from_static(b"x"))).collect();
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("one is free");
        Ticket::new(commands, room)
    }

    #[test]
    fn numbers_are_consecutive_across_submissions_and_answers() {
        let mut origin = origin();
        assert_eq!(origin.take(&submission(3)), Some(1..4));
        assert_eq!(origin.take(&submission(2)), Some(4..6));
        origin.sent(NOW, origin.unsent(1 << 20).len());
        origin.answered(NOW, 4);
        assert_eq!(origin.take(&submission(1)), Some(6..7));
        assert_eq!(origin.unsent(1 << 20).len(), 1, "two are sent, one is not");
    }

    #[test]
    fn a_new_leader_gets_everything_unanswered_in_order() {
        let mut origin = origin();
        origin.take(&submission(5));
        let all = origin.unsent(1 << 20);
        origin.sent(NOW, 5);
        assert!(origin.unsent(1 << 20).is_empty());
        origin.answered(NOW, 3);
        origin.aim(NOW, Some((NodeId::new(3), Term::new(2))));
        assert_eq!(origin.unsent(1 << 20), all[2..]);
    }

    #[test]
    fn nothing_is_taken_without_leader_or_session() {
        let mut origin = Origin::new(NodeId::new(1), 5);
        assert!(!origin.has_room());
        origin.aim(NOW, Some(LEADER));
        assert!(!origin.has_room(), "no session yet");
        origin.session_opened(9);
        assert!(origin.has_room());
        origin.aim(NOW, None);
        assert!(!origin.has_room(), "no leader");
    }

    #[test]
    fn given_up_or_taken_but_never_both() {
        let mut origin = origin();
        let late = submission(1);
        assert!(late.give_up());
        assert_eq!(origin.take(&late), None);
        let early = submission(1);
        assert_eq!(origin.take(&early), Some(1..2));
        assert!(!early.give_up(), "it may be executed");
    }

    #[test]
    fn what_was_given_up_takes_no_room_and_no_memory() {
        let room = Arc::new(Semaphore::new(3));
        let command = Bytes::from(vec![0; 1000]);
        let ticket = |permits| {
            let room = room.clone().try_acquire_many_owned(permits).expect("free");
            Ticket::new(vec![(kind::COMMAND, command.clone())], room)
        };
        let (given_up, taken) = (ticket(1), ticket(2));
        assert!(given_up.give_up());
        assert_eq!(room.available_permits(), 1);
        origin().take(&taken);
        assert_eq!(room.available_permits(), 3);
        assert!(command.is_unique(), "nobody holds it any more, although both tickets are there");
    }

    #[test]
    fn an_abandoned_command_is_not_sent_again_but_its_number_is() {
        let mut origin = origin();
        let (kept, abandoned) = (submission(2), submission(2));
        origin.take(&kept);
        origin.take(&abandoned);
        origin.sent(NOW, 4);
        origin.answered(NOW, 2);
        assert!(!abandoned.give_up(), "it was sent");
        origin.send_again(NOW);
        let kinds: Vec<Kind> = origin.unsent(1 << 20).iter().map(|proposal| proposal.kind).collect();
        assert_eq!(kinds, [kind::COMMAND, kind::SKIP, kind::SKIP]);
        origin.send_again(NOW);
        origin.answered(NOW, 5);
        assert_eq!(origin.bytes, 0);
    }

    #[test]
    fn without_its_session_it_begins_again() {
        let mut origin = origin();
        origin.take(&submission(3));
        origin.sent(NOW, 2);
        origin.session_replaced(7);
        assert!(!origin.has_room(), "no session");
        let request = origin.session_request(NOW).expect("it asks for another one");
        assert_eq!(request.payload, session_payload(NodeId::new(1), 7));
        origin.session_opened(12);
        assert!(origin.unsent(1 << 20).is_empty());
        assert_eq!(origin.take(&submission(1)), Some(1..2));
    }

    #[test]
    fn silence_leads_to_sending_again_ever_more_slowly() {
        let mut origin = origin();
        origin.take(&submission(1));
        origin.sent(NOW, 1);
        origin.resend_if_stuck(NOW + RESEND_WAIT / 2);
        assert!(origin.unsent(1 << 20).is_empty());
        origin.resend_if_stuck(NOW + RESEND_WAIT);
        assert_eq!(origin.unsent(1 << 20).len(), 1);
        assert_eq!(origin.deadline(), Some(NOW + RESEND_WAIT * 3));
    }

    #[test]
    fn one_gap_is_mended_once() {
        let mut origin = origin();
        origin.take(&submission(3));
        origin.sent(NOW, 3);
        origin.gap_seen(NOW);
        assert_eq!(origin.unsent(1 << 20).len(), 3);
        origin.sent(NOW, 3);
        origin.gap_seen(NOW);
        assert!(origin.unsent(1 << 20).is_empty(), "the second entry shows the same gap");
    }
}
