//! The commit word of a record: what lies here, and how long it is.
//!
//! Low 32 bits: payload bytes (for padding: all its bytes). Bits 32..40: kind, never zero. A word of zero means "not
//! committed yet". Bits 40..64 are zero, or the [`shown`] mark of a record that was flushed alone.

/// Bytes before the payload: commit word and index.
pub(crate) const HEADER: u64 = 16;

/// Two cache lines: processors fetch them by pairs.
pub(crate) const PAIR: u64 = 128;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message.
    Message = 1,
    /// A message that has its cache lines to itself: it begins and ends at a [`PAIR`]. Written while no other is under
    /// way, when what counts is how soon it is read and not how much room it takes.
    Alone = 2,
    /// Skipped by everybody: up to the end of the ring or the next pair of lines, or a reservation that was dropped. May
    /// be as short as its commit word.
    Padding = 3,
}

/// A decoded commit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) len: u32,
}

impl Entry {
    #[inline]
    pub(crate) const fn encode(self) -> u64 {
        (self.kind as u64) << 32 | self.len as u64
    }

    /// `None` if nothing is committed there or the word is not one of ours.
    #[inline]
    pub(crate) const fn decode(word: u64) -> Option<Entry> {
        let kind = match (word >> 32) as u8 {
            1 => Kind::Message,
            2 => Kind::Alone,
            3 => Kind::Padding,
            _ => return None,
        };
        Some(Entry { kind, len: word as u32 })
    }

    /// Bytes the record takes in the ring.
    #[inline]
    pub(crate) const fn size(self) -> u64 {
        match self.kind {
            Kind::Padding => self.len as u64,
            Kind::Message => record_size(self.len),
            Kind::Alone => record_size(self.len).next_multiple_of(PAIR),
        }
    }

    /// Whether it carries a message.
    #[inline]
    pub(crate) const fn is_message(self) -> bool {
        !matches!(self.kind, Kind::Padding)
    }
}

/// The mark of a record that is published and shows it by itself, in bits 40..64 of its commit word. Who waits for a
/// record then looks at the cache line that it has to read anyway, not at one more that says how long the log is. The
/// mark is of that lap of the ring (of 2²³): what lies there of an earlier one is not taken for it.
#[inline]
pub(crate) const fn shown(lap: u64) -> u64 {
    (lap << 1 | 1) & 0xff_ffff
}

/// Where the mark is in the commit word.
pub(crate) const SHOWN_SHIFT: u32 = 40;

/// Ring bytes of a record with `len` bytes of payload.
#[inline]
pub(crate) const fn record_size(len: u32) -> u64 {
    HEADER + (len as u64).next_multiple_of(8)
}
