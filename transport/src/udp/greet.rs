//! Greeting: what handshake messages do that arrive. Until the certificate was checked they prove nothing, and whoever
//! sent one gets no more done than is said at each.

use super::dial::{
    Answered, COMPLAIN_EVERY, HANDSHAKE_MAX, HELLO_APART, HELLO_EVERY, TRIES_MAX, prologue,
};
use super::entropy::random;
use super::link::Agreement;
use super::*;
use crate::reliable::{
    COOKIE_LEN, Claim, GREETING_MAX, Greeting, Handshake, Hello, NOISE_1_LEN, NOISE_AT,
};
use crate::secure::{Noise, Refusal};

impl Udp {
    /// A handshake packet arrived; true if the owner should look.
    pub(super) fn on_handshake(&mut self, now: Time, packet: &[u8], own: &Own) -> bool {
        let Ok((header, message)) = Handshake::parse(packet) else {
            self.strays += 1;
            return false;
        };
        let id = header.connection;
        match message {
            Handshake::Init { claim, cookie, noise } => {
                self.on_init(now, id, &claim, &cookie, &noise)
            }
            Handshake::Retry { cookie } => self.on_retry(now, id, cookie),
            Handshake::Answer(noise) => self.on_answer(now, id, noise, own),
            Handshake::Finish(noise) => self.on_finish(now, id, noise, own),
            Handshake::Knock(claim) => self.on_knock(now, &claim),
        }
    }

    /// The peer that a claim names, if it may claim that.
    fn claimed(&mut self, now: Time, claim: &Claim) -> Option<usize> {
        let index = self.peers.iter().position(|peer| peer.node == claim.from.node)?;
        if claim.to != self.me.node || !self.peers[index].wanted {
            return None;
        }
        if claim.cluster != self.identity.cluster().tag() {
            self.complain(
                now,
                index,
                "it says to be of another cluster, or its authority was made anew",
            );
            return None;
        }
        Some(index)
    }

    /// Says why there is no link to a peer. While there is one nothing is amiss but that somebody tries.
    fn complain(&mut self, now: Time, index: usize, why: &str) {
        self.strays += 1;
        let linked = self.live(index).is_some();
        let peer = &mut self.peers[index];
        if !linked && peer.complained.is_none_or(|last| now.since(last) >= COMPLAIN_EVERY) {
            peer.complained = Some(now);
            tracing::warn!(peer = %peer.node, "no link: {why}");
        }
    }

    /// Unproven. Without a cookie it costs a few hashes and one short packet to the configured address of the peer; with
    /// one a few operations on keys, at most every [`HELLO_APART`].
    fn on_init(
        &mut self,
        now: Time,
        id: u64,
        claim: &Claim,
        cookie: &[u8; COOKIE_LEN],
        first: &[u8; NOISE_1_LEN],
    ) -> bool {
        let asked = self.cookies.check(now, claim.from.node, id, cookie);
        if !asked && !self.strangers.admit(now) {
            self.strays += 1;
            return false;
        }
        let Some(index) = self.claimed(now, claim) else { return false };
        if self.me.node > claim.from.node || id == 0 {
            self.strays += 1;
            return false;
        }
        if !asked {
            let cookie = self.cookies.make(now, claim.from.node, id);
            self.send_handshake(index, None, id, &Handshake::Retry { cookie });
            return false;
        }
        let known = |a: &Answered| a.offered == id && a.first == *first && a.claim == *claim;
        let Peer { answered, ways, .. } = &mut self.peers[index];
        if let Some(answered) = answered.iter_mut().flatten().find(|a| known(a)) {
            answered.way = (answered.way + 1) % ways.len();
            ways[answered.way].send(&answered.packet).ok();
            return false;
        }
        if now.since(self.peers[index].last_answer) < HELLO_APART {
            return false;
        }
        self.peers[index].last_answer = now;
        if let Err(refusal) = self.answer(index, now, id, claim, first) {
            self.complain(now, index, refusal.0);
        }
        false
    }

    fn answer(
        &mut self,
        index: usize,
        now: Time,
        id: u64,
        claim: &Claim,
        first: &[u8; NOISE_1_LEN],
    ) -> Result<(), Refusal> {
        let prologue = prologue(&self.identity.cluster().id(), claim, id);
        let mut noise = Noise::responder(&self.identity, &prologue, random(), first)?;
        let connection = self.fresh_id();
        let greeting = if self.peers[index].refuses(claim.from) {
            Greeting::Refused(claim.from)
        } else {
            self.hello(index, connection)
        };
        let packet = self.proof(&mut noise, &greeting, |noise| (id, Handshake::Answer(noise)))?;
        let way = self.door;
        self.send_by(index, way, &packet);
        let answered = Answered {
            claim: *claim,
            offered: id,
            first: *first,
            connection,
            noise,
            packet,
            way,
            at: now,
            tries: 0,
        };
        let places = &mut self.peers[index].answered;
        // A free place, else that of the oldest.
        let place = places.iter_mut().min_by_key(|place| place.as_ref().map(|other| other.at));
        if let Some(place) = place {
            *place = Some(Box::new(answered));
        }
        Ok(())
    }

    /// The packet of a message that proves who we are.
    fn proof(
        &self,
        noise: &mut Noise,
        greeting: &Greeting,
        message: impl for<'a> FnOnce(&'a [u8]) -> (u64, Handshake<'a>),
    ) -> Result<Vec<u8>, Refusal> {
        let (mut text, mut sealed) = ([0; GREETING_MAX], [0; HANDSHAKE_MAX - NOISE_AT]);
        let len = greeting.emit(&mut text);
        let len = noise.write(&self.identity, &text[..len], &mut sealed)?;
        let (id, message) = message(&sealed[..len]);
        let mut packet = vec![0; HANDSHAKE_MAX];
        let len = message.emit(id, &mut packet);
        packet.truncate(len);
        Ok(packet)
    }

