//! The commit word of a record: what lies here, and how long it is.
//!
//! Low 32 bits: payload bytes (for padding: all its bytes). Bits 32..40: kind, never zero. The rest is
//! zero. A word of zero means "not committed yet".

/// Bytes before the payload: commit word and index.
pub(crate) const HEADER: u64 = 16;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message.
    Message = 1,
    /// A reservation that was dropped; skipped by everybody.
    Abort = 2,
    /// Fills the ring up to its end; skipped by everybody. May be as short as its commit word.
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
        let kind = match word >> 32 {
            1 => Kind::Message,
            2 => Kind::Abort,
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
            Kind::Message | Kind::Abort => record_size(self.len),
        }
    }
}

/// Ring bytes of a record with `len` bytes of payload.
#[inline]
pub(crate) const fn record_size(len: u32) -> u64 {
    HEADER + (len as u64).next_multiple_of(8)
}
