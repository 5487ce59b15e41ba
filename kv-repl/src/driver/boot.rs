//! What a node finds on its disk, and whether it may go on with it.
//!
//! 1. The state blob of the log says who the node is; an empty log gets a new incarnation. It is durable, and the start is
//!    counted, before anybody hears of it.
//! 2. The newest checkpoint that is whole gives the state.
//! 3. Log and checkpoint are brought together: see `reconcile`.
//! 4. What the log has lost after the checkpoint is for the core to get back from other nodes, if the last entry and the
//!    hard state are known. Otherwise the node has forgotten what it acknowledged or whom it voted for: it is beyond repair,
//!    and must begin again as a new member.

use std::sync::Arc;

use tracing::{info, warn};

use super::checkpoints::Checkpoints;
use super::config::{ReplicaConfig, StartError};
use super::founding::FoundingRecord;
use super::host::{Host, RealHost};
use super::identity::NodeState;
use super::replicated::Replicated;
use super::traits::{Log, LogDamage, LogReader, StateMachine};
use crate::raft::Lost;
use crate::types::{Configuration, Entry, EntryId, HardState, Incarnation, Index, Member, NodeId, Term, kind};

/// Bytes of entries looked at in one go.
const SCAN_BYTES: usize = 4 << 20;

/// What the disk held.
pub(super) struct Booted<S, L> {
    pub(super) log: L,
    pub(super) state: Replicated<S>,
    pub(super) node: NodeState,
    pub(super) checkpoints: Checkpoints,
    pub(super) founding: Option<FoundingRecord>,
    pub(super) lost: Vec<Lost>,
}

/// Whether the node can go on with it.
pub(super) enum Boot<S, L> {
    Ready(Box<Booted<S, L>>),
    BeyondRepair {
        reason: String,
        /// Which cluster it belongs to, if that can be read.
        #[cfg_attr(
            not(all(feature = "file-log", feature = "store")),
            expect(dead_code, reason = "only the default composition can begin a new log")
        )]
        founding: Option<FoundingRecord>,
    },
}

/// Reads the disk, on a thread that may wait. An empty log is begun with the `known` record.
pub(super) async fn read_disk<S: StateMachine, L: Log>(
    config: &ReplicaConfig,
    log: L,
    known: Option<FoundingRecord>,
) -> Result<Boot<S, L>, StartError> {
    let config = config.clone();
    let booted =
        tokio::task::spawn_blocking(move || boot(&config, log, known, &(Arc::new(RealHost) as Arc<dyn Host>))).await;
    booted.map_err(|panic| StartError::Other(Box::new(panic)))?
}

/// The same, on this thread.
pub(super) fn boot<S: StateMachine, L: Log>(
    config: &ReplicaConfig,
    mut log: L,
    known: Option<FoundingRecord>,
    host: &Arc<dyn Host>,
) -> Result<Boot<S, L>, StartError> {
    let mut node = node_state(config.id, &log, &**host)?;
    let failed = |source| StartError::Checkpoints { path: config.dir.clone(), source };
    let checkpoints = Checkpoints::open(&config.dir, host.clone()).map_err(failed)?;
    let state: Replicated<S> = checkpoints.load_newest().map_err(failed)?.unwrap_or_else(Replicated::empty);
    if node.is_diverged {
        warn!(
            "the state of this node was not that of the majority when it ended: until it is again, it serves nobody and does not lead"
        );
    }
    let lost = match examine(&mut log, &node, state.applied)? {
        Ok(lost) => lost,
        Err(reason) => {
            let founding = state.founding.or_else(|| founding_entry(&log.reader()).ok().flatten());
            return Ok(Boot::BeyondRepair { reason, founding });
        }
    };
    let mut founding = match &state.founding {
        Some(record) => Some(record.clone()),
        None => founding_entry(&log.reader())?,
    };
    node.starts += 1;
    let first = known.filter(|_| founding.is_none());
    if first.is_some() {
        node.hard_state.term = node.hard_state.term.max(FoundingRecord::ENTRY_ID.term);
    }
    founding = founding.or_else(|| first.clone());
    let entries: Vec<Entry> = first.iter().map(FoundingRecord::entry).collect();
    log.append(&entries, Some(&node.encode()))?;
    log.sync()?;
    info!(
        id = %config.id, incarnation = %node.me.incarnation, term = %node.hard_state.term,
        checkpoint = %state.applied, last = %log.reader().last(), "disk read"
    );
    Ok(Boot::Ready(Box::new(Booted { log, state, node, checkpoints, founding, lost })))
}

