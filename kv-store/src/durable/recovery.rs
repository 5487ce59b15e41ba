//! Opening: the newest sound checkpoint, and the log after it.
//!
//! 1. The log is opened, which takes the lock of the directory, syncs what is there, and cuts a torn end.
//! 2. The newest checkpoint that is sound is read. One of another format ends the opening: it is not damage.
//! 3. Log and checkpoint are held against each other ([`verdict`]).
//! 4. The secret is found or drawn ([`whose`]).
//! 5. The entries after the checkpoint are applied.
//!
//! A crash at any point leaves the same to be found and done: nothing is changed before step 3 but what the log cuts, and
//! what step 3 removes is covered by the checkpoint or was given up on request.

use std::path::Path;
use std::sync::Arc;

use kv_wal::fs::Fs;
use kv_wal::{Damage, Index, Log, Report};
use tracing::warn;

use super::Options;
use super::checkpoints::{Checkpoints, DamagedCheckpoint, Loaded};
use super::error::DurableError;
use super::identity::Identity;
use super::journal::{self, Journal, Live, id_of};
use crate::op::Op;
use crate::outcome::Outcome;
use crate::store::Store;

/// What opening a durable store has found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The last entry, which the state includes.
    pub last: Index,
    /// The last entry of the checkpoint that was used.
    pub checkpoint: Option<Index>,
    /// Entries of the log applied after that.
    pub entries_replayed: u64,
    /// Checkpoints that were passed over, newest first. Nothing is missing for it.
    pub damaged_checkpoints: Vec<DamagedCheckpoint>,
    /// Entries that are lost and were given up, as [`Options::give_up_lost`] had it: these, and all that came after.
    pub given_up: Vec<Damage>,
    /// What the log says.
    pub log: kv_wal::Recovery,
}

/// An open store, without threads.
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) live: Live,
    pub(super) checkpoints: Checkpoints,
    pub(super) identity: Identity,
    pub(super) recovered: Recovered,
}

pub(super) fn open(fs: Arc<dyn Fs>, dir: &Path, options: &Options) -> Result<Opened, DurableError> {
    let log_options = kv_wal::Options {
        segment_bytes: options.segment_bytes,
        prepare_ahead: options.in_background,
        ..kv_wal::Options::default()
    };
    let (mut log, recovery) = Log::open_with(fs.clone(), dir, log_options)?;
    let mut checkpoints = Checkpoints::open(fs.clone(), dir)?;
    let (loaded, damaged_checkpoints) = checkpoints.load_newest()?;

    let whose = whose(&log, &recovery.report, loaded.as_ref(), &damaged_checkpoints, dir)?;
    let given_up = reconcile(&mut log, loaded.as_ref(), &damaged_checkpoints, options, dir)?;
    let identity = settle_identity(&mut log, whose, &*fs, dir)?;

    let checkpoint = loaded.as_ref().map(|loaded| loaded.last);
    let store = loaded.map_or_else(|| Store::new(identity.0), |loaded| loaded.store);
    let mut live = Live { store, last: checkpoint.unwrap_or(Index::ZERO) };
    let replayed_bytes = replay(&log, &mut live, dir)?;

    let recovered = Recovered {
        last: live.last,
        checkpoint,
        entries_replayed: live.last.since(checkpoint.unwrap_or(Index::ZERO)),
        damaged_checkpoints,
        given_up,
        log: recovery,
    };
    let journal = Journal::new(log, &live, replayed_bytes);
    Ok(Opened { journal, live, checkpoints, identity, recovered })
}

/// Where the secret comes from.
enum Whose {
    /// It is known, and in the log.
    InLog(Identity),
    /// A checkpoint has it, and the log is to get it again.
    InCheckpoint(Identity),
    /// Nobody has it: one is to be drawn.
    Nobodys,
}

