//! imbl's ordered map: views by sharing nodes, no hash, no counts.

use std::any::Any;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use super::{Kind, Map, Write, put, remove};

pub(super) const KIND: Kind = Kind { name: "imbl", new: || Box::<Shared>::default(), put, remove };

/// Keys and values are shared by the copies of a node, or copying one would copy them.
#[derive(Default)]
struct Shared(OrdMap<Arc<[u8]>, Arc<[u8]>>);

impl Map for Shared {
    fn write(&mut self, _number: u64, write: &Write) {
        match write {
            Write::Put(key, value) => drop(self.0.insert(key.as_slice().into(), value.as_slice().into())),
            Write::Remove(key) => drop(self.0.remove(key.as_slice())),
            Write::Command(_) => unreachable!("no command is made for it"),
        }
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        self.0.get(key).map(|value| value.len())
    }

    fn scan(&self, from: &[u8], count: usize) -> usize {
        self.0
            .range::<_, [u8]>((Bound::Included(from), Bound::Unbounded))
            .take(count)
            .map(|(_, value)| value.len())
            .sum()
    }

    fn view(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.0.clone()))
    }
}
