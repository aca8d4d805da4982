//! Links coming up and going down: handshakes, signs of life, verdicts.

use std::time::Duration;

use super::Poller;
use crate::detect::{Health, Verdict};
use crate::event::{Event, Evidence, Path};
use crate::id::{LinkId, Member};
use crate::lane::CONTROL;
use crate::limits::EVENTS_MAX;
use crate::roster::{Link, Wire};
use crate::shm::{Meeting, Scene, ShmLink};
use crate::time::Time;
use crate::wait::Class;

/// Signs of life and handshakes are looked after this often while busy.
const HOUSEKEEPING: Duration = Duration::from_micros(500);
/// Descriptors are asked for deaths this often while busy: the robust futex tells sooner.
const AUTOPSY: Duration = Duration::from_millis(5);

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
        self.next_housekeeping = Time::ZERO;
        self.next_autopsy = Time::ZERO;
    }

    /// Everything that need not be done in every turn.
    pub(super) fn housekeep(&mut self, now: Time) {
        self.next_housekeeping = now + HOUSEKEEPING;
        self.heartbeat(now);
        let autopsy = now >= self.next_autopsy;
        if autopsy {
            self.next_autopsy = now + AUTOPSY;
        }
        let mut dead = Vec::new();
        for (id, link) in self.roster.iter_mut() {
            if !link.alive {
                continue;
            }
            let Wire::Shm(shm) = &mut link.wire;
            let mut life = shm.life(&self.segment);
            if autopsy
                && life.is_ok()
                && let Some(evidence) = shm.autopsy()
            {
                life = Err(evidence);
            }
            match life {
                Ok(Some(at)) => link.health.hear(at),
                Ok(None) => {}
                Err(evidence) => {
                    dead.push((id, evidence));
                    continue;
                }
            }
            match link.health.judge(now, &self.limits) {
                Some(Verdict::Dead) => dead.push((id, Evidence::HeartbeatMissed)),
                Some(Verdict::Suspected) => self.events.push_back(Event::Suspected { link: id }),
                Some(Verdict::Trusted) => self.events.push_back(Event::Trusted { link: id }),
                None => {}
            }
        }
        for (id, evidence) in dead {
            self.bury(id, evidence, now);
        }
        self.settle_suspicion(now);
        // System calls: not in every housekeeping while busy, but at once after a sleep.
        if autopsy {
            self.meet(now);
        }
    }

    /// Looks for new peers.
    fn meet(&mut self, now: Time) {
        let Some(rendezvous) = &mut self.rendezvous else { return };
        let scene = Scene {
            segment: &self.segment,
            bell: self.waker.bell(),
            control_head: self.own.lane(CONTROL).log.head(),
            standings: &self.roster.standings,
        };
        let mut meetings = Vec::new();
        rendezvous.poll(now, &scene, &mut meetings);
        for meeting in meetings {
            match meeting {
                Meeting::Up(peer, link, control_from) => self.up(peer, link, control_from, now),
                Meeting::Refused(peer) if self.events.len() < EVENTS_MAX => {
                    self.events.push_back(Event::Refused { node: self.roster.peers[peer].node });
                }
                Meeting::Refused(_) => {}
            }
        }
    }

    fn up(&mut self, peer: usize, mut shm: Box<ShmLink>, theirs: u64, now: Time) {
        let member = shm.member();
        if let Some(old) = self.roster.live(peer) {
            let restarted = self.roster.get(old).is_some_and(|l| l.member != member);
            let evidence = if restarted { Evidence::Restarted } else { Evidence::ClosedByPeer };
            self.bury(old, evidence, now);
        }
        shm.start(self.own.lanes.len());
        shm.attach(CONTROL, shm.promised());
        shm.open(CONTROL, theirs, &self.segment);
        let mut tokens = vec![self.sleep.add_fd(shm.pidfd(), Class::Control)];
        if let Some(socket) = shm.socket() {
            tokens.push(self.sleep.add_fd(socket, Class::Control));
        }
        let (memory, offset, value) = shm.robust();
        tokens.push(self.sleep.add_futex(memory, offset, value));
        let reason = "same host: its shared memory is mapped".to_owned();
        let link = Link {
            peer,
            member,
            alive: true,
            reason,
            health: Health::new(now),
            wire: Wire::Shm(shm),
            tokens,
        };
        let id = self.roster.insert(link);
        tracing::info!(link = %id, peer = %member, path = %Path::Shm, "link up");
        self.events.push_back(Event::Up {
            link: id,
            peer: member,
            path: Path::Shm,
            control_from: theirs,
        });
        // A peer that died between hello and here is to be noticed now: its futex may not wake any more.
        self.next_housekeeping = Time::ZERO;
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
        match &mut link.wire {
            Wire::Shm(shm) => {
                // The last words of a dead process count; those of a fenced one do not.
                if evidence == Evidence::ProcessExited {
                    let _ = shm.refresh();
                }
                shm.freeze(evidence.certain(), &self.segment);
            }
        }
        let (peer, member, heard) = (link.peer, link.member, link.health.heard());
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
            | Event::Dead { link: l, .. } => *l != link,
            Event::Up { .. } | Event::Refused { .. } => true,
        });
    }

    /// Drops a dead or closed link and its replicas; a live one is closed first.
    pub fn forget(&mut self, link: LinkId) {
        self.close(link);
        self.roster.remove(link);
    }

    /// Never link to this incarnation (or an earlier one of its node): tell it that it has been fenced.
    /// A live link to it is not closed by this.
    pub fn refuse(&mut self, member: Member) {
        if let Some(peer) = self.roster.index(member.node) {
            self.roster.refuse(peer, member.incarnation);
        }
    }
}

impl Drop for Poller {
    /// Tells the peers that we are going.
    fn drop(&mut self) {
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
    }
}
