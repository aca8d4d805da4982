//! The poller's side of the own log: finds committed records, numbers and publishes them, frees space.

use std::sync::Arc;

use super::entry::{Entry, HEADER, SHOWN_SHIFT, shown};
use super::ring::Ring;
use super::writer::{LogWriter, Shared};
use crate::sync::Ordering;
use crate::wait::Waker;

/// A record that is committed and not yet published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Bytes of payload.
    pub len: usize,
}

/// A record that has just been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where the record begins in the log; the id that `commit` returned.
    pub position: u64,
    /// Bytes of payload.
    pub len: u32,
}

/// One per log, owned by the poller.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    head: u64,
    low: u64,
    records: u64,
    /// How many were at the last flush.
    flushed: u64,
}

impl Publisher {
    pub(crate) fn new(ring: Ring, waker: Waker) -> Publisher {
        let shared = Arc::new(Shared::new(ring, waker));
        Publisher { shared, head: 0, low: 0, records: 0, flushed: 0 }
    }

    /// How many records were published.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// How often the log became full.
    pub(crate) fn stalls(&self) -> u64 {
        self.shared.stalls.load(Ordering::Relaxed)
    }

    pub(crate) fn writer(&self) -> LogWriter {
        LogWriter { shared: self.shared.clone() }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.shared.ring
    }

    /// Published end.
    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Reclaimed end.
    pub(crate) fn low(&self) -> u64 {
        self.low
    }

    /// Whether somebody was refused space since the last reclaim.
    pub(crate) fn starved(&self) -> bool {
        self.shared.starved.load(Ordering::Relaxed)
    }

    /// The oldest committed, unpublished message. Moves the published end over what readers skip anyway.
    #[inline]
    pub(crate) fn committed(&mut self) -> Option<Committed> {
        self.message().map(|entry| Committed { len: entry.len as usize })
    }

    #[inline]
    fn message(&mut self) -> Option<Entry> {
        loop {
            let entry = self.entry()?;
            if entry.is_message() {
                return Some(entry);
            }
            self.head += entry.size();
        }
    }

    /// Whether anything is committed beyond the published end, be it only padding.
    pub(crate) fn has_committed(&self) -> bool {
        self.entry().is_some()
    }

    #[inline]
    fn entry(&self) -> Option<Entry> {
        if self.head == self.low + self.shared.ring.capacity() {
            return None; // The whole ring is published: this slot still holds the oldest record.
        }
        // Acquire: pairs with the store in `commit`; the payload is there.
        Entry::decode(self.shared.ring.word(self.head).load(Ordering::Acquire))
    }

    /// Publishes the record that [`Publisher::committed`] found, as number `index` of its sender.
    ///
    /// # Panics
    /// If no message is committed.
    #[inline]
    pub(crate) fn publish(&mut self, index: u64) -> Published {
        let entry = self.message().expect("publish() follows committed() = Some");
        let position = self.head;
        self.shared.ring.word(position + 8).store(index, Ordering::Relaxed);
        self.head += entry.size();
        self.records += 1;
        Published { position, len: entry.len }
    }

    /// Before anybody is told of what was published since the log ended at `before`: one record alone shows itself,
    /// of several the log's end tells. From here on its bytes do not change any more.
    #[inline]
    pub(crate) fn show_if_alone(&self, before: u64) {
        // What is reclaimed already, as nobody reads it, may be somebody's reservation again.
        if self.records != self.flushed + 1 || before < self.low {
            return;
        }
        let word = self.shared.ring.word(before);
        let committed = word.load(Ordering::Relaxed);
        // Readers look there; if that is padding, they learn of the record behind it by the log's end.
        if Entry::decode(committed).is_some_and(Entry::is_message) {
            let mark = shown(self.shared.ring.lap(before)) << SHOWN_SHIFT;
            // Release: who sees the mark sees the number of the record, and its payload.
            word.store(committed | mark, Ordering::Release);
        }
    }

    /// All were told of what is published. If somebody may be looking at the memory itself, the next record is to have
    /// its lines to itself, unless more are written with it.
    #[inline]
    pub(crate) fn flushed(&mut self, looked_at: bool) {
        self.flushed = self.records;
        let at = if looked_at { self.head } else { u64::MAX };
        self.shared.quiet_at.store(at, Ordering::Relaxed);
    }

    /// Frees everything below `upto`, which all readers have released. Clamped to what is published.
    pub(crate) fn reclaim(&mut self, upto: u64) {
        let upto = upto.min(self.head);
        if upto <= self.low {
            return;
        }
        // SAFETY: (1) below `head`, so no writer holds it; (2) not yet below `low`, so none can reserve
        // it before the store below; (3) released by every reader, which the caller vouches for. A
        // reader that was fenced may still look: it sees `low` of the segment first (`shm`).
        unsafe { self.shared.ring.zero(self.low, upto) };
        self.low = upto;
        self.shared.starved.store(false, Ordering::Relaxed);
        // Release: whoever reserves the space sees it zeroed.
        self.shared.limit.0.store(upto + self.shared.ring.capacity(), Ordering::Release);
    }

    /// Payload of an own record, `None` if `position` is not that of a published, unreclaimed message.
    pub(crate) fn payload(&self, position: u64) -> Option<(u64, &[u8])> {
        if position < self.low || position >= self.head || !position.is_multiple_of(8) {
            return None;
        }
        let entry = Entry::decode(self.shared.ring.word(position).load(Ordering::Relaxed))?;
        let fits = HEADER + entry.len as u64 <= self.shared.ring.room(position);
        if !entry.is_message() || !fits {
            return None;
        }
        let index = self.shared.ring.word(position + 8).load(Ordering::Relaxed);
        // SAFETY: published and not reclaimed, so immutable; `reclaim` needs `&mut self`.
        Some((index, unsafe { self.shared.ring.bytes(position + HEADER, entry.len as usize) }))
    }
}
