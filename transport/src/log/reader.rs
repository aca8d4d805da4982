//! Reading a peer's log: a growing visible prefix, and what we have released of it.
//!
//! The bytes come from somebody else. Nothing in them is believed: lengths and kinds are checked against
//! the ring and against what is visible, each read exactly once, and a log that breaks the format is
//! [`Malformed`], never a panic and never a loop without progress.

use super::entry::{Entry, HEADER, SHOWN_SHIFT, shown};
use super::ring::{AHEAD, LINE, Ring};
use crate::sync::Ordering;

/// A record of a peer's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The number its sender published it under.
    pub index: u64,
    /// Where it begins.
    pub position: u64,
    /// Where the next one begins: what to release once it is no longer needed, and where to look next.
    pub end: u64,
    /// The message. Stays valid and unchanged until released.
    pub payload: &'a [u8],
}

/// The log is not one: an impossible kind, length or position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One per replica of a log.
pub(crate) struct Reader {
    ring: Ring,
    visible: u64,
    released: u64,
}

impl Reader {
    /// Starts at `from`, the beginning of a record (or of what will be one).
    pub(crate) fn new(ring: Ring, from: u64) -> Reader {
        Reader { ring, visible: from, released: from }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    #[inline]
    pub(crate) fn visible(&self) -> u64 {
        self.visible
    }

    /// What comes next will be read soon.
    #[inline]
    pub(crate) fn expect(&self) {
        self.ring.prefetch::<false>(self.visible);
        // It may be as high as a stranger likes to begin.
        self.ring.prefetch::<false>(self.visible.wrapping_add(LINE));
    }

    #[inline]
    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    /// The peer says that it has published up to `head`. True if that is news. Less than before is
    /// ignored; more than the ring can hold beyond what we released means that it no longer waits for us.
    pub(crate) fn advance(&mut self, head: u64) -> Result<bool, Malformed> {
        if head <= self.visible {
            return Ok(false);
        }
        if head - self.released > self.ring.capacity() || !head.is_multiple_of(8) {
            return Err(Malformed);
        }
        self.visible = head;
        Ok(true)
    }

    /// The commit word of the record after what is visible, if that shows itself ([`shown`]).
    #[inline]
    pub(crate) fn shown(&self) -> Option<u64> {
        // Acquire: pairs with `Publisher::show_if_alone`.
        let word = self.ring.word(self.visible & !7).load(Ordering::Acquire);
        (word >> SHOWN_SHIFT == shown(self.ring.lap(self.visible))).then_some(word)
    }

    /// Makes that record visible.
    #[inline]
    pub(crate) fn show(&mut self, word: u64) -> Result<(), Malformed> {
        let size = Entry::decode(word).ok_or(Malformed)?.size();
        if size < 8 || size > self.ring.room(self.visible) {
            return Err(Malformed);
        }
        // Where a log begins is the peer's choice, too.
        let end = self.visible.checked_add(size).ok_or(Malformed)?;
        self.advance(end)?.then_some(()).ok_or(Malformed)
    }

    /// As [`Reader::advance`], where bytes arrive rather than whole records: shows those records that lie
    /// below `upto` with all their bytes.
    pub(crate) fn advance_over(&mut self, upto: u64) -> Result<bool, Malformed> {
        if upto > self.released + self.ring.capacity() {
            return Err(Malformed);
        }
        let before = self.visible;
        while self.visible + 8 <= upto {
            let word = self.ring.word(self.visible).load(Ordering::Relaxed);
            let size = Entry::decode(word).ok_or(Malformed)?.size();
            if size < 8 || !size.is_multiple_of(8) || size > self.ring.room(self.visible) {
                return Err(Malformed);
            }
            if size > upto - self.visible {
                break;
            }
            self.visible += size;
        }
        Ok(self.visible > before)
    }

    /// The next message at or after `at`.
    #[inline(always)]
    pub(crate) fn peek(&self, at: u64) -> Result<Option<Record<'_>>, Malformed> {
        let mut at = at.max(self.released);
        while at < self.visible {
            let (entry, end) = self.entry(at)?;
            if entry.is_message() {
                let index = self.ring.word(at + 8).load(Ordering::Relaxed);
                // SAFETY: (1) in bounds: `entry` checked it against the ring; (2) below `visible` and not
                // below `released`: the writer holds such bytes still until we release them, which needs
                // `&mut self`; it is trusted as we are (of our user, or of the group that the
                // configuration trusts as that; or it is our own memory, which the UDP provider
                // fills, only at and above `visible`).
                let payload = unsafe { self.ring.bytes(at + HEADER, entry.len as usize) };
                if self.visible - end > AHEAD {
                    self.ring.prefetch::<false>(end + AHEAD);
                }
                return Ok(Some(Record { index, position: at, end, payload }));
            }
            at = end;
        }
        Ok(None)
    }

    /// The entry at `at < visible` and its end, both verified.
    #[inline]
    fn entry(&self, at: u64) -> Result<(Entry, u64), Malformed> {
        if !at.is_multiple_of(8) {
            return Err(Malformed);
        }
        let entry = Entry::decode(self.ring.word(at).load(Ordering::Relaxed)).ok_or(Malformed)?;
        let size = entry.size();
        if size < 8
            || !size.is_multiple_of(8)
            || size > self.ring.room(at)
            || size > self.visible - at
        {
            return Err(Malformed);
        }
        Ok((entry, at + size))
    }

    /// Everything below `upto` is no longer needed. True if that is news.
    pub(crate) fn release(&mut self, upto: u64) -> bool {
        let upto = upto.min(self.visible);
        let news = upto > self.released;
        if news {
            self.released = upto;
        }
        news | self.skip()
    }

    /// Releases what nobody will ever look at (padding, aborts) right after what is released already:
    /// else a log of aborted records alone would never be freed.
    pub(crate) fn skip(&mut self) -> bool {
        let before = self.released;
        while self.released < self.visible {
            match self.entry(self.released) {
                Ok((entry, end)) if !entry.is_message() => self.released = end,
                _ => break,
            }
        }
        self.released > before
    }
}
