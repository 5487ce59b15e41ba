//! Many threads, one sync.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;

use super::{SMALL, entries, id, open};
use crate::record::{Index, Kind, Term};
use crate::testing::SimFs;
use crate::{Error, Handle, Log, Receipt, Ticket, Wal};

fn submit(handle: &Handle, payload: &str) -> Ticket {
    handle.append_payloads(Term::new(1), 5, Kind(2), vec![Bytes::copy_from_slice(payload.as_bytes())])
}

/// Awaits without a runtime.
fn block_on(future: impl Future<Output = Result<Receipt, Error>>) -> Result<Receipt, Error> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn what_any_thread_was_promised_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), SMALL).unwrap();
    let write = |thread: usize, handle: Handle| {
        move || -> Vec<(Index, String)> {
            let one = |round: usize| {
                let payload = format!("{thread}/{round}");
                let ticket = submit(&handle, &payload);
                let receipt = if round.is_multiple_of(2) { ticket.wait() } else { block_on(ticket) }.unwrap();
                assert!(receipt.first == receipt.last && receipt.last <= receipt.durable.last());
                (receipt.first, payload)
            };
            (0..30).map(one).collect()
        }
    };
    let threads: Vec<_> = (0..8).map(|at| thread::spawn(write(at, wal.handle()))).collect();
    let mut written: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    wal.close().unwrap();
    written.sort();
    let (log, _) = open(dir.path());
    let read = log.reader().read(Index::new(1)..Index::new(1000), usize::MAX).unwrap();
    let found: Vec<_> = read.iter().map(|e| (e.index(), String::from_utf8(e.payload().to_vec()).unwrap())).collect();
    assert_eq!(found, written);
}

#[test]
fn one_sync_covers_all_that_gathered_while_another_ran() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    let wal = Wal::start(log, dir.path()).unwrap();
    let tickets: Vec<Ticket> = fs.while_stalled(|| (0..50).map(|_| submit(&wal.handle(), "x")).collect());
    let batches: BTreeSet<u64> = tickets.into_iter().map(|ticket| ticket.wait().unwrap().durable.batch()).collect();
    assert!(batches.len() <= 2, "the one that was stalled, and one for all others: {batches:?}");
}

#[test]
fn a_failed_sync_answers_all_who_wait_and_all_who_come_later() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    let wal = Wal::start(log, dir.path()).unwrap();
    fs.fail_sync_after(0);
    let tickets: Vec<Ticket> = fs.while_stalled(|| (0..50).map(|_| submit(&wal.handle(), "x")).collect());
    for ticket in tickets {
        assert!(matches!(ticket.wait(), Err(Error::Io { .. } | Error::Poisoned)));
    }
    assert!(matches!(submit(&wal.handle(), "x").wait(), Err(Error::Poisoned)));
    assert!(matches!(wal.close(), Err(Error::Poisoned)));
}

#[test]
fn a_refused_request_does_not_hurt_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), SMALL).unwrap();
    let handle = wal.handle();
    let good = handle.append(entries(1, 1..=2), Some(Bytes::from_static(b"vote")));
    let gap = handle.append(entries(1, 9..=9), None);
    let next = submit(&handle, "next");
    let purge = handle.truncate_prefix(id(1, 2));
    assert_eq!(good.wait().unwrap().last, Index::new(2));
    assert!(matches!(gap.wait(), Err(Error::NotConsecutive { .. })));
    assert_eq!(next.wait().unwrap().first, Index::new(3));
    let receipt = purge.wait().unwrap();
    assert_eq!((receipt.first, receipt.last), (Index::new(4), Index::new(3)));
    assert_eq!((handle.reader().base(), wal.reader().last()), (id(1, 2), id(1, 3)));
}

#[test]
fn a_closed_log_writes_what_was_queued_and_refuses_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), SMALL).unwrap();
    let handle = wal.handle();
    let tickets: Vec<Ticket> = (0..20).map(|_| submit(&handle, "x")).collect();
    drop(wal);
    assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
    assert!(matches!(submit(&handle, "x").wait(), Err(Error::Closed)));
    let (log, recovery) = open(dir.path());
    assert_eq!((log.last(), recovery.entries_rewritten), (id(1, 20), 0));
}

/// A task whose waker panics costs nobody else the answer.
#[test]
fn a_waker_that_panics_hurts_its_owner_only() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("as planned");
        }
    }
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    let wal = Wal::start(log, dir.path()).unwrap();
    for count in [4, 50] {
        let tickets = fs.while_stalled(|| {
            let mut broken = Box::pin(submit(&wal.handle(), "x"));
            let waker = Waker::from(Arc::new(Panics));
            assert!(broken.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            let others: Vec<Ticket> = (0..count).map(|_| submit(&wal.handle(), "x")).collect();
            (broken, others)
        });
        assert!(tickets.1.into_iter().all(|ticket| ticket.wait().is_ok()));
        assert!(block_on(tickets.0).is_ok(), "and if it asks again, it is told too");
    }
    wal.close().unwrap();
}