/// The store that the directory belongs to.
///
/// | log's state | checkpoint | log | verdict |
/// |---|---|---|---|
/// | ours | none, or of the same secret | | in order |
/// | ours | of another secret | | that file is foreign |
/// | of another version | | | a newer release is needed |
/// | something else | | | another program's log |
/// | none | sound | | as the checkpoint says |
/// | none | none, or all damaged | damaged | one is drawn, if what is lost is given up: each batch has it, so all are lost |
/// | none | none | new | the first opening |
/// | none | all damaged | new | nothing is left to go on from |
/// | none | none, or all damaged | sound, with entries | another program's log: ours begins with its secret |
fn whose(
    log: &Log,
    report: &Report,
    checkpoint: Option<&Loaded>,
    damaged: &[DamagedCheckpoint],
    dir: &Path,
) -> Result<Whose, DurableError> {
    let stored = log.state().map(|state| Identity::decode(&state)).transpose();
    let stored = stored.map_err(|not_ours| not_ours.at(dir))?;
    let is_damaged = matches!(report, Report::Damaged { .. });
    let is_new = log.last().index == Index::ZERO;
    match (stored, checkpoint) {
        (Some(stored), Some(loaded)) if loaded.identity != stored => {
            Err(DurableError::Foreign { path: loaded.path.clone() })
        }
        (Some(stored), _) => Ok(Whose::InLog(stored)),
        (None, Some(loaded)) => Ok(Whose::InCheckpoint(loaded.identity)),
        (None, None) if is_damaged || (is_new && damaged.is_empty()) => Ok(Whose::Nobodys),
        (None, None) if is_new => Err(gap(log, None, damaged, dir)),
        (None, None) => Err(DurableError::Foreign { path: dir.to_owned() }),
    }
}

/// Has the secret in the log, durably, before anything depends on it.
fn settle_identity(log: &mut Log, whose: Whose, fs: &dyn Fs, dir: &Path) -> Result<Identity, DurableError> {
    let identity = match whose {
        Whose::InLog(identity) if !log.is_state_in_doubt() => return Ok(identity),
        Whose::InLog(identity) | Whose::InCheckpoint(identity) => identity,
        Whose::Nobodys => {
            let mut secret = [0; 32];
            fs.random(&mut secret).map_err(DurableError::checkpoint("draw a secret for", dir))?;
            Identity(secret)
        }
    };
    log.append(&[], Some(&identity.encode()))?;
    log.sync()?;
    Ok(identity)
}

/// What becomes of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is in order.
    GoOn,
    /// What it has lost is covered by the checkpoint: all that is covered is removed.
    Shorten,
    /// It begins again after the checkpoint: what was lost after that is given up, and what followed it.
    Restart,
    /// It ends before the first entry that is lost. What is lost there, and what followed it, is given up.
    CutBefore(Index),
    Gap,
    Lost,
    EndsEarly,
}

/// Whether the log has what the checkpoint lacks. `checkpoint` is its last entry, 0 if there is none; `lost` are the ranges
/// that the log has lost.
///
/// | the log begins | lost after the checkpoint | ends before the checkpoint | give up | verdict |
/// |---|---|---|---|---|
/// | after it     | any | any | any | a gap: nothing can fill it |
/// | at or before | no  | no  | any | in order, or shortened if something before it is lost |
/// | at or before | no  | yes | no  | refused: files of the log are missing, and nobody knows what was in them |
/// | at or before | yes | any | no  | refused, with the ranges |
/// | at or before | no  | yes | yes | restarts after the checkpoint |
/// | at or before | from the first entry after it | any | yes | restarts after the checkpoint |
/// | at or before | later | any | yes | cut before what is lost |
fn verdict(base: Index, last: Index, lost: &[Damage], checkpoint: Index, give_up: bool) -> Verdict {
    let after = lost.iter().find(|range| range.last.is_none_or(|end| end > checkpoint));
    let ends_early = last < checkpoint;
    match (after, ends_early, give_up) {
        _ if base > checkpoint => Verdict::Gap,
        (None, false, _) if lost.is_empty() => Verdict::GoOn,
        (None, false, _) => Verdict::Shorten,
        (None, true, false) => Verdict::EndsEarly,
        (Some(_), _, false) => Verdict::Lost,
        (None, true, true) => Verdict::Restart,
        (Some(range), _, true) if range.first <= checkpoint.next() => Verdict::Restart,
        (Some(range), _, true) => Verdict::CutBefore(range.first),
    }
}

