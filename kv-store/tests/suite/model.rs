//! Random histories against the dumbest store there is, written from the documentation of Redis.

use std::collections::BTreeMap;

use bytes::Bytes;
use kv_store::{Condition, Index, Op, Outcome, ReadView, Store};
use proptest::collection::vec;
use proptest::prelude::*;

/// Key to value, index and op number of the last write, creation index.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, u64, u32, u64)>;

/// An op that owns its keys and values.
#[derive(Clone, Debug)]
enum Owned {
    Put(Vec<u8>, Vec<u8>, Condition, bool),
    Delete(Vec<Vec<u8>>),
    Increment(Vec<u8>, i64),
    Append(Vec<u8>, Vec<u8>),
    PutMany(Vec<(Vec<u8>, Vec<u8>)>),
    Clear,
}

impl Owned {
    fn op(&self) -> Op<'_> {
        match self {
            Owned::Put(key, value, condition, want_previous) => {
                Op::Put { key, value, condition: *condition, want_previous: *want_previous }
            }
            Owned::Delete(keys) => Op::Delete { keys: keys.iter().map(Vec::as_slice).collect() },
            Owned::Increment(key, by) => Op::Increment { key, by: *by },
            Owned::Append(key, value) => Op::Append { key, value },
            Owned::PutMany(pairs) => Op::PutMany { pairs: pairs.iter().map(|(k, v)| (&k[..], &v[..])).collect() },
            Owned::Clear => Op::Clear,
        }
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    (0u16..400).prop_map(|number| number.to_string().into_bytes())
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![any::<i64>().prop_map(|number| number.to_string().into_bytes()), vec(any::<u8>(), 0..20)]
}

fn op() -> impl Strategy<Value = Owned> {
    let condition = prop_oneof![Just(Condition::Always), Just(Condition::IfAbsent), Just(Condition::IfPresent)];
    let by = prop_oneof![Just(1i64), any::<i64>()];
    prop_oneof![
        20 => (key(), value(), condition, any::<bool>()).prop_map(|(k, v, c, p)| Owned::Put(k, v, c, p)),
        6 => vec(key(), 0..6).prop_map(Owned::Delete),
        6 => (key(), by).prop_map(|(key, by)| Owned::Increment(key, by)),
        6 => (key(), value()).prop_map(|(key, value)| Owned::Append(key, value)),
        10 => vec((key(), value()), 0..12).prop_map(Owned::PutMany),
        1 => Just(Owned::Clear),
    ]
}

fn write(model: &mut Model, key: &[u8], value: Vec<u8>, index: u64, op: u32) {
    let created = model.get(key).map_or(index, |pair| pair.3);
    model.insert(key.to_vec(), (value, index, op, created));
}

fn expected(model: &mut Model, index: u64, op: &Owned) -> Outcome {
    match op {
        Owned::Put(key, value, condition, want_previous) => {
            let before = model.get(key).map(|pair| Bytes::from(pair.0.clone()));
            let done = *condition == Condition::Always || (*condition == Condition::IfPresent) == before.is_some();
            if done {
                write(model, key, value.clone(), index, 0);
            }
            match (want_previous, done) {
                (true, done) => Outcome::Previous { value: before, done },
                (false, true) => Outcome::Done,
                (false, false) => Outcome::NotDone,
            }
        }
        Owned::Delete(keys) => Outcome::Count(keys.iter().filter(|key| model.remove(*key).is_some()).count() as u64),
        Owned::Increment(key, by) => {
            let text = model.get(key).map_or("0".into(), |pair| String::from_utf8_lossy(&pair.0).into_owned());
            let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            let Some(number) = number else { return Outcome::NotAnInteger };
            let Some(number) = number.checked_add(*by) else { return Outcome::Overflow };
            write(model, key, number.to_string().into_bytes(), index, 0);
            Outcome::Integer(number)
        }
        Owned::Append(key, more) => {
            let mut value = model.get(key).map_or(Vec::new(), |pair| pair.0.clone());
            value.extend(more);
            let length = value.len() as u64;
            write(model, key, value, index, 0);
            Outcome::Length(length)
        }
        Owned::PutMany(pairs) => {
            for (op, (key, value)) in (0..).zip(pairs) {
                write(model, key, value.clone(), index, op);
            }
            Outcome::Done
        }
        Owned::Clear => {
            model.clear();
            Outcome::Done
        }
    }
}

/// A view holds exactly what the model holds, and its sums are those of its bytes.
fn check(view: &ReadView, model: &Model) {
    let found = view.iter().map(|(key, pair)| {
        let version = pair.version;
        (key.to_vec(), (pair.value.to_vec(), version.index.get(), version.op, pair.created.get()))
    });
    assert!(found.eq(model.iter().map(|(key, pair)| (key.clone(), pair.clone()))));
    assert_eq!(view.len(), model.len() as u64);
    assert_eq!(view.bytes(), model.iter().map(|(key, pair)| (key.len() + pair.0.len()) as u64).sum::<u64>());
    assert_eq!(view.audit(), view.range_digest(b"", None));
}

proptest! {
    #[test]
    fn outcomes_and_state_are_those_of_the_model(ops in vec(op(), 0..500), pauses in vec(0u64..500, 0..4)) {
        let (mut store, mut model) = (Store::new([1; 32]), Model::new());
        let mut views = Vec::new();
        for (index, op) in (1..).zip(&ops) {
            let outcome = store.apply(Index::new(index), &op.op().encode().unwrap());
            prop_assert_eq!(outcome, expected(&mut model, index, op), "{:?} at {}", op, index);
            if pauses.contains(&index) {
                views.push((store.view(), model.clone()));
            }
        }
        check(&store, &model);
        views.iter().for_each(|(view, model)| check(view, model));
    }

    #[test]
    fn the_hash_depends_on_the_state_alone(ops in vec(op(), 0..100), extra in key()) {
        let (mut a, mut b) = (Store::new([1; 32]), Store::new([1; 32]));
        for (index, op) in (1..).zip(&ops) {
            let command = op.op().encode().unwrap();
            a.apply(Index::new(index), &command);
            b.apply(Index::new(index), &command);
        }
        prop_assert_eq!(a.digest(), b.digest());
        // A key that comes and goes leaves no trace; one that stays does.
        let absent = b"never used otherwise";
        b.apply(Index::new(1000), &Op::Append { key: absent, value: &extra }.encode().unwrap());
        prop_assert_ne!(a.digest(), b.digest());
        b.apply(Index::new(1001), &Op::Delete { keys: vec![absent] }.encode().unwrap());
        prop_assert_eq!(a.digest(), b.digest());
    }
}
