//! A file mapped read-only. The only unsafe code of the project.
//!
//! Rust's `&[u8]` promises that its bytes do not change. A mapped file changes when somebody writes to the file, so the
//! promise is kept by the log, and this file can only state it: see [`Mapping::new`].

#![expect(unsafe_code, reason = "a mapped file is raw memory; this is the one place that makes a slice of it")]

use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

use crate::fs::Region;

/// A whole file, readable as memory.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: MmapRaw,
}

impl Mapping {
    /// Maps `file`, from its start to its present end.
    ///
    /// The contract, which the type system cannot check: while the mapping lives, nobody shortens the file (that would
    /// be SIGBUS on access), and nobody changes a byte of the file while a slice made of it is in use that covers that byte.
    /// The log keeps it: a segment never changes its length and is written front to back; it asks for the whole once,
    /// when nobody else knows the segment, keeps it as a pointer (`Bytes`), and makes slices only of what lies before the
    /// end of the last durable batch. The directory is locked against other processes that keep to the lock.
    pub(crate) fn new(file: &File) -> io::Result<Mapping> {
        Ok(Mapping { raw: MmapOptions::new().map_raw_read_only(file)? })
    }
}

impl Region for Mapping {
    fn whole(&self) -> &[u8] {
        // SAFETY: it is one live mapping of that length, which `&self` keeps alive. The memory is initialised: it is file
        // content. It is not written to while borrowed, by the contract of `Mapping::new`.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr(), self.raw.len()) }
    }
}