/// Brings the log together with the checkpoint, and tells what was given up for it.
fn reconcile(
    log: &mut Log,
    loaded: Option<&Loaded>,
    damaged: &[DamagedCheckpoint],
    options: &Options,
    dir: &Path,
) -> Result<Vec<Damage>, DurableError> {
    let (base, last, ranges) = (log.base().index, log.last().index, log.damage());
    let checkpoint = loaded.map_or(Index::ZERO, |loaded| loaded.last);
    let dir = dir.to_owned();
    let given_up = match verdict(base, last, &ranges, checkpoint, options.give_up_lost) {
        Verdict::GoOn => return Ok(Vec::new()),
        Verdict::Gap => return Err(gap(log, loaded, damaged, &dir)),
        Verdict::Lost => return Err(DurableError::Lost { dir, ranges }),
        Verdict::EndsEarly => return Err(DurableError::LogEndsEarly { dir, log_last: last, checkpoint }),
        Verdict::Shorten => Vec::new(),
        Verdict::Restart => {
            log.reset(id_of(checkpoint))?;
            if ranges.is_empty() { vec![Damage { first: checkpoint.next(), last: None }] } else { ranges }
        }
        Verdict::CutBefore(first) => {
            log.truncate_suffix(first.prev())?;
            ranges
        }
    };
    if !log.damage().is_empty() {
        log.truncate_prefix(id_of(checkpoint))?;
    }
    log.sync()?;
    for range in &given_up {
        warn!(dir = %dir.display(), %range, "lost writes are given up, and what came after them");
    }
    Ok(given_up)
}

fn gap(log: &Log, loaded: Option<&Loaded>, damaged: &[DamagedCheckpoint], dir: &Path) -> DurableError {
    let (dir, checkpoint) = (dir.to_owned(), loaded.map(|loaded| loaded.last));
    let damaged = damaged.iter().map(|damaged| damaged.path.clone()).collect();
    DurableError::Gap { dir, log_base: log.base().index, checkpoint, damaged }
}

/// Applies what comes after the state, and tells how many bytes that was.
fn replay(log: &Log, live: &mut Live, dir: &Path) -> Result<u64, DurableError> {
    let mut bytes = 0;
    let last = log.last().index;
    for entry in log.reader().iter(live.last.next()..last.next()) {
        let entry = entry?;
        let unknown = |source| DurableError::UnknownEntry { index: entry.index(), source };
        if !journal::is_known(&entry) {
            return Err(unknown(None));
        }
        // The store takes an op that it cannot read for none. Here it is one that another release has written.
        if let Some(Outcome::Invalid) = live.apply(&entry) {
            return Err(unknown(Op::decode(&entry.payload()).err()));
        }
        bytes += entry.frame().len() as u64;
    }
    if live.last < last {
        // The log gives what it says it has, or an error. It is not for us to believe that.
        let range = Damage { first: live.last.next(), last: Some(last) };
        return Err(DurableError::Lost { dir: dir.to_owned(), ranges: vec![range] });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(first: u64, last: Option<u64>) -> Vec<Damage> {
        vec![Damage { first: Index::new(first), last: last.map(Index::new) }]
    }

    /// Every row of the table; the checkpoint ends with entry 10.
    #[test]
    fn what_becomes_of_a_log() {
        let check = |base, last, lost: &[Damage], refused, given_up| {
            let of = |give_up| verdict(Index::new(base), Index::new(last), lost, Index::new(10), give_up);
            assert_eq!((of(false), of(true)), (refused, given_up), "{base} {last} {lost:?}");
        };
        use Verdict::*;
        check(11, 20, &[], Gap, Gap);
        check(11, 20, &lost(12, None), Gap, Gap);
        check(10, 10, &[], GoOn, GoOn);
        check(0, 20, &[], GoOn, GoOn);
        check(0, 20, &lost(3, Some(10)), Shorten, Shorten);
        check(0, 9, &[], EndsEarly, Restart);
        check(0, 9, &lost(3, Some(5)), EndsEarly, Restart);
        check(0, 9, &lost(10, None), Lost, Restart);
        check(0, 20, &lost(9, Some(11)), Lost, Restart);
        check(0, 20, &lost(11, Some(11)), Lost, Restart);
        check(0, 20, &lost(12, Some(13)), Lost, CutBefore(Index::new(12)));
        check(0, 20, &lost(21, None), Lost, CutBefore(Index::new(21)));
    }
}