    /// Unproven, but from somebody who has seen our Init: we say it again, with the cookie.
    fn on_retry(&mut self, now: Time, id: u64, cookie: [u8; COOKIE_LEN]) -> bool {
        for index in 0..self.peers.len() {
            let Some(offer) = self.peers[index].offer.as_mut().filter(|o| o.connection == id)
            else {
                continue;
            };
            if offer.cookie != cookie && now.since(offer.retried) >= HELLO_APART {
                offer.cookie = cookie;
                offer.retried = now;
                self.begin(index, now, Some(self.door));
            }
            return false;
        }
        self.strays += 1;
        false
    }

    /// Our handshake was answered. Wrong answers are tried [`TRIES_MAX`] times for each Init.
    fn on_answer(&mut self, now: Time, id: u64, message: &[u8], own: &Own) -> bool {
        let ours = |peer: &Peer| peer.offer.as_ref().is_some_and(|offer| offer.connection == id);
        let Some(index) = self.peers.iter().position(ours) else {
            self.strays += 1;
            return false;
        };
        let node = self.peers[index].node;
        let Some(mut offer) = self.peers[index].offer.take_if(|offer| offer.tries < TRIES_MAX)
        else {
            return false;
        };
        offer.tries += 1;
        let mut text = [0; GREETING_MAX];
        let len = match offer.noise.read(&self.identity, node, message, &mut text) {
            Ok(len) => len,
            Err(refusal) => {
                if !offer.noise.is_over() {
                    self.peers[index].offer = Some(offer);
                }
                self.complain(now, index, refusal.0);
                return false;
            }
        };
        let hello = match Greeting::parse(&text[..len]) {
            Ok(Greeting::Hello(hello)) if hello.from.node == node => hello,
            Ok(Greeting::Refused(about)) => return self.on_refusal(node, about),
            _ => return false,
        };
        let mut noise = offer.noise;
        let finish = |noise: &mut Noise, udp: &Udp, greeting: &Greeting| {
            udp.proof(noise, greeting, |noise| (hello.connection, Handshake::Finish(noise)))
        };
        if self.peers[index].refuses(hello.from) {
            if let Ok(packet) = finish(&mut noise, self, &Greeting::Refused(hello.from)) {
                self.send_alone(index, &packet);
            }
            return false;
        }
        let Some(killed) = self.judge_old_link(index, &hello) else { return false };
        let greeting = self.hello(index, id);
        let Ok(packet) = finish(&mut noise, self, &greeting) else { return killed };
        self.send_alone(index, &packet);
        let agreement = Agreement {
            peer: index,
            member: hello.from,
            id,
            peer_serial: hello.serial,
            finish: Some(Udp::finish(packet, now)),
        };
        self.open_link(now, agreement, &hello, noise.keys(now), own) || killed
    }

    /// The handshake that we answered is finished. Wrong ends are tried [`TRIES_MAX`] times.
    fn on_finish(&mut self, now: Time, id: u64, message: &[u8], own: &Own) -> bool {
        let places = |peer: &Peer| {
            peer.answered.iter().position(|a| a.as_ref().is_some_and(|a| a.connection == id))
        };
        let found = self.peers.iter().enumerate().find_map(|(i, peer)| Some((i, places(peer)?)));
        let Some((index, place)) = found else {
            // Its link is up, and this a repetition; or nobody's.
            return false;
        };
        let Some(mut answered) = self.peers[index].answered[place].take() else { return false };
        answered.tries += 1;
        let (from, mut text) = (answered.claim.from, [0; GREETING_MAX]);
        let len = match answered.noise.read(&self.identity, from.node, message, &mut text) {
            Ok(len) => len,
            Err(refusal) => {
                if !answered.noise.is_over() && answered.tries < TRIES_MAX {
                    self.peers[index].answered[place] = Some(answered);
                }
                self.complain(now, index, refusal.0);
                return false;
            }
        };
        let hello: Hello = match Greeting::parse(&text[..len]) {
            Ok(Greeting::Hello(hello)) if hello.from == from => hello,
            Ok(Greeting::Refused(about)) => return self.on_refusal(from.node, about),
            _ => return false,
        };
        if self.peers[index].refuses(hello.from) {
            return false;
        }
        let Some(killed) = self.judge_old_link(index, &hello) else { return false };
        let agreement = Agreement {
            peer: index,
            member: hello.from,
            id,
            peer_serial: hello.serial,
            finish: None,
        };
        self.open_link(now, agreement, &hello, answered.noise.keys(now), own) || killed
    }

    /// A peer that proved itself refuses somebody: us, if it names our run.
    fn on_refusal(&mut self, node: NodeId, about: Member) -> bool {
        if about == self.me {
            self.events.retain(|event| *event != UdpEvent::Refused { node });
            self.events.push_back(UdpEvent::Refused { node });
        }
        about == self.me
    }

    /// Unproven: at most it makes us begin a handshake, beside the link if there is one.
    fn on_knock(&mut self, now: Time, claim: &Claim) -> bool {
        if !self.strangers.admit(now) {
            self.strays += 1;
            return false;
        }
        let Some(index) = self.claimed(now, claim) else { return false };
        let apart = if self.live(index).is_some() { HELLO_EVERY } else { HELLO_APART };
        if self.me.node > claim.from.node && now.since(self.peers[index].last_hello) >= apart {
            self.begin(index, now, Some(self.door));
        }
        false
    }
}
