//! Many threads on real files.

use std::thread;
use std::time::{Duration, Instant};

use super::*;

const THREADS: u64 = 8;
const OPS: u64 = 400;

#[test]
fn every_increment_of_many_threads_counts_once_while_checkpoints_are_written() {
    let bench = Bench::new();
    let options = Options { checkpoint_log_bytes: 200 << 10, in_background: true, ..SMALL };
    let (store, _) = DurableStore::open(bench.path(), options).unwrap();
    thread::scope(|scope| {
        for nth in 0..THREADS {
            let store = store.clone();
            scope.spawn(move || {
                let own = format!("own-{nth}");
                for at in 1..=OPS {
                    let both = [Op::Increment { key: b"all", by: 1 }, Op::Increment { key: own.as_bytes(), by: 1 }];
                    let outcomes = store.apply_many(&both).unwrap();
                    assert_eq!(outcomes[1], Outcome::Integer(at as i64), "in the order of its calls");
                    assert_eq!(store.get(own.as_bytes()).unwrap(), at.to_string(), "each reads what it has written");
                }
            });
        }
        // Checkpoints on this thread beside those of the background.
        for _ in 0..10 {
            store.checkpoint().unwrap();
            let view = store.view();
            let own = |nth| view.get(format!("own-{nth}").as_bytes()).map_or(0, |pair| number(pair.value));
            let all = view.get(b"all").map_or(0, |pair| number(pair.value));
            assert_eq!((0..THREADS).map(own).sum::<u64>(), all, "a call is seen as a whole");
        }
    });
    let state = state_of(&store);
    assert_eq!(state.0.get(), 2 * THREADS * OPS);
    assert_eq!(number(&store.get(b"all").unwrap()), THREADS * OPS);
    assert!(store.status().checkpoint_failure.is_none(), "{store:?}");
    store.close().unwrap();

    let (store, recovered) = DurableStore::open(bench.path(), options).unwrap();
    assert_eq!(state_of(&store), state);
    assert!(recovered.checkpoint.is_some() && recovered.log.base.index > Index::ZERO, "{recovered:?}");
    assert!(bench.checkpoints().len() <= 2);
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// Waits for what a thread does by itself.
fn eventually(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_background_writes_checkpoints_when_the_log_has_grown() {
    let bench = Bench::new();
    let options = Options { in_background: true, ..SMALL };
    let (store, _) = bench.open(options).unwrap();
    let value = vec![b'x'; 6000];
    for nth in 0..10_u8 {
        store.put(&[nth], &value).unwrap();
    }
    eventually(|| store.status().checkpoint.is_some());
}

#[test]
fn the_background_removes_what_expires_while_nobody_writes() {
    let bench = Bench::new();
    let options = Options { in_background: true, ..SMALL };
    let (store, _) = DurableStore::open(bench.path(), options).unwrap();
    let soon = wall_clock_ms() + 100;
    for nth in 0..100_u8 {
        let deadline = if nth == 99 { Deadline::At(soon + 3_600_000) } else { Deadline::At(soon) };
        store
            .apply(&Op::Put { key: &[nth], value: b"v", condition: Condition::Always, deadline, want_previous: false })
            .unwrap();
    }
    eventually(|| store.view().len() == 1);
    assert!(store.view().clock_ms() >= soon);
    drop(store);
    let (store, _) = DurableStore::open(bench.path(), options).unwrap();
    assert_eq!(store.view().len(), 1);
}
