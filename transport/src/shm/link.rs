//! An established link through shared memory: the peer's replica, and our row for it.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::replica::Replica;
use super::segment::Segment;
use super::socket::readable;
use super::thread::Silence;
use crate::clock;
use crate::event::Evidence;
use crate::faults::Gate;
use crate::id::Member;
use crate::lane::LaneId;
use crate::log::{LogBytes, Malformed, Reader, Record, Ring};
use crate::memory::Memory;
use crate::time::Time;
use crate::wait::{Bell, before_looking, must_ring};

/// One lane of the peer as we see it, and of ours as it does.
struct Lane {
    reader: Option<Reader>,
    /// Values of the peer's words as of the last refresh: never ahead of the visible log.
    words: Vec<u64>,
    /// Where the peer began to count among the readers of our lane.
    attached: Option<u64>,
    /// What it had released when the link froze.
    released: u64,
    /// The replica is a private copy.
    copied: bool,
}

/// What the two ends agreed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The peer's number: our row for it.
    pub(super) peer: usize,
    /// Our session, in that row.
    pub(super) session: u64,
    /// Its session, in its row for us.
    pub(super) their_session: u64,
    /// From where on we promised our CONTROL log.
    pub(super) promised: u64,
}

/// A link. The poller owns it.
pub(crate) struct ShmLink {
    replica: Replica,
    /// Until the link ends.
    socket: Option<OwnedFd>,
    bell: Bell,
    pidfd: OwnedFd,
    terms: Terms,
    lanes: Vec<Lane>,
    /// As of the last refresh; see [`Replica::turns`].
    turns: (u64, u64),
    stale: bool,
    /// The last refresh showed only records that show themselves.
    hasty: bool,
    frozen: bool,
    /// The peer overwrote what we had not released.
    overrun: Cell<bool>,
    malformed: Cell<bool>,
    rung: u64,
    heartbeat: u64,
    silence: Silence,
    confirmed: Time,
    released_news: bool,
    pub(crate) doorbells: u64,
    pub(crate) gate: Gate,
}

impl ShmLink {
    pub(super) fn new(
        replica: Replica,
        socket: OwnedFd,
        bell: Bell,
        pidfd: OwnedFd,
        terms: Terms,
    ) -> ShmLink {
        ShmLink {
            replica,
            socket: Some(socket),
            bell,
            pidfd,
            terms,
            lanes: Vec::new(),
            turns: (0, 0),
            stale: true,
            hasty: false,
            frozen: false,
            overrun: Cell::new(false),
            malformed: Cell::new(false),
            rung: 0,
            heartbeat: 0,
            silence: Silence::default(),
            confirmed: Time::ZERO,
            released_news: false,
            doorbells: 0,
            gate: Gate::open(),
        }
    }

    /// Sets up the lanes, as many as the node has.
    pub(crate) fn start(&mut self, lanes: usize) {
        let lane = |_| Lane {
            reader: None,
            words: Vec::new(),
            attached: None,
            released: 0,
            copied: false,
        };
        self.lanes = (0..lanes).map(lane).collect();
    }

