//! Files that are not as they were written: found, named, and gone around where nothing is lost by it.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::checkpoint::{self, CheckpointError, CheckpointMeta};

/// A store that has lived, and what it was in the end.
fn lived() -> (Bench, (Index, [u8; 32])) {
    let bench = Bench::new();
    let (store, _) = bench.open(SMALL).unwrap();
    history(80).iter().for_each(|made| drop(call(&bench, &store, made).unwrap()));
    let state = state_of(&store);
    store.close().unwrap();
    assert_eq!(bench.checkpoints().len(), 2);
    (bench, state)
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).unwrap();
}

#[test]
fn any_bit_of_the_newest_checkpoint_and_the_one_before_is_used() {
    let (bench, state) = lived();
    let [older, newest] = bench.checkpoints().try_into().unwrap();
    let bytes = fs::read(&newest).unwrap().len();
    // The whole header, where the version is, and then here and there.
    for at in (0..81).chain((81..bytes).step_by(bytes / 40)) {
        flip(&newest, at);
        let (store, recovered) = bench.open(SMALL).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        assert_eq!(state_of(&store), state, "byte {at}");
        let [damaged] = &recovered.damaged_checkpoints[..] else { panic!("byte {at}: {recovered:?}") };
        assert_eq!(damaged.path, newest, "it is named");
        assert!(older.to_str().unwrap().contains(&format!("{:016x}", recovered.checkpoint.unwrap().get())));
        flip(&newest, at);
    }
}

#[test]
fn a_damaged_checkpoint_is_not_one_of_two() {
    let (bench, _) = lived();
    let [older, newest] = bench.checkpoints().try_into().unwrap();
    flip(&newest, 200);
    let (store, _) = bench.open(SMALL).unwrap();
    store.put(b"k", b"v").unwrap();
    let state = state_of(&store);
    assert_eq!(store.checkpoint().unwrap(), state.0);
    let now = bench.checkpoints();
    assert!(now.contains(&older) && !now.contains(&newest), "{now:?}");
    drop(store);
    flip(now.last().unwrap(), 200);
    let (store, _) = bench.open(SMALL).unwrap();
    assert_eq!(state_of(&store), state, "the log goes back to the older one");
}

#[test]
fn without_a_sound_checkpoint_a_log_that_was_shortened_is_refused() {
    let (bench, _) = lived();
    let both = bench.checkpoints();
    both.iter().for_each(|path| flip(path, 200));
    let error = bench.open(SMALL).unwrap_err();
    let DurableError::Gap { checkpoint: None, log_base, damaged, .. } = &error else { panic!("{error}") };
    assert!(*log_base > Index::ZERO);
    assert_eq!(damaged.len(), 2);
    assert!(both.iter().all(|path| error.to_string().contains(path.to_str().unwrap())), "{error}");
    fs::remove_file(&both[0]).unwrap();
    flip(&both[1], 200);
    bench.open(SMALL).unwrap();
}

#[test]
fn another_format_is_refused_by_name_and_not_taken_for_damage() {
    let (bench, _) = lived();
    let newest = bench.checkpoints().pop().unwrap();
    // Another version has whatever it likes behind it.
    let mut bytes = fs::read(&newest).unwrap();
    bytes[8] = 9;
    bytes[16..80].fill(0xAB);
    fs::write(&newest, bytes).unwrap();
    let error = bench.open(SMALL).unwrap_err();
    let DurableError::CheckpointFormat { path, source } = &error else { panic!("{error}") };
    assert_eq!(*path, newest);
    assert!(matches!(**source, CheckpointError::UnknownVersion { found: 9 }));
}

