//! Dialling: how links come into being; what arrives meanwhile is in `greet`. The messages are those of [`Handshake`].
//!
//! The node with the higher id begins a handshake; the other one answers, and waits for the proof. While a node has no
//! link to a peer it says so at a fixed pace, by beginning or by a knock: a peer that starts, or starts again, is
//! met at once. A knock proves nothing, so a handshake that it provokes goes on beside the link that there is.
//!
//! A peer has at most one handshake that we began and [`PENDING_MAX`] that we answered, and each ends by itself.

use std::time::Duration;

use super::entropy::random;
use super::link::{Agreement, Finish};
use super::*;
use crate::reliable::{
    COOKIE_LEN, Claim, GREETING_MAX, Greeting, Handshake, Hello, INIT_LEN, NOISE_1_LEN, NOISE_AT,
    Rails, Settings, VERSION,
};
use crate::secure::{CERTIFICATE_LEN, NOISE_OVERHEAD, Noise, PacketKeys};

/// Pace of hellos while there is no link.
pub(super) const HELLO_EVERY: Duration = Duration::from_millis(50);
/// Least distance of two hellos to one peer, and of two answers, whatever provokes them.
pub(super) const HELLO_APART: Duration = Duration::from_millis(2);
/// How long an answered handshake keeps us from knocking: it is about to become a link.
const ANSWER_LIFE: Duration = Duration::from_millis(250);
/// How long a handshake is kept that goes no further.
const PENDING_LIFE: Duration = Duration::from_secs(2);
/// Handshakes of one peer that are answered and not finished.
pub(super) const PENDING_MAX: usize = 2;
/// Least distance of two complaints about one peer: a flood does not fill the log, nor hide for long what is true.
pub(super) const COMPLAIN_EVERY: Duration = Duration::from_secs(30);
/// Wrong continuations that one handshake survives.
pub(super) const TRIES_MAX: u8 = 8;
/// Longest handshake packet.
pub(super) const HANDSHAKE_MAX: usize = NOISE_AT + CERTIFICATE_LEN + GREETING_MAX + NOISE_OVERHEAD;

/// A configured peer: where it is, and how far the dialling is.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    /// The best first.
    pub(super) ways: Vec<Way>,
    /// The one in use.
    pub(super) rail: usize,
    pub(crate) wanted: bool,
    pub(crate) refused: Refused,
    /// No link that is not dead.
    pub(super) idle: bool,
    pub(super) next_hello: Time,
    pub(super) last_hello: Time,
    pub(super) last_answer: Time,
    /// The handshake that we began.
    pub(super) offer: Option<Box<Offer>>,
    /// Those that we answered.
    pub(super) answered: [Option<Box<Answered>>; PENDING_MAX],
    /// When its last failure was told.
    pub(super) complained: Option<Time>,
}

/// A handshake that we began.
pub(super) struct Offer {
    /// Connection id for packets to us.
    pub(super) connection: u64,
    pub(super) noise: Noise,
    pub(super) first: [u8; NOISE_1_LEN],
    pub(super) cookie: [u8; COOKIE_LEN],
    pub(super) began: Time,
    pub(super) retried: Time,
    pub(super) tries: u8,
}

/// A handshake that we answered.
pub(super) struct Answered {
    pub(super) claim: Claim,
    /// Connection id for packets to the peer.
    pub(super) offered: u64,
    pub(super) first: [u8; NOISE_1_LEN],
    /// Connection id for packets to us.
    pub(super) connection: u64,
    pub(super) noise: Noise,
    /// The answer, to say it again: each time by the next rail, so that it is never much longer than the question.
    pub(super) packet: Vec<u8>,
    pub(super) way: usize,
    pub(super) at: Time,
    pub(super) tries: u8,
}

impl Peer {
    pub(super) fn new(node: NodeId, ways: Vec<Way>, now: Time) -> Self {
        Peer {
            node,
            ways,
            rail: 0,
            wanted: false,
            refused: None,
            idle: true,
            next_hello: now,
            last_hello: Time::ZERO,
            last_answer: Time::ZERO,
            offer: None,
            answered: [const { None }; PENDING_MAX],
            complained: None,
        }
    }

