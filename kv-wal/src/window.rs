//! A segment's bytes by reads, a piece at a time: small enough for what was read to be in the processor's cache when it is
//! looked at.

use std::ops::Range;

use crate::format::PAGE_BYTES;
use crate::segment::Segment;

/// Bytes read at once, unless more are asked for.
const READ_BYTES: usize = 256 << 10;

/// Looks at a segment front to back.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    segment: &'a Segment,
    bytes: usize,
    buffer: Vec<u8>,
    /// Where in the segment the buffer starts.
    start: usize,
}

impl<'a> Window<'a> {
    /// On a segment that claims to have `bytes`.
    pub(crate) fn new(segment: &'a Segment, bytes: u64) -> Self {
        // Of what is missing, a page is enough.
        let bytes = bytes.min(segment.bytes.next_multiple_of(PAGE_BYTES as u64) + PAGE_BYTES as u64) as usize;
        Window { segment, bytes, buffer: Vec::new(), start: 0 }
    }

    /// All that there is to be seen.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part of it. What cannot be read looks damaged.
    pub(crate) fn get(&mut self, range: Range<usize>) -> &[u8] {
        assert!(range.end <= self.bytes, "within the segment");
        if range.start < self.start || range.start > self.start + self.buffer.len() {
            self.buffer.clear();
            self.start = range.start;
        }
        if range.end > self.start + self.buffer.len() {
            // What comes before is not asked for again.
            self.buffer.drain(..range.start - self.start);
            self.start = range.start;
            let present = self.buffer.len();
            // To the end of a page, so that a page that cannot be read costs no other.
            let end = (self.start + range.len().max(READ_BYTES)).next_multiple_of(PAGE_BYTES).min(self.bytes);
            self.buffer.resize(end - self.start, 0);
            self.segment.read_or_spoil(&mut self.buffer[present..], (self.start + present) as u64);
        }
        &self.buffer[range.start - self.start..range.end - self.start]
    }

    /// Pieces of a few pages from `start` to the end, and where each starts.
    pub(crate) fn pages_from(&mut self, start: usize, mut see: impl FnMut(usize, &[u8])) {
        for at in (start..self.bytes).step_by(PAGE_BYTES) {
            see(at, self.get(at..(at + PAGE_BYTES).min(self.bytes)));
        }
    }
}
