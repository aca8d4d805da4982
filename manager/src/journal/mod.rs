//! What was delivered, kept on disk: a journal of entries and snapshots of the whole state.
//!
//! A node that comes back recovers the latest snapshot and replays the journal behind it. The
//! delivery thread appends every message and view it is given and writes them once per batch; only
//! what is written is reported as kept, and a reply leaves only when a quorum has reported its
//! position. So whatever was acknowledged is in the journals of a quorum.
//!
//! ```text
//! state/snapshot-00000001099511627776.state    the state at that position
//! state/journal-00000001099511627776.log       what was delivered from there on
//! state/journal-00000001099511629042.log       … the next segment, begun with the next snapshot
//! ```
//!
//! A snapshot is begun by a new segment, written beside the running delivery, renamed into place
//! when it is whole, and only then are older files deleted. A crash at any instant leaves a
//! snapshot and all segments since.
//!
//! Damage is cut, never guessed around: a torn last entry (the crash) and a flipped bit look alike,
//! everything from there on is dropped, and the group brings the node up to date again. What was
//! cut is said aloud.

mod entry;
mod place;
mod recover;
mod snapshot;
#[cfg(test)]
mod tests;

pub use entry::Entry;
pub use place::{receive, settle};
pub use recover::{Recovered, recover};
pub use snapshot::SnapshotFile;

use crate::config::Sync;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Begins every segment: format and version.
const MAGIC: &[u8; 8] = b"QJRNL\x01\0\0";

/// Why the journal cannot be read or written. Says what it means and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {what}: {source}{}", path.display(), advice(source))]
pub struct Error {
    /// Which file or directory.
    pub path: PathBuf,
    /// What was attempted.
    pub what: &'static str,
    /// What the system said.
    pub source: io::Error,
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". The disk is full: this node cannot keep what it acknowledges and leaves the group. \
             Make room, then start it again"
        }
        io::ErrorKind::PermissionDenied => {
            ". The data directory must be writable for the user quintetd runs as"
        }
        _ => "",
    }
}

fn failed<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error { path: path.to_owned(), what, source }
}

/// The writing side.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    sync: Sync,
    file: File,
    path: PathBuf,
    /// Encoded entries not yet written.
    batch: Vec<u8>,
    /// First position after the last entry appended.
    upto: u64,
    /// Bytes written to this segment.
    written: u64,
}

impl Journal {
    /// Goes on behind what [`recover`] found: opens the last segment, or begins one at `upto`.
    pub fn open(dir: &Path, sync: Sync, recovered: &Recovered) -> Result<Journal, Error> {
        let (path, file, written) = match &recovered.segment {
            Some(path) => {
                let file =
                    OpenOptions::new().append(true).open(path).map_err(failed(path, "open"))?;
                let length = file.metadata().map_err(failed(path, "look at"))?.len();
                (path.clone(), file, length)
            }
            None => begin(dir, recovered.upto)?,
        };
        let (dir, batch, upto) = (dir.to_owned(), Vec::new(), recovered.upto);
        Ok(Journal { dir, sync, file, path, batch, upto, written })
    }

    /// Appends an entry to the batch.
    ///
    /// # Panics
    /// Entries come in order.
    pub fn append(&mut self, entry: &Entry<'_>) {
        let (Entry::Message { at, .. } | Entry::View { at, .. }) = entry;
        assert!(*at >= self.upto, "journal: {at} behind {}", self.upto);
        self.upto = entry.upto();
        entry.encode(&mut self.batch);
    }

    /// Bytes that wait for [`Journal::flush`].
    pub fn waiting(&self) -> usize {
        self.batch.len()
    }

    /// Writes the batch; gives the position below which everything is kept now.
    ///
    /// After an error nothing of the batch counts as kept, and the journal is of no further use.
    pub fn flush(&mut self) -> Result<u64, Error> {
        if !self.batch.is_empty() {
            self.file.write_all(&self.batch).map_err(failed(&self.path, "write"))?;
            self.written += self.batch.len() as u64;
            if self.sync == Sync::Disk {
                self.file.sync_data().map_err(failed(&self.path, "sync"))?;
            }
            self.batch.clear();
            // One giant batch must not hold its memory for ever.
            self.batch.shrink_to(1 << 20);
        }
        Ok(self.upto)
    }

    /// Bytes of the current segment.
    pub fn segment_bytes(&self) -> u64 {
        self.written
    }

    /// Begins a new segment at the current position, for a snapshot of it.
    pub fn rotate(&mut self) -> Result<u64, Error> {
        self.flush()?;
        (self.path, self.file, self.written) = begin(&self.dir, self.upto)?;
        Ok(self.upto)
    }

    /// Deletes what a snapshot at `position` makes superfluous.
    pub fn prune(&self, position: u64) -> Result<(), Error> {
        let files = recover::files(&self.dir)?;
        for (at, path) in files.segments.iter().chain(&files.snapshots) {
            if *at < position && *path != self.path {
                std::fs::remove_file(path).map_err(failed(path, "delete"))?;
            }
        }
        Ok(())
    }

    /// Goes on at `position` in `dir`, which holds a snapshot of it that was received. What was kept before stays where
    /// it is, until [`Journal::adopt`].
    pub fn move_to(&mut self, dir: &Path, position: u64) -> Result<(), Error> {
        self.batch.clear();
        (self.path, self.file, self.written) = begin(dir, position)?;
        (self.dir, self.upto) = (dir.to_owned(), position);
        Ok(())
    }

    /// Everything received and all that was appended since takes the place of what the node had in `data_dir`.
    pub fn adopt(&mut self, data_dir: &Path) -> Result<(), Error> {
        self.flush()?;
        self.file.sync_all().map_err(failed(&self.path, "sync"))?;
        self.dir = place::adopt(data_dir)?;
        self.path = self.dir.join(self.path.file_name().expect("a segment has a name"));
        Ok(())
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Creates a segment that begins at `position`.
fn begin(dir: &Path, position: u64) -> Result<(PathBuf, File, u64), Error> {
    let path = dir.join(format!("journal-{position:020}.log"));
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&path)
        .map_err(failed(&path, "create"))?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&position.to_le_bytes());
    file.write_all(&head).map_err(failed(&path, "write"))?;
    file.sync_all().map_err(failed(&path, "sync"))?;
    sync_dir(dir)?;
    Ok((path, file, head.len() as u64))
}

/// Makes a rename or a new file survive a crash of the machine.
fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(failed(dir, "sync"))
}
