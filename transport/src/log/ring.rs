//! Positions to memory: the only part of the log that touches raw bytes.

use std::sync::Arc;

use crate::memory::Memory;
use crate::sync::AtomicU64;

/// The memory of one ring. Cheap to clone; keeps the memory mapped.
#[derive(Clone)]
pub(crate) struct Ring {
    memory: Arc<Memory>,
    offset: usize,
    mask: u64,
    /// loom must own the atomics it models, so under loom the words live beside the memory.
    #[cfg(loom)]
    words: Arc<Vec<AtomicU64>>,
}

impl Ring {
    /// The ring of `capacity` bytes (a power of two) at `offset` of `memory`.
    pub(crate) fn new(memory: Arc<Memory>, offset: usize, capacity: usize) -> Ring {
        assert!(capacity.is_power_of_two() && capacity >= 8 && offset.is_multiple_of(8));
        assert!(offset <= memory.len() && capacity <= memory.len() - offset);
        Ring {
            memory,
            offset,
            mask: capacity as u64 - 1,
            #[cfg(loom)]
            words: Arc::new((0..capacity / 8).map(|_| AtomicU64::new(0)).collect()),
        }
    }

    /// A ring in private memory of its own.
    pub(crate) fn private(capacity: usize) -> std::io::Result<Ring> {
        Ok(Ring::new(Arc::new(Memory::anonymous(capacity)?), 0, capacity))
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Bytes from `position` to the end of the ring: a record there can't be longer.
    pub(crate) fn room(&self, position: u64) -> u64 {
        self.capacity() - (position & self.mask)
    }

    fn slot(&self, position: u64) -> usize {
        (position & self.mask) as usize
    }

    /// Where the byte at `position` is in this process: for an adapter that reads it there.
    #[cfg(all(feature = "verbs", not(loom)))]
    pub(crate) fn address(&self, position: u64) -> u64 {
        self.memory.at(self.offset + self.slot(position), 1) as u64
    }

    /// The word at an 8-byte aligned position.
    #[cfg(not(loom))]
    pub(crate) fn word(&self, position: u64) -> &AtomicU64 {
        self.memory.word(self.offset + self.slot(position))
    }

    #[cfg(loom)]
    pub(crate) fn word(&self, position: u64) -> &AtomicU64 {
        &self.words[self.slot(position) / 8]
    }

    /// Starts to fetch what lies at `position` and right after it, in order to read it or (`OWN`) to write there.
    pub(crate) fn prefetch<const OWN: bool>(&self, position: u64) {
        for line in [0, 64] {
            self.memory.prefetch::<OWN>(self.offset + self.slot(position + line));
        }
    }

    /// `len` bytes at `position`, which must not reach beyond the end of the ring (checked).
    ///
    /// # Safety
    /// Nobody may write these bytes for as long as the slice lives.
    pub(crate) unsafe fn bytes(&self, position: u64, len: usize) -> &[u8] {
        assert!(len as u64 <= self.room(position));
        // SAFETY: in bounds by the assertion and `Memory::at`; mapped while `self` lives; no writer, by
        // the contract of this function.
        unsafe {
            std::slice::from_raw_parts(self.memory.at(self.offset + self.slot(position), len), len)
        }
    }

    /// As [`Ring::bytes`], to write.
    ///
    /// # Safety
    /// Nobody else may read or write these bytes for as long as the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn bytes_mut(&self, position: u64, len: usize) -> &mut [u8] {
        assert!(self.memory.writable() && len as u64 <= self.room(position));
        // SAFETY: in bounds by the assertion and `Memory::at`; writable; mapped while `self` lives;
        // exclusive by the contract of this function.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.memory.at(self.offset + self.slot(position), len),
                len,
            )
        }
    }

    /// The stream bytes `position..position + len` (at most the capacity): one slice, or two at the wrap.
    ///
    /// # Safety
    /// As for [`Ring::bytes`].
    pub(crate) unsafe fn range(&self, position: u64, len: usize) -> (&[u8], &[u8]) {
        let first = len.min(self.room(position) as usize);
        // SAFETY: handed on to the caller.
        unsafe { (self.bytes(position, first), self.bytes(position + first as u64, len - first)) }
    }

    /// Copies stream bytes to `position..`, over the wrap if need be.
    ///
    /// # Safety
    /// Nobody may read or write these bytes meanwhile.
    pub(crate) unsafe fn place(&self, position: u64, data: &[u8]) {
        let (a, b) = data.split_at(data.len().min(self.room(position) as usize));
        // SAFETY: handed on to the caller.
        unsafe {
            self.bytes_mut(position, a.len()).copy_from_slice(a);
            self.bytes_mut(position + a.len() as u64, b.len()).copy_from_slice(b);
        }
    }

    /// Zeroes the stream bytes `from..to`, at most the capacity.
    ///
    /// # Safety
    /// Nobody may read or write these bytes meanwhile.
    pub(crate) unsafe fn zero(&self, from: u64, to: u64) {
        let len = (to - from) as usize;
        let first = len.min(self.room(from) as usize);
        // SAFETY: handed on to the caller.
        unsafe {
            self.bytes_mut(from, first).fill(0);
            self.bytes_mut(from + first as u64, len - first).fill(0);
        }
        #[cfg(loom)]
        for position in (from..to).step_by(8) {
            self.word(position).store(0, crate::sync::Ordering::Relaxed);
        }
    }
}
