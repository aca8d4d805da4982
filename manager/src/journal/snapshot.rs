//! A snapshot in a file: written beside, checked, renamed into place.
//!
//! The content is the same stream of parts that a state transfer sends (`transfer::stream`), with
//! its own checksum at the end; here it is just bytes.

use super::{Error, failed, sync_dir};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A snapshot under construction. Dropping it unfinished deletes the file.
#[derive(Debug)]
pub struct SnapshotFile {
    dir: PathBuf,
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl SnapshotFile {
    /// Begins one. `purpose` keeps two that are written at once apart.
    pub fn create(dir: &Path, purpose: &str) -> Result<SnapshotFile, Error> {
        let path = dir.join(format!("unfinished-{purpose}.state"));
        let file = File::create(&path).map_err(failed(&path, "create"))?;
        Ok(SnapshotFile { dir: dir.to_owned(), path, file: Some(BufWriter::new(file)) })
    }

    /// What a failed write to it comes to, for a person.
    pub fn failed(&self, source: io::Error) -> Error {
        failed(&self.path, "write")(source)
    }

    /// It is whole: makes it the snapshot at `position`, durably.
    pub fn finish(mut self, position: u64) -> Result<PathBuf, Error> {
        let file = self.file.take().expect("taken only here");
        let file = file.into_inner().map_err(|e| e.into_error());
        file.and_then(|file| file.sync_all()).map_err(failed(&self.path, "write"))?;
        let place = self.dir.join(format!("snapshot-{position:020}.state"));
        std::fs::rename(&self.path, &place).map_err(failed(&place, "rename into place"))?;
        sync_dir(&self.dir)?;
        Ok(place)
    }
}

impl Write for SnapshotFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("not finished").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("not finished").flush()
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
