//! The one task that owns the core: takes everything that has arrived, hands it over, carries out what comes out.
//!
//! ```text
//!   peers ----> [peer events] --+                      +--> log thread ----> Own::Durable --+
//!   clients --> [submissions] --+--> turn: core -------+--> applier -------> Own::...       +--> next turn
//!   clients --> [reads] --------+                      +--> snapshot thread > Own::...    --+
//!   threads --> [own] ----------+                      +--> links to the peers
//! ```
//!
//! A turn takes whatever is there in all queues and then drains the core's outputs once, so that work batches by itself
//! under load and nothing waits when there is none. The queues from outside are bounded. The queue of the node's own
//! threads is not, because a thread that waited for the core while the core waited for it would never end; each thread
//! has at most as much in it as the core has asked for.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::applier::ApplyTask;
use super::apply_queue::ApplyQueue;
use super::clock::Clock;
use super::host::{Host, monotonic};
use super::log_writer::{LogQueue, LogTask};
use super::marks::Marks;
use super::origin::{Origin, Submission};
use super::peers::{Link, PeerEvent};
use super::reads::{ReadRequest, Reads};
use super::replicated::Replicated;
use super::shared::{CoreView, Shared};
use super::snapshots::SnapshotTask;
use super::traits::{LogReader, StateMachine};
use crate::message::{Forward, Message, Proposal};
use crate::planted::{self, Mistake};
use crate::raft::{
    Apply, Durable, LogRead, LogReadResult, Output, Raft, ReadLog, Role, SnapshotProgress, TransferError,
};
#[cfg(feature = "testing")]
use crate::types::Configuration;
use crate::types::{Entries, Entry, EntryId, Index, Member, NodeId, kind};

/// Events taken from one queue in one turn.
const TURN_EVENTS: usize = 256;
/// A task that has nothing to do looks round after this.
const IDLE: Duration = Duration::from_secs(1);
/// Bytes of commands in one proposal or Forward message.
const FORWARD_BYTES: usize = 1 << 20;
/// The log is kept for followers that are catching up, but for no more checkpoints than this.
const KEPT_CHECKPOINTS_MAX: usize = 8;

/// What the node's own threads and its handle tell the core's task.
pub(crate) enum Own {
    /// A sync has covered this.
    Durable(Durable),
    /// The log has no room for what it was given, or has room again.
    DiskFull(bool),
    /// Entries for a peer have been read.
    LogRead(LogRead),
    /// These are in the place of lost ones now.
    Repaired(Entries),
    /// This node's state is not that of the majority, or is again.
    Diverged(bool),
    /// The mark at this index was applied, with this state hash.
    Marked(Index, [u8; 32]),
    /// A piece of a checkpoint was stored, or not.
    Snapshot { from: Member, progress: SnapshotProgress },
    /// A message that another thread has prepared.
    Send { to: Member, message: Message },
    /// This process has its session.
    SessionOpen(u64),
    /// Another process has the session of this node: this one asks for its own again, with this nonce.
    SessionReplaced { nonce: u64 },
    /// A command of this process is missing in the log.
    Resend,
    /// Commands of this process have been answered, for which the task waited.
    Answered,
    /// The state machine has another next deadline, or has let only some of what has expired go.
    Deadline,
    /// The log up to here is no longer needed.
    Checkpointed(EntryId),
    /// A follower needs a checkpoint that reaches over this entry, and there is none.
    CheckpointWanted { needed: Index },
    /// A thread can't go on, and so this node can't either.
    Failed(String),
    /// The owner wants another node to lead: this one, or any.
    Transfer { to: Option<NodeId>, reply: oneshot::Sender<Result<NodeId, TransferError>> },
    /// A simulation wants other members.
    #[cfg(feature = "testing")]
    Change(Configuration),
    /// The owner wants the node to end.
    Stop,
}

