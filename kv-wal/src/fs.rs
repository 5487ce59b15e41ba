//! The world outside the log: files, directories and randomness, behind traits.
//!
//! [`RealFs`] is the system. A simulated disk implements the same traits, and then the log runs unchanged on a disk that
//! fails, fills up or loses power where a test wants it to.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::map::Mapping;

/// Files and directories, and randomness.
pub trait Fs: Debug + Send + Sync {
    /// Makes `dir` and what is missing above it, durably.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of `path`, held until the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if somebody holds it; otherwise as the system says.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// The names of the files in `dir`, in any order.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes an empty file, in place of one that is there.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading only.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading what the disk holds, past any cache, as far as the system can do that. Every read is of
    /// whole pages: offset, length, and address of the buffer are multiples of 4096.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Renames atomically, in place of a file that is there. Durable after [`Fs::sync_dir`].
    ///
    /// # Errors
    ///
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name; whoever has the file open or mapped keeps it.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Fills `buffer` with randomness that nobody can guess.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn random(&self, buffer: &mut [u8]) -> io::Result<()>;
}

/// An open file.
pub trait File: Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// As the system says, or the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    ///
    /// As the system says; any part of `data` may then have been written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when everything written, and the length, is durable.
    ///
    /// # Errors
    ///
    /// As the system says; then nothing is known about what was written since the last sync.
    fn sync(&self) -> io::Result<()>;

    /// The whole file as memory that shows what has been written.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn map(&self) -> io::Result<Arc<dyn Region>>;
}

/// A file as memory.
pub trait Region: Debug + Send + Sync {
    /// All of it. The caller looks only into bytes that it never writes to again.
    fn whole(&self) -> &[u8];
}

/// Holds a lock until it is dropped.
pub trait Lock: Debug + Send + Sync {}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        if fs::read_dir(dir)?.next().is_some() {
            // Whoever put something into it was here before.
            return Ok(());
        }
        // A directory is found again only if its name in each directory above is durable too.
        let absolute = fs::canonicalize(dir)?;
        absolute.ancestors().skip(1).try_for_each(|above| match self.sync_dir(above) {
            // Not ours to read, hence not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::File::options().create(true).truncate(false).write(true).open(path)?;
        file.try_lock()?;
        Ok(Box::new(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::File::options().create(true).truncate(true).read(true).write(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::File::options().read(true).write(true).open(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::File::open(path)?))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use std::os::unix::fs::OpenOptionsExt;
            // Some file systems have no such reads; then the cache must do.
            if let Ok(file) = fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(path) {
                return Ok(Arc::new(file));
            }
        }
        self.open_read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        getrandom::fill(buffer).map_err(|error| io::Error::other(error.to_string()))
    }
}

impl Lock for fs::File {}

impl File for fs::File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn map(&self) -> io::Result<Arc<dyn Region>> {
        Ok(Arc::new(Mapping::new(self)?))
    }
}
