//! Disks that fail while the store is open: what is refused, what goes on, and that nobody waits for ever.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use kv_wal::testing::SimFs;

use super::*;

/// Long enough for whatever is to happen, and then it has not.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn after_a_failed_sync_writes_are_refused_and_reads_go_on() {
    let (bench, fs) = (Bench::new(), SimFs::new(3));
    let (store, _) = bench.open_on(&fs, SMALL).unwrap();
    store.put(b"k", b"answered").unwrap();
    fs.fail_sync_after(0);
    let error = store.put(b"k", b"unknown").unwrap_err();
    assert!(matches!(error, DurableError::Failed(kv_wal::Error::Io { .. })), "{error}");
    for _ in 0..3 {
        let error = store.put(b"k", b"refused").unwrap_err();
        assert!(matches!(error, DurableError::Poisoned), "{error}");
        assert!(error.to_string().contains("open it again"), "{error}");
    }
    assert!(matches!(store.checkpoint().unwrap_err(), DurableError::Poisoned));
    assert_eq!(store.get(b"k").unwrap(), "answered");
    assert_eq!(store.view().get(b"k").unwrap().value, b"answered");
    assert!(matches!(store.status().refuses_writes, Some(DurableError::Poisoned)));
    assert!(matches!(store.close().unwrap_err(), DurableError::Poisoned));
    let (store, _) = bench.open_on(&fs, SMALL).unwrap();
    let value = store.get(b"k").unwrap();
    assert!(value == "answered" || value == "unknown", "{value:?}");
    store.put(b"k", b"goes on").unwrap();
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_again() {
    let (bench, fs) = (Bench::new(), SimFs::new(3));
    let (store, _) = bench.open_on(&fs, Options { checkpoint_log_bytes: u64::MAX, ..SMALL }).unwrap();
    fs.set_full(true);
    let mut answered = 0;
    let error = loop {
        match store.apply(&Op::Increment { key: b"n", by: 1 }) {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, DurableError::DiskFull { .. }), "{error}");
    assert!(answered > 5, "there is room in the segment");
    // What needs no more room than a full disk has.
    let before = state_of(&store);
    let error = store.checkpoint().unwrap_err();
    assert!(matches!(error, DurableError::DiskFull { .. }), "{error}");
    assert!(matches!(store.status().checkpoint_failure, Some(DurableError::DiskFull { .. })));
    assert!(bench.files(".tmp").iter().all(|path| !path.ends_with("checkpoint.tmp")), "what fills the disk is removed");
    assert_eq!((state_of(&store), store.status().refuses_writes.is_none()), (before, true));
    store.put(b"k", b"v").unwrap_err();
    fs.set_full(false);
    store.put(b"k", b"v").unwrap();
    store.checkpoint().unwrap();
    assert!(store.status().checkpoint_failure.is_none());
    drop(store);
    let (store, recovered) = bench.open_on(&fs, SMALL).unwrap();
    assert_eq!((recovered.last.get(), recovered.entries_replayed), (answered + 1, 0));
    assert_eq!(store.get(b"n").unwrap(), answered.to_string());
}

/// A checkpoint that fails costs no write, and is tried again when the log has grown some more.
#[test]
fn a_checkpoint_that_fails_is_tried_again() {
    let (bench, fs) = (Bench::new(), SimFs::new(3));
    let (store, _) = bench.open_on(&fs, SMALL).unwrap();
    let mut failures = 0;
    for made in history(60) {
        // Where the next is to be written, there is something in the way.
        let failed = store.status().checkpoint_failure.is_some();
        if store.status().checkpoint.is_some() && failures == 0 {
            std::fs::create_dir(bench.path().join("checkpoint.tmp")).unwrap();
            failures = 1;
        }
        call(&bench, &store, &made).unwrap();
        if failed && failures == 1 {
            std::fs::remove_dir(bench.path().join("checkpoint.tmp")).unwrap();
            failures = 2;
        }
    }
    assert_eq!(failures, 2, "one has failed");
    assert!(store.status().checkpoint_failure.is_none(), "the next has not");
    assert_eq!(bench.checkpoints().len(), 2);
}

/// One sync fails while many wait: each of them is answered, and what was answered with success is there.
#[test]
fn whoever_waits_for_a_sync_that_fails_is_told() {
    let (bench, fs) = (Bench::new(), SimFs::new(5));
    // The log's sync, not that of a checkpoint or of a new segment, which are no failures of a write.
    let options = Options { checkpoint_log_bytes: u64::MAX, segment_bytes: 1 << 20, ..SMALL };
    let (store, _) = bench.open_on(&fs, options).unwrap();
    fs.fail_sync_after(60);
    let (report, reports) = channel();
    for _ in 0..8 {
        let (store, report) = (store.clone(), report.clone());
        thread::spawn(move || {
            let mut answered = 0;
            while store.apply(&Op::Increment { key: b"n", by: 1 }).is_ok() {
                answered += 1;
            }
            report.send(answered).unwrap();
        });
    }
    let answered: u64 = (0..8).map(|_| reports.recv_timeout(PATIENCE).expect("each is told")).sum();
    assert_eq!(store.get(b"n").map_or(0, number), answered, "readers see what was answered, and nothing else");
    drop(store);
    let (store, _) = bench.open_on(&fs, SMALL).unwrap();
    let found = store.get(b"n").map_or(0, number);
    assert!((answered..=answered + 8).contains(&found), "{answered} {found}");
}

fn number(value: Bytes) -> u64 {
    std::str::from_utf8(&value).unwrap().parse().unwrap()
}

/// The clock panics in the hands of the leader, which is some caller's thread: that call panics, and the others are told.
#[test]
fn when_a_leader_panics_nobody_waits_for_ever() {
    let bench = Bench::new();
    let calls = Arc::new(AtomicU64::new(0));
    let clock: Clock = Box::new(move || {
        assert_ne!(calls.fetch_add(1, Ordering::Relaxed), 200, "planted");
        7
    });
    let (store, _) = DurableStore::open_at(Arc::new(RealFs), bench.path(), SMALL, clock).unwrap();
    let (report, reports) = channel();
    for _ in 0..8 {
        let (store, report) = (store.clone(), report.clone());
        thread::spawn(move || {
            let work = || {
                let mut answered = 0;
                while store.apply(&Op::Increment { key: b"n", by: 1 }).is_ok() {
                    answered += 1;
                }
                answered
            };
            let answered = catch_unwind(AssertUnwindSafe(work));
            drop(store);
            report.send(answered).unwrap();
        });
    }
    let answers: Vec<Option<u64>> =
        (0..8).map(|_| reports.recv_timeout(PATIENCE).expect("each is told").ok()).collect();
    assert_eq!(answers.iter().filter(|answered| answered.is_none()).count(), 1, "one has panicked");
    assert!(matches!(store.put(b"k", b"v").unwrap_err(), DurableError::Poisoned));
    assert!(store.get(b"n").is_some());
    assert!(store.close().is_err());
    let answered: u64 = answers.into_iter().flatten().sum();
    let (store, _) = bench.open(SMALL).unwrap();
    assert!(number(store.get(b"n").unwrap()) >= answered);
}