    pub(crate) fn member(&self) -> Member {
        self.replica.member()
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Where the peer's view of our CONTROL log begins.
    pub(crate) fn promised(&self) -> u64 {
        self.terms.promised
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn robust(&self) -> (Arc<Memory>, usize, u32) {
        self.replica.robust()
    }

    /// Looks for news of the peer's words and logs. Words are read before the log's end and shown
    /// together with it, so no word is seen before the log bytes it speaks of.
    pub(crate) fn refresh(&mut self) -> Result<bool, Malformed> {
        // What shows itself, and nothing else: the news of its flush take as long again to come. They are for the next
        // time, so nothing waits longer than that.
        self.hasty = !self.hasty && self.show()?;
        if self.hasty {
            return Ok(true);
        }
        let turns = self.replica.turns();
        if turns == self.turns && !self.stale || !self.gate.passes() {
            return Ok(false);
        }
        let words = turns.1 != self.turns.1 || self.stale;
        self.turns = turns;
        self.stale = false;
        for (lane, id) in self.lanes.iter_mut().zip(0..) {
            let Some(reader) = &mut lane.reader else { continue };
            let id = LaneId(id);
            if !words && self.replica.head(id) <= reader.visible() {
                continue;
            }
            // Checked first: were the log lost, its words must not be believed.
            if self.replica.low_after_reads(id) > reader.released() {
                self.overrun.set(true);
                return Err(Malformed);
            }
            reader.expect();
            if words {
                for (seen, word) in lane.words.iter_mut().zip(self.replica.words(id)) {
                    *seen = (*seen).max(word.load(Ordering::Acquire));
                }
            }
            // After its words: they speak of what is below.
            if let Err(malformed) = reader.advance(self.replica.head(id)) {
                self.overrun.set(true);
                return Err(malformed);
            }
        }
        Ok(true)
    }

    /// Looks for all that a process had said when it ended.
    pub(crate) fn last_words(&mut self) {
        self.hasty = true;
        // A log that is none ends here, as the link does.
        let _ = self.refresh();
    }

    /// Shows the records that show themselves. True if there are any.
    #[inline]
    fn show(&mut self) -> Result<bool, Malformed> {
        let mut news = false;
        for (lane, id) in self.lanes.iter_mut().zip(0..) {
            let Some(reader) = &mut lane.reader else { continue };
            let Some(word) = reader.shown().filter(|_| self.gate.passes()) else { continue };
            let shown = reader.show(word);
            if shown.is_err() || self.replica.low_after_reads(LaneId(id)) > reader.released() {
                self.overrun.set(true);
                return Err(Malformed);
            }
            news = true;
        }
        Ok(news)
    }

    /// Whether the peer has flushed since the last refresh: the last look before sleeping.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        (self.stale || self.is_shown() || self.replica.turn() != self.turns.0)
            && !self.gate.is_cut()
    }

    /// Whether a record shows itself, which comes before the news of the flush.
    #[inline]
    fn is_shown(&self) -> bool {
        self.lanes
            .iter()
            .any(|lane| lane.reader.as_ref().is_some_and(|reader| reader.shown().is_some()))
    }

    /// Takes note of the news of a flush of which [`ShmLink::refresh`] has shown everything already.
    #[inline]
    pub(crate) fn catch_up(&mut self) {
        if !self.hasty {
            return;
        }
        let turns = self.replica.turns();
        // Read after the turn: what they say is at least what was flushed with it.
        let seen = |(lane, id): (&Lane, u8)| {
            let head = self.replica.head(LaneId(id));
            lane.reader.as_ref().is_none_or(|reader| head <= reader.visible())
        };
        if turns.0 != self.turns.0
            && turns.1 == self.turns.1
            && self.lanes.iter().zip(0..).all(seen)
        {
            self.turns = turns;
            self.hasty = false;
        }
    }

    /// Fetches where the peer will write next, if it has written there since it was fetched last. One who spins does
    /// so all the time: a record then comes on its own while the news of it does, not after it.
    pub(crate) fn expect(&self) {
        for reader in self.lanes.iter().filter_map(|lane| lane.reader.as_ref()) {
            reader.expect();
        }
    }

    /// Looks for signs of life, answers them, and for signs of death.
    pub(crate) fn life(&mut self, segment: &Segment) -> Result<Option<Time>, Evidence> {
        if self.replica.owner_died() {
            return Err(Evidence::ProcessExited);
        }
        if self.gate.is_cut() {
            return Ok(None);
        }
        if !self.replica.is_open(self.terms.their_session) {
            return Err(Evidence::ClosedByPeer);
        }
        if self.overrun.get() {
            return Err(Evidence::ClosedByPeer);
        }
        if self.malformed.get() {
            return Err(Evidence::Malformed);
        }
        for lane in &mut self.lanes {
            // Trailing padding and aborts are nobody's to release.
            if let Some(reader) = &mut lane.reader
                && reader.skip()
            {
                self.released_news = true;
            }
        }
        self.store_released(segment);
        // Ours that it saw; not later than what we ever wrote.
        let echo = Time::from_nanos(self.replica.echo().min(segment.heartbeat()));
        self.confirmed = self.confirmed.max(echo);
        let heartbeat = self.replica.heartbeat();
        if heartbeat == self.heartbeat {
            return Ok(None);
        }
        self.heartbeat = heartbeat;
        self.silence = Silence::default();
        // After the load: what we confirm was heard no later than we say it was.
        let heard = clock::now();
        segment.echo(self.terms.peer, heartbeat);
        Ok(Some(heard))
    }

    /// What the kernel knows of the peer's end. Costs system calls; `life` sees most deaths sooner.
    pub(crate) fn autopsy(&self) -> Option<Evidence> {
        if readable(self.pidfd.as_fd()) {
            return Some(Evidence::ProcessExited);
        }
        // Nothing is ever sent here once the link is up: readable means closed. Of a dead process the
        // kernel marks the robust futex before it closes descriptors.
        let closed = self.socket.as_ref().is_some_and(|s| readable(s.as_fd()));
        match (closed, self.replica.owner_died()) {
            (false, _) => None,
            (true, true) => Some(Evidence::ProcessExited),
            (true, false) => Some(Evidence::ClosedByPeer),
        }
    }

    /// Whether the peer's poller is silent only because it is not let onto a processor; `None` if that cannot be
    /// known. Costs system calls.
    pub(crate) fn is_starved(&mut self) -> Option<bool> {
        self.silence.is_starved(self.pidfd.as_fd(), self.replica.thread())
    }

    /// Rings if the peer sleeps. [`before_looking`](crate::wait::before_looking) goes before.
    pub(crate) fn ring(&mut self, segment: &Segment) {
        if must_ring(self.replica.armed(), &mut self.rung) {
            self.bell.ring();
            segment.rung(self.terms.peer, self.rung);
            self.doorbells += 1;
        }
    }

    /// The latest own sleep that the peer says to have rung for.
    pub(crate) fn rung_by_peer(&self) -> u64 {
        self.replica.rung()
    }

    /// Whether we released anything since [`ShmLink::release_is_awaited`] was asked.
    pub(crate) fn has_released(&self) -> bool {
        self.released_news
    }

    /// Whether we released something the peer waits for. [`before_looking`](crate::wait::before_looking) goes before.
    pub(crate) fn release_is_awaited(&mut self) -> bool {
        std::mem::take(&mut self.released_news) && self.replica.wanted() != 0
    }

    pub(crate) fn attach(&mut self, lane: LaneId, from: u64) {
        if let Some(l) = self.lanes.get_mut(lane.index()) {
            l.attached = Some(from);
        }
    }

    pub(crate) fn detach(&mut self, lane: LaneId) {
        if let Some(l) = self.lanes.get_mut(lane.index()) {
            l.attached = None;
        }
    }

    /// How far the peer released our log, of which `head` is published; `None` if it does not read it.
    pub(crate) fn released(&self, lane: LaneId, head: u64) -> Option<u64> {
        let l = self.lanes.get(lane.index())?;
        let from = l.attached?;
        let said = if self.frozen { l.released } else { self.replica.released(lane) };
        Some(from.max(said.min(head)))
    }

    /// Reads that log no more: what its owner does with it does not concern us.
    pub(crate) fn shut(&mut self, lane: LaneId, segment: &Segment) {
        if let Some(reader) = self.lanes.get_mut(lane.index()).and_then(|l| l.reader.take()) {
            // What was released before must still be said.
            segment.released(self.terms.peer, lane, reader.released());
            self.released_news = true;
        }
    }

    pub(crate) fn open(&mut self, lane: LaneId, from: u64, segment: &Segment) {
        if self.frozen {
            return;
        }
        let Some(l) = self.lanes.get_mut(lane.index()) else { return };
        if l.reader.is_none() {
            l.reader = Some(Reader::new(self.replica.ring(lane), from));
            l.words = vec![0; self.replica.words(lane).len()];
            segment.released(self.terms.peer, lane, from);
            self.stale = true;
        }
    }

    pub(crate) fn word(&self, lane: LaneId, word: usize) -> u64 {
        self.lanes.get(lane.index()).and_then(|l| l.words.get(word)).copied().unwrap_or(0)
    }

    fn reader(&self, lane: LaneId) -> Option<&Reader> {
        self.lanes.get(lane.index())?.reader.as_ref()
    }

    pub(crate) fn head(&self, lane: LaneId) -> u64 {
        self.reader(lane).map_or(0, Reader::visible)
    }

    #[inline(always)]
    pub(crate) fn peek(&self, lane: LaneId, at: u64) -> Option<Record<'_>> {
        let l = self.lanes.get(lane.index())?;
        let reader = l.reader.as_ref()?;
        // All that the visible words speak of has been read: whether it could still be read says nothing.
        if at >= reader.visible() {
            return None;
        }
        let record = reader.peek(at);
        if !l.copied && self.replica.low_after_reads(lane) > reader.released() {
            self.overrun.set(true);
            return None;
        }
        record.unwrap_or_else(|Malformed| {
            self.malformed.set(true);
            None
        })
    }

