//! Ours, driven as in our own benchmark of it.

#[path = "../../../repl/three_cores.rs"]
pub(super) mod three_cores;

use self::three_cores::{ThreeCores, commands};
use super::{Cores, LOG_ENTRIES_MAX};

/// Three cores with a leader.
pub fn start() -> Box<dyn Cores> {
    Box::new(ThreeCores::new(LOG_ENTRIES_MAX))
}

impl Cores for ThreeCores {
    fn commit(&mut self, count: usize) {
        ThreeCores::commit(self, &commands(count));
    }
}