/// Who the node is. If its log is empty it gets a new incarnation, which is not stored yet.
fn node_state<L: Log>(id: NodeId, log: &L, host: &dyn Host) -> Result<NodeState, StartError> {
    if let Some(blob) = log.state() {
        let node = NodeState::decode(&blob).ok_or(StartError::State("unknown format"))?;
        if node.me.id != id {
            return Err(StartError::OtherNode { expected: id, found: node.me.id });
        }
        return Ok(node);
    }
    if log.reader().last() != log.reader().base() && log.damage().is_none() {
        return Err(StartError::State("there are entries but no node state"));
    }
    let me = Member::new(id, Incarnation::new(host.draw()?));
    Ok(NodeState { me, hard_state: HardState::default(), starts: 0, is_given_up: false, is_diverged: false })
}

/// Brings the log together with the checkpoint that ends with `applied`, and says what it has lost after that, or why it is
/// of no use.
fn examine<L: Log>(log: &mut L, node: &NodeState, applied: EntryId) -> Result<Result<Vec<Lost>, String>, StartError> {
    let damage = log.damage();
    if node.is_given_up {
        return Ok(Err("no other node has what its log has lost".to_owned()));
    }
    if damage.is_state_in_doubt {
        return Ok(Err("its log may have lost the latest vote".to_owned()));
    }
    if applied == EntryId::ZERO && range_of(&damage, FoundingRecord::ENTRY_ID.index).is_some() {
        return Ok(Err("its log has lost the founding record, and there is no checkpoint".to_owned()));
    }
    match range_of(&damage, applied.index) {
        None => reconcile(log, applied)?,
        Some((first, last)) => match entry_after(&log.reader(), last)? {
            None => return Ok(Err(end_lost(first))),
            // That log never held the checkpoint's last entry, which is committed.
            Some(next) if next.term < applied.term => restart(log, applied)?,
            // It may have held it. If not, the others do not have what comes after it: `raft::damage` finds that out.
            Some(_) => {}
        },
    }
    if log.damage().ranges.iter().any(|(first, _)| *first <= applied.index) {
        log.truncate_prefix(applied)?;
        log.sync()?;
    }
    losses(log)
}

/// The lost range that this entry is in.
fn range_of(damage: &LogDamage, index: Index) -> Option<(Index, Option<Index>)> {
    damage.ranges.iter().copied().find(|(first, last)| *first <= index && last.is_none_or(|last| index <= last))
}

/// The entry after a lost range that ends with `last`, if there is one.
fn entry_after<R: LogReader>(reader: &R, last: Option<Index>) -> Result<Option<EntryId>, StartError> {
    let next = last.map(Index::next).filter(|next| *next <= reader.last().index);
    let Some(next) = next else { return Ok(None) };
    let entry = reader.read(next..next.next(), 1)?.first().map(Entry::id);
    entry.map(Some).ok_or(StartError::State("an entry after a lost one is missing"))
}

fn end_lost(first: Index) -> String {
    format!("its log has lost its end, from entry {first} on")
}

/// The ranges of lost entries, each with the entry after it.
fn losses<L: Log>(log: &L) -> Result<Result<Vec<Lost>, String>, StartError> {
    let mut found = Vec::new();
    for (first, last) in log.damage().ranges {
        let Some(next) = entry_after(&log.reader(), last)? else { return Ok(Err(end_lost(first))) };
        warn!(%first, %next, "entries of the log are lost; this node asks the others for them, and does not lead meanwhile");
        found.push(Lost { first, next });
    }
    Ok(Ok(found))
}

