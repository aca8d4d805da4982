//! The receiving side of one lane on one connection: where bytes may land, and what has become visible.
//!
//! ```text
//!        released           visible                        released + capacity
//!  ---------|==================|------####---##----------------------|--------->
//!   reused  |  being read, must |      arrived ahead: placed,        | refused
//!           |  not be touched   |      remembered as ranges          |
//! ```
//!
//! Log bytes are put at their final place at once, in any order; there is no reorder buffer. What lies below
//! `visible` is never written again, so that a late duplicate cannot touch bytes that are being read, or a
//! reused part of the ring. A word waits until the log is visible up to where it was when the word was set.
//! Two values may wait per word: the oldest, so that a stream of newer ones cannot put it off for ever, and
//! the newest; those between would be overtaken anyway.

use super::Sink;
use super::handshake::LaneShape;
use super::ranges::RangeSet;
use super::wire::WordEntry;

/// Ranges that may have arrived ahead of the visible prefix.
const AHEAD_MAX: usize = 256;

/// Not taken in: the packet must not be acked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The lane is not open, or there is no room to remember one more range; sent again it will fit.
    NotNow,
    /// Outside the window, or a word that does not exist: no correct peer sends that.
    Violation,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    value: u64,
    after: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Word {
    visible: u64,
    /// `value == 0`: none waits.
    oldest: Waiting,
    newest: Waiting,
}

/// Receiving side of one lane.
#[derive(Debug)]
pub(crate) struct RecvLane {
    capacity: u64,
    open: bool,
    /// Where the writer says that this reader begins.
    started: Option<u64>,
    visible: u64,
    released: u64,
    /// Last credit that was put into a packet.
    credited: Option<u64>,
    ahead: RangeSet,
    words: Box<[Word]>,
    waiting: Box<[u64]>,
}

impl RecvLane {
    pub(crate) fn new(shape: LaneShape) -> Self {
        let words = shape.words as usize;
        RecvLane {
            capacity: shape.log_bytes,
            open: false,
            started: None,
            visible: 0,
            released: 0,
            credited: None,
            ahead: RangeSet::new(AHEAD_MAX),
            words: vec![Word::default(); words].into_boxed_slice(),
            waiting: vec![0; words.div_ceil(64)].into_boxed_slice(),
        }
    }

    /// Begins to read at `from`. Opened again it goes on there; what lies behind is released, and going back is
    /// impossible and ignored.
    pub(crate) fn open(&mut self, from: u64) {
        if self.open && from <= self.visible {
            self.release(from);
            self.credited = None;
            return;
        }
        self.open = true;
        self.released = from;
        self.visible = from;
        self.ahead.remove_below(from);
        self.credited = None;
        self.advance();
    }

    /// Goes on reading what another path brought so far: the log is visible up to `visible`, and so are those words.
    pub(crate) fn resume(&mut self, released: u64, visible: u64, words: impl Iterator<Item = u64>) {
        self.shut();
        (self.open, self.released, self.visible) = (true, released, visible);
        for (word, value) in self.words.iter_mut().zip(words) {
            word.visible = word.visible.max(value);
        }
    }

    /// Reads no more: what still comes is not taken in, and what came ahead is forgotten.
    pub(crate) fn shut(&mut self) {
        (self.open, self.credited) = (false, None);
        self.ahead.clear();
        self.waiting.fill(0);
        for word in &mut self.words {
            (word.oldest, word.newest) = (Waiting::default(), Waiting::default());
        }
    }

