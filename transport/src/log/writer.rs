//! Reserve, write in place, commit: the side of the log that many threads use at once.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::entry::{Entry, HEADER, Kind, PAIR};
use super::ring::{AHEAD, LINE, Ring};
use crate::sync::{AtomicBool, AtomicU64, Ordering, Padded};
use crate::wait::Waker;

/// Longest payload of a record that gets lines of its own: of longer ones the ends are little.
const ALONE_MAX: u32 = 1024;

/// What writers and the publisher share.
pub(crate) struct Shared {
    pub(super) ring: Ring,
    /// End of what is reserved.
    pub(super) tail: Padded<AtomicU64>,
    /// `low + capacity`: reservations must end at or below it.
    pub(super) limit: Padded<AtomicU64>,
    /// A record reserved here is [`Kind::Alone`]: the last flush came up to here.
    pub(super) quiet_at: AtomicU64,
    /// A reservation was refused since space was last reclaimed.
    pub(super) starved: AtomicBool,
    /// How often that began.
    pub(super) stalls: AtomicU64,
    len_max: u32,
    waker: Waker,
}

impl Shared {
    pub(super) fn new(ring: Ring, waker: Waker) -> Shared {
        let capacity = ring.capacity();
        // Half a ring always fits after padding, wherever the tail is.
        let len_max = (capacity / 2 - HEADER).min(u32::MAX as u64 / 2) as u32;
        Shared {
            ring,
            tail: Padded(AtomicU64::new(0)),
            limit: Padded(AtomicU64::new(capacity)),
            quiet_at: AtomicU64::new(u64::MAX),
            starved: AtomicBool::new(false),
            stalls: AtomicU64::new(0),
            len_max,
            waker,
        }
    }
}

/// Where a record would be.
struct Place {
    entry: Entry,
    /// Before it.
    padding: u64,
    end: u64,
}

impl Shared {
    /// The place of such a record when `tail` is the end of what is reserved.
    #[inline(always)]
    fn place(&self, tail: u64, kind: Kind, len: u32) -> Place {
        let entry = Entry { kind, len };
        let (need, room) = (entry.size(), self.ring.room(tail));
        let padding = match kind {
            _ if room < need => room,
            Kind::Alone => room % PAIR,
            Kind::Message | Kind::Padding => 0,
        };
        Place { entry, padding, end: tail + padding + need }
    }
}

/// Reserves records in this node's log of one lane. Clone it into every thread that sends.
#[derive(Clone)]
pub struct LogWriter {
    pub(super) shared: Arc<Shared>,
}

/// Why there is no reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// Readers have not released enough of the log yet: try again later.
    #[error("the log is full: its readers have not caught up")]
    Full,
    /// No record of that length ever fits.
    #[error("longer than half of the log")]
    TooLarge,
}

/// A record being written, zeroed at first: `DerefMut` to its payload. Dropped without
/// [`commit`](Reservation::commit), it never existed.
pub struct Reservation<'a> {
    shared: &'a Shared,
    position: u64,
    entry: Entry,
}