/// Brings log and checkpoint together. `checkpoint` is the checkpoint's last entry.
///
/// | log | verdict |
/// |---|---|
/// | begins after it | entries are missing: refused |
/// | holds it | in order |
/// | ends before it | the leader committed from its followers, or a received checkpoint was not followed by its reset: the log restarts after it |
/// | has another entry in its place | a received checkpoint was not followed by its reset: the log restarts after it |
fn reconcile<L: Log>(log: &mut L, checkpoint: EntryId) -> Result<(), StartError> {
    let reader = log.reader();
    if reader.base().index > checkpoint.index {
        return Err(StartError::Gap { base: reader.base() });
    }
    if term_at(&reader, checkpoint) == Some(checkpoint.term) {
        return Ok(());
    }
    restart(log, checkpoint)
}

fn restart<L: Log>(log: &mut L, checkpoint: EntryId) -> Result<(), StartError> {
    warn!(%checkpoint, last = %log.reader().last(), "the log restarts after the checkpoint");
    log.reset(checkpoint)?;
    Ok(log.sync()?)
}

/// The term of the entry in this one's place, if there is any.
pub(super) fn term_at<R: LogReader>(reader: &R, id: EntryId) -> Option<Term> {
    if id.index == reader.base().index {
        return Some(reader.base().term);
    }
    let within = id.index > reader.base().index && id.index <= reader.last().index;
    let runs = reader.term_runs();
    let run = runs.iter().rev().find(|run| run.index <= id.index);
    run.filter(|_| within).map(|run| run.term)
}

fn founding_entry<R: LogReader>(reader: &R) -> Result<Option<FoundingRecord>, StartError> {
    let first = FoundingRecord::ENTRY_ID.index;
    if reader.base() != EntryId::ZERO || reader.last().index < first {
        return Ok(None);
    }
    let entries = reader.read(first..first.next(), 1)?;
    let entry = entries.first().filter(|entry| entry.kind() == kind::FOUNDING);
    let record = entry.and_then(|entry| FoundingRecord::decode(&entry.payload()));
    record.map(Some).ok_or(StartError::State("the log does not begin with a founding record"))
}

/// The configurations in the log after `applied`, and where they stand. The core must know of them before any is applied;
/// those that are lost it learns when they are repaired.
pub(super) fn configurations_after<R: LogReader>(
    reader: &R,
    applied: Index,
    lost: &[Lost],
) -> Result<Vec<(Index, Configuration)>, StartError> {
    let mut first = applied.max(reader.base().index).next();
    let mut found = Vec::new();
    let ends = lost.iter().map(|lost| (lost.first, lost.next.index));
    let last = reader.last().index.next();
    for (end, go_on) in ends.chain([(last, last)]) {
        while first < end {
            let entries = reader.read(first..end, SCAN_BYTES)?;
            let read = entries.last().ok_or(StartError::State("entries of the log are missing"))?;
            first = read.index().next();
            for entry in entries.iter().filter(|entry| entry.kind() == kind::CONFIGURATION) {
                let configuration = Configuration::decode(&entry.payload());
                let configuration =
                    configuration.ok_or(StartError::State("a configuration in the log is unreadable"))?;
                found.push((entry.index(), configuration));
            }
        }
        first = first.max(go_on);
    }
    Ok(found)
}

/// The stamp of the last entry, which is the greatest in the log.
pub(super) fn last_stamp_ms<R: LogReader>(reader: &R) -> Result<u64, StartError> {
    let last = reader.last().index;
    if last == reader.base().index {
        return Ok(0);
    }
    Ok(reader.read(last..last.next(), 1)?.first().map_or(0, Entry::stamp_ms))
}

#[cfg(test)]
#[cfg(feature = "file-log")]
mod tests {
    use std::fs;
    use std::path::Path;

