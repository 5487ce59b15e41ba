//! What a node takes from the machine it runs on, beside its disk and its network. A simulation has its own.

use std::time::{SystemTime, UNIX_EPOCH};

use super::config::StartError;
use super::traits::BoxError;

/// The machine.
pub(crate) trait Host: Send + Sync + 'static {
    /// The wall clock: milliseconds since 1970. May jump.
    fn wall_clock_ms(&self) -> u64;

    /// A random number that nobody else has.
    fn draw(&self) -> Result<u64, StartError>;

    /// Does work that may wait for a disk, where nobody has to wait for it.
    fn run_aside(&self, work: Box<dyn FnOnce() + Send>);
}

/// The one that this process runs on, within a tokio runtime.
pub(crate) struct RealHost;

impl Host for RealHost {
    fn wall_clock_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn draw(&self) -> Result<u64, StartError> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| StartError::Other(BoxError::from(error.to_string())))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn run_aside(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }
}
