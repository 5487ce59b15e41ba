//! `SCAN`: a walk through all keys in their order, some at a time.
//!
//! The cursor a client carries from call to call is a number, and a key does not fit in one. A rank would: but it moves
//! when an earlier key is removed, and the walk would pass over keys. So the node remembers, for each cursor it gave
//! out, the key where the walk goes on; numbers are drawn at random, so that no other node and no later process takes
//! one for its own.
//!
//! What a client gets: every key that is there during the whole walk, exactly once; a key that comes or goes meanwhile,
//! at most once. A cursor may be used again (a client that lost the reply asks again). One that this node does not
//! know, because the walk began elsewhere or was left alone while very many others began, is refused: a wrong answer
//! would be a walk with holes.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kv_store::ReadView;

use super::{Action, CommandError, glob, integer};
use crate::client::Client;
use crate::resp::{Frame, parse_integer};

/// Most walks that a node remembers.
const CURSORS_COUNT_MAX: usize = 4096;
/// Most bytes of keys it remembers for them.
const CURSORS_BYTES_MAX: usize = 16 << 20;
/// Most keys that one call looks at, whatever its `COUNT` says.
const VISITED_COUNT_MAX: usize = 10_000;
/// No key is added to a reply that has so many bytes of them already.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// Keys that a call looks at if it does not say.
const COUNT_DEFAULT: usize = 10;
/// Cursors stay below this, because some clients keep numbers as doubles.
const CURSOR_MAX: u64 = 1 << 53;

/// Where the walks of this node go on. The oldest is forgotten when there are too many.
#[derive(Default)]
pub(crate) struct Cursors {
    remembered: Mutex<Remembered>,
    numbers: RandomState,
}

#[derive(Default)]
struct Remembered {
    next_keys: HashMap<u64, Bytes>,
    oldest_first: VecDeque<u64>,
    bytes: usize,
    drawn_count: u64,
}

impl Cursors {
    /// A cursor for a walk that goes on at `next_key`.
    fn remember(&self, next_key: Bytes) -> u64 {
        let mut remembered = self.lock();
        let cursor = loop {
            remembered.drawn_count += 1;
            let cursor = self.numbers.hash_one(remembered.drawn_count) % CURSOR_MAX;
            if cursor != 0 && !remembered.next_keys.contains_key(&cursor) {
                break cursor;
            }
        };
        remembered.insert(cursor, next_key);
        cursor
    }

    /// Where the walk of `cursor` goes on.
    fn next_key(&self, cursor: u64) -> Option<Bytes> {
        self.lock().next_keys.get(&cursor).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        // Nothing below panics half-way, so what a poisoned lock holds is whole.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn insert(&mut self, cursor: u64, next_key: Bytes) {
        self.bytes += next_key.len();
        self.next_keys.insert(cursor, next_key);
        self.oldest_first.push_back(cursor);
        while self.oldest_first.len() > CURSORS_COUNT_MAX || self.bytes > CURSORS_BYTES_MAX {
            let Some(oldest) = self.oldest_first.pop_front() else { break };
            self.bytes -= self.next_keys.remove(&oldest).map_or(0, |key| key.len());
        }
    }
}

/// What a call asks for.
struct Step {
    from: Bytes,
    pattern: Option<Bytes>,
    count: usize,
}

pub(super) fn scan(client: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let cursors = Arc::clone(&client.node.cursors);
    let (pattern, count) = options(&request[2..])?;
    let from = match parse_integer(&request[1]).map(u64::try_from) {
        Some(Ok(0)) => Bytes::new(),
        Some(Ok(cursor)) => cursors.next_key(cursor).ok_or(CommandError::other(
            "ERR unknown cursor: a walk goes on at the node where it began; start again with cursor 0",
        ))?,
        _ => return Err(CommandError::other("ERR invalid cursor")),
    };
    let step = Step { from, pattern, count };
    Ok(Action::read(count, move |view| {
        let (keys, next_key) = step.take(view);
        let cursor = next_key.map_or(0, |key| cursors.remember(key));
        let keys = keys.into_iter().map(Frame::Bulk).collect();
        Frame::Array(vec![Frame::text(cursor.to_string()), Frame::Array(keys)])
    }))
}