    use bytes::BytesMut;

    use super::*;
    use crate::driver::testing::{Counter, state_at};

    fn open(dir: &Path) -> kv_wal::Log {
        let options = kv_wal::Options { segment_bytes: 1 << 20, ..kv_wal::Options::default() };
        kv_wal::Log::open(&dir.join("log"), options).expect("it opens").0
    }

    /// A log of entries 1 to 3 of term 1 and 4 to 9 of term `term`, a batch each, in which those of `lost` are spoiled, and
    /// a checkpoint that ends with entry 5 of term 1.
    fn boot_with(term: u64, lost: &[u64]) -> Boot<Counter, kv_wal::Log> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = ReplicaConfig::new(NodeId::new(1), dir.path().join("checkpoints"), Vec::new());
        let me = Member::new(config.id, Incarnation::new(7));
        let hard_state = HardState { term: Term::new(9), voted_for: None };
        let node = NodeState { me, hard_state, starts: 1, is_given_up: false, is_diverged: false };
        let mut log = open(dir.path());
        for at in 1..=9 {
            let id = EntryId::new(Term::new(if at < 4 { 1 } else { term }), Index::new(at));
            let entry = Entry::encode(&mut BytesMut::new(), id, 0, kind::NOOP, format!("<value-{at}>").as_bytes());
            Log::append(&mut log, &[entry], Some(&node.encode())).expect("taken");
            Log::sync(&mut log).expect("synced");
        }
        drop(log);
        for file in
            fs::read_dir(dir.path().join("log")).expect("it is there").map(|entry| entry.expect("its path").path())
        {
            let mut bytes = fs::read(&file).expect("readable");
            for at in lost {
                let value = format!("<value-{at}>");
                let found = bytes.windows(value.len()).position(|window| window == value.as_bytes());
                if let Some(found) = found {
                    bytes[found] ^= 1;
                }
            }
            fs::write(&file, bytes).expect("writable");
        }
        let state = state_at(5);
        let checkpoints = Checkpoints::open(&config.dir, Arc::new(RealHost)).expect("opens");
        checkpoints.write::<Counter>(&0, &state.checkpoint_meta()).expect("written");
        boot(&config, open(dir.path()), None, &(Arc::new(RealHost) as Arc<dyn Host>)).expect("it can be read")
    }

    fn ready(boot: Boot<Counter, kv_wal::Log>) -> (EntryId, EntryId, Vec<Lost>) {
        let Boot::Ready(booted) = boot else { panic!("it can go on") };
        let reader = booted.log.reader();
        (Log::reader(&booted.log).base(), LogReader::last(&reader), booted.lost)
    }

    fn id(term: u64, index: u64) -> EntryId {
        EntryId::new(Term::new(term), Index::new(index))
    }

    /// What the checkpoint covers is not missed, and what follows may have been acknowledged.
    #[test]
    fn a_log_that_has_lost_the_entry_that_the_checkpoint_ends_with_goes_on_after_it() {
        let lost = |next: EntryId| vec![Lost { first: Index::new(6), next }];
        assert_eq!(ready(boot_with(1, &[4, 5])), (id(1, 5), id(1, 9), vec![]));
        assert_eq!(ready(boot_with(1, &[5, 6])), (id(1, 5), id(1, 9), lost(id(1, 7))));
        assert_eq!(ready(boot_with(2, &[4, 5, 6, 7])), (id(1, 5), id(2, 9), lost(id(2, 8))));
        assert!(matches!(boot_with(1, &[5, 6, 7, 8, 9]), Boot::BeyondRepair { .. }), "its end is not known");
    }

    #[test]
    fn a_loss_before_the_checkpoint_ends_is_no_loss() {
        assert_eq!(ready(boot_with(1, &[2, 3])), (id(1, 5), id(1, 9), vec![]));
        assert_eq!(ready(boot_with(2, &[2, 3])), (id(1, 5), id(1, 5), vec![]), "another entry is in its place");
    }
}
