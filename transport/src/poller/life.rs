//! Signs of life, verdicts, and the end of links.

use std::time::Duration;

use super::Poller;
use crate::detect::{Thresholds, Verdict};
use crate::event::{Event, Evidence};
use crate::id::{LinkId, Member};
use crate::pressure::Pressure;
use crate::roster::{Link, Wire};
use crate::time::Time;

/// Signs of life and handshakes are looked after this often while busy.
const HOUSEKEEPING: Duration = Duration::from_micros(500);
/// Descriptors are asked for deaths and newcomers this often while busy: the robust futex tells sooner.
const AUTOPSY: Duration = Duration::from_millis(5);

/// A peer on this host that waits for a processor is given this many times the limit.
const STARVED: u32 = 10;
/// A peer on the network is given this many times the limit more at most.
const PRESSED: u32 = 3;

/// How much longer than the limit a silent peer may stay so. A peer on the same host gets it if the kernel says that
/// it would run if it could, else nothing. Of one on the network we know only how late it tends to be, and how short
/// of processors our own host is.
fn patience(link: &mut Link, limits: &Thresholds, pressure: &Pressure, now: Time) -> Duration {
    if let Wire::Shm(shm) = &mut link.wire
        && let Some(starved) = shm.is_starved()
    {
        return if starved { limits.dead * STARVED } else { Duration::ZERO };
    }
    let share = link.pressed.map_or(0.0, |since| pressure.share(since, now));
    let pressed = limits.dead.mul_f64(share * f64::from(PRESSED));
    let jitter = (link.health.jitter() * PRESSED).saturating_sub(limits.dead);
    pressed.max(jitter).min(limits.dead * PRESSED)
}

impl Poller {
    /// Writes our sign of life.
    pub(super) fn heartbeat(&mut self, now: Time) {
        self.last_beat = now;
        self.segment.beat(now);
    }

    /// We stood still: nobody may be blamed for that time.
    pub(super) fn excuse(&mut self, stall: Duration, now: Time) {
        self.counters.stalls += 1;
        for (_, link) in self.roster.iter_mut() {
            link.health.excuse(stall, now);
        }
        if let Some(udp) = &mut self.udp {
            udp.excuse(stall);
        }
        if let Some(verbs) = &mut self.verbs {
            verbs.excuse(stall);
        }
        self.next_housekeeping = Time::ZERO;
        self.next_autopsy = Time::ZERO;
    }

    /// Everything that need not be done in every turn.
    pub(super) fn housekeep(&mut self, now: Time) {
        self.next_housekeeping = now + HOUSEKEEPING;
        self.heartbeat(now);
        let autopsy = now >= self.next_autopsy;
        if autopsy {
            self.last_autopsy = now;
            self.next_autopsy = now + AUTOPSY;
        }
        let mut dead = Vec::new();
        for (id, link) in self.roster.iter_mut() {
            if !link.alive {
                continue;
            }
            let (life, limits) = match (&mut link.wire, &self.udp) {
                (Wire::Shm(shm), _) => {
                    let life = shm.life(&self.segment);
                    self.released |= shm.has_released();
                    let post_mortem = if autopsy && life.is_ok() { shm.autopsy() } else { None };
                    (post_mortem.map_or(life, Err), &self.limits)
                }
                (Wire::Udp(_), _) if link.malformed.get() => {
                    (Err(Evidence::Malformed), &self.limits_udp)
                }
                (Wire::Verbs(handle, verbs), udp) => {
                    let heard = udp.as_ref().map(|udp| udp.heard(*handle));
                    (verbs.life(now, heard), &self.limits_udp)
                }
                (Wire::Udp(handle), udp) => {
                    (Ok(udp.as_ref().map(|udp| udp.heard(*handle))), &self.limits_udp)
                }
            };
            match life {
                Ok(Some(at)) => link.health.hear(at),
                Ok(None) => {}
                Err(evidence) => {
                    dead.push((id, evidence));
                    continue;
                }
            }
            match link.health.judge(now, limits) {
                Some(Verdict::Dead) => {
                    let patience = patience(link, limits, &self.pressure, now);
                    if link.health.pardon(patience, limits) {
                        self.counters.pardons += 1;
                    } else {
                        dead.push((id, Evidence::HeartbeatMissed));
                    }
                }
                Some(Verdict::Suspected) => {
                    link.pressed = Some(self.pressure.read(now));
                    self.events.push_back(Event::Suspected { link: id });
                }
                Some(Verdict::Trusted) => self.events.push_back(Event::Trusted { link: id }),
                None => {}
            }
        }
        for (id, evidence) in dead {
            match evidence {
                Evidence::PathBroken => self.mend(id, now),
                _ => self.bury(id, evidence, now),
            }
        }
        self.leave_stalled(now);
        self.settle_suspicion(now);
        // System calls: not in every housekeeping while busy, nor after a sleep that would have told.
        if autopsy {
            self.meet(now);
            if let Some(verbs) = &mut self.verbs {
                verbs.take_reports(now);
            }
        }
    }

