//! The sending side of one lane on one connection.
//!
//! *Publishing marks, packing decides.* Publishing moves `head` or sets a bit; nothing is queued, so nothing
//! can overflow, and a word set a thousand times between two packets costs one entry. What to send is derived
//! when a packet is packed: lost ranges first, then new bytes up to the reader's window, and the words whose
//! bit is set, with the value and log position recorded when they were last set.
//!
//! Nothing is sent before the reader's first credit: it says that the reader has opened the lane, and where.

use super::handshake::LaneShape;
use super::ranges::RangeSet;

/// Lost ranges remembered one by one; beyond, neighbours are joined and a little is sent twice.
const LOST_MAX: usize = 256;

/// Sending side of one lane.
#[derive(Debug)]
pub(crate) struct SendLane {
    capacity: u64,
    attached: bool,
    /// The reader must be told where it begins.
    start_due: bool,
    /// Where this reader begins.
    from: u64,
    /// End of the published log.
    head: u64,
    sent_to: u64,
    credit: Option<u64>,
    lost: RangeSet,
    dirty: Box<[u64]>,
    dirty_blocks: usize,
    /// Packet that last carried the word.
    carried_by: Box<[u64]>,
    /// Lost pieces to be sent again, so far.
    resent: u64,
}

impl SendLane {
    pub(crate) fn new(shape: LaneShape) -> Self {
        let words = shape.words as usize;
        SendLane {
            capacity: shape.log_bytes,
            attached: false,
            start_due: false,
            from: 0,
            head: 0,
            sent_to: 0,
            credit: None,
            lost: RangeSet::new(LOST_MAX),
            dirty: vec![0; words.div_ceil(64)].into_boxed_slice(),
            dirty_blocks: 0,
            carried_by: vec![0; words].into_boxed_slice(),
            resent: 0,
        }
    }

    /// Begins to send: the log from `from`, and every word that `is_set`.
    pub(crate) fn attach(&mut self, from: u64, head: u64, is_set: impl Fn(u16) -> bool) {
        assert!(from <= head, "attached ahead of what is published");
        self.attached = true;
        self.start_due = true;
        self.from = from;
        self.head = self.head.max(head);
        // Credit from before: it may be of this attachment (the reader was quicker), or of an earlier one, and
        // then the reader has yet to open the lane where it begins now.
        self.credit = self.credit.filter(|&credit| credit >= from);
        self.sent_to = from.max(self.credit.unwrap_or(0));
        self.lost.clear();
        for index in 0..self.carried_by.len() as u16 {
            if is_set(index) {
                self.mark_word(index);
            }
        }
    }

    pub(crate) fn detach(&mut self) {
        self.attached = false;
        self.start_due = false;
        self.lost.clear();
        self.dirty.fill(0);
        self.dirty_blocks = 0;
    }

    pub(crate) fn publish(&mut self, head: u64) {
        debug_assert!(head >= self.head, "a log only grows");
        self.head = self.head.max(head);
    }

