//! The power goes after each operation of a history in turn, and each sync, write and change of a name fails in turn.
//!
//! What must hold after every one: what was answered is there; what is there was asked for, in order, and each call as a
//! whole; the state is that of a plain store that was told the same. And all that with the newest checkpoint damaged, too.

use kv_wal::testing::SimFs;

use super::*;

const CALLS: u64 = 90;
/// So many operations are never done.
const NEVER: u64 = u64::MAX / 2;

/// What a history has come to before the disk gave up.
struct Lived {
    bench: Bench,
    fs: SimFs,
    /// `None` if it was never open.
    secret: Option<[u8; 32]>,
    answered: usize,
    finished: bool,
}

/// Lives until the first call that is not answered.
fn live(calls: &[Call], fs: SimFs) -> Lived {
    let bench = Bench::new();
    let mut lived = Lived { bench, fs, secret: None, answered: 0, finished: false };
    let Ok((store, _)) = lived.bench.open_on(&lived.fs, SMALL) else { return lived };
    lived.secret = Some(secret_of(&store));
    let twin = Twin::of(secret_of(&store), calls);
    for made in calls {
        match call(&lived.bench, &store, made) {
            Ok(outcomes) => {
                assert_eq!(outcomes, twin.outcomes[lived.answered]);
                lived.answered += 1;
            }
            Err(error) => {
                assert_eq!(state_of(&store), twin.states[lived.answered], "readers see what is durable");
                // Poisoned, if it was the checkpoint after the call before that has failed to shorten the log.
                use DurableError::{Failed, Log, Poisoned};
                assert!(matches!(error, Failed(_) | Log(_) | Poisoned), "{error}");
                return lived;
            }
        }
    }
    lived.finished = store.close().is_ok();
    lived
}

/// Opens what is left, holds it against the history, lives on to its end, and opens once more.
fn check(calls: &[Call], lived: &Lived, bench: &Bench, fs: &SimFs, context: &str) {
    let (store, recovered) = bench.open_on(fs, SMALL).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(!recovered.log.is_damaged(), "{context}: {recovered:?}");
    if let Some(secret) = lived.secret {
        assert_eq!(secret_of(&store), secret, "{context}");
    }
    let twin = Twin::of(secret_of(&store), calls);
    let found = twin.states.iter().position(|state| *state == state_of(&store));
    let found = found.unwrap_or_else(|| panic!("{context}: no state of the history, {recovered:?}"));
    assert!((lived.answered..=lived.answered + 1).contains(&found), "{context}: {} of {found}", lived.answered);
    for made in &calls[found..] {
        call(bench, &store, made).unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    assert_eq!(state_of(&store), twin.last(), "{context}");
    assert_eq!(store.status().checkpoint_failure.map(|failure| failure.to_string()), None, "{context}");
    drop(store);
    let (store, _) = bench.open_on(fs, SMALL).unwrap();
    assert_eq!(state_of(&store), twin.last(), "{context}");
}

/// What the power loss has left, in a directory of its own.
fn after_power_loss(lived: &Lived, seed: u64) -> (Bench, SimFs) {
    let bench = Bench::new();
    let fs = lived.fs.after_power_loss(seed, bench.path());
    (bench, fs)
}

/// Spoils the newest checkpoint, if there is one, and tells whether there was.
fn damage_newest(bench: &Bench, fs: &SimFs, seed: u64) -> bool {
    let Some(newest) = bench.checkpoints().pop() else { return false };
    let bytes = std::fs::metadata(&newest).unwrap().len();
    fs.decay(&newest, (seed % bytes) as usize).unwrap()
}

/// The matrices below are worth what their history is worth.
#[test]
fn the_history_has_checkpoints_truncations_and_changes_of_segments() {
    let (bench, fs) = (Bench::new(), SimFs::new(1));
    let (store, _) = bench.open_on(&fs, SMALL).unwrap();
    let mut checkpoints = Vec::new();
    for made in history(CALLS) {
        call(&bench, &store, &made).unwrap();
        checkpoints.push(store.status().checkpoint);
    }
    checkpoints.dedup();
    assert!(checkpoints.len() > 5, "{checkpoints:?}");
    assert_eq!(bench.checkpoints().len(), 2);
    drop(store);
    let (_, recovered) = bench.open_on(&fs, SMALL).unwrap();
    assert!(recovered.entries_replayed > 0);
    let [.., before, _] = checkpoints[..] else { unreachable!("there are more") };
    assert_eq!(Some(recovered.log.base.index), before, "the log goes back to the checkpoint before the last");
    assert_eq!(bench.files("0000000000000001.wal").len(), 0, "its first segments are gone");
}

#[test]
fn power_loss_after_every_operation() {
    let calls = history(CALLS);
    for cut in 0.. {
        let fs = SimFs::new(cut);
        fs.power_off_after(cut);
        let lived = live(&calls, fs);
        for seed in [cut, cut + 1_000_000] {
            let (bench, fs) = after_power_loss(&lived, seed);
            check(&calls, &lived, &bench, &fs, &format!("cut {cut}, seed {seed}"));
            let (bench, fs) = after_power_loss(&lived, seed);
            if damage_newest(&bench, &fs, seed * 7919) {
                check(&calls, &lived, &bench, &fs, &format!("cut {cut}, seed {seed}, newest checkpoint damaged"));
            }
        }
        if lived.finished {
            return;
        }
    }
}

/// And the power goes again while that is opened.
#[test]
fn power_loss_in_the_opening_after_a_power_loss() {
    let calls = history(CALLS);
    for cut in (0..).step_by(11) {
        let fs = SimFs::new(cut);
        fs.power_off_after(cut);
        let lived = live(&calls, fs);
        for second in 0..14 {
            let (bench, fs) = after_power_loss(&lived, cut + second);
            fs.power_off_after(second);
            let _ = bench.open_on(&fs, SMALL);
            let again = Bench::new();
            let fs = fs.after_power_loss(second, again.path());
            check(&calls, &lived, &again, &fs, &format!("cut {cut}, then {second}"));
        }
        if lived.finished {
            return;
        }
    }
}

/// The store is opened again by the same process, or after a power loss. A failure that only a checkpoint meets is no
/// failure of a write.
fn fail_each(arm: impl Fn(&SimFs, u64)) {
    let calls = history(CALLS);
    for at in 0.. {
        let fs = SimFs::new(at);
        arm(&fs, at);
        let lived = live(&calls, fs);
        let operations = lived.fs.operations();
        arm(&lived.fs, NEVER);
        let (bench, fs) = after_power_loss(&lived, at);
        check(&calls, &lived, &bench, &fs, &format!("failure at {at}, then power loss"));
        if at % 2 == 0 {
            // The page cache goes on showing what the disk has not got, or it does not.
            lived.fs.evict().unwrap();
        }
        check(&calls, &lived, &lived.bench, &lived.fs, &format!("failure at {at}"));
        if lived.finished && at > operations {
            return;
        }
    }
}

#[test]
fn each_sync_fails() {
    fail_each(SimFs::fail_sync_after);
}

#[test]
fn each_write_fails() {
    fail_each(SimFs::fail_write_after);
}

#[test]
fn each_change_of_a_name_fails() {
    fail_each(SimFs::fail_name_after);
}
