//! Dialling: how links come into being. The messages are those of [`Handshake`].
//!
//! The node with the higher id makes the offer; the other one answers and waits for the first packet on the
//! connection id it answered with, so that a forged hello alone never makes a link. While a node has no link to a
//! peer it says hello at a fixed pace, offer or knock: a peer that starts, or starts again, is met at once.

use std::net::SocketAddr;
use std::time::Duration;

use super::link::Agreement;
use super::*;
use crate::reliable::{HANDSHAKE_MAX, Handshake, Hello, Settings};

/// Pace of hellos while there is no link.
const HELLO_EVERY: Duration = Duration::from_millis(50);
/// Least distance of two hellos to one peer, whatever provokes them.
const HELLO_APART: Duration = Duration::from_millis(2);
/// How long an answered offer waits for its first packet.
const OFFER_LIFE: Duration = Duration::from_millis(250);
/// Largest datagram, where the first link's MTU allows it (loopback, jumbo frames).
const DATAGRAM_MAX: usize = 8192;

/// A configured peer: where it is, and how far the dialling is.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    addr: SocketAddr,
    pub(crate) socket: Option<Socket>,
    pub(crate) wanted: bool,
    pub(crate) refused: Refused,
    /// No link that is not dead.
    idle: bool,
    next_hello: Time,
    last_hello: Time,
    /// Serial and connection id of our offer, until it becomes a link.
    offer: Option<(u64, u64)>,
    /// An offer of the peer that we answered, with serial and id of the answer.
    answered: Option<(Hello, u64, u64, Time)>,
}

impl Peer {
    pub(crate) fn new(node: NodeId, addr: SocketAddr, socket: Option<Socket>, now: Time) -> Self {
        Peer {
            node,
            addr,
            socket,
            wanted: false,
            refused: None,
            idle: true,
            next_hello: now,
            last_hello: Time::ZERO,
            offer: None,
            answered: None,
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        (self.wanted && self.idle).then_some(self.next_hello)
    }

    /// The link is dead: begin anew, at once.
    pub(crate) fn redial(&mut self) {
        self.idle = true;
        self.offer = None;
        self.answered = None;
        self.next_hello = Time::ZERO;
    }

    fn refuses(&self, member: Member) -> bool {
        self.refused >= Some(member.incarnation)
    }
}

/// FNV-1a of the cluster's name: enough to tell clusters apart that met by mistake.
pub(crate) fn cluster_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

impl Udp {
    /// A connection id nobody can guess from outside, never zero (SplitMix64 over the entropy handed in).
    fn fresh_id(&mut self) -> u64 {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut id = self.entropy;
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (id ^ (id >> 31)).max(1)
    }

    fn fresh_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn hello(&self, to: NodeId, serial: u64, connection: u64, echo: u64) -> Hello {
        Hello {
            cluster: self.cluster,
            from: self.me,
            to,
            serial,
            connection,
            echo,
            lanes: self.table,
        }
    }

    /// Says hello to every wanted peer without a link whose turn it is.
    pub(super) fn dial_all(&mut self, now: Time) {
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            if peer.next_timeout().is_some_and(|at| at <= now) {
                self.dial(index, now);
            }
        }
    }

    fn dial(&mut self, index: usize, now: Time) {
        self.peers[index].next_hello = now + HELLO_EVERY;
        if self.live(index).is_some() {
            self.peers[index].idle = false;
            return;
        }
        let initiator = self.me.node > self.peers[index].node;
        let answered = self.peers[index].answered;
        if !initiator && answered.is_some_and(|(.., at)| now.since(at) < OFFER_LIFE) {
            return; // About to become a link: a knock would only confuse.
        }
        let (serial, connection) = match self.peers[index].offer {
            Some(offer) => offer,
            None => {
                let offer = (self.fresh_serial(), self.fresh_id());
                self.peers[index].offer = Some(offer);
                offer
            }
        };
        let peer = &mut self.peers[index];
        if peer.socket.is_none() {
            peer.socket = Socket::connect(self.bind_ip, peer.addr).ok();
        }
        peer.last_hello = now;
        let message = Handshake::Hello(self.hello(self.peers[index].node, serial, connection, 0));
        self.send_handshake(index, &message);
    }

    fn send_handshake(&self, peer: usize, message: &Handshake) {
        let mut buffer = [0; HANDSHAKE_MAX];
        let len = message.emit(&mut buffer);
        self.send_alone(peer, &buffer[..len]);
    }

    /// A handshake message arrived; true if the owner should look.
    pub(super) fn on_handshake(&mut self, now: Time, payload: &[u8], own: &Own) -> bool {
        match Handshake::parse(payload) {
            Ok(Handshake::Hello(hello)) => self.on_hello(now, &hello, None, own),
            Ok(Handshake::HelloAck(hello)) => self.on_hello(now, &hello, Some(hello.echo), own),
            Ok(Handshake::Refused { cluster, from, about }) => {
                let known = self.peers.iter().any(|peer| peer.node == from);
                if cluster == self.cluster && about == self.me && known {
                    self.events.retain(|event| *event != UdpEvent::Refused { node: from });
                    self.events.push_back(UdpEvent::Refused { node: from });
                }
                about == self.me
            }
            Err(_) => {
                self.strays += 1;
                false
            }
        }
    }

