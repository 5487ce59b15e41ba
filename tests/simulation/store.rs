//! Clients of kv-store: registers that are set, replaced, appended to and deleted, and counters.

use bytes::Bytes;
use kv_repl::testing::linearizability::Model;
use kv_repl::testing::sim::{Random, Request, Workload};
use kv_store::{
    Compare, Condition, Deadline, DeadlineCondition, Decimal, Failure, Op, Outcome, PutManyCondition, Relation, Store,
    Target,
};

const REGISTERS: u64 = 6;
const COUNTERS: u64 = 2;
const NOISE_KEYS: u64 = 40;
const DEADLINE_MS_MAX: u64 = 25_000;

/// Every value is written once.
#[derive(Default)]
pub(crate) struct StoreWorkload {
    written: u64,
}

/// One key.
pub(crate) struct Key;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    Get,
    /// Answers what was there before.
    Put(String),
    PutIfAbsent(String),
    Append(String),
    Delete,
    Increment(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Value(Option<Bytes>),
    Done(bool),
    Number(i64),
    /// What no correct store answers here.
    Other(Outcome),
}

impl Model for Key {
    type Input = Input;
    type Output = Output;
    type State = Option<String>;

    fn apply(state: &Option<String>, input: &Input) -> (Option<String>, Output) {
        let value = || Output::Value(state.clone().map(Bytes::from));
        match input {
            Input::Get => (state.clone(), value()),
            Input::Put(new) => (Some(new.clone()), value()),
            Input::PutIfAbsent(new) => (Some(state.clone().unwrap_or(new.clone())), Output::Done(state.is_none())),
            Input::Append(more) => {
                let longer = state.clone().unwrap_or_default() + more;
                let length = longer.len() as i64;
                (Some(longer), Output::Number(length))
            }
            Input::Delete => (None, Output::Number(i64::from(state.is_some()))),
            Input::Increment(by) => {
                let sum = state.as_deref().map_or(0, |number| number.parse().expect("a number")) + by;
                (Some(sum.to_string()), Output::Number(sum))
            }
        }
    }

    fn is_read(input: &Input) -> bool {
        matches!(input, Input::Get)
    }
}

fn key(object: u64) -> String {
    format!("key-{object}")
}

fn op(key: &str, input: &Input) -> Option<Bytes> {
    let key = key.as_bytes();
    let put = |value: &str, condition, want_previous| {
        let deadline = Deadline::None;
        Op::Put { key, value: value.as_bytes(), condition, deadline, want_previous }.encode()
    };
    let encoded = match input {
        Input::Get => return None,
        Input::Put(value) => put(value, Condition::Always, true),
        Input::PutIfAbsent(value) => put(value, Condition::IfAbsent, false),
        Input::Append(value) => Op::Append { key, value: value.as_bytes() }.encode(),
        Input::Delete => Op::Delete { keys: vec![key] }.encode(),
        Input::Increment(by) => Op::Increment { key, by: *by }.encode(),
    };
    Some(encoded.expect("short").into())
}

impl Workload for StoreWorkload {
    type Machine = Store;
    type Model = Key;

    fn next(&mut self, random: &mut Random) -> Request<Input> {
        let object = random.below(REGISTERS + COUNTERS);
        self.written += 1;
        let value = self.written.to_string();
        let input = match random.below(10) {
            0..3 => Input::Get,
            _ if object >= REGISTERS => Input::Increment(1 + random.below(3) as i64),
            3..7 => Input::Put(value),
            7 => Input::PutIfAbsent(value),
            8 => Input::Append(value),
            _ => Input::Delete,
        };
        Request { object, command: op(&key(object), &input), input }
    }

    /// All ops there are, on keys that nobody reads: the state hashes tell whether the replicas agree on what they do. Much of
    /// it expires.
    fn noise(&mut self, random: &mut Random) -> Option<Bytes> {
        let names = [random.below(NOISE_KEYS), random.below(NOISE_KEYS)].map(|number| format!("noise-{number}"));
        let [key, other] = [0, 1].map(|at| names[at].as_bytes());
        let (value, deadline_ms) = (&b"12.5"[..], random.below(DEADLINE_MS_MAX));
        let put = |key, deadline| Op::Put { key, value, condition: Condition::Always, deadline, want_previous: false };
        let op = match random.below(12) {
            0..3 => put(key, Deadline::At(deadline_ms)),
            3 => put(key, Deadline::Keep),
            4 => Op::SetDeadline {
                key,
                deadline: Some(deadline_ms),
                condition: DeadlineCondition::IfLater,
                want_value: true,
            },
            5 => Op::IncrementDecimal { key, by: Decimal::new(75, 2).expect("a small one") },
            6 => Op::SetRange { key, offset: random.below(9), value },
            7 => Op::Copy { from: key, to: other, if_absent: false, remove_source: true },
            8 => Op::PutMany { pairs: vec![(key, value), (other, value)], condition: PutManyCondition::IfNonePresent },
            9 => Op::DeleteRange { from: key.min(other), to: Some(key.max(other)) },
            10 => Op::Delete { keys: vec![key] },
            _ => Op::Transaction {
                conditions: vec![Compare { key, target: Target::Present, relation: Relation::Equal }],
                then: vec![Op::Append { key, value }, Op::Increment { key: other, by: 1 }],
                otherwise: vec![put(key, Deadline::At(deadline_ms)), Op::Scan { from: b"", to: None, limit: 2 }],
                failure: if random.once_in(2) { Failure::Undo } else { Failure::GoOn },
            },
        };
        Some(op.encode().expect("short").into())
    }

    fn outcome(outcome: Outcome) -> Output {
        match outcome {
            Outcome::Previous { value, done: true } => Output::Value(value),
            Outcome::Done => Output::Done(true),
            Outcome::NotDone => Output::Done(false),
            Outcome::Length(length) => Output::Number(length as i64),
            Outcome::Count(count) => Output::Number(count as i64),
            Outcome::Integer(number) => Output::Number(number),
            other => Output::Other(other),
        }
    }

    fn look(store: &Store, object: u64, _read: &Input) -> Output {
        let found = store.view().get(key(object).as_bytes()).map(|pair| pair.value_bytes());
        Output::Value(found)
    }

    fn last_read() -> Input {
        Input::Get
    }
}
