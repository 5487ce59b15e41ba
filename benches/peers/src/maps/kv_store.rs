//! Ours: views, counts, and a hash that is current after each write.

use std::any::Any;

use kv_store::{Condition, Deadline, Index, Op, Store};

use super::{Kind, Map, Write};

pub(super) const KIND: Kind = Kind { name: "kv-store", new: || Box::new(Hashed(Store::new([7; 32]))), put, remove };

struct Hashed(Store);

fn put(key: &[u8], value: &[u8]) -> Write {
    let (condition, deadline) = (Condition::Always, Deadline::None);
    command(&Op::Put { key, value, condition, deadline, want_previous: false })
}

fn remove(key: &[u8]) -> Write {
    command(&Op::Delete { keys: vec![key] })
}

fn command(op: &Op<'_>) -> Write {
    Write::Command(op.encode().expect("within its limits"))
}

impl Map for Hashed {
    fn write(&mut self, number: u64, write: &Write) {
        let Write::Command(command) = write else { unreachable!("only commands are made for it") };
        self.0.apply(Index::new(number), 0, command);
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        self.0.get(key).map(|pair| pair.value.len())
    }

    fn scan(&self, from: &[u8], count: usize) -> usize {
        self.0.range(from, None).take(count).map(|(_, pair)| pair.value.len()).sum()
    }

    fn view(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.0.view()))
    }
}