/// The queues that the task takes from.
pub(crate) struct Inboxes<O> {
    pub(crate) peers: mpsc::Receiver<PeerEvent>,
    pub(crate) own: mpsc::UnboundedReceiver<Own>,
    pub(crate) submissions: mpsc::Receiver<Submission<O>>,
    pub(crate) reads: mpsc::Receiver<ReadRequest>,
}

/// What one turn has to handle.
struct Turn<O> {
    own: Vec<Own>,
    peers: Vec<PeerEvent>,
    submissions: Vec<Submission<O>>,
    reads: Vec<ReadRequest>,
}

/// Adds to `events` whatever `next` gives, up to the limit of one turn.
fn fill<T>(events: &mut Vec<T>, next: impl FnMut() -> Option<T>) {
    let room = TURN_EVENTS.saturating_sub(events.len());
    events.extend(std::iter::from_fn(next).take(room));
}

/// The core and everything it gives work to.
pub(crate) struct Task<S: StateMachine, R: LogReader> {
    pub(crate) raft: Raft,
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) reader: R,
    pub(crate) log: LogQueue,
    pub(crate) apply: ApplyQueue<S, R>,
    pub(crate) snapshots: Sender<SnapshotTask>,
    /// The states that were received, in the order of their events.
    pub(crate) received: Receiver<Box<Replicated<S>>>,
    /// Those that the core has heard of, until it has said what becomes of them.
    pub(crate) unrestored: BTreeMap<EntryId, Box<Replicated<S>>>,
    /// What checkpoints cover of the log and is still there, a position for each of them, oldest first.
    pub(crate) covered: VecDeque<EntryId>,
    pub(crate) own: mpsc::UnboundedSender<Own>,
    pub(crate) links: Vec<Link>,
    pub(crate) marks: Marks,
    pub(crate) origin: Origin,
    pub(crate) reads: Reads,
    pub(crate) clock: Clock,
    pub(crate) host: Arc<dyn Host>,
}

impl<S: StateMachine, R: LogReader> Task<S, R> {
    /// Runs until the node is stopped or fails; says why.
    pub(crate) async fn run(mut self, mut inboxes: Inboxes<S::Outcome>) -> Option<String> {
        let mut turn = Turn { own: vec![], peers: vec![], submissions: vec![], reads: vec![] };
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        let (mut now, mut sleeps_until) = (monotonic(), Duration::ZERO);
        loop {
            self.finish_turn(now);
            let deadline = self.deadline().unwrap_or(now + IDLE);
            if sleeps_until != deadline || sleep.is_elapsed() {
                sleep.as_mut().reset(Instant::now() + deadline.saturating_sub(monotonic()));
                sleeps_until = deadline;
            }
            tokio::select! {
                _ = inboxes.own.recv_many(&mut turn.own, TURN_EVENTS) => {}
                count = inboxes.peers.recv_many(&mut turn.peers, TURN_EVENTS) => {
                    if count == 0 {
                        return Some("the tasks of the peers have ended".to_owned());
                    }
                }
                _ = inboxes.submissions.recv_many(&mut turn.submissions, TURN_EVENTS), if self.may_take() => {}
                _ = inboxes.reads.recv_many(&mut turn.reads, TURN_EVENTS), if self.reads.has_room() => {}
                () = &mut sleep => {}
            }
            self.gather(&mut inboxes, &mut turn);
            now = monotonic();
            if let ControlFlow::Break(reason) = self.handle(now, &mut turn) {
                return reason;
            }
        }
    }

    /// One turn, with whatever has arrived. Breaks when the node ends, and says why if nobody asked for it.
    #[cfg(feature = "testing")]
    pub(crate) fn turn(&mut self, now: Duration, inboxes: &mut Inboxes<S::Outcome>) -> ControlFlow<Option<String>> {
        let mut turn = Turn { own: vec![], peers: vec![], submissions: vec![], reads: vec![] };
        self.gather(inboxes, &mut turn);
        self.handle(now, &mut turn)?;
        self.finish_turn(now);
        ControlFlow::Continue(())
    }

