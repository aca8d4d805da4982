//! Exactly one daemon per data directory.

use super::check::advice;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The directory is ours while this lives; the kernel gives it back however the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Creates the directory if need be and takes it. `Err` says what is wrong and what to do.
    pub fn take(dir: &Path) -> Result<Lock, String> {
        std::fs::create_dir_all(dir).map_err(|e| advice("cannot be created", &e))?;
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| advice("cannot be written", &e))?;
        // SAFETY: flock takes a descriptor, which `file` keeps open, and touches no memory.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(advice("cannot be locked", &error));
            }
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            return Err(format!(
                "in use by another quintetd (process {}): stop it, or give this one a directory of \
                 its own",
                if owner.trim().is_empty() { "unknown" } else { owner.trim() }
            ));
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(|e| advice("cannot be written", &e))?;
        Ok(Lock { _file: file })
    }

    /// Whether a daemon holds the directory; false too where that cannot be seen. Looks only: trying to take the lock
    /// would turn away a daemon that starts at that moment.
    pub(crate) fn is_held(dir: &Path) -> bool {
        let Ok(file) = std::fs::metadata(dir.join("lock")) else { return false };
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        let inode = format!(":{} ", file.ino());
        locks.lines().any(|line| line.contains(" FLOCK ") && line.contains(&inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_one_owner_and_it_comes_free() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let refused = Lock::take(dir.path()).unwrap_err();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        assert!(Lock::is_held(dir.path()));
        drop(lock);
        assert!(!Lock::is_held(dir.path()) && !Lock::is_held(&dir.path().join("none")));
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_one_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Lock::take(&file).unwrap_err().contains("no directory"));
    }
}
