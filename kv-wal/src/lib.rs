#![cfg_attr(feature = "file", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "file"), doc = "The encoding of a log entry, and its types.")]
#![deny(unsafe_code)]

pub mod record;

#[cfg(feature = "file")]
mod catalog;
#[cfg(feature = "file")]
mod damage;
#[cfg(feature = "file")]
mod error;
#[cfg(feature = "file")]
mod format;
#[cfg(feature = "file")]
pub mod fs;
#[cfg(feature = "file")]
mod load;
#[cfg(feature = "file")]
mod log;
#[cfg(feature = "file")]
mod map;
#[cfg(feature = "file")]
mod open;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(all(feature = "file", not(feature = "planted")))]
mod planted;
#[cfg(feature = "file")]
mod pool;
#[cfg(feature = "file")]
mod reader;
#[cfg(feature = "file")]
mod recovery;
#[cfg(feature = "file")]
mod scan;
#[cfg(feature = "file")]
mod scrub;
#[cfg(feature = "file")]
mod segment;
#[cfg(feature = "file")]
mod staged;
#[cfg(feature = "file")]
mod ticket;
#[cfg(feature = "file")]
mod wal;
#[cfg(feature = "file")]
mod walk;
#[cfg(feature = "file")]
mod window;
#[cfg(feature = "file")]
mod writer;

#[cfg(all(test, feature = "file"))]
mod tests;

#[cfg(all(feature = "file", any(test, feature = "testing")))]
pub mod testing;

pub use record::{Entry, EntryId, Index, Kind, Term};

#[cfg(feature = "file")]
pub use crate::{
    error::{Damage, Error, LogId},
    format::{BATCH_BYTES_MAX, STATE_BYTES_MAX},
    log::{Durable, Log, Options, Stats},
    reader::Reader,
    recovery::{Recovery, Report, Verdict},
    scan::{Scan, ScannedBatch, ScannedBatchHeader, ScannedHeader, ScannedSegment, scan, scan_with},
    scrub::{Flaw, Scrubbed, Scrubber},
    ticket::{Receipt, Ticket},
    wal::{Handle, QUEUE_BYTES_MAX, Wal},
};
