//! A segmented write-ahead log, read through memory maps, that knows exactly what is durable.

#![deny(unsafe_code)]

pub mod record;

pub use record::{Entry, EntryId, Index, Kind, Term};
