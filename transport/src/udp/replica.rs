//! A peer's lanes in our memory: rings that its packets are placed into.
//!
//! The connection decides which bytes may land where; the memory and its readers (`log::Reader`, `LogBytes` on
//! other threads) see whole records only, never a part of one that is still arriving.

use std::io;

use crate::log::{LogBytes, Malformed, Reader, Record, Ring};
use crate::own::Own;
use crate::reliable::{LaneTable, Sink, Source, Tail};

/// Shorter pieces are copied: two parts of a packet take longer to seal than one.
const TAIL_MIN: usize = 1024;

/// Replicas of all lanes of one peer.
#[derive(Default)]
pub(crate) struct Replicas {
    lanes: Vec<Option<Reader>>,
    /// Memory of another path, which goes on being used.
    lent: Vec<Ring>,
}

impl Replicas {
    pub(crate) fn new(table: &LaneTable) -> Self {
        Replicas { lanes: table.as_slice().iter().map(|_| None).collect(), lent: Vec::new() }
    }

    /// Makes memory for a lane that is read from `from` on. Opened again, the memory stays: what lies ahead of
    /// `from` may have arrived already.
    pub(crate) fn open(&mut self, lane: usize, log_bytes: u64, from: u64) -> io::Result<()> {
        let ring = match &mut self.lanes[lane] {
            Some(reader) if from <= reader.visible() => {
                reader.release(from);
                return Ok(());
            }
            Some(reader) => reader.ring().clone(),
            None if lane < self.lent.len() => self.lent[lane].clone(),
            None => {
                let capacity =
                    usize::try_from(log_bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
                Ring::private(capacity)?
            }
        };
        self.lanes[lane] = Some(Reader::new(ring, from));
        Ok(())
    }

    /// From here on lanes lie in that memory of another path, which goes on with these readers.
    pub(crate) fn borrow(&mut self, rings: Vec<Ring>, readers: Vec<Option<Reader>>) {
        (self.lent, self.lanes) = (rings, readers);
    }

    /// Reads that lane no more.
    pub(crate) fn take(&mut self, lane: usize) -> Option<Reader> {
        self.lanes.get_mut(lane)?.take()
    }

    /// The memory of another path is its own again.
    pub(crate) fn give_back(&mut self) {
        self.lent = Vec::new();
    }

    /// How far the lane is released, if it is open.
    pub(crate) fn released(&self, lane: usize) -> Option<u64> {
        self.lane(lane).map(Reader::released)
    }

    fn lane(&self, lane: usize) -> Option<&Reader> {
        self.lanes.get(lane)?.as_ref()
    }

    /// Bytes below `upto` have arrived: shows the whole records among them.
    pub(crate) fn advance(&mut self, lane: usize, upto: u64) -> Result<bool, Malformed> {
        match self.lanes.get_mut(lane) {
            Some(Some(reader)) => reader.advance_over(upto),
            _ => Ok(false),
        }
    }

    pub(crate) fn head(&self, lane: usize) -> u64 {
        self.lane(lane).map_or(0, Reader::visible)
    }

    pub(crate) fn peek(&self, lane: usize, at: u64) -> Result<Option<Record<'_>>, Malformed> {
        self.lane(lane).map_or(Ok(None), |reader| reader.peek(at))
    }

    /// Releases below `upto`; returns how far all is released now, if that is news.
    pub(crate) fn release(&mut self, lane: usize, upto: u64) -> Option<u64> {
        let reader = self.lanes.get_mut(lane)?.as_mut()?;
        reader.release(upto).then(|| reader.released())
    }

    pub(crate) fn bytes(&self, lane: usize) -> Option<LogBytes> {
        self.lane(lane).map(|reader| LogBytes::new(reader.ring().clone()))
    }
}

impl Sink for Replicas {
    fn place(&mut self, lane: u8, position: u64, bytes: &[u8]) {
        let Some(reader) = self.lane(usize::from(lane)) else { return };
        assert!(position >= reader.visible(), "visible bytes do not change");
        assert!(
            position + bytes.len() as u64 <= reader.released() + reader.ring().capacity(),
            "outside the window"
        );
        // SAFETY: readers touch [released, visible) only. By the assertions (1) the bytes start at or after
        // `visible` and (2) end within one capacity after `released`, so that no slot of them holds a position that
        // is being read. `&mut self` excludes other writers.
        unsafe { reader.ring().place(position, bytes) };
    }
}

impl Own {
    /// Log bytes that are published and not reclaimed: one slice, or two at the wrap.
    fn published(&self, lane: u8, position: u64, len: usize) -> (&[u8], &[u8]) {
        let log = &self.lanes[usize::from(lane)].log;
        let end = position + len as u64;
        assert!(
            position >= log.low() && end <= log.head(),
            "only published, unreclaimed bytes are sent"
        );
        // SAFETY: published and not reclaimed (asserted): nobody writes them, and reclaiming needs `&mut Own`.
        unsafe { log.ring().range(position, len) }
    }

    /// What [`Source::seals_in_place`] has left out of a packet.
    pub(crate) fn tail(&self, tail: Tail) -> &[u8] {
        self.published(tail.lane, tail.position, tail.len).0
    }
}

impl Source for Own {
    fn log(&self, lane: u8, position: u64, out: &mut [u8]) {
        let (a, b) = self.published(lane, position, out.len());
        out[..a.len()].copy_from_slice(a);
        out[a.len()..].copy_from_slice(b);
    }

    fn seals_in_place(&self, lane: u8, position: u64, len: usize) -> bool {
        len >= TAIL_MIN && self.published(lane, position, len).1.is_empty()
    }

    fn word(&self, lane: u8, index: u16) -> (u64, u64) {
        let word = self.lanes[usize::from(lane)].words[usize::from(index)];
        (word.value, word.after)
    }
}
