//! Power loss and failed syncs at any step of any history, opening included.
//!
//! What must hold: what a sync has covered is there; what is there is a prefix of what was staged; no operator is needed
//! (never a report of damage); and what was there when the log was opened is there the next time, too.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::model::{Step, apply, step};
use super::{SMALL, View};
use crate::testing::{SimFs, random};
use crate::{Log, Options, Report, Verdict, scan_with};

/// A log that is lost now and then, and the views that may be found after that.
pub(super) struct Life {
    dir: tempfile::TempDir,
    fs: SimFs,
    seed: u64,
    options: Options,
    /// The durable one first, then what was staged, step by step.
    possible: Vec<View>,
    losses: u64,
}

impl Life {
    pub(super) fn new(seed: u64, batch_bytes_max: usize) -> Life {
        let options = Options { batch_bytes_max, ..SMALL };
        let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(seed));
        Life { dir, fs, seed, options, possible: vec![View::empty()], losses: 0 }
    }

    /// Opens the log, however often that takes, and holds it against what is possible.
    fn open(&mut self) -> Log {
        loop {
            let scanned = scan_with(&self.fs, self.dir.path());
            let opened = Log::open_with(Arc::new(self.fs.clone()), self.dir.path(), self.options);
            let Ok((log, recovery)) = opened else {
                self.lose();
                continue;
            };
            assert!(!recovery.is_damaged(), "no operator is needed: {recovery:?}");
            if let Ok(scan) = scanned {
                // Not even where nothing counts any more.
                let batches = scan.segments.iter().flat_map(|segment| &segment.batches);
                assert!(batches.clone().all(|batch| batch.verdict != Verdict::Damaged), "{scan:?}");
                assert_eq!(scan.recovery, recovery, "what a scan says before is what opening does");
            }
            let view = View::of(&log);
            assert!(self.possible.contains(&view), "found {view:?}\nof {:?}\n{recovery:?}", self.possible);
            self.possible = vec![view];
            return log;
        }
    }

    /// The power goes, or only the process; the next such event is drawn.
    fn lose(&mut self) {
        self.losses += 1;
        if self.fs.is_off() || random(&mut self.seed).is_multiple_of(2) {
            let dir = tempfile::tempdir().unwrap();
            self.fs = self.fs.after_power_loss(random(&mut self.seed), dir.path());
            self.dir = dir;
        } else if random(&mut self.seed).is_multiple_of(2) {
            self.fs.evict().unwrap();
        }
        self.arm();
    }

    fn arm(&mut self) {
        let after = random(&mut self.seed) % 60;
        match random(&mut self.seed) % 4 {
            0 => self.fs.fail_sync_after(after),
            1 => self.fs.fail_write_after(after),
            _ => self.fs.power_off_after(after),
        }
    }

    pub(super) fn run(&mut self, steps: &[Step]) {
        let mut log = self.open();
        self.arm();
        for (term, step) in steps.iter().enumerate() {
            let mut view = self.possible.last().unwrap().clone();
            let result = match step {
                Step::Sync => log.sync().map(|_| self.possible = vec![view]),
                Step::Reopen => Err(crate::Error::Closed),
                change => apply(change, term as u64, &mut log, &mut view).map(|()| self.possible.push(view)),
            };
            if result.is_err() {
                drop(log);
                self.lose();
                log = self.open();
            }
        }
    }
}

proptest! {
    #![proptest_config(super::cases(250))]

    #[test]
    fn nothing_durable_is_ever_lost(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..80),
        batch_bytes_max in prop_oneof![Just(0), Just(16 << 10)],
    ) {
        Life::new(seed, batch_bytes_max).run(&steps);
    }
}

/// One history, with the power cut at each of its operations in turn, and then again at each operation of the opening.
#[test]
fn power_loss_at_every_operation_of_a_rotation_and_of_the_opening_after_it() {
    let history = |fs: &SimFs, dir: &Path| -> (Vec<View>, bool) {
        let mut possible = vec![View::empty()];
        let Ok((mut log, _)) = Log::open_with(Arc::new(fs.clone()), dir, SMALL) else { return (possible, false) };
        for term in 0..6 {
            for step in [
                Step::Append { count: 3, payload_bytes: 9000, state: Some(term as u8) },
                Step::Override { back: 2, count: 1 },
                Step::Sync,
            ] {
                let mut view = possible.last().unwrap().clone();
                let result = match step {
                    Step::Sync => log.sync().map(|_| possible = vec![view]),
                    change => apply(&change, term, &mut log, &mut view).map(|()| possible.push(view)),
                };
                if result.is_err() {
                    return (possible, false);
                }
            }
        }
        (possible, true)
    };
    for cut in 0.. {
        let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(cut));
        fs.power_off_after(cut);
        let (possible, finished) = history(&fs, dir.path());
        for second_cut in (0..40).step_by(3) {
            let (dir, mut seed) = (tempfile::tempdir().unwrap(), cut * 1000 + second_cut);
            let fs = fs.after_power_loss(random(&mut seed), dir.path());
            fs.power_off_after(second_cut);
            let _ = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL);
            let dir = tempfile::tempdir().unwrap();
            let fs = fs.after_power_loss(random(&mut seed), dir.path());
            let (log, recovery) = Log::open_with(Arc::new(fs), dir.path(), SMALL).unwrap();
            assert!(matches!(recovery.report, Report::Clean | Report::Torn { .. }), "{cut} {second_cut}: {recovery:?}");
            assert!(possible.contains(&View::of(&log)), "{cut} {second_cut}: {recovery:?}");
        }
        if finished {
            return;
        }
    }
}

/// Several batches of one sync, of which the power loss left any, all of one length: what is written later takes the exact
/// place of one of them, and the others must not follow it, though the opening that erased them could not sync that.
pub(super) fn an_opening_that_fails_is_done_again_by_the_next(seed: u64) {
    let options = Options { batch_bytes_max: 0, ..SMALL };
    for failing in 0..12 {
        let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(seed));
        let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), options).unwrap();
        log.append(&super::entries(1, 1..=1), None).unwrap();
        log.sync().unwrap();
        for index in 2..=5 {
            log.append(&super::entries(1, index..=index), None).unwrap();
        }
        log.write().unwrap();
        drop(log);
        let dir = tempfile::tempdir().unwrap();
        let fs = fs.after_power_loss(seed, dir.path());
        fs.fail_sync_after(failing);
        let open = || Log::open_with(Arc::new(fs.clone()), dir.path(), options);
        let (mut log, _) = open().or_else(|_| open()).unwrap();
        log.append(&super::entries(2, log.last().index.get() + 1..=log.last().index.get() + 1), None).unwrap();
        if log.sync().is_err() {
            continue;
        }
        let view = View::of(&log);
        drop(log);
        let dir = tempfile::tempdir().unwrap();
        let fs = fs.after_power_loss(seed, dir.path());
        let (log, recovery) = Log::open_with(Arc::new(fs), dir.path(), options).unwrap();
        assert!(!recovery.is_damaged(), "{recovery:?}");
        assert_eq!(View::of(&log), view, "{recovery:?}");
    }
}

#[test]
fn openings_that_fail() {
    (0..20).for_each(an_opening_that_fails_is_done_again_by_the_next);
}
