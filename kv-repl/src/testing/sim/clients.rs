//! Clients: each does one operation after the other, at any node, and remembers what it was told.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::{Event, Request, Simulation, Workload};
use crate::StateMachine;
use crate::driver::simulated::{PendingWrite, WriteResult};
use crate::testing::linearizability::{Model, Operation, check};
use crate::types::Index;

type Input<W> = <<W as Workload>::Model as Model>::Input;
type Output<W> = <<W as Workload>::Model as Model>::Output;
type History<W> = Vec<Operation<Input<W>, Output<W>>>;
type Outcome<W> = <<W as Workload>::Machine as StateMachine>::Outcome;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it thinks before the next operation, at most.
const THINKING: Duration = Duration::from_millis(50);

/// A node gets so many commands at once that nobody waits for, so often, at most.
const NOISE_MAX: u64 = 300;
const NOISE_EVERY: Duration = Duration::from_secs(4);

/// A client, and what it waits for.
pub(super) struct Client<W: Workload> {
    waiting: Option<Waiting<W>>,
    operations: u64,
    /// Operations that it got an answer to.
    pub(super) done: u64,
}

struct Waiting<W: Workload> {
    node: usize,
    operation: u64,
    called: u64,
    object: u64,
    input: Input<W>,
    answer: Answer<W>,
}

enum Answer<W: Workload> {
    Write(PendingWrite<Outcome<W>>),
    Read(oneshot::Receiver<Index>),
}

/// What becomes of an operation.
enum End<W: Workload> {
    Done(Output<W>),
    Unknown,
    /// It has had no effect, and said nothing.
    Nothing,
}

/// The history of each object, and the clock that its times are of: it counts what clients do and see.
pub(super) struct Objects<W: Workload> {
    histories: BTreeMap<u64, History<W>>,
    clock: u64,
}

impl<W: Workload> Default for Client<W> {
    fn default() -> Self {
        Client { waiting: None, operations: 0, done: 0 }
    }
}

impl<W: Workload> Default for Objects<W> {
    fn default() -> Self {
        Objects { histories: BTreeMap::new(), clock: 0 }
    }
}

impl<W: Workload> Objects<W> {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn add(&mut self, object: u64, operation: Operation<Input<W>, Output<W>>) {
        self.histories.entry(object).or_default().push(operation);
    }
}

impl<W: Workload> Simulation<W> {
    /// A client does its next operation.
    pub(super) fn operate(&mut self, client: usize) {
        if self.clients[client].waiting.is_some() {
            return;
        }
        let node = self.random.below(self.machines.len() as u64) as usize;
        let request = self.workload.next(&mut self.random);
        self.ask(client, node, request);
    }

    /// A node is given much to do at once.
    pub(super) fn make_noise(&mut self) {
        self.plan_within(NOISE_EVERY, Event::Noise);
        let node = self.random.below(self.machines.len() as u64) as usize;
        let count = if self.is_calm || !self.settings.noise { 0 } else { self.random.below(NOISE_MAX) };
        for _ in 0..count {
            let Some(running) = self.machines[node].node.as_ref() else { return };
            let Some(command) = self.workload.noise(&mut self.random) else { return };
            running.submit(command);
        }
        self.settle_unless_paused(node);
    }

    fn settle_unless_paused(&mut self, node: usize) {
        if self.machines[node].paused_until <= self.now {
            self.settle(node);
        }
    }

    fn ask(&mut self, client: usize, node: usize, request: Request<Input<W>>) {
        let Some(running) = self.machines[node].node.as_ref() else {
            return self.plan_within(THINKING, Event::Client { client });
        };
        let answer = match request.command {
            Some(command) => Answer::Write(running.submit(command)),
            None => Answer::Read(running.read()),
        };
        let is_read = matches!(answer, Answer::Read(_));
        let called = self.objects.tick();
        let state = &mut self.clients[client];
        state.operations += 1;
        let operation = state.operations;
        let (object, input) = (request.object, request.input);
        state.waiting = Some(Waiting { node, operation, called, object, input, answer });
        self.plan(PATIENCE, Event::GiveUp { client, operation });
        let before = self.clients[client].done;
        self.settle_unless_paused(node);
        // Without a lease it would have had to ask.
        self.report.leased += u64::from(is_read && self.clients[client].done > before);
    }

