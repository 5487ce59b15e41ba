//! A thread around a [`Log`], for any number of threads and tasks: group commit.
//!
//! One thread writes and syncs. While a sync runs, requests gather; the next sync covers them all. There is no timer:
//! take all that is there, never wait for more. Where many wait, another thread wakes them while the next sync runs.
//!
//! Each request owns a promise (see `ticket`), so that whatever becomes of the thread, nobody waits for ever.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::{Bytes, BytesMut};

use crate::error::{Damage, Error};
use crate::format::BATCH_BYTES_MAX;
use crate::fs::Fs;
use crate::log::{Durable, Log, Options, Stats};
use crate::reader::Reader;
use crate::record::{Entry, EntryId, HEADER_BYTES, Index, Kind, Term};
use crate::recovery::{Recovery, Report};
use crate::scrub::{Background, Scrubbed, Scrubber};
use crate::ticket::{Promise, Receipt, Ticket, lock, promise};

/// Requests may wait for the disk up to this many bytes together; the next is refused with [`Error::Busy`].
pub const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Answers given by the thread that syncs. Waking the threads that wait for more takes as long as a sync, so another does it
/// while the next one runs.
const ANSWERED_HERE_MAX: usize = 8;
/// What a request is counted as beside its entries.
const REQUEST_BYTES: usize = 256;
/// Bytes of entries that are staged for one sync, unless one request alone has more.
const SYNC_BYTES_MAX: usize = 16 << 20;

/// A log with a thread that writes it. Dropping it writes what is queued, then closes the log.
#[derive(Debug)]
pub struct Wal {
    handle: Handle,
    /// Verifies the log in the background, if asked to.
    background: Option<Background>,
    /// Where the log is.
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// Submits changes to a [`Wal`] from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    reader: Reader,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    stats: Mutex<Stats>,
}

#[derive(Debug, Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// Of what waits, and of what is being written.
    bytes: usize,
    /// A request was refused: whoever waits for nobody is to be looked for.
    refused: bool,
    /// The thread waits for work, and has to be woken.
    idle: bool,
    /// No request is taken any more.
    closed: bool,
}

impl Queue {
    /// One request alone may be above the limit.
    fn has_room_for(&self, bytes: usize) -> bool {
        let is_next = bytes > QUEUE_BYTES_MAX && self.requests.is_empty();
        is_next || self.bytes.saturating_add(bytes) <= QUEUE_BYTES_MAX
    }
}

#[derive(Debug)]
struct Request {
    change: Change,
    /// What it counts in the queue.
    bytes: usize,
    promise: Promise,
}

#[derive(Debug)]
enum Change {
    Entries {
        entries: Vec<Entry>,
        state: Option<Bytes>,
    },
    Payloads {
        term: Term,
        stamp_ms: u64,
        kind: Kind,
        payloads: Vec<Bytes>,
    },
    Repair(Vec<Entry>),
    TruncatePrefix(EntryId),
    TruncateSuffix(Index),
    Reset(EntryId),
    /// Changes nothing, and is answered when this index is durable.
    Wait(Index),
}

impl Change {
    fn has_entries(&self) -> bool {
        match self {
            Change::Entries { entries, .. } => !entries.is_empty(),
            Change::Payloads { payloads, .. } => !payloads.is_empty(),
            Change::Repair(entries) => !entries.is_empty(),
            _ => false,
        }
    }
}

impl Wal {
    /// Opens the log in `dir` as [`Log::open`] does, and starts its thread.
    ///
    /// # Errors
    ///
    /// As for [`Log::open`], and [`Error::Damaged`] for a log with damage: open that with [`Log::open`] to read it.
    pub fn open(dir: &Path, options: Options) -> Result<(Wal, Recovery), Error> {
        let (log, recovery) = Log::open(dir, options)?;
        if let Report::Damaged { ranges, .. } = &recovery.report {
            let first = log.last().index.next();
            let damage = ranges.first().copied().unwrap_or(Damage { first, last: None });
            return Err(Error::Damaged { damage });
        }
        Ok((Wal::start(log, dir)?, recovery))
    }

