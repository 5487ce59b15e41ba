//! A durable store beside a plain one that is told the same: on real files, and on a disk that fails where a test wants.

mod crash;
mod damage;
mod faults;
mod model;
mod threads;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kv_wal::Index;
use kv_wal::fs::Fs;
use tempfile::TempDir;

use super::*;
use crate::op::{Failure, PutManyCondition};
use crate::store::Store;

/// No threads, and segments and checkpoints that a few ops fill.
pub(super) const SMALL: Options =
    Options { checkpoint_log_bytes: 40 << 10, segment_bytes: 64 << 10, in_background: false, give_up_lost: false };

/// A directory, and a clock that the test sets.
pub(super) struct Bench {
    pub(super) dir: TempDir,
    pub(super) now_ms: Arc<AtomicU64>,
}

pub(super) type OpenResult = Result<(DurableStore, Recovered), DurableError>;

impl Bench {
    pub(super) fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap(), now_ms: Arc::default() }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn open_on(&self, fs: &(impl Fs + Clone + 'static), options: Options) -> OpenResult {
        let now_ms = self.now_ms.clone();
        let clock = Box::new(move || now_ms.load(Ordering::Relaxed));
        DurableStore::open_at(Arc::new(fs.clone()), self.path(), options, clock)
    }

    pub(super) fn open(&self, options: Options) -> OpenResult {
        self.open_on(&RealFs, options)
    }

    pub(super) fn at(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// The checkpoints that are there, oldest first.
    pub(super) fn checkpoints(&self) -> Vec<std::path::PathBuf> {
        self.files(".checkpoint")
    }

    pub(super) fn files(&self, suffix: &str) -> Vec<std::path::PathBuf> {
        let names = std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = names.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
        found.sort();
        found
    }
}

/// One call of a history: its ops, and the time at which it is made.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) at_ms: u64,
    pub(super) ops: Vec<Op<'static>>,
}

/// What a plain store is after each of the calls, the first state being that before all.
pub(super) struct Twin {
    store: Store,
    next: Index,
    stamp_ms: u64,
    /// Index of the last entry, and digest.
    pub(super) states: Vec<(Index, [u8; 32])>,
    pub(super) outcomes: Vec<Vec<Outcome>>,
}

impl Twin {
    /// The secret is that of the durable store, or digests would differ.
    pub(super) fn new(secret: [u8; 32]) -> Twin {
        let store = Store::new(secret);
        let states = vec![(Index::ZERO, store.digest())];
        Twin { store, next: Index::new(1), stamp_ms: 0, states, outcomes: Vec::new() }
    }

    pub(super) fn of(secret: [u8; 32], calls: &[Call]) -> Twin {
        let mut twin = Twin::new(secret);
        calls.iter().for_each(|call| twin.apply(call));
        twin
    }

    pub(super) fn apply(&mut self, call: &Call) {
        self.stamp_ms = self.stamp_ms.max(call.at_ms);
        let mut outcomes = Vec::new();
        for op in &call.ops {
            outcomes.push(self.store.apply(self.next, self.stamp_ms, &op.encode().unwrap()));
            self.next = self.next.next();
        }
        self.outcomes.push(outcomes);
        self.states.push((self.next.prev(), self.store.digest()));
    }

    pub(super) fn last(&self) -> (Index, [u8; 32]) {
        *self.states.last().unwrap()
    }
}

pub(super) fn secret_of(store: &DurableStore) -> [u8; 32] {
    *store.view().secret().bytes()
}

pub(super) fn state_of(store: &DurableStore) -> (Index, [u8; 32]) {
    (store.status().last, store.view().digest())
}

/// Leaks: a test has few of them.
pub(super) fn text(text: String) -> &'static [u8] {
    text.into_bytes().leak()
}

pub(super) fn put_op(key: &'static [u8], value: &'static [u8], deadline: Deadline) -> Op<'static> {
    Op::Put { key, value, condition: Condition::Always, deadline, want_previous: true }
}

/// A fixed history of so many calls: writes of all sizes, deadlines, deletes, increments, transactions, several ops a call,
/// and now and then nothing but time.
pub(super) fn history(calls: u64) -> Vec<Call> {
    (0..calls)
        .map(|nth| {
            let at_ms = 1_000 + 10 * nth;
            let key = text(format!("key-{:02}", nth * 7 % 23));
            let value = text(format!("value-{nth}-").repeat(1 + (nth as usize * 37) % 400));
            let put = put_op(key, value, Deadline::None);
            let ops = match nth % 6 {
                0 => vec![put],
                1 => vec![put_op(key, value, Deadline::At(at_ms + 35)), Op::Increment { key: b"count", by: 1 }],
                2 => vec![Op::Delete { keys: vec![key, b"key-00"] }],
                3 => {
                    let pairs = vec![(key, value), (b"a".as_slice(), b"b".as_slice())];
                    vec![Op::PutMany { pairs, condition: PutManyCondition::Always }]
                }
                4 => {
                    let then = vec![Op::Increment { key: b"count", by: 2 }, put];
                    vec![Op::Transaction { conditions: vec![], then, otherwise: vec![], failure: Failure::Undo }]
                }
                _ => (0..5).map(|_| Op::Append { key: b"tail", value: b"....." }).chain([put]).collect(),
            };
            Call { at_ms, ops }
        })
        .collect()
}

