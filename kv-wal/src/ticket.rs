//! The promise of a result and the ticket to wait for it with, by blocking or by awaiting.
//!
//! A promise is kept once; one that is dropped unkept is kept with [`Error::Closed`], so a ticket never waits for ever.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};

use crate::error::Error;
use crate::log::Durable;
use crate::record::Index;

/// The result of a request, when the sync that covers it has returned: wait for it, or await it.
#[derive(Debug)]
#[must_use = "what is submitted is durable only when its ticket says so"]
pub struct Ticket {
    slot: Arc<Slot>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Index of the request's first entry; if it had none, the index after the last of the log.
    pub first: Index,
    /// Index of its last entry; if it had none, the last of the log.
    pub last: Index,
    /// The sync that covers it.
    pub durable: Durable,
}

/// Where a result is put and waited for.
#[derive(Debug, Default)]
struct Slot {
    state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    result: Option<Result<Receipt, Error>>,
    /// Who waits for it.
    waiter: Option<Waiter>,
}

#[derive(Debug)]
enum Waiter {
    Task(Waker),
    Thread(Thread),
}

/// The writer's end of a [`Slot`].
#[derive(Debug)]
pub(crate) struct Promise {
    slot: Arc<Slot>,
}

/// A promise and its ticket.
pub(crate) fn promise() -> (Promise, Ticket) {
    let slot = Arc::<Slot>::default();
    (Promise { slot: slot.clone() }, Ticket { slot })
}

impl Promise {
    /// Whether the ticket is still there.
    pub(crate) fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.slot) > 1
    }

    pub(crate) fn keep(self, result: Result<Receipt, Error>) {
        self.slot.put(result);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.slot.put(Err(Error::Closed));
    }
}

impl Slot {
    /// The first result stays.
    fn put(&self, result: Result<Receipt, Error>) {
        let mut state = lock(&self.state);
        if state.result.is_some() {
            return;
        }
        state.result = Some(result);
        let waiter = state.waiter.take();
        drop(state);
        match waiter {
            // It is somebody else's code, and a panic of it must not cost the others their answers.
            Some(Waiter::Task(waker)) => drop(catch_unwind(AssertUnwindSafe(|| waker.wake()))),
            Some(Waiter::Thread(thread)) => thread.unpark(),
            None => {}
        }
    }
}

impl Ticket {
    /// Blocks until the request is durable.
    ///
    /// # Errors
    ///
    /// The request was refused (nothing of it is in the log), or the sync failed (nothing is known about it).
    pub fn wait(self) -> Result<Receipt, Error> {
        loop {
            let mut state = lock(&self.slot.state);
            if let Some(result) = &state.result {
                return result.clone();
            }
            // Somebody else's unpark may have used up ours: told anew each time.
            state.waiter = Some(Waiter::Thread(thread::current()));
            drop(state);
            thread::park();
        }
    }
}

impl Future for Ticket {
    type Output = Result<Receipt, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.slot.state);
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        state.waiter = Some(Waiter::Task(context.waker().clone()));
        Poll::Pending
    }
}

/// What is under these locks is changed by steps that cannot panic half way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
