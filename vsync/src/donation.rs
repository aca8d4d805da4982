//! The donor's side of a state transfer: a blocking writer over the bulk lane, off the poller.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use quintet_transport::{LogWriter, Member, ReserveError};

use crate::core::ViewId;
use crate::engine::bulk::{self, Transfer};
use crate::engine::shared::{Command, Shared};
use crate::error::TransferError;

/// Writes state to one learner. Its calls block while the learner is behind; give it a thread of its own.
///
/// Dropping it without [`Self::finish`] ends the transfer: the learner starts over as a new incarnation.
pub struct BulkWriter {
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) log: LogWriter,
    pub(crate) shared: Arc<Shared>,
    pub(crate) learner: Member,
    /// Longest piece that is written as one record.
    pub(crate) piece: usize,
    pub(crate) patience: Duration,
    pub(crate) finished: bool,
}

impl BulkWriter {
    /// Who receives it.
    pub fn learner(&self) -> Member {
        self.learner
    }

    /// Sends `bytes`. The learner gets them in order, in pieces of any size.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), TransferError> {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(self.piece));
            self.record(bulk::DATA, piece)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Everything up to the view that joins the learner has been written: what the learner was sent, plus the messages it
    /// is delivered from that view on, is all. The learner's application sees the view now.
    pub fn finish(mut self, view: ViewId) -> Result<(), TransferError> {
        self.record(bulk::FINISH, &view.0.to_le_bytes())?;
        self.finished = true;
        Ok(())
    }

    /// Whether the learner is gone: whatever is written from now on fails. For who has nothing to write at the moment, and
    /// would not learn of it otherwise.
    pub fn is_aborted(&self) -> bool {
        self.transfer.is_aborted()
    }

    fn record(&mut self, kind: u64, body: &[u8]) -> Result<(), TransferError> {
        let mut waited = Duration::ZERO;
        loop {
            let seen = self.transfer.progress();
            if self.transfer.is_aborted() {
                return Err(TransferError::Aborted);
            }
            match self.log.reserve(bulk::HEADER + body.len()) {
                Ok(mut slot) => {
                    slot[..bulk::HEADER].copy_from_slice(&kind.to_le_bytes());
                    slot[bulk::HEADER..].copy_from_slice(body);
                    slot.commit();
                    return Ok(());
                }
                Err(ReserveError::TooLarge) => {
                    unreachable!("pieces are cut to a quarter of the log")
                }
                Err(ReserveError::Full) => {
                    if self.transfer.wait(seen, bulk::WAIT) {
                        waited = Duration::ZERO;
                    } else {
                        waited += bulk::WAIT;
                    }
                    if waited >= self.patience {
                        return Err(TransferError::Stalled(self.patience));
                    }
                }
            }
        }
    }
}

impl io::Write for BulkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BulkWriter::write(self, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BulkWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: a learner that does not hear of it sees the donor's link, or its own patience, end.
            let _ = self.record(bulk::ABORT, &[]);
        }
        self.transfer.writer_gone();
        self.shared.command(Command::TransferOver);
    }
}

impl fmt::Debug for BulkWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkWriter").field("learner", &self.learner).finish_non_exhaustive()
    }
}
