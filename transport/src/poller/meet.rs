//! Links coming up: which path to a peer, and what happens when it is there.

use std::cell::Cell;
use std::os::fd::AsRawFd;

use super::Poller;
use crate::config::PathPolicy;
use crate::detect::Health;
use crate::event::{Event, Evidence};
use crate::id::Member;
use crate::lane::CONTROL;
use crate::limits::EVENTS_MAX;
use crate::roster::{Link, Wire};
use crate::shm::{BACKOFF_MAX, Meeting, Reach, Scene, ShmLink};
use crate::time::Time;
use crate::traffic::Begun;
use crate::udp::{Udp, UdpEvent, UdpLink};
use crate::wait::{Class, Token};

impl Poller {
    /// Looks for new peers.
    pub(super) fn meet(&mut self, now: Time) {
        self.choose_paths(now);
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
                Meeting::Up(peer, shm, control_from) => self.up_shm(peer, shm, control_from, now),
                Meeting::Refused(peer) => self.refused(peer),
            }
        }
    }

    /// UDP only where policy says so, or where shared memory does not reach. Whoever answers hellos waits
    /// a little after its start: on one host the initiator finds the shared memory meanwhile.
    fn choose_paths(&mut self, now: Time) {
        let Some(udp) = &mut self.udp else { return };
        for (index, peer) in self.roster.peers.iter().enumerate() {
            let live = self.roster.live(index).and_then(|id| self.roster.get(id));
            let wanted = match (live.map(|l| &l.wire), &self.rendezvous) {
                (Some(Wire::Shm(_)), _) => false,
                (Some(Wire::Udp(_) | Wire::Verbs(..)), _) | (None, None) => true,
                (None, Some(rendezvous)) if peer.node < self.config.me.node => {
                    matches!(rendezvous.reach(index), Reach::Absent(_))
                }
                (None, Some(_)) => now.since(self.born) > BACKOFF_MAX * 3 / 2,
            };
            udp.want(peer.node, wanted);
        }
    }

    /// What UDP has to say.
    pub(super) fn take_udp_events(&mut self, now: Time) {
        while let Some(event) = self.udp.as_mut().and_then(Udp::poll_event) {
            match event {
                UdpEvent::Up { link, peer, control_from } => {
                    self.met_by_udp(link, peer, control_from, now);
                }
                UdpEvent::Dead { link, evidence } => {
                    if let Some(id) = self.roster.of_udp(link) {
                        self.bury(id, evidence, now);
                    } else {
                        self.promotion_ended(link);
                    }
                }
                UdpEvent::Rail { link } => self.rail_changed(link),
                UdpEvent::Note { link, note } => self.take_note(link, note, now),
                UdpEvent::Refused { node } => {
                    if let Some(peer) = self.roster.index(node) {
                        self.refused(peer);
                    }
                }
            }
        }
    }

    /// Of a link that others know of.
    fn rail_changed(&mut self, handle: UdpLink) {
        let link = self.roster.of_udp(handle);
        let rail = self.udp.as_ref().and_then(|udp| udp.rail(handle));
        if let (Some(link), Some(rail)) = (link, rail)
            && self.events.len() < EVENTS_MAX
        {
            self.events.push_back(Event::Rail { link, rail });
        }
    }

    fn refused(&mut self, peer: usize) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(Event::Refused { node: self.roster.peers[peer].node });
        }
    }

    fn up_shm(&mut self, peer: usize, mut shm: Box<ShmLink>, control_from: u64, now: Time) {
        let member = shm.member();
        self.supersede(peer, member, now);
        shm.start(self.own.lanes.len());
        shm.attach(CONTROL, shm.promised());
        shm.open(CONTROL, control_from, &self.segment);
        let mut tokens = vec![self.sleep.add_fd(shm.pidfd().as_raw_fd(), Class::Control)];
        if let Some(socket) = shm.socket() {
            tokens.push(self.sleep.add_fd(socket.as_raw_fd(), Class::Control));
        }
        let (memory, offset, value) = shm.robust();
        tokens.push(self.sleep.add_futex(memory, offset, value));
        let reason = "same host: its shared memory is mapped".to_owned();
        self.announce(peer, member, Wire::Shm(shm), reason, tokens, (control_from, now));
    }

    /// A peer was met by UDP: its link goes on by verbs where that may be, else it is up.
    fn met_by_udp(&mut self, handle: UdpLink, member: Member, control_from: u64, now: Time) {
        let Some(peer) = self.acceptable(handle, member) else { return };
        match &self.verbs {
            Some(_) => {
                self.supersede(peer, member, now);
                self.begin_promotion(handle, member, control_from, now);
            }
            None => self.up_udp(handle, member, control_from, now),
        }
    }

    /// The peer's number, if a link to that incarnation of it may be; else the UDP link is closed.
    pub(super) fn acceptable(&mut self, handle: UdpLink, member: Member) -> Option<usize> {
        let acceptable = |&peer: &usize| {
            let s = &self.roster.standings[peer];
            let outdated = s.live.is_some_and(|live| live > member.incarnation);
            !s.full && !outdated && member.incarnation > s.refused
        };
        let found = self.roster.index(member.node).filter(acceptable);
        if found.is_none()
            && let Some(udp) = &mut self.udp
        {
            udp.close(handle);
            udp.forget(handle);
        }
        found
    }

    pub(super) fn up_udp(&mut self, handle: UdpLink, member: Member, control_from: u64, now: Time) {
        let Some(peer) = self.acceptable(handle, member) else { return };
        self.supersede(peer, member, now);
        let reach = self.rendezvous.as_ref().map(|r| r.reach(peer));
        let reason = match (self.config.path, reach) {
            (PathPolicy::Udp, _) => "the configuration says udp".to_owned(),
            (_, Some(Reach::Absent(why))) => format!("not by shared memory: {why}"),
            _ => "it said hello over udp: it does not find our shared memory".to_owned(),
        };
        let reason = self.with_verbs(member, reason);
        self.announce(peer, member, Wire::Udp(handle), reason, Vec::new(), (control_from, now));
    }

    /// A new link takes the place of one that is still live here.
    pub(super) fn supersede(&mut self, peer: usize, member: Member, now: Time) {
        if let Some(old) = self.roster.live(peer) {
            let restarted = self.roster.get(old).is_some_and(|l| l.member != member);
            let evidence = if restarted { Evidence::Restarted } else { Evidence::ClosedByPeer };
            self.bury(old, evidence, now);
        }
    }

    pub(super) fn announce(
        &mut self,
        peer: usize,
        member: Member,
        wire: Wire,
        reason: String,
        tokens: Vec<Token>,
        (control_from, now): (u64, Time),
    ) {
        let mut begun = Begun::default();
        begun.attached(CONTROL, self.head(CONTROL), self.own.lane(CONTROL));
        begun.opened(CONTROL, control_from);
        let link = Link {
            peer,
            member,
            alive: true,
            attached: 1 << CONTROL.0,
            begun,
            malformed: Cell::new(false),
            reason: reason.into(),
            health: Health::new(now),
            pressed: None,
            wire,
            aside: None,
            tokens,
        };
        let path = link.path();
        let id = self.roster.insert(link);
        #[cfg(feature = "faults")]
        self.spoil(id);
        probe::probe!(quintet, link_up, member.node.0, member.incarnation.0);
        tracing::info!(link = %id, peer = %member, %path, "link up");
        self.events.push_back(Event::Up { link: id, peer: member, path, control_from });
        // A peer that died between hello and here is to be noticed now: its futex may not wake any more.
        self.next_housekeeping = Time::ZERO;
    }
}
