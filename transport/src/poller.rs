//! The poller: one thread's hands on all links of a node.
//!
//! A turn of its owner's loop is [`poll`](Poller::poll) (receive, timers, failure detection), the owner's
//! own work on records and words, [`flush`](Poller::flush) (send all that was marked, ring doorbells
//! once), and [`park`](Poller::park) when nothing happened. Between `poll` and `poll` nothing of a peer
//! changes under the owner: words and visible log ends are a snapshot.
//!
//! A turn costs one cache line per shared-memory link. What is rarer (signs of life, handshakes) is
//! looked after by [`Poller::housekeep`], every half millisecond while busy, and after every sleep.

mod backstop;
mod detour;
#[cfg(feature = "faults")]
mod faults;
mod life;
mod meet;
mod mend;
mod park;
mod promote;
mod status;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::clock;
use crate::config::{Config, PathPolicy, Wait};
use crate::detect::{StallGuard, Thresholds};
use crate::error::Error;
use crate::event::{Event, PollerCounters};
use crate::id::{LinkId, Member};
use crate::lane::LaneId;
use crate::log::{Committed, LogBytes, LogWriter, Malformed, Published, Record};
use crate::own::Own;
use crate::pressure::Pressure;
use crate::roster::{Link, Roster, Wire};
use crate::shm::{Rendezvous, Segment};
use crate::time::Time;
use crate::udp::{Udp, UdpStatus};
use crate::verbs::Verbs;
use crate::wait::{Adaptive, Bell, Class, Sleep, Waker, before_looking};

/// Drives all links of one node. One thread owns it.
///
/// **Fork.** Starting programs ([`std::process::Command`], or fork and exec) is fine at any time, as is a child that
/// only ends: neither the links nor their memory notice. A child made by fork that goes on by itself does not have the
/// poller's memory: it may drop what it inherited (nothing is told to the peers), and touching a log ends it with
/// SIGSEGV. It holds the node's sockets, so the node cannot be started anew until it has ended or closed them
/// (`close_range(3, ~0, 0)`).
pub struct Poller {
    config: Config,
    own: Own,
    roster: Roster,
    segment: Segment,
    rendezvous: Option<Rendezvous>,
    udp: Option<Udp>,
    verbs: Option<Verbs>,
    /// Why there are none.
    no_verbs: String,
    /// Why not with that peer, until its link is up.
    no_verbs_with: Option<(Member, String)>,
    waker: Waker,
    sleep: Sleep,
    adaptive: Adaptive,
    events: VecDeque<Event>,
    counters: PollerCounters,
    stalls: StallGuard,
    pressure: Pressure,
    /// How silent shared-memory peers may be.
    limits: Thresholds,
    /// The same of peers reached by UDP.
    limits_udp: Thresholds,
    born: Time,
    /// Interval of heartbeats in shared memory.
    beat: Duration,
    last_beat: Time,
    next_housekeeping: Time,
    next_autopsy: Time,
    last_autopsy: Time,
    /// A word was set since the last flush that nobody need be woken for.
    quietly: bool,
    /// The same of a word that somebody may wait for.
    loudly: bool,
    /// Something of a shared log was released since the last flush.
    released: bool,
    /// Number of the latest sleep.
    generation: u64,
    /// Possible lost wake-up.
    suspicion: Option<backstop::Suspicion>,
    /// Sum of what readers have released of starved logs, as last seen.
    space: u64,
    #[cfg(feature = "faults")]
    faults: crate::faults::FaultPolicy,
}

