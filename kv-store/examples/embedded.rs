//! A store in a program of its own: apply, read, checkpoint, restore, compare.
//!
//! `cargo run -p kv-store --example embedded`

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;

use bytes::Bytes;
use kv_store::diff::diff;
use kv_store::{CheckpointMeta, Condition, Deadline, EntryId, Index, Op, PutManyCondition, Store, Term, checkpoint};

fn main() -> Result<(), Box<dyn Error>> {
    let mut store = Store::new(*b"32 bytes that clients don't know");
    let mut index = Index::ZERO;
    let mut run = |store: &mut Store, op: Op<'_>| -> Result<(), Box<dyn Error>> {
        index = index.next();
        println!("{index}: {:?}", store.apply(index, 0, &op.encode()?));
        Ok(())
    };

    let (condition, deadline) = (Condition::IfAbsent, Deadline::None);
    run(&mut store, Op::Put { key: b"user:1", value: b"ada", condition, deadline, want_previous: false })?;
    let pairs = vec![(&b"user:2"[..], &b"grace"[..]), (b"visits", b"41")];
    run(&mut store, Op::PutMany { pairs, condition: PutManyCondition::Always })?;
    run(&mut store, Op::Increment { key: b"visits", by: 1 })?;

    println!("users:");
    for (key, pair) in store.range(b"user:", Some(b"user;")) {
        println!("  {key:?} = {:?}, version {}", pair.value, pair.version);
    }

    let mut file = Vec::new();
    let meta = CheckpointMeta { last: EntryId::new(Term::new(1), Index::new(3)), blob: Bytes::new() };
    checkpoint::write(&store.view(), &meta, &mut file)?;
    let (mut restored, meta) = checkpoint::read(&mut &file[..])?;
    println!("checkpoint of {} bytes, last entry {}", file.len(), meta.last);
    assert_eq!(restored.digest(), store.digest());

    run(&mut restored, Op::Delete { keys: vec![b"user:2"] })?;
    println!("differences: {:?}", diff(&mut store.view(), &mut restored.view(), 10)?);
    Ok(())
}
