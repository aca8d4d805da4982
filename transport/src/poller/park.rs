//! Waiting: when to yield, when to sleep, and the last look before.

use std::sync::atomic::{Ordering, fence};

use super::Poller;
use crate::clock;
use crate::config::Wait;
use crate::event::Path;
use crate::id::LinkId;
use crate::roster::Wire;
use crate::shm::Rendezvous;
use crate::time::Time;
use crate::udp::Udp;
use crate::wait::{Step, arm, disarm};

/// Looks at all there is between two turns of one who spins: a microsecond or two.
const LOOKS: u32 = 16;
/// The same where each look asks the kernel for packets.
const LOOKS_AT_SOCKETS: u32 = 8;
/// Looks for news in memory in each: what else there is takes longer, and news that come meanwhile wait.
const LOOKS_AT_MEMORY: u32 = 4;

impl Poller {
    /// Waits for something to happen, but not beyond `until`, as [`Config::wait`](crate::Config::wait)
    /// says. Call it after a turn in which nothing happened; it may return at any time. Packets, words
    /// and logs of peers, deaths, and records committed to own logs end the sleep by themselves; for
    /// anything else there is `has_work`, asked after the poller has announced its sleep: what becomes
    /// true later must be followed by [`Waker::wake`](crate::Waker::wake).
    ///
    /// Returns the time for the next turn. It is never later than the clock and, of one who spins, a few microseconds
    /// old: the clock was read while there was time, not when there was news.
    pub fn park(
        &mut self,
        now: Time,
        until: Option<Time>,
        has_work: &mut dyn FnMut() -> bool,
    ) -> Time {
        match self.config.wait {
            Wait::Spin => return self.look(has_work),
            Wait::Block => {}
            Wait::Adaptive => {
                let pollers = 1 + self
                    .roster
                    .iter()
                    .filter(|(_, l)| l.alive && l.path() == Path::Shm)
                    .count();
                match self.adaptive.idle(now, pollers) {
                    Step::Spin => {
                        std::hint::spin_loop();
                        return clock::now();
                    }
                    Step::Yield => {
                        let before = clock::now();
                        std::thread::yield_now();
                        let after = clock::now();
                        self.counters.yields += 1;
                        self.adaptive.yielded(after.since(before), after);
                        return after;
                    }
                    Step::Park => {}
                }
            }
        }
        let deadline = self.next_timeout(now).min(until.unwrap_or(Time::MAX));
        if deadline > now {
            self.sleep_until(deadline, has_work);
        }
        clock::now()
    }

    /// Spins without taking turns: nothing is looked at but the lines that change with news, and the sockets where lanes go
    /// by UDP. What is quiet or due may wait for a turn, but not long.
    fn look(&mut self, has_work: &mut dyn FnMut() -> bool) -> Time {
        let now = clock::now();
        let sockets = self.udp.as_ref().is_some_and(Udp::is_used);
        for _ in 0..if sockets { LOOKS_AT_SOCKETS } else { LOOKS } {
            self.expect();
            self.catch_up();
            for _ in 0..LOOKS_AT_MEMORY {
                if self.has_news().is_some() {
                    return now;
                }
            }
            if sockets && self.udp.as_mut().is_some_and(Udp::look)
                || self.adapters_have_news()
                || self.has_commits()
                || has_work()
            {
                break;
            }
            std::hint::spin_loop();
        }
        now
    }

    fn sleep_until(&mut self, deadline: Time, has_work: &mut dyn FnMut() -> bool) {
        self.generation += 1;
        let mut starved = 0;
        for (i, lane) in self.own.lanes.iter().enumerate() {
            starved |= (lane.log.starved() as u64) << i;
        }
        self.segment.want(starved);
        self.waker.arm();
        arm(self.segment.armed(), self.generation);
        // The last look: whoever has news after this sees `armed`, and rings.
        let space = if starved != 0 { self.space(starved) } else { 0 };
        let awake = space != self.space && starved != 0
            || self.arm_adapters()
            || self.has_news().is_some()
            || self.has_commits()
            || has_work();
        self.space = space;
        if awake {
            self.adaptive.busy();
        } else {
            self.stalls.sleeping(deadline);
            let woken = self.sleep.sleep(deadline.since(clock::now()));
            let woken = self.question(woken, clock::now());
            self.counters.parks += 1;
            self.next_housekeeping = Time::ZERO;
            if woken.control {
                self.next_autopsy = Time::ZERO;
            } else if self.sleep_sees_all() {
                // It would have told. Asked again all the same, rarely: the backstop.
                let backstop = self.last_autopsy + self.config.backstop;
                self.next_autopsy = self.next_autopsy.max(backstop);
            }
            if woken.packets
                && let Some(udp) = &mut self.udp
            {
                udp.expect_packets();
            }
            if woken.packets {
                self.silence_adapters();
            }
            if woken.errors
                && let Some(udp) = &mut self.udp
            {
                udp.check_errors(clock::now());
            }
            if woken.bell && self.sleep.bell_needs_reading() {
                self.waker.bell().drain();
            }
        }
        disarm(self.segment.armed());
        self.waker.disarm();
    }

