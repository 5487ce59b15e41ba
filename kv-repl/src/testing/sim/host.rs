use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Random;
use crate::StartError;
use crate::driver::host::Host;

/// What waits to be done aside.
type Aside = Box<dyn FnOnce() + Send>;

/// The machine that a simulated node runs on.
pub(super) struct SimHost {
    pub(super) clock_ms: AtomicU64,
    random: Mutex<Random>,
    aside: Mutex<Vec<Aside>>,
}

impl SimHost {
    pub(super) fn new(seed: u64) -> SimHost {
        SimHost { clock_ms: AtomicU64::new(0), random: Mutex::new(Random::new(seed)), aside: Mutex::default() }
    }

    /// What will be drawn next.
    pub(super) fn peek(&self) -> u64 {
        self.random.lock().clone().draw()
    }

    /// Does what was to be done aside. True if there was anything.
    pub(super) fn do_aside(&self) -> bool {
        let waiting = std::mem::take(&mut *self.aside.lock());
        let has_any = !waiting.is_empty();
        waiting.into_iter().for_each(|work| work());
        has_any
    }
}

impl Host for SimHost {
    fn wall_clock_ms(&self) -> u64 {
        self.clock_ms.load(Ordering::Relaxed)
    }

    fn draw(&self) -> Result<u64, StartError> {
        Ok(self.random.lock().draw())
    }

    fn run_aside(&self, work: Aside) {
        self.aside.lock().push(work);
    }
}
