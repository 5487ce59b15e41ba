//! What a node takes from the machine it runs on, beside its disk and its network. A simulation has its own.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::config::StartError;
use super::traits::BoxError;

/// The machine.
pub(crate) trait Host: Debug + Send + Sync + 'static {
    /// The wall clock: milliseconds since 1970. May jump.
    fn wall_clock_ms(&self) -> u64;

    /// A random number that nobody else has.
    fn draw(&self) -> Result<u64, StartError>;

    /// Does work that may wait for a disk, where nobody has to wait for it.
    fn run_aside(&self, work: Box<dyn FnOnce() + Send>);

    /// Makes what has been written to a file durable.
    fn sync_file(&self, file: &File) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// Time since some moment. A lease must end while the machine is suspended, so this clock goes on then, if the system has
/// such a one.
pub(crate) fn monotonic() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        use std::sync::LazyLock;
        use std::time::Instant;
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGUN.elapsed()
    }
}

/// The one that this process runs on, within a tokio runtime.
#[derive(Debug)]
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

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}