    /// One queue has woken the task; whatever is in the others comes along.
    fn gather(&mut self, inboxes: &mut Inboxes<S::Outcome>, turn: &mut Turn<S::Outcome>) {
        fill(&mut turn.own, || inboxes.own.try_recv().ok());
        fill(&mut turn.peers, || inboxes.peers.try_recv().ok());
        if self.may_take() {
            fill(&mut turn.submissions, || inboxes.submissions.try_recv().ok());
        }
        if self.reads.has_room() {
            fill(&mut turn.reads, || inboxes.reads.try_recv().ok());
        }
    }

    fn handle(&mut self, now: Duration, turn: &mut Turn<S::Outcome>) -> ControlFlow<Option<String>> {
        for event in turn.own.drain(..) {
            match event {
                Own::Stop => return ControlFlow::Break(None),
                Own::Failed(reason) => return ControlFlow::Break(Some(reason)),
                event => self.handle_own(now, event),
            }
        }
        for event in turn.peers.drain(..) {
            self.handle_peer(now, event);
        }
        // If that has ended the session, they wait for the next one.
        if self.may_take() {
            for submission in turn.submissions.drain(..) {
                if let Some(numbers) = self.origin.take(&submission.ticket) {
                    self.shared.expect(numbers, submission.reply);
                }
            }
        }
        self.reads.add(turn.reads.drain(..));
        self.raft.handle_timeout(now);
        ControlFlow::Continue(())
    }

    /// Whether submissions are taken. Not while this node leads and has no room for them: what has not been taken is known
    /// not to happen.
    fn may_take(&self) -> bool {
        self.origin.has_room() && !self.is_refusing()
    }

    fn is_refusing(&self) -> bool {
        self.raft.is_disk_full() && self.raft.role() == Role::Leader
    }