    /// Values of all words.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> {
        self.words.iter().map(|word| word.visible)
    }

    /// The writer has attached us at `from`; the latest such news counts.
    pub(crate) fn start(&mut self, from: u64) {
        self.started = self.started.max(Some(from));
    }

    pub(crate) fn started(&self) -> Option<u64> {
        self.started
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    pub(crate) fn visible(&self) -> u64 {
        self.visible
    }

    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    pub(crate) fn release(&mut self, upto: u64) {
        debug_assert!(upto <= self.visible, "released what was never visible");
        self.released = self.released.max(upto.min(self.visible));
    }

    pub(crate) fn word(&self, index: usize) -> u64 {
        self.words.get(index).map_or(0, |word| word.visible)
    }

    /// How many released bytes the writer has not been told of; `None`: not even that the lane is open.
    pub(crate) fn uncredited(&self) -> Option<u64> {
        self.credited.map(|told| self.released - told)
    }

    /// Whether there is any news for the writer.
    pub(crate) fn owes_credit(&self) -> bool {
        self.open && self.credited != Some(self.released)
    }

    /// Whether the writer should hear of it without waiting for a packet to ride on.
    pub(crate) fn owes_credit_now(&self) -> bool {
        self.open && self.uncredited().is_none_or(|bytes| bytes >= self.capacity / 8)
    }

    /// Whether the writer should hear of it soon.
    pub(crate) fn owes_credit_soon(&self) -> bool {
        self.open && self.uncredited().is_none_or(|bytes| bytes >= self.capacity / 64)
    }

    pub(crate) fn credited(&mut self) -> u64 {
        self.credited = Some(self.released);
        self.released
    }

    /// The packet with the last credit was lost.
    pub(crate) fn credit_lost(&mut self) {
        self.credited = None;
    }

    /// Checks that [`RecvLane::place`] would accept this.
    pub(crate) fn check_log(&self, position: u64, len: usize) -> Result<(), Refusal> {
        let end = position + len as u64;
        if !self.open {
            return Err(Refusal::NotNow);
        }
        if end > self.released + self.capacity && end > self.visible {
            return Err(Refusal::Violation);
        }
        Ok(())
    }

    /// Puts log bytes at their place. The visible prefix does not move before [`RecvLane::advance`].
    pub(crate) fn place(
        &mut self,
        lane: u8,
        position: u64,
        bytes: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Refusal> {
        self.check_log(position, bytes.len())?;
        let end = position + bytes.len() as u64;
        if end <= self.visible {
            return Ok(());
        }
        let skip = self.visible.saturating_sub(position);
        let (start, fresh) = (position + skip, &bytes[skip as usize..]);
        // Whoever sends the same position twice sends the same bytes, but a hostile peer may not; nothing
        // depends on it, because bytes that are ahead of the visible prefix are not yet read by anybody.
        self.ahead.insert(start, end).map_err(|_| Refusal::NotNow)?;
        sink.place(lane, start, fresh);
        Ok(())
    }

    /// Checks that [`RecvLane::offer_word`] would accept this.
    pub(crate) fn check_word(&self, entry: &WordEntry) -> Result<(), Refusal> {
        if !self.open {
            return Err(Refusal::NotNow);
        }
        if usize::from(entry.index) >= self.words.len() {
            return Err(Refusal::Violation);
        }
        Ok(())
    }

    /// Takes in a word; it becomes visible at once or when the log has come far enough.
    pub(crate) fn offer_word(&mut self, entry: &WordEntry) -> Result<(), Refusal> {
        self.check_word(entry)?;
        let index = usize::from(entry.index);
        let offered = Waiting { value: entry.value, after: entry.after };
        let visible = self.visible;
        let word = &mut self.words[index];
        if offered.value <= word.visible {
            return Ok(());
        }
        if offered.after <= visible {
            word.visible = offered.value;
        } else if word.oldest.value == 0 {
            word.oldest = offered;
        } else if offered.value < word.oldest.value {
            // Late: overtaken on its way by the one that waits.
            if word.newest.value == 0 {
                word.newest = word.oldest;
            }
            word.oldest = offered;
        } else if offered.value > word.newest.value.max(word.oldest.value) {
            word.newest = offered;
        }
        self.settle(index);
        Ok(())
    }

    /// Applies what has become due of one word, and remembers whether something still waits.
    fn settle(&mut self, index: usize) {
        let visible = self.visible;
        let word = &mut self.words[index];
        for _ in 0..2 {
            if word.oldest.value != 0 && word.oldest.after <= visible {
                word.visible = word.visible.max(word.oldest.value);
                word.oldest = std::mem::take(&mut word.newest);
            }
        }
        if word.newest.value != 0 && word.newest.after <= visible {
            word.visible = word.visible.max(word.newest.value);
            word.newest = Waiting::default();
        }
        if word.oldest.value <= word.visible {
            word.oldest = std::mem::take(&mut word.newest);
        }
        if word.oldest.value <= word.visible {
            word.oldest = Waiting::default();
        }
        let (block, bit) = (index / 64, 1u64 << (index % 64));
        if word.oldest.value != 0 {
            self.waiting[block] |= bit;
        } else {
            self.waiting[block] &= !bit;
        }
    }

    /// Moves the visible prefix over what has arrived, and shows the words that waited for it. Returns
    /// whether it moved.
    pub(crate) fn advance(&mut self) -> bool {
        let Some((start, end)) = self.ahead.first() else { return false };
        if start > self.visible {
            return false;
        }
        self.visible = self.visible.max(end);
        self.ahead.remove_below(self.visible);
        for block in 0..self.waiting.len() {
            let mut rest = self.waiting[block];
            while rest != 0 {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                self.settle(block * 64 + bit);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Placed(Vec<(u64, usize)>);
    impl Sink for Placed {
        fn place(&mut self, _: u8, position: u64, bytes: &[u8]) {
            self.0.push((position, bytes.len()));
        }
    }

    fn lane(from: u64) -> RecvLane {
        let mut lane = RecvLane::new(LaneShape { words: 70, log_bytes: 1024 });
        lane.open(from);
        lane
    }

    fn word(index: u16, value: u64, after: u64) -> WordEntry {
        WordEntry { index, value, after }
    }

    #[test]
    fn bytes_land_in_any_order_and_show_as_a_prefix() {
        let (mut lane, mut sink) = (lane(100), Placed::default());
        lane.place(0, 110, &[0; 10], &mut sink).unwrap();
        assert!(!lane.advance());
        assert_eq!((lane.visible(), lane.ahead.is_empty()), (100, false));
        lane.place(0, 90, &[0; 20], &mut sink).unwrap();
        assert!(lane.advance());
        assert_eq!((lane.visible(), lane.ahead.is_empty()), (120, true));
        assert_eq!(sink.0, [(110, 10), (100, 10)], "nothing below the prefix is touched");
    }

    #[test]
    fn late_bytes_and_bytes_outside_the_window_are_not_placed() {
        let (mut lane, mut sink) = (lane(0), Placed::default());
        lane.place(0, 0, &[0; 600], &mut sink).unwrap();
        lane.advance();
        lane.release(500);
        sink.0.clear();
        lane.place(0, 0, &[0; 600], &mut sink).unwrap();
        assert_eq!(lane.place(0, 1500, &[0; 25], &mut sink), Err(Refusal::Violation));
        assert_eq!(sink.0, []);
        lane.place(0, 1500, &[0; 24], &mut sink).unwrap();
        let mut closed = RecvLane::new(LaneShape { words: 1, log_bytes: 1024 });
        assert_eq!(closed.place(0, 0, &[0], &mut sink), Err(Refusal::NotNow));
        assert_eq!(closed.offer_word(&word(0, 1, 0)), Err(Refusal::NotNow));
    }

    #[test]
    fn a_word_waits_for_its_payload() {
        let (mut lane, mut sink) = (lane(0), Placed::default());
        lane.offer_word(&word(65, 7, 10)).unwrap();
        assert_eq!(lane.word(65), 0);
        lane.place(0, 0, &[0; 10], &mut sink).unwrap();
        lane.advance();
        assert_eq!(lane.word(65), 7);
        lane.offer_word(&word(65, 6, 0)).unwrap();
        assert_eq!(lane.word(65), 7, "never back");
        assert_eq!(lane.offer_word(&word(70, 1, 0)), Err(Refusal::Violation));
    }

    #[test]
    fn newer_values_do_not_put_an_older_one_off() {
        let (mut lane, mut sink) = (lane(0), Placed::default());
        for step in 1..=20u64 {
            lane.offer_word(&word(0, step, step * 10)).unwrap();
        }
        lane.place(0, 0, &[0; 10], &mut sink).unwrap();
        lane.advance();
        assert_eq!(lane.word(0), 1);
        lane.place(0, 10, &[0; 190], &mut sink).unwrap();
        lane.advance();
        assert_eq!(lane.word(0), 20);
    }

    #[test]
    fn what_another_path_has_brought_is_gone_on_from_and_given_back() {
        let (mut lane, mut sink) = (lane(0), Placed::default());
        lane.place(0, 8, &[0; 8], &mut sink).unwrap();
        lane.offer_word(&word(1, 5, 16)).unwrap();
        // Meanwhile it came to 24 elsewhere, of which 16 are released.
        lane.resume(16, 24, [7, 6].into_iter());
        assert_eq!((lane.visible(), lane.released(), lane.word(1)), (24, 16, 6));
        assert!(!lane.advance() && lane.owes_credit_now());
        assert_eq!(lane.credited(), 16, "the writer begins there");
        sink.0.clear();
        lane.place(0, 16, &[0; 16], &mut sink).unwrap();
        assert!(lane.advance());
        assert_eq!((lane.visible(), &sink.0[..]), (32, &[(24, 8)][..]));
        lane.place(0, 40, &[0; 8], &mut sink).unwrap();
        lane.offer_word(&word(0, 9, 48)).unwrap();
        lane.offer_word(&word(2, 3, 0)).unwrap();
        lane.shut();
        assert_eq!(lane.words().take(3).collect::<Vec<_>>(), [7, 6, 3]);
        assert_eq!(lane.place(0, 32, &[0; 8], &mut sink), Err(Refusal::NotNow));
        assert_eq!(lane.offer_word(&word(0, 9, 0)), Err(Refusal::NotNow));
        // What came ahead then lay in memory that another path has written since.
        lane.resume(32, 32, [7].into_iter());
        lane.place(0, 32, &[0; 8], &mut sink).unwrap();
        assert!(lane.advance());
        assert_eq!((lane.visible(), lane.word(0)), (40, 7));
    }

    #[test]
    fn a_full_table_refuses_instead_of_growing() {
        let mut lane = RecvLane::new(LaneShape { words: 0, log_bytes: 1 << 20 });
        let mut sink = Placed::default();
        lane.open(0);
        let mut refused = 0;
        for i in 0..1000u64 {
            refused +=
                u64::from(lane.place(0, 10 + i * 2, &[0], &mut sink) == Err(Refusal::NotNow));
        }
        assert_eq!(refused, 1000 - AHEAD_MAX as u64);
        assert_eq!(sink.0.len(), AHEAD_MAX);
    }

    #[test]
    fn credit_is_owed_sooner_the_more_was_released() {
        let (mut lane, mut sink) = (lane(0), Placed::default());
        assert!(lane.owes_credit_now(), "the writer does not know yet that the lane is open");
        assert_eq!(lane.credited(), 0);
        assert!(!lane.owes_credit());
        lane.place(0, 0, &[0; 512], &mut sink).unwrap();
        lane.advance();
        lane.release(8);
        assert!(lane.owes_credit() && !lane.owes_credit_soon());
        lane.release(16);
        assert!(lane.owes_credit_soon() && !lane.owes_credit_now());
        lane.release(128);
        assert!(lane.owes_credit_now());
        assert_eq!(lane.credited(), 128);
        lane.credit_lost();
        assert!(lane.owes_credit_now());
    }
}
