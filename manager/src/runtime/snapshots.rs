//! A node's own snapshots: one at a time, beside the running delivery.

use super::{Cut, Machine, Shared};
use crate::admin::types::EventKind;
use crate::journal::{self, Journal, SnapshotFile};
use crossbeam_channel::{Receiver, bounded};
use quintet_vsync::Position;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The snapshot under way, if any.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    under_way: Option<Receiver<Result<u64, String>>>,
}

impl Snapshots {
    /// Begins a snapshot if the journal has grown enough; prunes the journal when one is done.
    pub(super) fn turn(
        &mut self,
        shared: &Arc<Shared>,
        machine: &Machine,
        journal: &mut Journal,
    ) -> Result<(), journal::Error> {
        if let Some(done) = self.under_way.as_ref().and_then(|under_way| under_way.try_recv().ok())
        {
            self.under_way = None;
            match done {
                Ok(position) => {
                    journal.prune(position)?;
                    shared.counters.snapshots.fetch_add(1, Ordering::Relaxed);
                    let what = format!("snapshot written at {}", Position(position));
                    shared.events.note(EventKind::Journal, what);
                }
                // The journal goes on from the snapshot before: nothing is lost, it only grows.
                Err(why) => shared.events.note(EventKind::Journal, format!("no snapshot: {why}")),
            }
        }
        shared.journal_bytes.store(journal.segment_bytes(), Ordering::Relaxed);
        if self.under_way.is_some()
            || journal.segment_bytes() < shared.config.journal.snapshot_every_bytes
        {
            return Ok(());
        }
        journal.rotate()?;
        let cut = machine.cut();
        let (tx, rx) = bounded(1);
        let dir = journal.dir().to_owned();
        let spawned = std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || drop(tx.send(write(&dir, cut))));
        if spawned.is_ok() {
            self.under_way = Some(rx);
        }
        Ok(())
    }
}

fn write(dir: &Path, cut: Cut) -> Result<u64, String> {
    let upto = cut.upto();
    let mut file = SnapshotFile::create(dir, &format!("own-{upto}")).map_err(|e| e.to_string())?;
    cut.write(&mut file).map_err(|e| e.to_string())?;
    file.finish(upto).map_err(|e| e.to_string())?;
    Ok(upto)
}
