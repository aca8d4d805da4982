//! Log memory that outlives the poller's borrow: for deliveries read by another thread.

use std::sync::Arc;

use super::ring::Ring;
use crate::memory::Memory;
use crate::sync::Ordering;

/// The memory of one log, kept mapped for as long as this lives, across views and dead links.
#[derive(Clone)]
pub struct LogBytes {
    ring: Ring,
    /// Where the owner says how far it reclaimed (a shared segment), if it is somebody else's memory.
    low: Option<(Arc<Memory>, usize)>,
}

impl LogBytes {
    pub(crate) fn new(ring: Ring) -> LogBytes {
        LogBytes { ring, low: None }
    }

    #[cfg(not(loom))]
    pub(crate) fn with_low(ring: Ring, memory: Arc<Memory>, offset: usize) -> LogBytes {
        LogBytes { ring, low: Some((memory, offset)) }
    }

    /// The payload of the record at `position` with `len` bytes.
    ///
    /// # Safety
    /// The record was visible to this node (own: published) and is not released (own: reclaimed) for as
    /// long as the slice lives.
    ///
    /// # Panics
    /// If such a record can't be in the ring.
    pub unsafe fn get(&self, position: u64, len: usize) -> &[u8] {
        // SAFETY: in bounds is checked there; nobody writes visible, unreleased bytes.
        unsafe { self.ring.bytes(position + super::entry::HEADER, len) }
    }

    /// False if the owner has begun to overwrite what lies at `position`: it no longer counts us among
    /// its readers, so we are out of its view. Only a peer in shared memory that fenced us while we
    /// slept does that; ask after using bytes of which a wrong copy would do harm (a journal).
    pub fn intact(&self, position: u64) -> bool {
        // Acquire fence: the reads of the bytes are done before `low` is read (a sequence lock's reader).
        crate::sync::fence(Ordering::Acquire);
        match &self.low {
            Some((memory, offset)) => {
                memory.word(*offset).load(std::sync::atomic::Ordering::Relaxed) <= position
            }
            None => true,
        }
    }
}
