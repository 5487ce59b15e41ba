//! The process that is ended: appends, syncs, and reports what is durable, as fast as it can.

use std::io::Write;
use std::path::Path;

use bytes::BytesMut;
use kv_wal::testing::random;
use kv_wal::{Entry, EntryId, Index, Kind, Log, Options, Term};

pub(crate) const OPTIONS: Options =
    Options { segment_bytes: 256 << 10, batch_bytes_max: 64 << 10, expect: None, prepare_ahead: true };

/// Appends until somebody ends the process. Reports are lines of base, last index and number of
/// the append.
pub(crate) fn append(dir: &Path, round: u64) {
    let (mut log, _) = Log::open(dir, OPTIONS).expect("the log opens");
    let mut seed = round;
    let mut out = std::io::stdout().lock();
    for number in 1_u64.. {
        let last = log.last().index.get();
        let mut next = last + 1;
        if random(&mut seed).is_multiple_of(7) {
            // Some of the end is overridden, which the reports must not count as durable before it is gone for good.
            next = (next - random(&mut seed) % 4).max(log.base().index.get() + 1);
        }
        let count = 1 + random(&mut seed) % 5;
        let entries: Vec<Entry> = (next..next + count).map(|index| entry(round, index, random(&mut seed))).collect();
        let shortened = next + count - 1 < last;
        log.append(&entries, Some(&state(round, number))).expect("appended");
        if random(&mut seed).is_multiple_of(50) {
            let base = log.last().index.get().saturating_sub(100).max(log.base().index.get());
            let term = log.reader().term(Index::new(base));
            if let Some(term) = term {
                log.truncate_prefix(EntryId::new(term, Index::new(base))).expect("truncated");
            }
        }
        let (base, last) = (log.base().index, log.last().index);
        if shortened {
            // From here until the sync returns, either end is right.
            writeln!(out, "\n{base} {last} {} .", number - 1).expect("reported");
            out.flush().expect("reported");
        }
        if log.sync().is_err() {
            // The disk has gone, which is what this is about.
            return;
        }
        writeln!(out, "\n{base} {last} {number} .").expect("reported");
        out.flush().expect("reported");
    }
}

/// Rides with each append, and tells which it was.
fn state(round: u64, number: u64) -> [u8; 16] {
    (u128::from(round) << 64 | u128::from(number)).to_le_bytes()
}

/// Which append of a round the newest state is of; 0 if it is of an earlier round.
pub(crate) fn newest_append(log: &Log, round: u64) -> u64 {
    let state = log.state().map_or(0, |state| u128::from_le_bytes(state[..].try_into().expect("sixteen bytes")));
    if (state >> 64) as u64 == round { state as u64 } else { 0 }
}

/// An entry whose payload follows from its id.
fn entry(term: u64, index: u64, chance: u64) -> Entry {
    let bytes = if chance.is_multiple_of(20) { chance % 30_000 } else { chance % 300 };
    let mut payload = bytes.to_le_bytes().to_vec();
    let mut seed = index ^ term << 32;
    payload.extend((0..bytes).map(|_| random(&mut seed) as u8));
    Entry::encode(&mut BytesMut::new(), EntryId::new(Term::new(term), Index::new(index)), 0, Kind(1), &payload)
}

/// Reads the whole log and expects of each entry what [`append`] has given it.
pub(crate) fn check_entries(log: &Log) {
    let reader = log.reader();
    for entry in reader.iter(log.base().index.next()..log.last().index.next()) {
        let entry = entry.expect("sound");
        let payload = entry.payload();
        let mut seed = entry.index().get() ^ entry.term().get() << 32;
        let (bytes, rest) = payload.split_first_chunk::<8>().expect("a length");
        assert_eq!(u64::from_le_bytes(*bytes), rest.len() as u64, "{}", entry.id());
        assert!(rest.iter().all(|byte| *byte == random(&mut seed) as u8), "{}", entry.id());
    }
}