    /// False if the peer overwrote, or may be overwriting, what we had not released.
    pub(crate) fn intact(&self) -> bool {
        !self.overrun.get() && !self.malformed.get()
    }

    pub(crate) fn release(&mut self, lane: LaneId, upto: u64, segment: &Segment) {
        let Some(reader) = self.lanes.get_mut(lane.index()).and_then(|l| l.reader.as_mut()) else {
            return;
        };
        if reader.release(upto) && !self.frozen {
            segment.released(self.terms.peer, lane, reader.released());
            self.released_news = true;
        }
    }

    fn store_released(&self, segment: &Segment) {
        if self.released_news {
            for (i, lane) in self.lanes.iter().enumerate() {
                if let Some(reader) = &lane.reader {
                    segment.released(self.terms.peer, LaneId(i as u8), reader.released());
                }
            }
        }
    }

    pub(crate) fn bytes(&self, lane: LaneId) -> Option<LogBytes> {
        let reader = self.reader(lane)?;
        match self.lanes[lane.index()].copied {
            true => Some(LogBytes::new(reader.ring().clone())),
            false => Some(self.replica.bytes(lane)),
        }
    }

    pub(crate) fn confirmed(&self) -> Time {
        self.confirmed
    }

    /// Ends the link. What is visible stays readable: as it is if the writer is gone, else as a private
    /// copy, since a living writer that we no longer hold back may overwrite it.
    pub(crate) fn freeze(&mut self, writer_is_gone: bool, segment: &Segment) {
        if self.frozen {
            return;
        }
        self.frozen = true;
        self.socket = None;
        segment.close_row(self.terms.peer, self.terms.session);
        for i in 0..self.lanes.len() {
            let id = LaneId(i as u8);
            let released = self.replica.released(id);
            let lane = &mut self.lanes[i];
            lane.released = released;
            if !writer_is_gone && let Some(reader) = &mut lane.reader {
                let from = reader.released();
                let copied = copy(reader, || self.replica.low_after_reads(id));
                // Nothing to read must not look like nothing sent.
                self.overrun.set(self.overrun.get() || copied.is_none());
                *reader = copied.unwrap_or_else(|| nothing(from));
                lane.copied = true;
            }
        }
        before_looking();
        self.ring(segment); // Let it notice at once that its link is closed.
    }
}

/// A reader of nothing.
fn nothing(from: u64) -> Reader {
    let smallest = Ring::private(4096).expect("one page of memory");
    Reader::new(smallest, from)
}

/// A private copy of what a reader can see. `None` if the writer has begun to overwrite what the reader had not
/// released, or there is no memory for the copy.
fn copy(reader: &Reader, low: impl Fn() -> u64) -> Option<Reader> {
    let (from, to) = (reader.released(), reader.visible());
    if from == to {
        return (low() <= from).then(|| nothing(from));
    }
    let ring = Ring::private(reader.ring().capacity() as usize).ok()?;
    // SAFETY: the target is ours alone. The source is visible and unreleased, so it does not change
    // unless the peer has fenced us; then `low` has moved, which is checked after, and the copy is
    // thrown away unread.
    unsafe {
        let (a, b) = reader.ring().range(from, (to - from) as usize);
        ring.place(from, a);
        ring.place(from + a.len() as u64, b);
    }
    if low() > from {
        return None;
    }
    let mut copied = Reader::new(ring, from);
    let _ = copied.advance(to);
    Some(copied)
}