#[test]
fn files_of_another_store_are_refused() {
    let ((bench, _), (other, _)) = (lived(), lived());
    let theirs = other.checkpoints().pop().unwrap();
    let path = bench.path().join(format!("{:016x}.checkpoint", u32::MAX));
    let expect_foreign = |what| {
        let error = bench.open(SMALL).unwrap_err();
        assert!(matches!(&error, DurableError::Foreign { path: found } if *found == path), "{what}: {error}");
    };
    fs::copy(&theirs, &path).unwrap();
    expect_foreign("its index is not the one it is named for");
    let mut bytes = Vec::new();
    let meta = CheckpointMeta::default();
    checkpoint::write(&Store::new([1; 32]).view(), &meta, &mut bytes).unwrap();
    fs::write(&path, bytes).unwrap();
    expect_foreign("no durable store has written it");
    fs::remove_file(&path).unwrap();
    bench.checkpoints().iter().for_each(|path| fs::remove_file(path).unwrap());
    let renamed = bench.path().join(theirs.file_name().unwrap());
    fs::copy(&theirs, &renamed).unwrap();
    let error = bench.open(SMALL).unwrap_err();
    assert!(matches!(&error, DurableError::Foreign { path } if *path == renamed), "its secret is another: {error}");
}

#[test]
fn the_log_of_another_program_is_refused() {
    use kv_wal::{Entry, EntryId, Kind, Log, Term};
    let entry = |index| {
        let id = EntryId::new(Term::new(1), Index::new(index));
        Entry::encode(&mut bytes::BytesMut::new(), id, 0, Kind(1), b"theirs")
    };
    for state in [None, Some(&b"state of another program"[..])] {
        let bench = Bench::new();
        let options = kv_wal::Options { segment_bytes: 64 << 10, ..kv_wal::Options::default() };
        let (mut log, _) = Log::open(bench.path(), options).unwrap();
        log.append(&[entry(1)], state).unwrap();
        log.close().unwrap();
        let error = bench.open(SMALL).unwrap_err();
        assert!(matches!(error, DurableError::Foreign { .. }), "{error}");
    }
}

#[test]
fn an_entry_of_a_newer_release_is_refused_by_index() {
    use kv_wal::{Entry, Kind, Log};
    for (kind, payload, has_source) in [(Kind(77), &b""[..], false), (Kind(1), &b"\xFFnewer"[..], true)] {
        let bench = Bench::new();
        let (store, _) = bench.open(SMALL).unwrap();
        store.put(b"k", b"v").unwrap();
        store.close().unwrap();
        let options = kv_wal::Options { segment_bytes: 64 << 10, ..kv_wal::Options::default() };
        let (mut log, _) = Log::open(bench.path(), options).unwrap();
        let id = journal::id_of(Index::new(2));
        log.append(&[Entry::encode(&mut bytes::BytesMut::new(), id, 0, kind, payload)], None).unwrap();
        log.close().unwrap();
        let error = bench.open(SMALL).unwrap_err();
        let DurableError::UnknownEntry { index, source } = error else { panic!("{error}") };
        assert_eq!((index, source.is_some()), (Index::new(2), has_source));
    }
}

/// Ten entries `<value-1>` to `<value-10>`, with a checkpoint after the sixth if asked for; those of `lost` are spoiled.
fn with_lost(has_checkpoint: bool, lost: &[u64]) -> Bench {
    let bench = Bench::new();
    let options = Options { checkpoint_log_bytes: u64::MAX, ..SMALL };
    let (store, _) = bench.open(options).unwrap();
    for at in 1..=10 {
        store.put(b"k", format!("<value-{at}>").as_bytes()).unwrap();
        if at == 6 && has_checkpoint {
            store.checkpoint().unwrap();
        }
    }
    drop(store);
    for path in bench.files(".wal") {
        let mut bytes = fs::read(&path).unwrap();
        for at in lost {
            let value = format!("<value-{at}>");
            let found = bytes.windows(value.len()).position(|window| window == value.as_bytes());
            bytes[found.expect("in the one segment that there is")] ^= 1;
        }
        fs::write(&path, bytes).unwrap();
    }
    bench
}

