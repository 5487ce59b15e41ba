//! A process that writes is killed, again and again, and what it was answered is there each time.
//!
//! The child is this program itself, told by its arguments. It reports each increment that was answered, and never the one
//! that was not.

#![expect(clippy::print_stdout, reason = "the child reports, and the test says that it has passed")]

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use kv_store::{DurableOptions, DurableStore, Op, Outcome};

const THREADS: usize = 4;
const LIVES: u64 = 8;
/// Reports after which a child is killed, in its first life; more in each later one.
const REPORTS: u64 = 100;
/// Small, so that a life has several checkpoints and changes of segments.
const OPTIONS: DurableOptions = DurableOptions {
    checkpoint_log_bytes: 300 << 10,
    segment_bytes: 128 << 10,
    in_background: true,
    give_up_lost: false,
};

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        Some("child") => child(Path::new(&env::args().nth(2).ok_or("no directory")?)),
        // Asked by cargo for its tests.
        Some("--list") => Ok(()),
        _ => parent(),
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut checkpoints = 0;
    for life in 0..LIVES {
        let mut child =
            Command::new(env::current_exe()?).arg("child").arg(dir.path()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let mut answered = [0_i64; THREADS];
        let mut take = |line: String| -> Result<(), Box<dyn Error>> {
            let (thread, value) = line.split_once(' ').ok_or("half a line")?;
            answered[thread.parse::<usize>()?] = value.parse()?;
            Ok(())
        };
        for _ in 0..REPORTS * (life + 1) {
            take(lines.next().ok_or("it ended by itself")??)?;
        }
        child.kill()?;
        child.wait()?;
        // What it had reported before that; the last line may be cut off.
        for line in lines {
            let _ = take(line?);
        }
        let (store, recovered) = DurableStore::open(dir.path(), OPTIONS)?;
        assert!(!recovered.log.is_damaged() && recovered.damaged_checkpoints.is_empty(), "{recovered:?}");
        checkpoints += u64::from(recovered.checkpoint.is_some());
        let total: i64 = (0..THREADS).map(|nth| count(&store, &key(nth))).sum();
        for (nth, answered) in answered.iter().enumerate() {
            let found = count(&store, &key(nth));
            assert!((*answered..=answered + 1).contains(&found), "life {life}: {answered} answered, {found} found");
        }
        assert_eq!(count(&store, b"all"), total, "each call is there as a whole");
        let view = store.view();
        assert_eq!(view.audit(), view.range_digest(b"", None));
    }
    assert!(checkpoints > 0, "no life had a checkpoint");
    println!("killed {LIVES} times, nothing lost");
    Ok(())
}

fn key(nth: usize) -> Vec<u8> {
    format!("own-{nth}").into_bytes()
}

fn count(store: &DurableStore, key: &[u8]) -> i64 {
    store.get(key).map_or(0, |value| std::str::from_utf8(&value).expect("digits").parse().expect("a number"))
}

fn child(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (store, _) = DurableStore::open(dir, OPTIONS)?;
    let out = Mutex::new(std::io::stdout());
    thread::scope(|scope| {
        for nth in 0..THREADS {
            let (store, out) = (&store, &out);
            scope.spawn(move || {
                let own = key(nth);
                loop {
                    let both = [Op::Increment { key: &own, by: 1 }, Op::Increment { key: b"all", by: 1 }];
                    let outcomes = store.apply_many(&both).expect("the disk works");
                    let Outcome::Integer(value) = outcomes[0] else { panic!("{outcomes:?}") };
                    writeln!(out.lock().expect("no panic"), "{nth} {value}").expect("the parent listens");
                }
            });
        }
    });
    Ok(())
}