    /// A hello, or (with `echo`) the answer to one.
    fn on_hello(&mut self, now: Time, hello: &Hello, echo: Option<u64>, own: &Own) -> bool {
        let Some(index) = self.peers.iter().position(|peer| peer.node == hello.from.node) else {
            return false;
        };
        if hello.cluster != self.cluster || hello.to != self.me.node || !self.peers[index].wanted {
            return false;
        }
        if self.peers[index].refuses(hello.from) {
            let refused =
                Handshake::Refused { cluster: self.cluster, from: self.me.node, about: hello.from };
            self.send_handshake(index, &refused);
            return false;
        }
        let Some(killed) = self.judge_old_link(index, hello) else { return false };
        if let Some(echo) = echo {
            return self.on_answer(index, now, hello, echo, own) || killed;
        }
        if self.me.node > self.peers[index].node {
            // A knock: answer with our own hello, unless one has just gone out.
            if now.since(self.peers[index].last_hello) >= HELLO_APART {
                self.peers[index].idle = true;
                self.peers[index].next_hello = now;
            }
        } else {
            self.answer(index, now, hello);
        }
        killed
    }

    /// What a hello says about the link in place. `None`: the hello is outdated. Else whether the link died.
    fn judge_old_link(&mut self, index: usize, hello: &Hello) -> Option<bool> {
        let Some(slot) = self.live(index) else { return Some(false) };
        let link = self.slots[slot].link.as_deref()?;
        if hello.from.incarnation > link.member.incarnation {
            self.kill(slot, Evidence::Restarted);
            return Some(true);
        }
        if hello.from.incarnation < link.member.incarnation || hello.serial < link.peer_serial {
            return None;
        }
        if hello.serial > link.peer_serial {
            // The same run wants a new link, so it has given up this one.
            self.kill(slot, Evidence::ClosedByPeer);
            return Some(true);
        }
        if self.me.node < hello.from.node && hello.echo == 0 {
            // Our answer was lost, or this is a copy: say it again.
            let (serial, id) = (link.own_serial, link.id);
            let answer = self.hello(hello.from.node, serial, id, hello.connection);
            self.send_handshake(index, &Handshake::HelloAck(answer));
        }
        None
    }

    /// Answers an offer; nothing exists yet but the note of it.
    fn answer(&mut self, index: usize, now: Time, hello: &Hello) {
        let (serial, id) = match self.peers[index].answered {
            Some((known, serial, id, _))
                if known.from == hello.from && known.serial == hello.serial =>
            {
                (serial, id)
            }
            Some((known, _, _, at))
                if known.from == hello.from
                    && known.serial > hello.serial
                    && now.since(at) < OFFER_LIFE =>
            {
                return;
            }
            _ => (self.fresh_serial(), self.fresh_id()),
        };
        self.peers[index].answered = Some((*hello, serial, id, now));
        let answer = self.hello(hello.from.node, serial, id, hello.connection);
        self.send_handshake(index, &Handshake::HelloAck(answer));
    }

    /// Our offer was answered: the link exists, and opens with our first packet.
    fn on_answer(&mut self, index: usize, now: Time, hello: &Hello, echo: u64, own: &Own) -> bool {
        match self.peers[index].offer {
            Some((serial, id)) if id == echo && self.me.node > hello.from.node => {
                self.open_link(index, now, hello, serial, id, own).is_some()
            }
            _ => false,
        }
    }

    /// A packet came on an id that is not a link's: perhaps the first of an offer that we answered.
    pub(super) fn accept(&mut self, now: Time, id: u64, own: &Own) -> Option<usize> {
        let waiting = |peer: &Peer| peer.answered.is_some_and(|(_, _, answered, _)| answered == id);
        let index = self.peers.iter().position(waiting)?;
        let (hello, serial, ..) = self.peers[index].answered?;
        if self.peers[index].refuses(hello.from) || self.live(index).is_some() {
            return None;
        }
        self.open_link(index, now, &hello, serial, id, own)
    }

    fn open_link(
        &mut self,
        index: usize,
        now: Time,
        hello: &Hello,
        serial: u64,
        id: u64,
        own: &Own,
    ) -> Option<usize> {
        let datagram = self.peers[index].socket.as_ref()?.datagram_max().clamp(512, DATAGRAM_MAX);
        let settings = Settings {
            remote: hello.connection,
            own: self.table,
            peer: hello.lanes,
            datagram,
            heartbeat: self.heartbeat,
        };
        let agreement = Agreement {
            peer: index,
            member: hello.from,
            id,
            peer_serial: hello.serial,
            own_serial: serial,
        };
        let slot = self.insert(Link::new(agreement, settings, own, now))?;
        let peer = &mut self.peers[index];
        peer.idle = false;
        peer.offer = None;
        peer.answered = None;
        Some(slot)
    }
}
