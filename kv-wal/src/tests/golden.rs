//! Files as each version of the format has them: today's code must write the same bytes, and read those of older versions.
//!
//! `KV_WAL_GOLDEN=write` writes those of the present version anew. If that changes any, the format has changed, and that
//! needs a new version, a directory for it, and the old one kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::damage::{batch, history_of};
use super::{SMALL, View, copy_dir, open, segments};
use crate::Log;
use crate::format::SECTOR_BYTES;
use crate::testing::SimFs;

/// Of each directory: its name, what opening it says, and what has happened to its files, oldest first.
type Case = (&'static str, &'static str, fn(&mut [Vec<u8>]));

const CASES: [Case; 4] = [
    ("whole", "entries 1 to 14", |_| {}),
    ("torn", "entries 1 to 12; a torn write of 4096 bytes was cut", |segments| {
        // Of the last batch, only the header was written.
        segments.last_mut().unwrap()[batch(1) + SECTOR_BYTES..].fill(0);
    }),
    ("damaged", "entries 1 to 14; unreadable: 1 to 1", |segments| segments[0][batch(0) + SECTOR_BYTES + 40] ^= 1),
    ("header", "entries 1 to 14", |segments| segments[1][77] ^= 1),
];

fn directory(version: u32, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/v{version}/{name}"))
}

/// The same history, with the same names and salts, each time.
fn make(dir: &Path, spoil: fn(&mut [Vec<u8>])) -> View {
    let (log, _) = Log::open_with(Arc::new(SimFs::new(1)), dir, SMALL).unwrap();
    let view = history_of(log);
    let paths = segments(dir);
    let mut contents: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    spoil(&mut contents);
    paths.iter().zip(contents).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    view
}

#[test]
fn what_is_written_is_what_the_version_says() {
    let rewrite = std::env::var_os("KV_WAL_GOLDEN").is_some_and(|value| value == "write");
    for (name, _, spoil) in CASES {
        let (dir, golden) = (tempfile::tempdir().unwrap(), directory(crate::format::VERSION, name));
        make(dir.path(), spoil);
        if rewrite {
            fs::create_dir_all(&golden).unwrap();
            segments(dir.path()).iter().for_each(|path| {
                fs::copy(path, golden.join(path.file_name().unwrap())).unwrap();
            });
        }
        assert_eq!(segments(&golden).len(), segments(dir.path()).len(), "{name}: nothing missing");
        for path in segments(dir.path()) {
            let same = fs::read(golden.join(path.file_name().unwrap())).unwrap() == fs::read(&path).unwrap();
            assert!(same, "{name}: {} is not as in testdata", path.display());
        }
    }
}

#[test]
fn what_each_version_has_written_is_read() {
    let whole = make(tempfile::tempdir().unwrap().path(), |_| {});
    for version in 1..=crate::format::VERSION {
        for (name, says, _) in CASES {
            let (log, recovery) = open(copy_dir(&directory(version, name)).path());
            assert_eq!(recovery.to_string(), says, "version {version}, {name}");
            if recovery.is_damaged() {
                continue;
            }
            let view = View::of(&log);
            assert_eq!(view.entries, whole.entries[..view.entries.len()], "version {version}, {name}");
            assert_eq!(view.state.as_deref(), Some(&b"three"[..]), "version {version}, {name}");
        }
    }
}