    /// Whether all that housekeeping asks the kernel for would have ended the sleep: every peer is linked, so
    /// its death is watched, and no handshake is under way.
    fn sleep_sees_all(&self) -> bool {
        let standings = &self.roster.standings;
        let meeting = |r: &Rendezvous| r.next_timeout(Time::ZERO, standings) != Time::MAX;
        !self.rendezvous.as_ref().is_some_and(meeting)
            && (0..self.roster.peers.len()).all(|peer| self.roster.live(peer).is_some())
    }

    /// Whether a record was committed that the owner does not know of. Told once: an owner that must not
    /// publish now may sleep.
    fn has_commits(&mut self) -> bool {
        let mut news = false;
        for lane in &mut self.own.lanes {
            if !lane.known && lane.log.has_committed() {
                lane.known = true;
                news = true;
            }
        }
        news
    }

    /// Starts to fetch what the next news will be about.
    fn expect(&self) {
        for (_, link) in self.roster.iter() {
            if let (true, Wire::Shm(shm)) = (link.alive, &link.wire) {
                shm.expect();
            }
        }
    }

    /// Takes note of what needs no turn of its own.
    fn catch_up(&mut self) {
        for (_, link) in self.roster.iter_mut() {
            if let (true, Wire::Shm(shm)) = (link.alive, &mut link.wire) {
                shm.catch_up();
            }
        }
    }

    /// A link whose peer has flushed since we last looked.
    pub(super) fn has_news(&self) -> Option<LinkId> {
        self.roster.iter().find_map(|(id, link)| match &link.wire {
            Wire::Shm(shm) => (link.alive && shm.has_news()).then_some(id),
            // Its socket wakes whoever sleeps, however early the packet came; an adapter was asked after arming.
            Wire::Udp(_) | Wire::Verbs(..) => None,
        })
    }

    /// How much of the logs in which somebody waits for space has been released, over all readers.
    fn space(&self, lanes: u64) -> u64 {
        fence(Ordering::SeqCst);
        let mut sum = 0u64;
        for (_, link) in self.roster.iter().filter(|(_, l)| l.alive) {
            for (i, lane) in self.own.lanes.iter().enumerate().filter(|(i, _)| lanes >> i & 1 != 0)
            {
                let id = crate::lane::LaneId(i as u8);
                let released = match &link.wire {
                    Wire::Shm(shm) => shm.released(id, lane.log.head()),
                    Wire::Udp(_) | Wire::Verbs(..) => None,
                };
                sum = sum.wrapping_add(released.unwrap_or(0));
            }
        }
        sum
    }

    /// When a turn is due although nothing happens.
    fn next_timeout(&self, now: Time) -> Time {
        let mut next = now + self.config.backstop;
        // Over the network signs of life have their own time.
        if self.roster.iter().any(|(_, l)| l.alive && l.path() == Path::Shm) {
            next = next.min(self.last_beat + self.beat);
        }
        if let Some(rendezvous) = &self.rendezvous {
            let attempt = rendezvous.next_timeout(now, &self.roster.standings);
            next = next.min(attempt.max(now + std::time::Duration::from_micros(100)));
        }
        let udp = self.udp.as_ref().and_then(|udp| udp.next_timeout());
        let verbs = self.verbs.as_ref().map(|verbs| verbs.next_timeout());
        next.min(udp.unwrap_or(Time::MAX)).min(verbs.unwrap_or(Time::MAX))
    }
}
