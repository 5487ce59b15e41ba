//! The map of the standard library: no views, no hash, no counts. The floor.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Kind, Map, Write, put, remove};

pub(super) const KIND: Kind = Kind { name: "BTreeMap", new: || Box::<Std>::default(), put, remove };

#[derive(Default)]
struct Std(BTreeMap<Vec<u8>, Vec<u8>>);

impl Map for Std {
    fn write(&mut self, _number: u64, write: &Write) {
        match write {
            Write::Put(key, value) => drop(self.0.insert(key.clone(), value.clone())),
            Write::Remove(key) => drop(self.0.remove(key)),
            Write::Command(_) => unreachable!("no command is made for it"),
        }
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        self.0.get(key).map(Vec::len)
    }

    fn scan(&self, from: &[u8], count: usize) -> usize {
        self.0
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take(count)
            .map(|(_, value)| value.len())
            .sum()
    }

    fn view(&self) -> Option<Box<dyn Any>> {
        None
    }
}