    /// What packets of its link are sent through.
    pub(super) fn socket(&self) -> Option<&Socket> {
        self.ways[self.rail].socket.as_ref()
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        (self.wanted && self.idle).then_some(self.next_hello)
    }

    /// The link is dead: begin anew, at once.
    pub(crate) fn redial(&mut self) {
        self.idle = true;
        self.drop_handshakes();
        self.next_hello = Time::ZERO;
    }

    /// No link shall come of those under way.
    pub(super) fn drop_handshakes(&mut self) {
        self.offer = None;
        self.answered = [const { None }; PENDING_MAX];
    }

    /// Ends handshakes that go no further.
    pub(super) fn give_up_handshakes(&mut self, now: Time) {
        self.offer.take_if(|offer| now.since(offer.began) >= PENDING_LIFE);
        for answered in &mut self.answered {
            answered.take_if(|answered| now.since(answered.at) >= PENDING_LIFE);
        }
    }

    pub(super) fn refuses(&self, member: Member) -> bool {
        self.refused >= Some(member.incarnation)
    }
}

/// What a handshake is bound to: all that is said in the clear, and the whole name of the cluster.
pub(super) fn prologue(cluster: &[u8; 32], claim: &Claim, connection: u64) -> Vec<u8> {
    [
        b"quintet".as_slice(),
        &[VERSION],
        cluster,
        &claim.from.node.0.to_le_bytes(),
        &claim.from.incarnation.0.to_le_bytes(),
        &claim.to.0.to_le_bytes(),
        &connection.to_le_bytes(),
    ]
    .concat()
}

impl Udp {
    /// A connection id with our mark that nothing else has.
    pub(super) fn fresh_id(&self) -> u64 {
        let mark = u64::from(u32::from_le_bytes(self.strangers.mark())) << 32;
        loop {
            let id = mark | u64::from(u32::from_le_bytes(random()));
            let ours = |peer: &Peer| {
                peer.offer.as_ref().is_some_and(|offer| offer.connection == id)
                    || peer.answered.iter().flatten().any(|other| other.connection == id)
            };
            let held = |slot: &Slot| slot.link.as_ref().is_some_and(|link| link.id == id);
            if !self.peers.iter().any(ours) && !self.slots.iter().any(held) {
                return id;
            }
        }
    }

    pub(super) fn fresh_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn claim(&self, to: NodeId) -> Claim {
        Claim { cluster: self.identity.cluster().tag(), from: self.me, to }
    }

    pub(super) fn hello(&mut self, index: usize, connection: u64) -> Greeting {
        let held = self.live(index).and_then(|slot| self.slots[slot].link.as_deref());
        let holds = held.map_or(0, |link| link.id);
        let serial = self.fresh_serial();
        Greeting::Hello(Hello { from: self.me, serial, connection, holds, lanes: self.table })
    }