    /// Starts the thread of an open log; `dir` names it in errors.
    pub(crate) fn start(log: Log, dir: &Path) -> Result<Wal, Error> {
        let shared = Arc::new(Shared { queue: Mutex::default(), work: Condvar::new(), stats: Mutex::default() });
        let handle = Handle { shared: shared.clone(), reader: log.reader() };
        let fs = log.fs();
        let thread = thread::Builder::new().name("kv-wal".to_owned()).spawn(move || write_all(log, &shared));
        let thread = thread.map_err(Error::io("start a thread for", dir))?;
        Ok(Wal { handle, background: None, fs, dir: dir.to_owned(), thread: Some(thread) })
    }

    /// To submit changes with.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Reads what is durable.
    pub fn reader(&self) -> Reader {
        self.handle.reader.clone()
    }

    /// Verifies what is durable, on the disk itself, on any thread.
    pub fn scrubber(&self) -> Scrubber {
        Scrubber::new(self.fs.clone(), self.reader())
    }

    /// Verifies the log in the background from now on, over and over, reading at most `bytes_per_second`. `report` is told
    /// of each step that has found something, and of each that has ended a pass. Takes the place of an earlier call.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn scrub_in_background(
        &mut self,
        bytes_per_second: u64,
        report: impl FnMut(&Scrubbed) + Send + 'static,
    ) -> Result<(), Error> {
        self.background = None;
        let background = Background::start(self.scrubber(), bytes_per_second, report);
        self.background = Some(background.map_err(Error::io("start a thread for", &self.dir))?);
        Ok(())
    }

    /// Writes what is queued and closes the log. Handles that are left get [`Error::Closed`].
    ///
    /// # Errors
    ///
    /// The last sync failed, or the log was poisoned before.
    pub fn close(mut self) -> Result<(), Error> {
        self.handle.shared.close();
        match self.thread.take().expect("taken only here and by drop").join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.handle.shared.close();
        // A panic of the thread has been reported by the thread, and an error has reached those who waited.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Handle {
    /// Submits entries with indexes of the caller's, as [`Log::append`] takes them: for a single logical appender.
    pub fn append(&self, entries: Vec<Entry>, state: Option<Bytes>) -> Ticket {
        let bytes = entries.iter().map(|entry| entry.frame().len()).sum();
        self.submit(Change::Entries { entries, state }, bytes)
    }

    /// Submits payloads, which get the next free indexes in the order in which requests reach the writer: for any number
    /// of appenders. The payloads of one call are consecutive, and survive a crash together or not at all.
    pub fn append_payloads(&self, term: Term, stamp_ms: u64, kind: Kind, payloads: Vec<Bytes>) -> Ticket {
        let bytes = payloads.iter().map(|payload| HEADER_BYTES + payload.len()).sum();
        self.submit(Change::Payloads { term, stamp_ms, kind, payloads }, bytes)
    }

    /// Submits the removal of the entries up to `upto`, as [`Log::truncate_prefix`] does it.
    pub fn truncate_prefix(&self, upto: EntryId) -> Ticket {
        self.submit(Change::TruncatePrefix(upto), 0)
    }

    /// Submits the removal of the entries after `last`, as [`Log::truncate_suffix`] does it.
    pub fn truncate_suffix(&self, last: Index) -> Ticket {
        self.submit(Change::TruncateSuffix(last), 0)
    }

    /// Submits true entries in the place of lost ones, as [`Log::repair`] takes them.
    pub fn repair(&self, entries: Vec<Entry>) -> Ticket {
        let bytes = entries.iter().map(|entry| entry.frame().len()).sum();
        self.submit(Change::Repair(entries), bytes)
    }

    /// Submits the removal of all entries, as [`Log::reset`] does it.
    pub fn reset(&self, base: EntryId) -> Ticket {
        self.submit(Change::Reset(base), 0)
    }

    /// A ticket for the moment when the entry at `index` is durable, whoever appends it, or has been truncated already. It
    /// counts in the queue until then, or until it is dropped.
    pub fn durable(&self, index: Index) -> Ticket {
        self.submit(Change::Wait(index), 0)
    }

    /// Counts since the log was opened, as of the last sync, and what it takes now.
    pub fn stats(&self) -> Stats {
        let counted = *lock(&self.shared.stats);
        self.reader.complete(counted)
    }

    /// Reads what is durable.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    fn submit(&self, change: Change, bytes: usize) -> Ticket {
        let (promise, ticket) = promise();
        let bytes = bytes.saturating_add(REQUEST_BYTES);
        let mut queue = lock(&self.shared.queue);
        if queue.closed {
            promise.keep(Err(Error::Closed));
        } else if !queue.has_room_for(bytes) {
            promise.keep(Err(Error::Busy { queued_bytes: queue.bytes }));
            queue.refused = true;
        } else {
            queue.bytes += bytes;
            queue.requests.push_back(Request { change, bytes, promise });
        }
        if std::mem::take(&mut queue.idle) {
            drop(queue);
            self.shared.work.notify_one();
        }
        ticket
    }
}

