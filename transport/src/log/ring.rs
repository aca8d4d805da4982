//! Positions to memory: the only part of the log that touches raw bytes.
//!
//! A position is masked into the ring, so whatever a stranger's log says, the address is inside; only lengths are
//! checked.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::memory::Memory;
use crate::sync::AtomicU64;

/// Bytes of a cache line.
pub(crate) const LINE: u64 = 64;
/// Who goes through a ring fetches lines this far before they are needed: time for a line to come from another core
/// while records of the usual length are dealt with.
pub(crate) const AHEAD: u64 = 8 * LINE;

/// The memory of one ring. Cheap to clone; keeps the memory mapped.
#[derive(Clone)]
pub(crate) struct Ring {
    /// Kept mapped; `base` points there.
    memory: Arc<Memory>,
    /// `capacity` bytes from here on are the ring.
    base: NonNull<u8>,
    /// The capacity, a power of two and at least 8, less one.
    mask: u64,
    /// Of which power of two.
    bits: u32,
    /// loom must own the atomics it models, so under loom the words live beside the memory.
    #[cfg(loom)]
    words: Arc<Vec<AtomicU64>>,
}

// SAFETY: `base` points into `memory`, which may be used by all threads at once and stays mapped as long as it is held.
unsafe impl Send for Ring {}
// SAFETY: as for Send.
unsafe impl Sync for Ring {}

impl Ring {
    /// The ring of `capacity` bytes (a power of two) at `offset` of `memory`.
    pub(crate) fn new(memory: Arc<Memory>, offset: usize, capacity: usize) -> Ring {
        assert!(capacity.is_power_of_two() && capacity >= 8 && offset.is_multiple_of(8));
        let base = NonNull::new(memory.at(offset, capacity)).expect("mapped memory is not at 0");
        assert!(base.cast::<u64>().is_aligned());
        Ring {
            memory,
            base,
            mask: capacity as u64 - 1,
            bits: capacity.trailing_zeros(),
            #[cfg(loom)]
            words: Arc::new((0..capacity / 8).map(|_| AtomicU64::new(0)).collect()),
        }
    }

    /// A ring in private memory of its own.
    pub(crate) fn private(capacity: usize) -> std::io::Result<Ring> {
        Ok(Ring::new(Arc::new(Memory::anonymous(capacity)?), 0, capacity))
    }

    #[inline]
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Bytes from `position` to the end of the ring: a record there can't be longer.
    #[inline]
    pub(crate) fn room(&self, position: u64) -> u64 {
        self.capacity() - (position & self.mask)
    }

    /// How often the log has been around the ring at `position`.
    #[inline]
    pub(crate) fn lap(&self, position: u64) -> u64 {
        position >> self.bits
    }

    /// Where the byte at `position` is in this process.
    #[inline]
    fn at(&self, position: u64) -> *mut u8 {
        // SAFETY: `base` is followed by `capacity` bytes of one mapping (asserted in `new`), and the mask keeps the
        // offset below the capacity.
        unsafe { self.base.as_ptr().add((position & self.mask) as usize) }
    }

    /// The same for an adapter that reads it there.
    #[cfg(not(loom))]
    #[cfg(feature = "verbs")]
    pub(crate) fn address(&self, position: u64) -> u64 {
        self.at(position) as u64
    }

    /// The word at a position, which is a multiple of 8 (else at the one before it that is).
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn word(&self, position: u64) -> &AtomicU64 {
        debug_assert!(position.is_multiple_of(8));
        // SAFETY: (1) aligned: `base` is (asserted in `new`), and the offset is rounded down to 8; (2) in bounds: as in
        // `at`, and the capacity is a multiple of 8; (3) mapped for as long as `self` lives; (4) never accessed
        // non-atomically at the same time: the log's protocol separates words and payloads in time.
        unsafe { &*self.at(position & !7).cast::<AtomicU64>() }
    }

    #[cfg(loom)]
    pub(crate) fn word(&self, position: u64) -> &AtomicU64 {
        &self.words[(position & self.mask) as usize / 8]
    }

    /// Starts to fetch the cache line at `position`, in order to read it or (`OWN`) to write there.
    #[inline]
    pub(crate) fn prefetch<const OWN: bool>(&self, position: u64) {
        crate::memory::prefetch::<OWN>(self.at(position));
    }

    /// `len` bytes at `position`, which must not reach beyond the end of the ring (checked).
    ///
    /// # Safety
    /// Nobody may write these bytes for as long as the slice lives.
    #[inline]
    pub(crate) unsafe fn bytes(&self, position: u64, len: usize) -> &[u8] {
        assert!(len as u64 <= self.room(position));
        // SAFETY: in bounds by the assertion; mapped while `self` lives; no writer, by the contract of this function.
        unsafe { std::slice::from_raw_parts(self.at(position), len) }
    }

    /// As [`Ring::bytes`], to write.
    ///
    /// # Safety
    /// Nobody else may read or write these bytes for as long as the slice lives.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub(crate) unsafe fn bytes_mut(&self, position: u64, len: usize) -> &mut [u8] {
        assert!(self.memory.writable() && len as u64 <= self.room(position));
        // SAFETY: in bounds by the assertion; writable; mapped while `self` lives; exclusive by the contract of this
        // function.
        unsafe { std::slice::from_raw_parts_mut(self.at(position), len) }
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