fn options(mut options: &[Bytes]) -> Result<(Option<Bytes>, usize), CommandError> {
    let (mut pattern, mut count) = (None, COUNT_DEFAULT);
    while let [option, rest @ ..] = options {
        let [value, rest @ ..] = rest else { return Err(CommandError::Syntax) };
        if option.eq_ignore_ascii_case(b"match") {
            pattern = Some(value.clone());
        } else if option.eq_ignore_ascii_case(b"count") {
            let wanted =
                usize::try_from(integer(value)?).ok().filter(|count| *count > 0).ok_or(CommandError::Syntax)?;
            count = wanted.min(VISITED_COUNT_MAX);
        } else {
            return Err(CommandError::Syntax);
        }
        options = rest;
    }
    Ok((pattern, count))
}

impl Step {
    /// The keys of this step, and the first one of the next step unless the walk is at its end.
    fn take(&self, view: &ReadView) -> (Vec<Bytes>, Option<Bytes>) {
        let mut keys = Vec::new();
        let mut bytes = 0;
        for (visited_count, (key, _)) in view.range(&self.from, None).enumerate() {
            if visited_count == self.count || bytes >= REPLY_BYTES_MAX {
                return (keys, Some(Bytes::copy_from_slice(key)));
            }
            if self.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key)) {
                bytes += key.len();
                keys.push(Bytes::copy_from_slice(key));
            }
        }
        (keys, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_store::{Index, Op, PutManyCondition, Store};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn put(key: &[u8]) -> Op<'_> {
        Op::PutMany { pairs: vec![(key, b"v")], condition: PutManyCondition::Always }
    }

    fn apply(store: &mut Store, index: u64, op: &Op<'_>) {
        store.apply(Index::new(index), 0, &op.encode().unwrap());
    }

    proptest! {
        /// Keys come and go between the calls; what stays is seen, and nothing is seen twice.
        #[test]
        fn what_stays_is_seen_once(
            stays in proptest::collection::btree_set("[a-c]{1,4}", 0..30),
            changes in proptest::collection::vec(("[a-c]{1,4}", any::<bool>()), 0..60),
            count in 1usize..5,
        ) {
            let (mut store, mut index) = (Store::new([1; 32]), 0);
            for key in &stays {
                index += 1;
                apply(&mut store, index, &put(key.as_bytes()));
            }
            let cursors = Cursors::default();
            let mut changes = changes.into_iter().filter(|(key, _)| !stays.contains(key));
            let mut seen: BTreeMap<Bytes, usize> = BTreeMap::new();
            let mut from = Bytes::new();
            loop {
                let (keys, next_key) = Step { from, pattern: None, count }.take(&store);
                keys.into_iter().for_each(|key| *seen.entry(key).or_default() += 1);
                let Some(next_key) = next_key else { break };
                from = cursors.next_key(cursors.remember(next_key)).unwrap();
                for (key, present) in changes.by_ref().take(2) {
                    index += 1;
                    let key = key.as_bytes();
                    apply(&mut store, index, &if present { put(key) } else { Op::Delete { keys: vec![key] } });
                }
            }
            prop_assert!(seen.values().all(|times| *times == 1));
            let seen: BTreeSet<&[u8]> = seen.keys().map(|key| &key[..]).collect();
            prop_assert!(stays.iter().all(|key| seen.contains(key.as_bytes())));
        }
    }

    #[test]
    fn memory_for_walks_is_bounded_and_the_oldest_goes_first() {
        let cursors = Cursors::default();
        let first = cursors.remember(Bytes::from_static(b"k"));
        for _ in 0..CURSORS_COUNT_MAX - 1 {
            cursors.remember(Bytes::from_static(b"k"));
        }
        assert!(cursors.next_key(first).is_some());
        let last = cursors.remember(Bytes::from_static(b"k"));
        assert_eq!((cursors.next_key(first), cursors.next_key(last)), (None, Some(Bytes::from_static(b"k"))));

        let long = Bytes::from(vec![0; CURSORS_BYTES_MAX / 4]);
        for _ in 0..10 {
            cursors.remember(long.clone());
        }
        let remembered = cursors.lock();
        assert!(remembered.bytes <= CURSORS_BYTES_MAX);
        assert_eq!(remembered.next_keys.len(), remembered.oldest_first.len());
    }
}
