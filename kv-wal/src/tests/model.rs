//! The log against a vector.

use bytes::Bytes;
use proptest::prelude::*;

use super::{SMALL, View, entry, id};
use crate::record::{Entry, Index};
use crate::{Log, Options};

/// What a caller can do. Numbers are fractions of what is possible, so that every step is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Append { count: u64, payload_bytes: usize, state: Option<u8> },
    Override { back: u64, count: u64 },
    TruncateSuffix { back: u64 },
    TruncatePrefix { ahead: u64 },
    Reset { by: i64 },
    Write,
    Sync,
    Reopen,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6u64, prop_oneof![4 => 0..200usize, 1 => 0..9000usize], proptest::option::of(any::<u8>()))
            .prop_map(|(count, payload_bytes, state)| Step::Append { count, payload_bytes, state }),
        2 => (1..9u64, 1..4u64).prop_map(|(back, count)| Step::Override { back, count }),
        1 => (0..9u64).prop_map(|back| Step::TruncateSuffix { back }),
        1 => (0..20u64).prop_map(|ahead| Step::TruncatePrefix { ahead }),
        1 => (-20..30i64).prop_map(|by| Step::Reset { by }),
        2 => Just(Step::Write),
        6 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

/// Does `step` to the log and to `view`, which is what the log should then look like. Appends are of term `term`.
pub(crate) fn apply(step: &Step, term: u64, log: &mut Log, view: &mut View) -> Result<(), crate::Error> {
    let (base, last) = (view.base.index.get(), view.last().index.get());
    match *step {
        Step::Append { count, payload_bytes, state } => {
            let state = state.map(|byte| Bytes::from(vec![byte; 9]));
            append(log, view, new_entries(term, last + 1, count, payload_bytes), state)
        }
        Step::Override { back, count } => {
            append(log, view, new_entries(term, (last + 1).saturating_sub(back).max(base + 1), count, 30), None)
        }
        Step::TruncateSuffix { back } => {
            let end = Index::new(last.saturating_sub(back).max(base));
            log.truncate_suffix(end)?;
            view.entries.retain(|entry| entry.index() <= end);
            Ok(())
        }
        Step::TruncatePrefix { ahead } => {
            let upto = (base + ahead).min(last);
            let Some(entry) = view.entries.iter().find(|entry| entry.index().get() == upto) else { return Ok(()) };
            view.base = entry.id();
            log.truncate_prefix(view.base)?;
            view.entries.retain(|entry| entry.index().get() > upto);
            Ok(())
        }
        Step::Reset { by } => {
            view.base = id(term, base.saturating_add_signed(by));
            view.entries.clear();
            log.reset(view.base)
        }
        Step::Write => log.write(),
        Step::Sync | Step::Reopen => unreachable!("not a change"),
    }
}

/// Does all of it, with a sync where a log is opened again, and at the end; what the log then looks like.
pub(crate) fn apply_all(steps: &[Step], log: &mut Log) -> View {
    let mut view = View::empty();
    for (term, step) in steps.iter().enumerate() {
        match step {
            Step::Sync | Step::Reopen => drop(log.sync().unwrap()),
            change => apply(change, term as u64, log, &mut view).unwrap(),
        }
    }
    log.sync().unwrap();
    view
}

fn new_entries(term: u64, first: u64, count: u64, payload_bytes: usize) -> Vec<Entry> {
    // Terms change inside an append too.
    (0..count).map(|at| entry(2 * term + at / 3, first + at, payload_bytes)).collect()
}

fn append(log: &mut Log, view: &mut View, entries: Vec<Entry>, state: Option<Bytes>) -> Result<(), crate::Error> {
    log.append(&entries, state.as_deref())?;
    view.entries.retain(|entry| entry.index() < entries[0].index());
    view.entries.extend(entries);
    view.state = state.or(view.state.take());
    Ok(())
}

proptest! {
    #![proptest_config(super::cases(60))]

    #[test]
    fn the_log_is_a_vector(steps in proptest::collection::vec(step(), 1..60), batch_bytes_max in 0..20_000usize) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { batch_bytes_max, ..SMALL };
        let (mut log, _) = Log::open(dir.path(), options).unwrap();
        let (mut view, mut written) = (View::empty(), View::empty());
        for (term, step) in steps.iter().enumerate() {
            match step {
                Step::Sync => {
                    let proof = log.sync().unwrap();
                    prop_assert_eq!(proof.last(), view.last().index);
                    written = view.clone();
                    prop_assert_eq!(&View::of(&log), &written);
                }
                Step::Reopen => {
                    drop(log);
                    let (again, recovery) = Log::open(dir.path(), options).unwrap();
                    log = again;
                    prop_assert_eq!(recovery.report, crate::Report::Clean);
                    prop_assert_eq!(recovery.entries_recovered, written.entries.len() as u64);
                    prop_assert_eq!(&View::of(&log), &written);
                    view = written.clone();
                }
                change => apply(change, term as u64, &mut log, &mut view).unwrap(),
            }
            if matches!(step, Step::Write) {
                written = view.clone();
            }
            prop_assert_eq!((log.base(), log.last(), log.state()), (view.base, view.last(), view.state.clone()));
        }
    }
}