impl Shared {
    fn close(&self) {
        lock(&self.queue).closed = true;
        self.work.notify_all();
    }

    /// What waits, up to [`SYNC_BYTES_MAX`]; nothing, if a request was refused. `None` if the queue is closed and empty.
    fn take(&self) -> Option<Vec<Request>> {
        let mut queue = lock(&self.queue);
        while queue.requests.is_empty() && !queue.closed && !queue.refused {
            queue.idle = true;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.idle = false;
        if queue.requests.is_empty() && queue.closed {
            return None;
        }
        queue.refused = false;
        let mut bytes = 0;
        let count = queue.requests.iter().take_while(|request| {
            let first = bytes == 0;
            bytes += request.bytes;
            first || bytes <= SYNC_BYTES_MAX
        });
        let count = count.count();
        Some(queue.requests.drain(..count).collect())
    }

    /// Requests of so many bytes have been answered.
    fn give_back(&self, bytes: usize) {
        lock(&self.queue).bytes -= bytes;
    }
}

/// The thread: takes what waits, stages it, syncs once, answers all.
fn write_all(log: Log, shared: &Shared) -> Result<(), Error> {
    let _guard = CloseOnExit(shared);
    thread::scope(|scope| {
        let (elsewhere, answers) = channel::<Answers>();
        let give_all = || answers.into_iter().for_each(Answers::give);
        let spawned = thread::Builder::new().name("kv-wal-answer".to_owned()).spawn_scoped(scope, give_all);
        let elsewhere = spawned.is_ok().then_some(elsewhere);
        let mut round = Round { log, shared, elsewhere, staged: Vec::new(), waiting: Vec::new(), answered: 0 };
        while let Some(requests) = shared.take() {
            round.write(requests);
            shared.give_back(std::mem::take(&mut round.answered));
        }
        round.log.close()
    })
}

/// What a sync has to say to those whose requests it covers.
struct Answers {
    /// First and last index of each request.
    to: Vec<(Index, Index, Promise)>,
    result: Result<Durable, Error>,
}

impl Answers {
    fn give(self) {
        for (first, last, promise) in self.to {
            promise.keep(self.result.clone().map(|durable| Receipt { first, last, durable }));
        }
    }
}

/// What the thread works with.
struct Round<'a> {
    log: Log,
    shared: &'a Shared,
    /// The thread that gives many answers.
    elsewhere: Option<Sender<Answers>>,
    /// First and last index of each request that the next sync covers.
    staged: Vec<(Index, Index, Promise)>,
    /// Who waits for an index that is not there yet.
    waiting: Vec<Waiter>,
    /// What the requests that have been answered in this round counted in the queue.
    answered: usize,
}

/// Waits for an entry, whoever appends it.
struct Waiter {
    index: Index,
    bytes: usize,
    promise: Promise,
}

impl Waiter {
    /// Whether there is an answer, or nobody to have it.
    fn is_over(&self, synced: &Result<Durable, Error>) -> bool {
        synced.as_ref().map_or(true, |durable| self.index <= durable.last()) || !self.promise.is_awaited()
    }
}