    pub(crate) fn mark_word(&mut self, index: u16) {
        if self.attached && usize::from(index) < self.carried_by.len() {
            let block = &mut self.dirty[usize::from(index / 64)];
            self.dirty_blocks += usize::from(*block == 0);
            *block |= 1 << (index % 64);
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    /// How far the reader has released the log; what is below may be reused as far as it is concerned.
    pub(crate) fn released(&self) -> u64 {
        self.credit.map_or(self.from, |credit| credit.min(self.head).max(self.from))
    }

    /// The reader says it released everything below `released`. `false`: impossible.
    pub(crate) fn on_credit(&mut self, released: u64) -> bool {
        if released > self.head && self.attached {
            return false;
        }
        let credit = released.max(self.credit.unwrap_or(0));
        self.credit = Some(credit);
        self.lost.remove_below(credit);
        self.sent_to = self.sent_to.max(credit.min(self.head));
        true
    }

    /// Whether the reader must be told where it begins.
    pub(crate) fn owes_start(&self) -> bool {
        self.start_due
    }

    /// Where this reader begins; it counts as told.
    pub(crate) fn take_start(&mut self) -> u64 {
        self.start_due = false;
        self.from
    }

    /// The packet that told it was lost. Who sends credit knows already.
    pub(crate) fn start_lost(&mut self) {
        self.start_due = self.attached && self.credit.is_none();
    }

    /// How many lost pieces there were to be sent again.
    pub(crate) fn resent(&self) -> u64 {
        self.resent
    }

    fn is_open(&self) -> bool {
        self.attached && self.credit.is_some()
    }

    /// Whether there are words to send.
    pub(crate) fn has_words(&self) -> bool {
        self.is_open() && self.dirty_blocks > 0
    }

    fn send_limit(&self) -> u64 {
        self.head.min(self.released() + self.capacity)
    }

    /// Whether there are log bytes that may be sent now.
    pub(crate) fn has_log(&self) -> bool {
        self.is_open() && (!self.lost.is_empty() || self.sent_to < self.send_limit())
    }

    /// The next range to send, at most `max` bytes; it counts as sent.
    pub(crate) fn take_log(&mut self, max: usize) -> Option<(u64, usize)> {
        if !self.is_open() || max == 0 {
            return None;
        }
        if let Some((start, end)) = self.lost.take_front(max as u64) {
            return Some((start, (end - start) as usize));
        }
        let start = self.sent_to;
        let end = self.send_limit().min(start + max as u64);
        (start < end).then(|| {
            self.sent_to = end;
            (start, (end - start) as usize)
        })
    }

    /// The next words to send, at most `max` of one block of 64, carried by packet `number`.
    pub(crate) fn take_words(&mut self, max: usize, number: u64) -> Option<(u16, u64)> {
        if !self.has_words() || max == 0 {
            return None;
        }
        let block = self.dirty.iter().position(|&bits| bits != 0)?;
        let mut taken = 0u64;
        let mut rest = self.dirty[block];
        while rest != 0 && (taken.count_ones() as usize) < max {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            taken |= 1 << bit;
            self.carried_by[block * 64 + bit as usize] = number;
        }
        self.dirty[block] = rest;
        self.dirty_blocks -= usize::from(rest == 0);
        Some((block as u16, taken))
    }

    /// A packet with these log bytes was lost.
    pub(crate) fn lost_log(&mut self, position: u64, len: u32) {
        let end = (position + u64::from(len)).min(self.sent_to);
        let start = position.max(self.released());
        if self.attached && start < end {
            self.lost.insert_covering(start, end);
            self.resent += 1;
        }
    }

    /// Packet `number` with these words was lost. A word that a later packet carried is left alone.
    pub(crate) fn lost_words(&mut self, number: u64, block: u16, mask: u64) {
        let mut rest = mask;
        while rest != 0 {
            let index = block * 64 + rest.trailing_zeros() as u16;
            rest &= rest - 1;
            if self.carried_by[usize::from(index)] == number {
                self.mark_word(index);
                self.resent += u64::from(self.attached);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> SendLane {
        SendLane::new(LaneShape { words: 130, log_bytes: 1024 })
    }

    #[test]
    fn nothing_goes_out_before_the_reader_has_opened() {
        let mut lane = lane();
        lane.attach(100, 200, |_| true);
        assert!(!lane.has_log() && !lane.has_words());
        assert_eq!(lane.released(), 100);
        assert!(lane.on_credit(150));
        assert_eq!(
            lane.take_log(1000),
            Some((150, 50)),
            "what the reader does not want is skipped"
        );
        assert!(lane.has_words());
    }

    #[test]
    fn the_window_is_the_readers_ring() {
        let mut lane = lane();
        lane.attach(0, 0, |_| false);
        assert!(lane.on_credit(0));
        lane.publish(5000);
        assert_eq!(lane.take_log(5000), Some((0, 1024)));
        assert!(!lane.has_log());
        assert!(lane.on_credit(24));
        assert_eq!(lane.take_log(5000), Some((1024, 24)));
        assert!(!lane.on_credit(5001), "nobody can release what was not published");
    }

    #[test]
    fn lost_bytes_go_first_unless_released_meanwhile() {
        let mut lane = lane();
        lane.attach(0, 500, |_| false);
        assert!(lane.on_credit(0));
        assert_eq!(lane.take_log(300), Some((0, 300)));
        lane.lost_log(0, 300);
        assert!(lane.on_credit(100));
        assert_eq!(lane.take_log(1000), Some((100, 200)));
        assert_eq!((lane.resent(), lane.take_log(1000)), (1, Some((300, 200))));
        assert_eq!(lane.take_log(1000), None);
    }

    #[test]
    fn a_lost_word_is_sent_again_unless_a_later_packet_carried_it() {
        let mut lane = lane();
        lane.attach(0, 0, |_| false);
        assert!(lane.on_credit(0));
        [3, 70, 129].into_iter().for_each(|word| lane.mark_word(word));
        assert_eq!(lane.take_words(8, 1), Some((0, 1 << 3)));
        assert_eq!(lane.take_words(8, 1), Some((1, 1 << 6)));
        assert_eq!(lane.take_words(8, 1), Some((2, 1 << 1)));
        assert!(!lane.has_words());
        lane.mark_word(3);
        assert_eq!(lane.take_words(8, 2), Some((0, 1 << 3)));
        lane.lost_words(1, 0, 1 << 3);
        assert!(!lane.has_words());
        lane.lost_words(1, 1, 1 << 6);
        assert_eq!(lane.take_words(8, 3), Some((1, 1 << 6)));
    }

    #[test]
    fn a_block_of_words_may_need_several_packets() {
        let mut lane = lane();
        lane.attach(0, 0, |index| index < 5);
        assert!(lane.on_credit(0));
        assert_eq!(lane.take_words(3, 1), Some((0, 0b00111)));
        assert_eq!(lane.take_words(3, 2), Some((0, 0b11000)));
        assert_eq!(lane.take_words(3, 2), None);
    }

    #[test]
    fn a_second_attachment_waits_for_fresh_credit() {
        let mut lane = lane();
        lane.attach(0, 100, |_| false);
        assert!(lane.on_credit(50));
        lane.detach();
        lane.attach(400, 500, |_| false);
        assert!(!lane.has_log(), "the reader has not opened it there yet");
        assert!(lane.on_credit(400));
        assert_eq!(lane.take_log(1000), Some((400, 100)));
    }

    #[test]
    fn a_detached_reader_gets_nothing() {
        let mut lane = lane();
        lane.attach(0, 500, |_| true);
        assert!(lane.on_credit(0));
        assert_eq!(lane.take_log(300), Some((0, 300)));
        lane.detach();
        lane.lost_log(0, 300);
        lane.mark_word(1);
        assert!(!lane.has_log() && !lane.has_words());
        assert_eq!(lane.take_log(10), None);
    }
}