    /// Whoever waits for this node looks whether there is an answer.
    pub(super) fn answer_clients(&mut self, node: usize) {
        for client in 0..self.clients.len() {
            if let Some(end) = self.look_for_answer(client, node) {
                self.finish(client, end);
            }
        }
    }

    fn look_for_answer(&mut self, client: usize, node: usize) -> Option<End<W>> {
        let waiting = self.clients[client].waiting.as_mut().filter(|waiting| waiting.node == node)?;
        match &mut waiting.answer {
            Answer::Write(write) => write.poll().map(|result| end_of_write(result)),
            Answer::Read(read) => match read.try_recv() {
                Ok(_) => {
                    let running = self.machines[node].node.as_ref().expect("it has answered");
                    Some(End::Done(running.look(|machine| W::look(machine, waiting.object, &waiting.input))))
                }
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Closed) => Some(End::Nothing),
            },
        }
    }

    /// A client has waited long enough.
    pub(super) fn give_up(&mut self, client: usize, operation: u64) {
        let Some(waiting) = self.clients[client].waiting.as_ref() else { return };
        if waiting.operation == operation {
            let end = match &waiting.answer {
                Answer::Write(write) => end_of_write(write.give_up()),
                Answer::Read(_) => End::Nothing,
            };
            self.finish(client, end);
        }
    }

    fn finish(&mut self, client: usize, end: End<W>) {
        let Some(waiting) = self.clients[client].waiting.take() else { return };
        let Waiting { called, object, input, .. } = waiting;
        let returned = match end {
            End::Done(output) => {
                self.clients[client].done += 1;
                self.report.operations += 1;
                Some((self.objects.tick(), output))
            }
            End::Unknown => {
                self.report.unknown += 1;
                None
            }
            End::Nothing => return self.plan_within(THINKING, Event::Client { client }),
        };
        let others = self.clients.iter().filter_map(|other| other.waiting.as_ref());
        self.report.concurrent += u64::from(others.into_iter().any(|other| other.object == object));
        self.objects.add(object, Operation { called, returned, input });
        self.plan_within(THINKING, Event::Client { client });
    }

    /// Every object is read once more, and everything must be explained.
    pub(super) fn judge(&mut self) {
        self.report.terms = self.leaders.len() as u64;
        let objects: Vec<u64> = self.objects.histories.keys().copied().collect();
        for object in objects {
            let before = self.clients[0].done;
            let until = self.now + self.settings.calm_within;
            // The client may be in the middle of something.
            while self.clients[0].waiting.is_some() {
                self.step();
            }
            let request = Request { object, input: W::last_read(), command: None };
            let node = self.random.below(self.machines.len() as u64) as usize;
            self.ask(0, node, request);
            while self.clients[0].done == before || self.clients[0].waiting.is_some() {
                assert!(self.now < until, "a read is not answered when all is calm\n{}", self.describe());
                self.step();
            }
        }
        for client in 0..self.clients.len() {
            // What is under way may have had its effect.
            if self.clients[client].waiting.as_ref().is_some_and(|waiting| matches!(waiting.answer, Answer::Write(_))) {
                self.finish(client, End::Unknown);
            }
        }
        for (object, history) in &self.objects.histories {
            if let Err(contradiction) = check::<W::Model>(history) {
                let line = |(at, operation)| format!("{at}: {operation:?}\n");
                let all: String = history.iter().enumerate().map(line).collect();
                panic!("object {object}: {contradiction}\n{all}{}", self.describe());
            }
        }
    }
}

fn end_of_write<W: Workload>(result: WriteResult<Outcome<W>>) -> End<W> {
    match result {
        WriteResult::Done(outcome) => End::Done(W::outcome(outcome)),
        WriteResult::Unknown => End::Unknown,
        WriteResult::NotMade => End::Nothing,
    }
}
