//! The receiving side: pieces of a stream become a snapshot, then a tail.
//!
//! The snapshot is written to disk as it arrives, so that what the learner builds on is as durable
//! as what it was before; it takes the place of the old state only when it is whole.

use super::stream::{Parser, Part, Snapshot, write_end, write_instance, write_replica};
use crate::journal::{self, SnapshotFile};
use std::path::Path;

/// What a piece of the stream completed.
#[derive(Debug)]
pub enum Learned {
    /// The snapshot: to be loaded, and its file to be finished.
    Snapshot(Snapshot, SnapshotFile),
    /// An entry of the tail, encoded: to be journalled and applied.
    Tail(Vec<u8>),
}

/// Why the stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not what a donor sends.
    #[error(transparent)]
    Malformed(#[from] crate::codec::Malformed),
    /// The snapshot cannot be written.
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

/// A transfer being received.
#[derive(Debug, Default)]
pub struct Learner {
    parser: Parser,
    under_way: Option<(Snapshot, SnapshotFile)>,
    loaded: bool,
}

impl Learner {
    /// The next bytes of the stream. Call [`Learner::next`] until it gives nothing.
    pub fn push(&mut self, bytes: &[u8]) {
        self.parser.push(bytes);
    }

    /// What is whole by now. `dir` is where the snapshot's file grows.
    pub fn next(&mut self, dir: &Path) -> Result<Option<Learned>, Error> {
        use crate::codec::Malformed;
        while let Some(part) = self.parser.part()? {
            match part {
                Part::Replica(encoded) if self.under_way.is_none() && !self.loaded => {
                    let mut file = SnapshotFile::create(dir, "received")?;
                    write_replica(&mut file, &encoded).map_err(|error| file.failed(error))?;
                    let snapshot = Snapshot { replica: encoded, instances: Vec::new() };
                    self.under_way = Some((snapshot, file));
                }
                Part::Instance(saved) => {
                    let (snapshot, file) = self
                        .under_way
                        .as_mut()
                        .ok_or(Malformed("an instance before the replica"))?;
                    write_instance(file, &saved).map_err(|error| file.failed(error))?;
                    snapshot.instances.push(saved);
                }
                Part::End => {
                    let (snapshot, mut file) =
                        self.under_way.take().ok_or(Malformed("an end without a beginning"))?;
                    write_end(&mut file).map_err(|error| file.failed(error))?;
                    self.loaded = true;
                    return Ok(Some(Learned::Snapshot(snapshot, file)));
                }
                Part::Tail(entry) if self.loaded => return Ok(Some(Learned::Tail(entry))),
                Part::Replica(_) => return Err(Malformed("two replicas in one transfer").into()),
                Part::Tail(_) => return Err(Malformed("a tail before its snapshot").into()),
            }
        }
        Ok(None)
    }
}