#[test]
fn lost_writes_are_named_and_given_up_only_on_request() {
    for (has_checkpoint, lost, left) in
        [(false, &[4][..], 3), (false, &[4, 8], 3), (true, &[8], 7), (true, &[2, 9], 8), (true, &[7, 8], 6)]
    {
        let bench = with_lost(has_checkpoint, lost);
        let error = bench.open(SMALL).unwrap_err();
        assert!(matches!(error, DurableError::Lost { .. }), "{error}");
        let first = lost.iter().find(|at| !has_checkpoint || **at > 6).unwrap();
        assert!(error.to_string().contains(&first.to_string()), "{error}");
        bench.open(SMALL).unwrap_err();
        let (store, recovered) = bench.open(Options { give_up_lost: true, ..SMALL }).unwrap();
        assert!(!recovered.given_up.is_empty());
        assert_eq!(store.get(b"k").unwrap(), format!("<value-{left}>"), "{lost:?}");
        store.put(b"k", b"goes on").unwrap();
        let state = state_of(&store);
        assert_eq!(state.0, Index::new(left + 1));
        drop(store);
        let (store, recovered) = bench.open(SMALL).unwrap();
        assert!(recovered.given_up.is_empty());
        assert_eq!(state_of(&store), state);
    }
}

#[test]
fn what_the_checkpoint_covers_is_not_lost() {
    let bench = with_lost(true, &[2, 3, 6]);
    let (store, recovered) = bench.open(SMALL).unwrap();
    assert!(recovered.log.is_damaged() && recovered.given_up.is_empty());
    assert_eq!(store.get(b"k").unwrap(), "<value-10>");
    store.put(b"k", b"goes on").unwrap();
    drop(store);
    let (_, recovered) = bench.open(SMALL).unwrap();
    assert!(!recovered.log.is_damaged(), "it is healed");
}

#[test]
fn a_checkpoint_without_its_log_is_refused_unless_it_is_to_be_all() {
    let bench = with_lost(true, &[]);
    let secret = bench.open(SMALL).map(|(store, _)| secret_of(&store)).unwrap();
    bench.files(".wal").iter().for_each(|path| fs::remove_file(path).unwrap());
    for _ in 0..2 {
        let error = bench.open(SMALL).unwrap_err();
        let expected = (Index::ZERO, Index::new(6));
        assert!(
            matches!(error, DurableError::LogEndsEarly { log_last, checkpoint, .. } if (log_last, checkpoint) == expected),
            "{error}"
        );
    }
    let (store, recovered) = bench.open(Options { give_up_lost: true, ..SMALL }).unwrap();
    assert_eq!((recovered.last, recovered.given_up.len()), (Index::new(6), 1));
    assert_eq!(secret_of(&store), secret, "the checkpoint knows it");
    store.put(b"k", b"goes on").unwrap();
    drop(store);
    let (store, _) = bench.open(SMALL).unwrap();
    assert_eq!((store.get(b"k").unwrap(), secret_of(&store)), ("goes on".into(), secret));
}

/// Each batch of the log has the secret.
#[test]
fn the_secret_is_lost_only_with_all_writes() {
    let bench = with_lost(false, &[]);
    let secret = bench.open(SMALL).map(|(store, _)| secret_of(&store)).unwrap();
    let [segment] = bench.files(".wal").try_into().unwrap();
    let spoil = |copies| {
        let mut bytes = fs::read(&segment).unwrap();
        for _ in 0..copies {
            let at = bytes.windows(32).position(|window| window == secret);
            let Some(at) = at else { break };
            bytes[at] ^= 1;
        }
        fs::write(&segment, bytes).unwrap();
    };
    spoil(1);
    let (store, _) = bench.open(SMALL).unwrap();
    assert_eq!((secret_of(&store), store.get(b"k").unwrap()), (secret, "<value-10>".into()));
    drop(store);
    for path in bench.files(".wal") {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).unwrap();
    }
    bench.open(SMALL).unwrap_err();
}