pub(super) fn call(bench: &Bench, store: &DurableStore, call: &Call) -> Result<Vec<Outcome>, DurableError> {
    bench.at(call.at_ms);
    store.apply_many(&call.ops)
}

#[test]
fn what_was_answered_is_there_again() {
    let bench = Bench::new();
    let (store, recovered) = bench.open(SMALL).unwrap();
    assert_eq!((recovered.last, recovered.checkpoint), (Index::ZERO, None));
    bench.at(50);
    store.put(b"k", b"v").unwrap();
    assert_eq!(store.apply(&Op::Increment { key: b"n", by: 5 }).unwrap(), Outcome::Integer(5));
    assert!(store.delete(b"k").unwrap());
    assert!(!store.delete(b"k").unwrap());
    let two = [Op::Increment { key: b"n", by: 1 }, Op::Get { key: b"k" }];
    assert_eq!(store.apply_many(&two).unwrap(), [Outcome::Integer(6), Outcome::Value(None)]);
    assert_eq!(store.apply_many(&[]).unwrap(), []);
    let before = state_of(&store);
    assert_eq!(before.0, Index::new(6));
    store.close().unwrap();

    let (store, recovered) = bench.open(SMALL).unwrap();
    assert_eq!((recovered.last, recovered.entries_replayed), (Index::new(6), 6));
    assert_eq!(state_of(&store), before);
    assert_eq!(store.get(b"n").unwrap(), "6");
    assert_eq!(store.view().clock_ms(), 50);
}

#[test]
fn the_clock_of_the_store_follows_the_machines_and_never_goes_back() {
    let bench = Bench::new();
    let (store, _) = bench.open(SMALL).unwrap();
    let put = |at_ms, key| {
        bench.at(at_ms);
        store.apply(&put_op(key, b"v", Deadline::At(150))).unwrap()
    };
    put(100, b"a");
    put(90, b"b");
    assert_eq!(store.view().clock_ms(), 100);
    assert!(store.get(b"a").is_some());
    store.remove_expired().unwrap();
    assert_eq!(store.view().len(), 2, "nothing has expired");
    bench.at(150);
    store.remove_expired().unwrap();
    assert_eq!((store.view().len(), store.view().clock_ms()), (0, 150));
    let before = state_of(&store);
    drop(store);
    bench.at(7);
    let (store, _) = bench.open(SMALL).unwrap();
    assert_eq!(state_of(&store), before);
    store.put(b"a", b"v").unwrap();
    assert_eq!(store.view().clock_ms(), 150);
    drop(store);
    let (log, _) = kv_wal::Log::open(bench.path(), kv_wal::Options::default()).unwrap();
    let stamps: Vec<_> =
        log.reader().iter(Index::new(1)..Index::new(9)).map(|entry| entry.unwrap().stamp_ms()).collect();
    assert_eq!(stamps, [100, 100, 150, 150]);
}

#[test]
fn what_is_above_a_limit_is_refused_before_it_is_written() {
    let bench = Bench::new();
    let (store, _) = bench.open(SMALL).unwrap();
    let (key, value) = (vec![0; crate::KEY_BYTES_MAX + 1], vec![0; crate::VALUE_BYTES_MAX]);
    assert!(matches!(store.put(&key, b"").unwrap_err(), DurableError::Op(_)));
    let good = Op::Append { key: b"k", value: b"v" };
    let bad = Op::Append { key: &key, value: b"v" };
    assert!(matches!(store.apply_many(&[good.clone(), bad]).unwrap_err(), DurableError::Op(_)));
    let many = vec![Op::Append { key: b"k", value: &value }; APPLY_MANY_BYTES_MAX / value.len()];
    assert!(matches!(store.apply_many(&many).unwrap_err(), DurableError::TooLarge { .. }));
    assert_eq!(store.status().last, Index::ZERO);
    store.apply(&good).unwrap();
    store.apply(&Op::SetMemoryLimit { bytes: Some(1) }).unwrap();
    assert!(matches!(store.put(b"k", b"longer").unwrap_err(), DurableError::OutOfMemory));
    assert_eq!(store.get(b"k").unwrap(), "v");
}

#[test]
fn one_process_has_the_directory() {
    let bench = Bench::new();
    let (store, _) = bench.open(SMALL).unwrap();
    let error = bench.open(SMALL).unwrap_err();
    assert!(matches!(error, DurableError::Log(kv_wal::Error::Locked { .. })), "{error}");
    let clone = store.clone();
    drop(store);
    bench.open(SMALL).unwrap_err();
    clone.put(b"k", b"v").unwrap();
    let left = clone.clone();
    clone.close().unwrap();
    assert_eq!(left.get(b"k").unwrap(), "v");
    assert!(matches!(left.put(b"k", b"v").unwrap_err(), DurableError::Closed));
    assert!(matches!(left.checkpoint().unwrap_err(), DurableError::Closed));
    assert!(matches!(left.status().refuses_writes, Some(DurableError::Closed)));
    let (_, recovered) = bench.open(SMALL).unwrap();
    assert_eq!(recovered.last, Index::new(1));
    left.close().unwrap();
}
