//! The machine as files: `/proc`, `/sys`, and what commands say of it. A test plants a directory in its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

/// Where the files are.
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    /// The machine this runs on.
    pub(super) fn this() -> Host {
        Host { root: PathBuf::from("/") }
    }

    /// The machine that a directory describes.
    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Host {
        Host { root: root.to_owned() }
    }

    /// A file's text without the space around it; `None` if it is not there or must not be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.root.join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file that holds one value.
    pub(super) fn value<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The value of a line `key value` or `key: value`.
    pub(super) fn line(&self, path: &str, key: &str) -> Option<String> {
        let text = self.text(path)?;
        text.lines().find_map(|line| {
            let rest = line.strip_prefix(key)?;
            let value =
                rest.strip_prefix(':').or_else(|| rest.strip_prefix(char::is_whitespace))?;
            Some(value.trim().to_owned())
        })
    }

    /// Names in a directory, in order.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// What a command prints that only looks; `None` if it is not there or fails. At a planted machine it is a file in
    /// `commands` with the command line as its name.
    pub(super) fn output(&self, command: &[&str]) -> Option<String> {
        if self.root != Path::new("/") {
            return self.text(&format!("commands/{}", command.join(" ")));
        }
        let (program, words) = command.split_first()?;
        let done = Command::new(program).args(words).stdin(Stdio::null()).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

/// Writes the files of a planted machine.
#[cfg(test)]
pub(super) fn plant(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let host = Host::at(dir.path());
    (dir, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lines_and_names_are_found() {
        let (_dir, host) =
            plant(&[("proc/a", " 12\n"), ("proc/b", "MemTotal:  5 kB\nMem 7\n"), ("sys/x/y", "")]);
        assert_eq!(host.value::<u64>("proc/a"), Some(12));
        assert_eq!(host.value::<u64>("proc/none"), None);
        assert_eq!(host.line("proc/b", "MemTotal").as_deref(), Some("5 kB"));
        assert_eq!(host.line("proc/b", "Mem").as_deref(), Some("7"));
        assert_eq!(host.line("proc/b", "Swap"), None);
        assert_eq!(host.names("sys/x"), ["y"]);
        assert!(host.names("nowhere").is_empty() && host.has("sys/x") && !host.has("sys/z"));
        assert_eq!(host.output(&["uname", "-s"]), None, "never the machine's own word");
        assert_eq!(Host::this().output(&["uname", "-s"]).as_deref(), Some("Linux"));
        assert_eq!(Host::this().output(&["false"]), None);
    }
}
