//! Segments ahead of their use: one is always ready or in the making, so that a rotation waits for no zeros.
//!
//! A full disk is met here, before a write is accepted: the caller that needs the segment is told, and the log goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::error::Error;
use crate::fs::Fs;
use crate::segment::{Segment, prepare};

/// Makes segments, one after the other.
#[derive(Debug)]
pub(crate) struct Pool {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    segment_bytes: u64,
    /// Number of the next segment.
    next_seq: u64,
    worker: Option<Worker>,
}

/// A thread that makes one segment at a time.
#[derive(Debug)]
struct Worker {
    /// `None` tells the thread to end.
    requests: Option<Sender<u64>>,
    results: Receiver<Result<Arc<Segment>, Error>>,
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    /// Begins with segment `next_seq`; with `ahead`, on a thread of its own.
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        segment_bytes: u64,
        next_seq: u64,
        ahead: bool,
    ) -> Result<Self, Error> {
        let worker = if ahead { Some(Worker::spawn(fs.clone(), dir, segment_bytes)?) } else { None };
        Ok(Pool { fs, dir: dir.to_owned(), segment_bytes, next_seq, worker })
    }

    /// Starts on the next segment, if that is not under way.
    pub(crate) fn prepare_ahead(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.start(self.next_seq);
        }
    }

    /// The next segment, of at least `bytes_min` bytes. On error nothing is lost: the next call tries again.
    pub(crate) fn take(&mut self, bytes_min: u64) -> Result<Arc<Segment>, Error> {
        let mut segment = match &mut self.worker {
            Some(worker) => worker.finish(self.next_seq)?,
            None => prepare(&*self.fs, &self.dir, self.next_seq, self.segment_bytes)?,
        };
        if segment.bytes < bytes_min {
            // An append larger than a segment gets one of its own size, in place of the one of usual size.
            segment = prepare(&*self.fs, &self.dir, self.next_seq, bytes_min)?;
        }
        self.next_seq += 1;
        self.prepare_ahead();
        Ok(segment)
    }
}

impl Worker {
    fn spawn(fs: Arc<dyn Fs>, dir: &Path, segment_bytes: u64) -> Result<Worker, Error> {
        let (requests, incoming) = channel::<u64>();
        let (outgoing, results) = channel();
        let owned = dir.to_owned();
        let make = move || {
            for seq in incoming {
                if outgoing.send(prepare(&*fs, &owned, seq, segment_bytes)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("kv-wal-prepare".to_owned()).spawn(make);
        let thread = thread.map_err(Error::io("start a thread for", dir))?;
        Ok(Worker { requests: Some(requests), results, busy: false, thread: Some(thread) })
    }

    fn start(&mut self, seq: u64) {
        if !self.busy {
            let sender = self.requests.as_ref().expect("taken only by drop");
            sender.send(seq).expect("the thread lives as long as its worker");
            self.busy = true;
        }
    }

    fn finish(&mut self, seq: u64) -> Result<Arc<Segment>, Error> {
        self.start(seq);
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