    /// A link is dead, for ever.
    pub(super) fn bury(&mut self, id: LinkId, evidence: Evidence, now: Time) {
        let Some(heard) = self.end(id, evidence, now) else { return };
        self.events.push_back(Event::Dead { link: id, evidence, at: now, heard });
    }

    fn end(&mut self, id: LinkId, evidence: Evidence, now: Time) -> Option<Time> {
        let link = self.roster.get_mut(id).filter(|l| l.alive)?;
        for token in link.tokens.drain(..) {
            self.sleep.remove(token);
        }
        match (&mut link.wire, &mut self.udp) {
            (Wire::Udp(handle), Some(udp)) => {
                // A queue pair that is tried for it may write to where its lanes are read.
                if let (Some(_), Some(provider)) = (link.aside.take(), &mut self.verbs) {
                    provider.abandon(*handle);
                }
                udp.close(*handle);
            }
            (Wire::Udp(_), None) => {}
            (Wire::Verbs(handle, verbs), udp) => {
                verbs.freeze();
                if let Some(provider) = &mut self.verbs {
                    provider.abandon(*handle);
                }
                if let Some(udp) = udp {
                    udp.close(*handle);
                }
            }
            (Wire::Shm(shm), _) => {
                // The last words of a dead process count; those of a fenced one do not.
                if evidence == Evidence::ProcessExited {
                    shm.last_words();
                }
                shm.freeze(evidence.certain(), &self.segment);
            }
        }
        let (peer, member, heard) = (link.peer, link.member, link.health.heard());
        probe::probe!(quintet, link_down, member.node.0, member.incarnation.0);
        tracing::info!(link = %id, peer = %member, %evidence, "link dead");
        self.roster.died(id);
        if let Some(rendezvous) = &mut self.rendezvous {
            rendezvous.lost(peer, now);
        }
        Some(heard)
    }

    /// Fences the peer: nothing of it becomes visible any more, nothing is confirmed to it, and its
    /// replicas freeze. No event follows.
    pub fn close(&mut self, link: LinkId) {
        self.end(link, Evidence::Fenced, crate::clock::now());
        self.events.retain(|event| match event {
            Event::Suspected { link: l }
            | Event::Trusted { link: l }
            | Event::Rail { link: l, .. }
            | Event::Path { link: l, .. }
            | Event::Dead { link: l, .. } => *l != link,
            Event::Up { .. } | Event::Refused { .. } => true,
        });
    }

    /// Drops a dead or closed link and its replicas; a live one is closed first.
    pub fn forget(&mut self, link: LinkId) {
        self.close(link);
        if let Some(Link { wire: Wire::Udp(handle) | Wire::Verbs(handle, _), .. }) =
            self.roster.remove(link)
            && let Some(udp) = &mut self.udp
        {
            udp.forget(handle);
        }
    }

    /// Never link to this incarnation (or an earlier one of its node): tell it that it has been fenced.
    /// A live link to it is not closed by this.
    pub fn refuse(&mut self, member: Member) {
        if let Some(peer) = self.roster.index(member.node) {
            self.roster.refuse(peer, member.incarnation);
            if let Some(udp) = &mut self.udp {
                udp.refuse(member);
            }
        }
    }
}

impl Drop for Poller {
    /// Tells the peers that we are going. A child made by fork is not us.
    fn drop(&mut self) {
        if !self.segment.memory().is_here() {
            return;
        }
        let now = crate::clock::now();
        let live: Vec<LinkId> =
            self.roster.iter().filter(|(_, l)| l.alive).map(|(id, _)| id).collect();
        for id in live {
            // Nobody will read the replicas: nothing is copied.
            if let Some(Link { wire: Wire::Shm(shm), .. }) = self.roster.get_mut(id) {
                shm.freeze(true, &self.segment);
            }
            self.end(id, Evidence::Fenced, now);
        }
        // By UDP the news of it is a packet.
        if let Some(udp) = &mut self.udp {
            udp.flush(now, &self.own);
        }
    }
}
