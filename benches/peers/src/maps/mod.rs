//! Ordered maps in memory: ours, which keeps a hash of all that it holds and gives views, and those that do less.
//!
//! What makes it fair: keys and values are byte strings of any length in each of them, copied when they are put, as a store
//! has to that is given them in a buffer. Ours decodes its commands, and hashes; the others do not.

mod btree;
mod imbl;
mod kv_store;

use std::any::Any;

/// An ordered map.
pub trait Map {
    /// Does the `number`th write.
    fn write(&mut self, number: u64, write: &Write);
    /// Bytes of the value of a key.
    fn get(&self, key: &[u8]) -> Option<usize>;
    /// Bytes of the values of the first `count` keys from this one on.
    fn scan(&self, from: &[u8], count: usize) -> usize;
    /// The map as it is now, which later writes do not change; `None` if it would have to be copied.
    fn view(&self) -> Option<Box<dyn Any>>;
}

/// A put, or a removal, as the map takes it.
pub enum Write {
    /// As bytes of a command.
    Command(Vec<u8>),
    /// A key and its value.
    Put(Vec<u8>, Vec<u8>),
    /// A key.
    Remove(Vec<u8>),
}

/// A kind of map, by its name.
#[derive(Clone, Copy)]
pub struct Kind {
    /// As it is called in a figure.
    pub name: &'static str,
    /// An empty one.
    pub new: fn() -> Box<dyn Map>,
    /// A put for it.
    pub put: fn(&[u8], &[u8]) -> Write,
    /// A removal for it.
    pub remove: fn(&[u8]) -> Write,
}

/// Ours first.
pub const MAPS: [Kind; 3] = [kv_store::KIND, btree::KIND, imbl::KIND];

fn put(key: &[u8], value: &[u8]) -> Write {
    Write::Put(key.to_vec(), value.to_vec())
}

fn remove(key: &[u8]) -> Write {
    Write::Remove(key.to_vec())
}

/// Numbers without a pattern that a cache could use (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

/// Numbers of which few are drawn often: number `n` with a probability in proportion to `1 / (n + 1)^0.99`, as YCSB does
/// (Gray et al., "Quickly generating billion-record synthetic databases", 1994).
pub struct Zipf {
    count: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipf {
    /// Of numbers below `count`.
    pub fn new(count: u64) -> Zipf {
        let zeta = |count: u64| (1..=count).map(|number| (number as f64).powf(-THETA)).sum::<f64>();
        let (two, all) = (zeta(2), zeta(count));
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - two / all);
        Zipf { count: count as f64, alpha: 1.0 / (1.0 - THETA), zeta: all, eta }
    }

    /// The next one.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let uniform = (random.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(THETA) {
            1
        } else {
            (self.count * (self.eta * uniform - self.eta + 1.0).powf(self.alpha)) as u64
        }
    }
}