impl Poller {
    /// Allocates the lanes, takes the node's name and address, and starts looking for peers.
    pub fn new(config: Config) -> Result<Poller, Error> {
        config.check()?;
        let now = clock::now();
        let waker = Waker::new(Bell::new().map_err(Error::system("eventfd"))?);
        let rendezvous = match config.path {
            PathPolicy::Udp | PathPolicy::Verbs => None,
            PathPolicy::Auto | PathPolicy::Shm => Some(Rendezvous::new(&config, now)?),
        };
        let udp = match config.path {
            PathPolicy::Shm => None,
            PathPolicy::Auto | PathPolicy::Udp | PathPolicy::Verbs => Some(Udp::new(&config, now)?),
        };
        let segment =
            Segment::new(&config).map_err(|(bytes, source)| Error::Memory { bytes, source })?;
        let own = Own::new(&config.lanes, segment.rings(), &waker);
        let (verbs, no_verbs) = promote::provider(&config, segment.memory(), entropy()?)?;
        let mut sleep = Sleep::new(config.io_uring);
        sleep.add_fd(waker.bell().fd().as_raw_fd(), Class::Bell);
        if let Some(rendezvous) = &rendezvous {
            sleep.add_fd(rendezvous.listener().as_raw_fd(), Class::Control);
        }
        if let Some(udp) = &udp {
            for fd in udp.fds() {
                sleep.add_fd(fd.as_raw_fd(), Class::Packets);
            }
            for fd in udp.error_fds() {
                sleep.add_fd(fd, Class::Errors);
            }
        }
        for fd in verbs.iter().flat_map(Verbs::fds) {
            sleep.add_fd(fd, Class::Control);
        }
        tracing::debug!(node = %config.me, parking = sleep.describe(), "poller starts");
        // Deaths are told by the kernel, so heartbeats only tell hangs and can be rare.
        let beat = (config.timing.dead / 8).max(Duration::from_millis(2));
        let limits = Thresholds {
            suspect: config.timing.suspect.max(beat * 3),
            dead: config.timing.dead.max(beat * 6),
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let mut poller = Poller {
            own,
            roster: Roster::new(config.peers.clone()),
            segment,
            rendezvous,
            udp,
            verbs,
            no_verbs,
            no_verbs_with: None,
            waker,
            sleep,
            adaptive: Adaptive::new(cores),
            events: VecDeque::new(),
            counters: PollerCounters::default(),
            stalls: StallGuard::new(now),
            pressure: Pressure::new(cores),
            limits,
            limits_udp: Thresholds { suspect: config.timing.suspect, dead: config.timing.dead },
            born: now,
            beat,
            last_beat: Time::ZERO,
            next_housekeeping: now,
            next_autopsy: now,
            last_autopsy: now,
            quietly: false,
            loudly: false,
            released: false,
            generation: 0,
            suspicion: None,
            space: 0,
            #[cfg(feature = "faults")]
            faults: crate::faults::FaultPolicy::default(),
            config,
        };
        poller.heartbeat(now);
        Ok(poller)
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
    /// moved, or an event waits. Within a lane no word is seen before the log that it speaks of; lanes may be seen in
    /// another order than they were written in, on every path.
    pub fn poll(&mut self, now: Time) -> bool {
        if let Some(stall) = self.stalls.tick(now) {
            self.excuse(stall, now);
        }
        let mut progress = false;
        for (_, link) in self.roster.iter_mut() {
            if link.alive {
                let news = match &mut link.wire {
                    // What breaks the format is dealt with by housekeeping, at once.
                    Wire::Shm(shm) => shm.refresh().unwrap_or_else(|_| {
                        self.next_housekeeping = Time::ZERO;
                        false
                    }),
                    Wire::Udp(_) => false,
                    Wire::Verbs(_, verbs) => {
                        let news = verbs.refresh();
                        if verbs.failure().is_some() {
                            self.next_housekeeping = Time::ZERO;
                        }
                        news
                    }
                };
                if news {
                    probe::probe!(quintet, visible, link.member.node.0);
                    progress = true;
                }
            }
        }
        if let Some(udp) = &mut self.udp {
            progress |= udp.poll(now, &self.own);
            self.take_udp_events(now);
        }
        if self.verbs.is_some() {
            self.promote(now);
        }
        if now >= self.next_housekeeping {
            self.housekeep(now);
        }
        progress |= !self.events.is_empty();
        if progress {
            self.adaptive.busy();
        }
        progress
    }

    /// What happened to links since the last call; ask until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Makes everything published and set so far visible to the peers, and wakes those that sleep.
    pub fn flush(&mut self, now: Time) {
        let loud = std::mem::take(&mut self.loudly) | self.own.has_grown();
        let marked = std::mem::take(&mut self.quietly) | loud;
        if marked {
            self.segment.publish(&self.own, loud);
        }
        if self.verbs.is_some() {
            for (_, link) in self.roster.iter_mut() {
                if let Wire::Verbs(_, verbs) = &mut link.wire
                    && link.alive
                {
                    // A release may be what the peer waits for.
                    verbs.flush(&self.own, loud || verbs.has_work());
                }
            }
        }
        if let Some(udp) = &mut self.udp {
            udp.flush(now, &self.own);
        }
        if marked {
            self.own.flushed(self.roster.has_near());
        }
        if std::mem::take(&mut self.released) | loud {
            self.wake_sleepers(loud);
        }
    }

    /// Rings for those who sleep and wait for what is there now: all if there is something `loud`, else those who wait
    /// for what we have released.
    fn wake_sleepers(&mut self, loud: bool) {
        before_looking();
        for (_, link) in self.roster.iter_mut() {
            if let (true, Wire::Shm(shm)) = (link.alive, &mut link.wire)
                && shm.release_is_awaited() | loud
            {
                shm.ring(&self.segment);
            }
        }
    }

    /// The oldest committed, unpublished record of an own lane (padding and aborts are skipped).
    #[inline]
    pub fn committed(&mut self, lane: LaneId) -> Option<Committed> {
        self.own.committed(lane)
    }

    /// Publishes that record under number `index`. Visible at the peers after [`Poller::flush`].
    ///
    /// # Panics
    /// If [`Poller::committed`] has nothing.
    #[inline]
    pub fn publish(&mut self, lane: LaneId, index: u64) -> Published {
        probe::probe!(quintet, publish, lane.0, index);
        self.own.publish(lane, index)
    }

    /// Sets an own word. It must not decrease; a lower value is ignored. Visible after [`Poller::flush`].
    pub fn set_word(&mut self, lane: LaneId, word: usize, value: u64) {
        self.loudly |= self.own.set_word(lane, word, value);
    }

    /// As [`Poller::set_word`], for values nobody waits for: sleeping peers are not woken for it.
    pub fn set_word_quietly(&mut self, lane: LaneId, word: usize, value: u64) {
        self.quietly |= self.own.set_word(lane, word, value);
    }

    /// The value last set of an own word.
    pub fn own_word(&self, lane: LaneId, word: usize) -> u64 {
        self.own.lane(lane).words[word].value
    }

    /// Frees an own log below `upto`, which its readers have released. Never passes what a live, attached
    /// reader has released, nor what a handshake under way has promised of CONTROL.
    pub fn reclaim(&mut self, lane: LaneId, upto: u64) {
        let log = &self.own.lane(lane).log;
        let (low, head) = (log.low(), log.head());
        let mut upto = upto.min(head);
        if upto <= low {
            return;
        }
        for (_, link) in self.roster.iter() {
            if link.alive && link.attached >> lane.0 & 1 != 0 {
                upto = upto.min(self.released_by(link, lane, head));
            }
        }
        for (_, link) in self.roster.iter_mut() {
            if let Wire::Verbs(_, verbs) = &mut link.wire {
                upto = verbs.floor(lane, upto);
            }
        }
        if lane == crate::lane::CONTROL {
            let promised = self.rendezvous.as_ref().map_or(u64::MAX, Rendezvous::control_floor);
            let opening = self.udp.as_ref().map_or(u64::MAX, Udp::control_floor);
            upto = upto.min(promised).min(opening).min(self.promoting_floor());
        }
        if upto > low {
            self.segment.reclaiming(lane, upto);
            self.own.lane_mut(lane).log.reclaim(upto);
        }
    }

    /// Published end of an own log.
    #[inline]
    pub fn head(&self, lane: LaneId) -> u64 {
        self.own.lane(lane).log.head()
    }

    /// Counts the peer among the readers of an own lane from byte `from` on. CONTROL is attached by itself.
    pub fn attach(&mut self, link: LinkId, lane: LaneId, from: u64) {
        let from = from.min(self.head(lane));
        if let Some(link) = self.roster.get_mut(link).filter(|l| l.alive) {
            link.attached |= 1 << lane.0;
            link.begun.attached(lane, from, self.own.lane(lane));
            match (&mut link.wire, &mut self.udp) {
                (Wire::Shm(shm), _) => shm.attach(lane, from),
                (Wire::Udp(handle), Some(udp)) => udp.attach(*handle, lane, from, &self.own),
                (Wire::Verbs(_, verbs), _) => verbs.attach(lane, from),
                (Wire::Udp(_), None) => {}
            }
        }
    }

    /// Stops sending a lane to a peer.
    pub fn detach(&mut self, link: LinkId, lane: LaneId) {
        if let Some(link) = self.roster.get_mut(link) {
            link.attached &= !(1 << lane.0);
            match (&mut link.wire, &mut self.udp) {
                (Wire::Shm(shm), _) => shm.detach(lane),
                (Wire::Udp(handle), Some(udp)) => udp.detach(*handle, lane),
                (Wire::Verbs(_, verbs), _) => verbs.detach(lane),
                (Wire::Udp(_), None) => {}
            }
        }
    }

    /// How far that reader has released an own log it is attached to; 0 if it is not.
    pub fn released(&self, link: LinkId, lane: LaneId) -> u64 {
        match self.roster.get(link) {
            Some(link) if link.attached >> lane.0 & 1 != 0 => {
                self.released_by(link, lane, self.head(lane))
            }
            _ => 0,
        }
    }

    /// As [`Poller::released`], of a link that is attached.
    fn released_by(&self, link: &Link, lane: LaneId, head: u64) -> u64 {
        match (&link.wire, &self.udp) {
            (Wire::Shm(shm), _) => shm.released(lane, head).unwrap_or(0),
            (Wire::Verbs(_, verbs), _) => verbs.released(lane, head).unwrap_or(0),
            (Wire::Udp(handle), Some(udp)) => udp.released(*handle, lane),
            (Wire::Udp(_), None) => 0,
        }
    }

    /// Starts reading a lane of the peer at byte `from`, which begins a record. CONTROL is opened by itself.
    pub fn open(&mut self, link: LinkId, lane: LaneId, from: u64) {
        if let Some(link) = self.roster.get_mut(link).filter(|l| l.alive) {
            link.begun.opened(lane, from);
            match (&mut link.wire, &mut self.udp) {
                (Wire::Shm(shm), _) => shm.open(lane, from, &self.segment),
                (Wire::Udp(handle), Some(udp)) => {
                    if let Err(error) = udp.open(*handle, lane, from) {
                        // Without memory for the replica the link is of no use.
                        tracing::error!(peer = %link.member, %error, "cannot read a lane");
                        link.malformed.set(true);
                    }
                }
                (Wire::Verbs(_, verbs), _) => verbs.open(lane, from),
                (Wire::Udp(_), None) => {}
            }
        }
    }

    /// Ends reading a lane of the peer: what its owner does to the log from now on is of no concern. It may be
    /// opened again. Bytes obtained before stay readable as long as the owner does not reuse them.
    pub fn shut(&mut self, link: LinkId, lane: LaneId) {
        if let Some(link) = self.roster.get_mut(link).filter(|l| l.alive) {
            match &mut link.wire {
                Wire::Shm(shm) => {
                    shm.shut(lane, &self.segment);
                    self.released = true;
                }
                Wire::Verbs(_, verbs) => verbs.shut(lane),
                // Nothing arrives that the owner does not send, and it has detached us. By another path it may.
                Wire::Udp(handle) => {
                    if let (Some(_), Some(udp)) = (&link.aside, &mut self.udp) {
                        udp.shut(*handle, lane);
                    }
                }
            }
        }
    }

    /// Visible value of a peer's word; 0 if there is none or the lane is not open.
    pub fn peer_word(&self, link: LinkId, lane: LaneId, word: usize) -> u64 {
        match self.roster.get(link).map(|l| &l.wire) {
            Some(Wire::Shm(shm)) => shm.word(lane, word),
            Some(Wire::Verbs(_, verbs)) => verbs.word(lane, word),
            Some(Wire::Udp(handle)) => {
                self.udp.as_ref().map_or(0, |udp| udp.peer_word(*handle, lane, word))
            }
            None => 0,
        }
    }

    /// Visible end of a peer's log; 0 if it is not open.
    pub fn peer_head(&self, link: LinkId, lane: LaneId) -> u64 {
        match self.roster.get(link).map(|l| &l.wire) {
            Some(Wire::Shm(shm)) => shm.head(lane),
            Some(Wire::Verbs(_, verbs)) => verbs.head(lane),
            Some(Wire::Udp(handle)) => {
                self.udp.as_ref().map_or(0, |udp| udp.peer_head(*handle, lane))
            }
            None => 0,
        }
    }

    /// The next message of a peer's log at or after byte `at`.
    #[inline(always)]
    pub fn peek(&self, link: LinkId, lane: LaneId, at: u64) -> Option<Record<'_>> {
        let link = self.roster.get(link)?;
        match &link.wire {
            Wire::Shm(shm) => shm.peek(lane, at),
            Wire::Verbs(_, verbs) => verbs.peek(lane, at),
            Wire::Udp(handle) => match self.udp.as_ref()?.peek(*handle, lane, at) {
                Ok(record) => record,
                Err(Malformed) => {
                    link.malformed.set(true);
                    None
                }
            },
        }
    }

    /// False once the peer has overwritten what we had not released (it no longer counts us among its
    /// readers: we were fenced while we slept), or its log broke the format. [`Poller::peek`] returns
    /// `None` from then on, which then does *not* mean that there is no record: after peeking, ask this
    /// before concluding anything from words. The link is declared dead by the next [`Poller::poll`].
    pub fn intact(&self, link: LinkId) -> bool {
        match self.roster.get(link).map(|l| &l.wire) {
            Some(Wire::Shm(shm)) => shm.intact(),
            Some(Wire::Verbs(_, verbs)) => verbs.intact(),
            Some(Wire::Udp(_)) => self.roster.get(link).is_some_and(|l| !l.malformed.get()),
            None => false,
        }
    }

    /// Lets the peer reuse its log below `upto`. The peer learns it with the next flush.
    pub fn release(&mut self, link: LinkId, lane: LaneId, upto: u64) {
        if let Some(link) = self.roster.get_mut(link) {
            match (&mut link.wire, &mut self.udp) {
                (Wire::Shm(shm), _) => {
                    shm.release(lane, upto, &self.segment);
                    self.released |= shm.has_released();
                }
                (Wire::Udp(handle), Some(udp)) => udp.release(*handle, lane, upto),
                (Wire::Verbs(_, verbs), _) => verbs.release(lane, upto),
                (Wire::Udp(_), None) => {}
            }
        }
    }

    /// Memory of a peer's log, for readers on other threads. `None` if the lane is not open.
    pub fn peer_bytes(&self, link: LinkId, lane: LaneId) -> Option<LogBytes> {
        match &self.roster.get(link)?.wire {
            Wire::Shm(shm) => shm.bytes(lane),
            Wire::Verbs(_, verbs) => verbs.bytes(lane),
            Wire::Udp(handle) => self.udp.as_ref()?.peer_bytes(*handle, lane),
        }
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
        self.roster.get(link).map_or(Time::ZERO, |l| l.health.heard())
    }

    /// The latest own instant of which the peer has confirmed to have heard from us at or after it.
    pub fn confirmed(&self, link: LinkId) -> Time {
        match self.roster.get(link).map(|l| &l.wire) {
            Some(Wire::Shm(shm)) => shm.confirmed(),
            Some(Wire::Udp(handle) | Wire::Verbs(handle, _)) => {
                self.udp.as_ref().map_or(Time::ZERO, |udp| udp.confirmed(*handle))
            }
            None => Time::ZERO,
        }
    }

    /// What the poller did so far.
    pub fn counters(&self) -> PollerCounters {
        self.counters
    }

    /// By which calls packets of UDP pass the kernel, and what it keeps away; nothing where there is no UDP.
    pub fn udp(&self) -> Option<&UdpStatus> {
        self.udp.as_ref().map(Udp::status)
    }

    /// How the poller waits: io_uring or ppoll, and why; of one that never sleeps, whether adapters are polled.
    pub fn parking(&self) -> Cow<'_, str> {
        let how = || self.udp.as_ref().and_then(Udp::busy_polling);
        match self.config.wait {
            Wait::Spin => how().map_or("a loop that never sleeps".into(), |how| {
                format!("a loop that never sleeps; {how}").into()
            }),
            Wait::Adaptive | Wait::Block => self.sleep.describe().into(),
        }
    }
}

fn entropy() -> Result<u64, Error> {
    getrandom::u64()
        .map_err(|e| Error::System { what: "entropy", source: std::io::Error::other(e) })
}