    /// Says hello to every wanted peer without a link whose turn it is, and repeats what ends a handshake.
    pub(super) fn dial_all(&mut self, now: Time) {
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            if peer.next_timeout().is_some_and(|at| at <= now) {
                self.dial(index, now);
            }
        }
        for index in 0..self.slots.len() {
            let Some(link) = self.slots[index].link.as_deref_mut() else { continue };
            let Some(finish) = link.finish.as_mut().filter(|finish| finish.next <= now) else {
                continue;
            };
            finish.next = now + HELLO_EVERY;
            let packet = std::mem::take(&mut finish.packet);
            let peer = link.peer;
            self.send_alone(peer, &packet);
            if let Some(finish) =
                self.slots[index].link.as_deref_mut().and_then(|l| l.finish.as_mut())
            {
                finish.packet = packet;
            }
        }
    }

    fn dial(&mut self, index: usize, now: Time) {
        self.peers[index].next_hello = now + HELLO_EVERY;
        if self.live(index).is_some() {
            self.peers[index].idle = false;
            return;
        }
        let peer = &mut self.peers[index];
        peer.ways.iter_mut().zip(&self.doors).for_each(|(way, door)| way.try_elsewhere(door));
        if self.me.node > peer.node {
            self.begin(index, now, None);
        } else if !peer.answered.iter().flatten().any(|a| now.since(a.at) < ANSWER_LIFE) {
            peer.last_hello = now;
            let knock = Handshake::Knock(self.claim(self.peers[index].node));
            self.send_handshake(index, None, 0, &knock);
        }
    }

    /// Begins a handshake, or says again how it began; by one rail only, where that is an answer to what proves nothing.
    pub(super) fn begin(&mut self, index: usize, now: Time, way: Option<usize>) {
        let claim = self.claim(self.peers[index].node);
        self.peers[index].give_up_handshakes(now);
        if self.peers[index].offer.is_none() {
            let connection = self.fresh_id();
            let prologue = prologue(&self.identity.cluster().id(), &claim, connection);
            let (noise, first) = Noise::initiator(&self.identity, &prologue, random());
            self.peers[index].offer = Some(Box::new(Offer {
                connection,
                noise,
                first,
                cookie: [0; COOKIE_LEN],
                began: now,
                retried: Time::ZERO,
                tries: 0,
            }));
        }
        let peer = &mut self.peers[index];
        peer.last_hello = now;
        let Some(offer) = peer.offer.as_mut() else { return };
        offer.tries = 0;
        let init = Handshake::Init { claim, cookie: offer.cookie, noise: offer.first };
        let connection = offer.connection;
        self.send_handshake(index, way, connection, &init);
    }

    /// Sends a message that has no length of its own, by one rail or by all.
    pub(super) fn send_handshake(
        &self,
        peer: usize,
        way: Option<usize>,
        connection: u64,
        message: &Handshake<'_>,
    ) {
        let mut buffer = [0; INIT_LEN];
        let len = message.emit(connection, &mut buffer);
        match way {
            Some(way) => self.send_by(peer, way, &buffer[..len]),
            None => self.send_alone(peer, &buffer[..len]),
        }
    }

    /// What a hello says about the link in place. `None`: nothing, so that the handshake is over. Else whether the
    /// link died.
    pub(super) fn judge_old_link(&mut self, index: usize, hello: &Hello) -> Option<bool> {
        let Some(slot) = self.live(index) else { return Some(false) };
        let link = self.slots[slot].link.as_deref()?;
        if hello.from.incarnation > link.member.incarnation {
            self.kill(slot, Evidence::Restarted);
            return Some(true);
        }
        // The same run wants a new link: it has given up this one, unless it says that it holds it.
        let newer =
            hello.from.incarnation == link.member.incarnation && hello.serial > link.peer_serial;
        if newer && hello.holds != link.connection.remote() {
            self.kill(slot, Evidence::ClosedByPeer);
            return Some(true);
        }
        None
    }

    /// The handshake is complete. `finish`: the message that the peer still needs for that.
    pub(super) fn open_link(
        &mut self,
        now: Time,
        agreement: Agreement,
        hello: &Hello,
        keys: PacketKeys,
        own: &Own,
    ) -> bool {
        let index = agreement.peer;
        let (ways, rail) = (&self.peers[index].ways, self.peers[index].rail);
        let rails = Rails::new(ways.len(), rail, self.heartbeat, now);
        let datagram = ways[rail].packet_max();
        let settings = Settings {
            remote: hello.connection,
            own: self.table,
            peer: hello.lanes,
            datagram,
            heartbeat: self.heartbeat,
        };
        if self.insert(Link::new(agreement, settings, rails, keys, own, now)).is_none() {
            return false;
        }
        let peer = &mut self.peers[index];
        peer.idle = false;
        // What else we answered stays: should the peer finish that too, then because it has given up this.
        peer.offer = None;
        peer.complained = None;
        true
    }

    /// A handshake packet to be repeated until the peer's first packet shows that it came.
    pub(super) fn finish(packet: Vec<u8>, now: Time) -> Finish {
        Finish { packet, next: now + HELLO_EVERY }
    }
}