impl LogWriter {
    /// Space for a record with `len` bytes of payload. Lock-free, never blocks.
    #[inline(always)]
    pub fn reserve(&self, len: usize) -> Result<Reservation<'_>, ReserveError> {
        let shared = &*self.shared;
        if len > shared.len_max as usize {
            return Err(ReserveError::TooLarge);
        }
        let len = len as u32;
        let mut tail = shared.tail.0.load(Ordering::Relaxed);
        loop {
            // Acquire: pairs with `reclaim`, whose zeroes must be there before we write.
            let limit = shared.limit.0.load(Ordering::Acquire);
            let mut place = shared.place(tail, Kind::Message, len);
            if shared.quiet_at.load(Ordering::Relaxed) == tail && len <= ALONE_MAX {
                let alone = shared.place(tail, Kind::Alone, len);
                place = if alone.end <= limit { alone } else { place };
            }
            let Place { entry, padding, end } = place;
            if end > limit {
                if !shared.starved.swap(true, Ordering::Relaxed) {
                    shared.stalls.fetch_add(1, Ordering::Relaxed);
                }
                return Err(ReserveError::Full);
            }
            // AcqRel: pairs with the roll-back of an aborted reservation, as above.
            match shared.tail.0.compare_exchange_weak(
                tail,
                end,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    if padding > 0 {
                        let entry = Entry { kind: Kind::Padding, len: padding as u32 };
                        shared.ring.word(tail).store(entry.encode(), Ordering::Release);
                    }
                    // Lines that were last touched a lap ago: records to come find them here, and the locked
                    // instruction of the next reservation waits for no store to them.
                    if end + AHEAD + LINE < limit {
                        shared.ring.prefetch::<true>(end + AHEAD);
                        shared.ring.prefetch::<true>(end + AHEAD + LINE);
                    }
                    return Ok(Reservation { shared, position: tail + padding, entry });
                }
                Err(now) => tail = now,
            }
        }
    }

    /// Whether something is committed (or aborted) at `position`, the published end of the log. For
    /// [`Poller::park`](crate::Poller::park)'s question, which is asked while the poller is borrowed.
    pub fn is_committed(&self, position: u64) -> bool {
        let shared = &*self.shared;
        // At the limit the whole ring is published: that slot still holds the oldest record.
        position < shared.limit.0.load(Ordering::Relaxed)
            && shared.ring.word(position).load(Ordering::Acquire) != 0
    }

    /// Positions of the messages committed at `position` (the published end) and after it, up to the first reservation
    /// that is still open. For the end of a log, when nobody publishes any more.
    pub fn unpublished(&self, position: u64) -> Vec<u64> {
        let (mut at, mut found) = (position, Vec::new());
        while at < self.shared.limit.0.load(Ordering::Acquire)
            && let Some(entry) = Entry::decode(self.shared.ring.word(at).load(Ordering::Acquire))
        {
            if entry.is_message() {
                found.push(at);
            }
            at += entry.size();
        }
        found
    }

    /// Longest payload [`LogWriter::reserve`] accepts.
    pub fn len_max(&self) -> usize {
        self.shared.len_max as usize
    }
}

impl Reservation<'_> {
    /// Hands the record over to the poller and wakes it if it sleeps. The result is the record's
    /// position in the log, its id for ever.
    pub fn commit(self) -> u64 {
        let shared = self.shared;
        let position = self.commit_quietly();
        shared.waker.wake();
        position
    }

    /// As [`Reservation::commit`], without waking: for the poller's own thread, and for all but the last of several
    /// records.
    #[inline]
    pub fn commit_quietly(self) -> u64 {
        let position = self.position;
        self.finish(self.entry);
        std::mem::forget(self);
        position
    }

    /// Where the record will be; known before it is committed.
    pub fn position(&self) -> u64 {
        self.position
    }

    #[inline]
    fn finish(&self, entry: Entry) {
        let word = self.shared.ring.word(self.position);
        debug_assert_eq!(word.load(Ordering::Relaxed), 0, "free space is zero");
        word.store(entry.encode(), Ordering::Release);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let size = self.entry.size();
        let end = self.position + size;
        // SAFETY: the range is ours alone: reserved by us, and not committed, so no reader looks beyond
        // its commit word, which is zero and stays so.
        unsafe { self.shared.ring.zero(self.position + 8, end) };
        // If nothing was reserved after it, the record can vanish. Release: the zeroes above must be
        // there before anybody reserves the space again.
        let tail = &self.shared.tail.0;
        if tail.compare_exchange(end, self.position, Ordering::Release, Ordering::Relaxed).is_err()
        {
            self.finish(Entry { kind: Kind::Padding, len: size as u32 });
            self.shared.waker.wake();
        }
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: see `deref_mut`.
        unsafe { self.shared.ring.bytes(self.position + HEADER, self.entry.len as usize) }
    }
}

impl DerefMut for Reservation<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: (1) the compare-and-swap in `reserve` gave this range to us alone; (2) the publisher
        // and readers look at a payload only behind a non-zero commit word, which is stored when `self`
        // is consumed; (3) it becomes free only after it was published and released; (4) the borrow of
        // `self` makes the slice exclusive.
        unsafe { self.shared.ring.bytes_mut(self.position + HEADER, self.entry.len as usize) }
    }
}
