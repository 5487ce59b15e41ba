//! A file system of its own in a file, which can be shut down as a power cut would: what was not synced is gone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// Makes and mounts a file system; or says what is missing.
    pub(crate) fn new(kind: &str) -> Result<Disk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount".into());
        }
        let make = format!("mkfs.{kind}");
        for program in [make.as_str(), "mount", "umount", "xfs_io"] {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
            if !std::env::split_paths(&paths).chain(sbin).any(|dir| dir.join(program).is_file()) {
                return Err(format!("{program} is not installed"));
            }
        }
        let disk = Disk { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory") };
        std::fs::create_dir(disk.mounted()).expect("directory");
        std::fs::File::create(disk.image()).and_then(|file| file.set_len(320 << 20)).expect("image");
        run(Command::new(make).arg("-q").arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    pub(crate) fn mounted(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.mounted()))
    }

    /// From now on nothing reaches the disk.
    pub(crate) fn shut_down(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.mounted())).expect("shut down");
    }

    /// As after a restart of the machine.
    pub(crate) fn remount(&mut self) {
        unmount(&self.mounted()).expect("unmounted");
        self.mount().expect("mounted again");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.mounted());
    }
}

fn unmount(mounted: &Path) -> Result<(), String> {
    run(Command::new("umount").arg(mounted))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let words = || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(words()) }
}