impl Round<'_> {
    fn write(&mut self, requests: Vec<Request>) {
        let mut full = None;
        for Request { change, bytes, promise } in requests {
            let change = match change {
                Change::Wait(index) => {
                    self.waiting.push(Waiter { index, bytes, promise });
                    continue;
                }
                change => change,
            };
            self.answered += bytes;
            let grows = change.has_entries();
            if grows && !self.staged.is_empty() && !self.log.is_ready(bytes) {
                // Whoever is staged does not wait for a new segment as well.
                self.sync();
            }
            // A full disk is asked once for all, not by each request anew.
            let result = full.clone().filter(|_| grows).map_or_else(|| stage(&mut self.log, change), Err);
            match result {
                Ok((first, last)) => self.staged.push((first, last, promise)),
                Err(error) => {
                    full = if matches!(error, Error::DiskFull { .. }) { Some(error.clone()) } else { full };
                    promise.keep(Err(error));
                }
            }
        }
        self.sync();
    }

    fn sync(&mut self) {
        let result = self.log.sync();
        *lock(&self.shared.stats) = self.log.counts();
        let answers = Answers { to: std::mem::take(&mut self.staged), result: result.clone() };
        match &self.elsewhere {
            Some(elsewhere) if answers.to.len() > ANSWERED_HERE_MAX => {
                // Without that thread, here.
                elsewhere.send(answers).unwrap_or_else(|unsent| unsent.0.give());
            }
            _ => answers.give(),
        }
        let answered = &mut self.answered;
        for Waiter { index, bytes, promise } in self.waiting.extract_if(.., |waiter| waiter.is_over(&result)) {
            *answered += bytes;
            promise.keep(result.clone().map(|durable| Receipt { first: index, last: index, durable }));
        }
    }
}

/// First and last index of what was staged.
fn stage(log: &mut Log, change: Change) -> Result<(Index, Index), Error> {
    let entries = match change {
        Change::Entries { entries, state } => {
            log.append(&entries, state.as_deref())?;
            entries
        }
        Change::Payloads { term, stamp_ms, kind, payloads } => {
            let entries = encode(log.last().index.next(), term, stamp_ms, kind, &payloads)?;
            log.append(&entries, None)?;
            entries
        }
        Change::Repair(entries) => {
            log.repair(&entries)?;
            let (first, last) = (entries.first(), entries.last());
            let none = log.last().index;
            return Ok((first.map_or(none.next(), Entry::index), last.map_or(none, Entry::index)));
        }
        Change::TruncatePrefix(upto) => log.truncate_prefix(upto).map(|()| Vec::new())?,
        Change::TruncateSuffix(last) => log.truncate_suffix(last).map(|()| Vec::new())?,
        Change::Reset(base) => log.reset(base).map(|()| Vec::new())?,
        Change::Wait(_) => Vec::new(),
    };
    let last = log.last().index;
    Ok((entries.first().map_or(last.next(), Entry::index), last))
}

fn encode(first: Index, term: Term, stamp_ms: u64, kind: Kind, payloads: &[Bytes]) -> Result<Vec<Entry>, Error> {
    let bytes_max = crate::record::PAYLOAD_BYTES_MAX;
    if let Some(payload) = payloads.iter().find(|payload| payload.len() > bytes_max) {
        return Err(Error::TooLarge { what: "a payload", bytes: payload.len(), bytes_max });
    }
    let bytes = payloads.iter().map(|payload| HEADER_BYTES + payload.len()).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(Error::TooLarge { what: "an append", bytes, bytes_max: BATCH_BYTES_MAX });
    }
    let mut buffer = BytesMut::with_capacity(bytes);
    let ids = (0..).map(|at| EntryId::new(term, first.plus(at)));
    Ok(ids.zip(payloads).map(|(id, payload)| Entry::encode(&mut buffer, id, stamp_ms, kind, payload)).collect())
}

/// Refuses further requests when the thread ends, in whatever way; those that wait are dropped, and so answered.
struct CloseOnExit<'a>(&'a Shared);

impl Drop for CloseOnExit<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.closed = true;
        let requests = std::mem::take(&mut queue.requests);
        drop(queue);
        // Whoever is woken may come back to the queue.
        drop(requests);
    }
}