    /// When there is something to do, if nothing arrives before.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let is_leader = self.raft.role() == Role::Leader;
        let mark = self.marks.deadline(self.raft.last().index).filter(|_| is_leader);
        let clock = self.clock.deadline();
        let all = [self.raft.poll_timeout(), self.origin.deadline(), self.reads.deadline(), mark, clock];
        all.into_iter().flatten().min()
    }

    fn handle_own(&mut self, now: Duration, event: Own) {
        match event {
            Own::Durable(durable) => self.raft.handle_durable(now, durable),
            Own::DiskFull(is_full) => self.raft.handle_disk_full(now, is_full),
            Own::LogRead(read) => self.raft.handle_log_read(now, read),
            Own::Diverged(is_diverged) => {
                self.raft.handle_diverged(now, is_diverged);
                self.tell_log(now, LogTask::Diverged { is_diverged, hard_state: self.raft.hard_state() });
            }
            Own::Marked(index, hash) => self.raft.handle_marked(now, index, hash),
            Own::Repaired(entries) => self.handle_repaired(now, &entries),
            Own::Snapshot { from, progress } => {
                if let SnapshotProgress::Received { last, .. } = &progress {
                    self.unrestored.extend(self.received.try_recv().ok().map(|state| (*last, state)));
                }
                self.raft.handle_snapshot(now, from, progress);
            }
            Own::Send { to, message } => self.send(to, message),
            Own::SessionOpen(session) => self.origin.session_opened(session),
            Own::SessionReplaced { nonce } => {
                self.origin.session_replaced(nonce);
                self.shared.answers_lost();
            }
            Own::Resend => self.origin.gap_seen(now),
            // The turn looks how many, and when.
            Own::Answered | Own::Deadline => {}
            Own::Checkpointed(upto) if self.covered.back() == Some(&upto) => {}
            Own::Checkpointed(upto) => self.covered.push_back(upto),
            Own::CheckpointWanted { needed } => self.fail_unless(self.apply.push(ApplyTask::Checkpoint { needed })),
            // Whoever asked may have gone.
            Own::Transfer { to, reply } => drop(reply.send(self.transfer(now, to))),
            // It sees what has become of it.
            #[cfg(feature = "testing")]
            Own::Change(target) => drop(self.raft.change_membership(now, &target)),
            Own::Failed(_) | Own::Stop => unreachable!("handled by the loop"),
        }
    }

    fn handle_repaired(&mut self, now: Duration, entries: &[Entry]) {
        self.raft.handle_repaired(now, entries);
        let (first, last) = (entries.first().map(Entry::index), entries.last().map(Entry::index));
        info!(first = ?first.map(Index::get), last = ?last.map(Index::get), "lost entries were repaired from another node");
        if !self.raft.is_damaged() {
            info!("the log is whole again");
        }
    }

    fn handle_peer(&mut self, now: Duration, event: PeerEvent) {
        match event {
            PeerEvent::Message { from, message: Message::Forward(forward) } => self.handle_forward(now, from, forward),
            PeerEvent::Message { from, message } => self.raft.handle_message(now, from, message),
            PeerEvent::Connected { peer, connection } => {
                self.set_connected(peer.id, true);
                self.raft.handle_connected(now, peer, connection);
                if self.raft.leader() == Some(peer.id) {
                    self.origin.send_again(now);
                }
            }
            PeerEvent::Disconnected { peer } => {
                self.set_connected(peer.id, false);
                self.raft.handle_disconnected(now, peer);
            }
            // The cluster has been founded: these are late.
            PeerEvent::Empty { .. } | PeerEvent::Found { .. } => {}
        }
    }

    /// Commands of another node's clients. If they can't be taken their origin sends them again.
    fn handle_forward(&mut self, now: Duration, from: Member, forward: Forward) {
        if forward.term != self.raft.term() || self.raft.role() != Role::Leader {
            debug!(%from, "commands were forwarded to a node that does not lead");
        } else if let Some(proposal) = forward.proposals.iter().find(|proposal| !kind::is_forwarded(proposal.kind)) {
            warn!(%from, kind = ?proposal.kind, "something was forwarded that no client can ask for; ignored");
        } else if let Err(error) = self.raft.propose(now, self.host.wall_clock_ms(), &forward.proposals) {
            debug!(%from, ?error, "forwarded commands can't be taken now");
        }
    }

    /// Gives the core what waits for it, then carries out everything it wants done.
    fn finish_turn(&mut self, now: Duration) {
        self.pump_writes(now);
        self.mark_if_due(now);
        self.tick(now);
        self.pump_reads(now);
        while let Some(output) = self.raft.poll_output() {
            self.carry_out(now, output);
        }
        self.truncate(now);
        if !self.origin.has_room() {
            // First this, or an answer might come in between.
            self.shared.await_answers();
            self.origin.answered(now, self.shared.next_unanswered());
        }
        if !self.raft.is_restoring() {
            self.unrestored.clear();
        }
        self.show_core();
    }

    fn show_core(&self) {
        let mut configuration = self.shared.core.borrow().configuration.clone();
        if *configuration != *self.raft.configuration() {
            configuration = Arc::new(self.raft.configuration().clone());
            info!(?configuration, "membership");
        }
        self.shared.see_core(CoreView {
            role: self.raft.role(),
            term: self.raft.term(),
            leader: self.raft.leader(),
            last: self.raft.last().index,
            committed: self.raft.committed(),
            is_disk_full: self.is_refusing(),
            transfer_to: self.raft.transfer_to(),
            is_damaged: self.raft.is_damaged(),
            configuration,
        });
    }

    /// Begins to hand leadership over, to whoever had best have it if the caller does not say.
    fn transfer(&mut self, now: Duration, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let to = to.or_else(|| self.raft.successor()).unwrap_or(self.raft.me().id);
        self.raft.transfer_leadership(now, to)?;
        // Before the caller looks there.
        self.show_core();
        Ok(to)
    }

    /// Truncates the log as far as it is covered, and kept for no follower that is catching up.
    fn truncate(&mut self, now: Duration) {
        let floor = self.raft.truncation_floor();
        while let Some(upto) = self.covered.front().copied() {
            if upto.index > floor && self.covered.len() <= KEPT_CHECKPOINTS_MAX {
                return;
            }
            self.covered.pop_front();
            if self.raft.handle_truncated(upto) {
                self.tell_log(now, LogTask::Truncate(upto));
            }
        }
    }

    /// Puts a mark into the log, at which all replicas compare their states.
    fn mark_if_due(&mut self, now: Duration) {
        if self.raft.role() == Role::Leader && self.marks.is_due(now, self.raft.last().index) {
            let mark = Proposal { kind: kind::MARK, payload: Bytes::new() };
            if let Err(error) = self.raft.propose(now, self.host.wall_clock_ms(), &[mark]) {
                debug!(?error, "no mark can be made now");
            }
            self.marks.made(now, self.raft.last().index);
        }
    }

    /// Sends on the writes of this node's clients, as far as the leader takes them.
    fn pump_writes(&mut self, now: Duration) {
        self.origin.answered(now, self.shared.next_unanswered());
        self.origin.aim(now, self.raft.leader().map(|leader| (leader, self.raft.term())));
        self.origin.resend_if_stuck(now);
        if let Some(request) = self.origin.session_request(now) {
            // If it can't be taken now, there is no use in asking at once again: this would spin.
            let is_submitted = self.submit(now, vec![request]);
            if is_submitted || !planted::is(Mistake::SessionRequestSpins) {
                self.origin.session_requested(now);
            }
        }
        loop {
            let batch = self.origin.unsent(FORWARD_BYTES);
            let count = batch.len();
            if count == 0 || !self.submit(now, batch) {
                return;
            }
            self.origin.sent(now, count);
        }
    }

    /// Asks for those who want to read, unless a lease says that they may.
    fn pump_reads(&mut self, now: Duration) {
        if self.reads.is_waiting()
            && let Some(index) = self.raft.lease_read(now)
        {
            self.shared.answer_when_applied(index, self.reads.take_waiting());
        } else if let Some(token) = self.reads.ask(now, self.raft.leader().is_some()) {
            self.raft.read(now, token);
        }
    }

    /// Hands proposals to the leader, be it this node or another; false if that can't be done now.
    fn submit(&mut self, now: Duration, proposals: Vec<Proposal>) -> bool {
        match self.raft.leader() {
            None => false,
            Some(leader) if leader == self.raft.me().id => {
                self.raft.propose(now, self.host.wall_clock_ms(), &proposals).is_ok()
            }
            Some(leader) => {
                let forward = Message::Forward(Forward { term: self.raft.term(), proposals });
                self.link(leader).is_some_and(|link| link.send(forward))
            }
        }
    }

    fn carry_out(&mut self, now: Duration, output: Output) {
        match output {
            Output::Send { to, message } => self.send(to, message),
            Output::Write(write) => self.tell_log(now, LogTask::Write(write)),
            Output::Apply(apply) => self.carry_out_apply(apply),
            Output::Restore { last } => {
                let state = self.unrestored.remove(&last).expect("the core has heard of it, and only of what is there");
                let restored = self.apply.push(ApplyTask::Restore(state));
                self.fail_unless(restored);
            }
            Output::ReadLog(request) => self.read_log(request),
            Output::Repair(entries) => self.tell_log(now, LogTask::Repair(entries)),
            Output::ForgetPrefix(upto) => {
                info!(%upto, "the received checkpoint covers what the log has lost up to there");
                self.tell_log(now, LogTask::Truncate(upto));
            }
            Output::LogLost { first } => {
                self.tell_log(now, LogTask::GiveUp { first, hard_state: self.raft.hard_state() });
            }
            Output::Unreadable { first } => self.fail(format!(
                "log: entry {first} cannot be read any more, and is not known to be committed; started again, this node asks \
                 the others for it"
            )),
            Output::SendSnapshot(request) => self.tell_snapshots(SnapshotTask::Send(request)),
            Output::VerifySnapshot { last } => self.tell_snapshots(SnapshotTask::Verify(last)),
            Output::SnapshotPiece { from, piece } => self.tell_snapshots(SnapshotTask::Piece { from, piece }),
            Output::ReadReady { token, index } => {
                let callers = self.reads.answered(token);
                self.shared.answer_when_applied(index, callers.into_iter());
            }
            Output::ReadRejected { token } => self.reads.rejected(now, token),
            Output::Role(change) => {
                info!(role = ?change.role, term = %change.term, leader = ?change.leader.map(NodeId::get), "role");
                self.reads.leader_changed();
                if change.role != Role::Leader {
                    self.tell_snapshots(SnapshotTask::Stop);
                }
            }
        }
    }

    fn carry_out_apply(&mut self, apply: Apply) {
        let applied = match apply {
            Apply::Stored { first, last } => self.apply.push(ApplyTask::Stored { first, last }),
            Apply::Entries(pieces) => self.apply.apply(pieces, self.raft.durable()),
        };
        self.fail_unless(applied);
    }

    /// Old entries for a peer: reading them may have to wait for the disk, so it is not done here.
    fn read_log(&self, request: ReadLog) {
        let (reader, own) = (self.reader.clone(), self.own.clone());
        let read = move || {
            let range = request.from..reader.last().index.next();
            match reader.read(range, request.bytes_max) {
                Ok(entries) if !entries.is_empty() => LogReadResult::Entries(entries.into()),
                Ok(_) => LogReadResult::Gone,
                Err(error) => {
                    debug!(%error, from = %request.from, "entries for a peer are not in the log");
                    LogReadResult::Gone
                }
            }
        };
        self.host.run_aside(Box::new(move || {
            // The peer is sent nothing until there is an answer, so there always is one.
            let result = catch_unwind(AssertUnwindSafe(read)).unwrap_or(LogReadResult::Gone);
            // The core may have ended first.
            let _ = own.send(Own::LogRead(LogRead { peer: request.peer, token: request.token, result }));
        }));
    }

    fn send(&self, to: Member, message: Message) {
        let sent = self.link(to.id).is_some_and(|link| link.send(message));
        if !sent {
            debug!(%to, "a message was dropped: the queue to the peer is full");
        }
    }

    fn link(&self, to: NodeId) -> Option<&Link> {
        self.links.iter().find(|link| link.peer == to)
    }

    fn set_connected(&self, peer: NodeId, connected: bool) {
        self.shared.peers.lock().entry(peer).or_default().connected = connected;
    }

    // A thread whose queue is closed has failed; its Own::Failed is on the way and ends this task.

    fn tell_log(&mut self, now: Duration, task: LogTask) {
        match (self.log)(task) {
            Some(Own::Failed(reason)) => self.fail(reason),
            Some(own) => self.handle_own(now, own),
            None => {}
        }
    }

    fn fail_unless(&self, done: Result<(), String>) {
        if let Err(reason) = done {
            self.fail(reason);
        }
    }

    /// Ends this task with its next turn.
    fn fail(&self, reason: String) {
        let _ = self.own.send(Own::Failed(reason));
    }

    fn tell_snapshots(&self, task: SnapshotTask) {
        let _ = self.snapshots.send(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_takes_what_is_there_up_to_its_limit() {
        let (sender, mut inbox) = mpsc::channel(2 * TURN_EVENTS);
        for number in 0..TURN_EVENTS + 5 {
            sender.try_send(number).expect("there is room");
        }
        let mut events = Vec::new();
        events.extend(inbox.try_recv());
        fill(&mut events, || inbox.try_recv().ok());
        assert_eq!(events.len(), TURN_EVENTS);
        events.clear();
        fill(&mut events, || inbox.try_recv().ok());
        assert_eq!(events, (TURN_EVENTS..TURN_EVENTS + 5).collect::<Vec<_>>());
    }
}
