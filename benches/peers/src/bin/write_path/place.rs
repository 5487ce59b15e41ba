//! Where a directory lies: kernel, file system and device, as the system tells them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{major, minor};

/// Of the fields of a device's `stat`, the one that counts sectors written.
const SECTORS_WRITTEN: usize = 6;
/// Bytes of a sector in that count, whatever the device has.
const SECTOR_BYTES: u64 = 512;

/// The place of a directory.
pub(crate) struct Place {
    dir: PathBuf,
    /// Counts of the device. There are none for a file system that spans several.
    stat: PathBuf,
}

impl Place {
    pub(crate) fn of(dir: &Path) -> io::Result<Place> {
        let dir = fs::canonicalize(dir)?;
        let device = fs::metadata(&dir)?.dev();
        let stat = PathBuf::from(format!("/sys/dev/block/{}:{}/stat", major(device), minor(device)));
        Ok(Place { dir, stat })
    }

    /// Bytes written to the device since the system was started, by anybody.
    pub(crate) fn device_bytes(&self) -> Option<u64> {
        let stat = fs::read_to_string(&self.stat).ok()?;
        let sectors: u64 = stat.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()?;
        Some(sectors * SECTOR_BYTES)
    }

    /// One line: kernel, file system, date.
    pub(crate) fn describe(&self) -> io::Result<String> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let file_system = file_system_of(&mounts, &self.dir).unwrap_or("an unknown file system".to_owned());
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        Ok(format!("Linux {}, {file_system}, {}", kernel.trim(), date(since_epoch.as_secs() / 86400)))
    }
}

/// Type and options of the file system that is mounted closest above `dir`. A line of `mountinfo` is
/// `id parent device root MOUNT_POINT OPTIONS tags... - TYPE source OPTIONS`.
fn file_system_of(mounts: &str, dir: &Path) -> Option<String> {
    let parse = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = PathBuf::from(mount.split(' ').nth(4)?);
        let mut fields = file_system.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        dir.starts_with(&point).then(|| (point.components().count(), format!("{kind} ({options})")))
    };
    // Of two that are mounted on one point, the later hides the earlier.
    mounts.lines().filter_map(parse).max_by_key(|(depth, _)| *depth).map(|(_, name)| name)
}

/// Year, month and day, so many days after 1 January 1970.
fn date(mut days: u64) -> String {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}
