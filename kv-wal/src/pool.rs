//! Segments ahead of their use: one is always ready or in the making, so that a rotation waits for no zeros.
//!
//! A full disk is met here, before a write is accepted: the caller that needs the segment is told, and the log goes on.
//! Segments that nobody needs any more come here too. One is kept under another name and becomes a segment again, by
//! zeros from end to end, when no reader holds on to it: that allocates nothing, so it cannot fail for want of room.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use crate::error::Error;
use crate::fs::Fs;
use crate::segment::{Maker, Segment};

/// Makes segments, one after the other.
#[derive(Debug)]
pub(crate) struct Pool {
    maker: Work,
    segment_bytes: u64,
    /// Number of the next segment.
    next_seq: u64,
    /// The next segment, if it is there already.
    ready: Option<Arc<Segment>>,
}

#[derive(Debug)]
enum Work {
    Here(Maker),
    Thread(Worker),
}

/// A thread that makes one segment at a time.
#[derive(Debug)]
struct Worker {
    /// `None` tells the thread to end.
    requests: Option<Sender<Request>>,
    results: Receiver<Result<Arc<Segment>, Error>>,
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Request {
    Make { seq: u64, bytes: u64 },
    Discard(Arc<Segment>),
}

impl Pool {
    /// Begins with segment `next_seq`, which may be `ready`; with `ahead`, works on a thread of its own.
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        segment_bytes: u64,
        next_seq: u64,
        ready: Option<Arc<Segment>>,
        ahead: bool,
    ) -> Result<Self, Error> {
        let maker = Maker::new(fs, dir);
        let maker = if ahead { Work::Thread(Worker::spawn(maker, dir)?) } else { Work::Here(maker) };
        Ok(Pool { maker, segment_bytes, next_seq, ready })
    }

    /// Starts on the next segment, if that is not there or under way.
    pub(crate) fn prepare_ahead(&mut self) {
        if let (Work::Thread(worker), None) = (&mut self.maker, &self.ready) {
            worker.start(self.next_seq, self.segment_bytes);
        }
    }

    /// Whether [`Pool::take`] of so many bytes would not wait.
    pub(crate) fn is_ready(&mut self, bytes_min: u64) -> bool {
        if let (Work::Thread(worker), None) = (&mut self.maker, &self.ready) {
            // What failed when nobody needed it is tried again when somebody does.
            self.ready = worker.poll().and_then(Result::ok);
        }
        self.ready.as_ref().is_some_and(|segment| segment.bytes >= bytes_min)
    }

    /// The next segment, of at least `bytes_min` bytes. On error nothing is lost: the next call tries again.
    pub(crate) fn take(&mut self, bytes_min: u64) -> Result<Arc<Segment>, Error> {
        if !self.is_ready(0) {
            self.ready = Some(self.make(self.segment_bytes)?);
        }
        if !self.is_ready(bytes_min) {
            // An append larger than a segment gets one of its own size, in place of the one of usual size.
            let made = self.make(bytes_min);
            if !matches!(made, Err(Error::DiskFull { .. })) {
                // What was ready may have lost its name to what was made.
                self.ready = None;
            }
            self.ready = Some(made?);
        }
        let segment = self.ready.take().expect("made above");
        self.next_seq += 1;
        self.prepare_ahead();
        Ok(segment)
    }

    fn make(&mut self, bytes: u64) -> Result<Arc<Segment>, Error> {
        match &mut self.maker {
            Work::Here(maker) => maker.make(self.next_seq, bytes),
            Work::Thread(worker) => worker.make(self.next_seq, bytes),
        }
    }

    /// Takes a segment that holds nothing any more: it is unlinked, or becomes another.
    pub(crate) fn discard(&mut self, segment: Arc<Segment>) {
        match &mut self.maker {
            Work::Here(maker) => maker.discard(segment),
            Work::Thread(worker) => worker.send(Request::Discard(segment)),
        }
    }
}

impl Worker {
    fn spawn(mut maker: Maker, dir: &Path) -> Result<Worker, Error> {
        let (requests, incoming) = channel::<Request>();
        let (outgoing, results) = channel();
        let work = move || {
            for request in incoming {
                match request {
                    Request::Make { seq, bytes } if outgoing.send(maker.make(seq, bytes)).is_err() => return,
                    Request::Make { .. } => {}
                    Request::Discard(segment) => maker.discard(segment),
                }
            }
        };
        let thread = thread::Builder::new().name("kv-wal-prepare".to_owned()).spawn(work);
        let thread = thread.map_err(Error::io("start a thread for", dir))?;
        Ok(Worker { requests: Some(requests), results, busy: false, thread: Some(thread) })
    }

    fn send(&self, request: Request) {
        let sender = self.requests.as_ref().expect("taken only by drop");
        sender.send(request).expect("the thread lives as long as its worker");
    }

    fn start(&mut self, seq: u64, bytes: u64) {
        if !self.busy {
            self.send(Request::Make { seq, bytes });
            self.busy = true;
        }
    }

    /// What was started, if it has ended.
    fn poll(&mut self) -> Option<Result<Arc<Segment>, Error>> {
        match self.results.try_recv() {
            Ok(result) => {
                self.busy = false;
                Some(result)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => panic!("the thread lives as long as its worker"),
        }
    }

    /// Makes a segment and waits for it. What is under way is waited for first, and is it if it fits.
    fn make(&mut self, seq: u64, bytes: u64) -> Result<Arc<Segment>, Error> {
        if self.busy {
            self.busy = false;
            let under_way = self.results.recv().expect("the thread lives as long as its worker");
            if let Ok(segment) = under_way
                && segment.bytes >= bytes
            {
                return Ok(segment);
            }
        }
        self.start(seq, bytes);
        self.busy = false;
        self.results.recv().expect("the thread lives as long as its worker")
    }
}

impl Drop for Worker {
    /// Waits for the thread, so that nobody works in the directory once its lock is free.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
