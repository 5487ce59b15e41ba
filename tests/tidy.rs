//! Checks on the source tree itself: what no compiler enforces.

use std::path::{Path, PathBuf};

/// Longest source file allowed. A longer one wants a cut along its seams.
const FILE_LINES_MAX: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("readable directory") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for part in ["kv-wal", "kv-store", "kv-repl", "kv-node", "benches", "tests"] {
        rust_files(&root().join(part), &mut found);
    }
    assert!(found.len() > 10, "the walk found too few files to be true");
    found
}

#[test]
fn no_file_is_too_long() {
    for path in sources() {
        let lines = std::fs::read_to_string(&path).expect("utf-8 source").lines().count();
        assert!(lines <= FILE_LINES_MAX, "{}: {lines} lines, limit {FILE_LINES_MAX}", path.display());
    }
}

/// Arrows between crates go one way: kv-node -> kv-repl -> (kv-store, kv-wal); kv-store -> kv-wal.
#[test]
fn crates_depend_downwards_only() {
    let forbidden = [
        ("kv-wal", &["kv-store", "kv-repl", "kv-node", "tokio"][..]),
        ("kv-store", &["kv-repl", "kv-node", "tokio"][..]),
        ("kv-repl", &["kv-node"][..]),
    ];
    for (name, above) in forbidden {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("manifest");
        for other in above {
            let depends = manifest.lines().any(|line| line.starts_with(other) && line.contains('='));
            assert!(!depends, "{name} must not depend on {other}");
        }
    }
}

/// `unsafe` lives in one file of kv-wal; every other crate forbids it. What only measures, and is never built with them,
/// may store into a map.
#[test]
fn unsafe_is_in_one_file() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("utf-8 source");
        let uses = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or("");
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
        });
        let measures = path.starts_with(root().join("benches/peers"));
        let allowed = measures || path.ends_with("kv-wal/src/map.rs") || path.ends_with("tests/tidy.rs");
        assert!(allowed || !uses, "{}: unsafe outside kv-wal/src/map.rs", path.display());
    }
    for name in ["kv-store", "kv-repl", "kv-node"] {
        let lib = std::fs::read_to_string(root().join(name).join("src/lib.rs")).expect("lib.rs");
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{name} must forbid unsafe code");
    }
}
