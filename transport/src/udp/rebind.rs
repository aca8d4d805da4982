//! Addresses that change while a link lives: the peer's, or our own.
//!
//! Our own: the sockets that send are connected, hence bound to the address that this machine had. When that is gone they are
//! opened anew, and the peer sees us come from elsewhere.
//!
//! The peer's: whoever sees sealed packets can send them on from anywhere, so where a packet comes from proves
//! nothing, and only the *newest* is considered at all (RFC 9000, section 9). Where it came from is asked, at the port that the
//! configuration names, to say a number that only the peer can read; when it does, we send there from then on. A node that
//! has several addresses may always have sent from another one than it is reached at: only a change counts. While there is no
//! link the peer is dialled at both addresses in turn.
//!
//! Each rail has an address of its own that may change; what arrives by a rail says nothing of another.
//!
//! A node keeps its links when its address changes if it is bound to no particular one: to all, or to an interface. One that
//! is bound to an address receives there and nowhere else; when the address comes back before it is missed, so does the link.

use std::net::{IpAddr, SocketAddr};

use super::entropy::random;
use super::*;
use crate::reliable::{Aside, RAILS_MAX};

/// Least distance of two challenges of one link, whatever provokes them.
const CHALLENGE_APART: Duration = Duration::from_millis(2);
/// A number that was not answered is good for this long.
const TOKEN_LIFE: Duration = Duration::from_secs(1);

/// What a link knows of where its peer is.
#[derive(Debug, Default)]
pub(crate) struct Roaming {
    /// Where its packets came from until now, by each rail.
    source: [Option<IpAddr>; RAILS_MAX],
    question: Option<Question>,
    /// When the last challenge left.
    asked: Time,
    /// The last packet is the newest so far.
    pub(super) newest: bool,
    /// What it asks us to say.
    pub(super) challenge: Option<u64>,
    /// What it answers to a challenge.
    pub(super) response: Option<u64>,
}

/// Is the peer there?
#[derive(Debug)]
struct Question {
    rail: usize,
    source: IpAddr,
    token: u64,
    began: Time,
    socket: Socket,
}

impl Udp {
    /// A packet of that link was taken in: is the peer where it was?
    pub(super) fn roam(&mut self, index: usize, now: Time) {
        let rail = self.door;
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        let roaming = &mut link.roaming;
        if let Some(token) = roaming.response.take()
            && let Some(question) = roaming.question.take_if(|asked| asked.token == token)
        {
            roaming.source[question.rail] = Some(question.source);
            return self.move_peer(index, question.rail, question.socket);
        }
        // A rail that this peer does not have leads nowhere.
        let Some(from) = self.arrival.from.filter(|_| roaming.newest && rail < link.rails.count())
        else {
            return;
        };
        if roaming.source[rail].is_none_or(|source| source == from) {
            roaming.source[rail] = Some(from);
            roaming.question.take_if(|asked| asked.rail == rail);
        } else if now.since(roaming.asked) >= CHALLENGE_APART {
            roaming.asked = now;
            self.ask_whereabouts(index, rail, from, now);
        }
    }

    fn ask_whereabouts(&mut self, index: usize, rail: usize, source: IpAddr, now: Time) {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        // The same number again while it is not answered: over a long way the answer to the first comes after the next.
        let same = |asked: &Question| {
            (asked.rail, asked.source) == (rail, source) && now.since(asked.began) < TOKEN_LIFE
        };
        if !link.roaming.question.as_ref().is_some_and(same) {
            let to = SocketAddr::new(source, self.peers[link.peer].ways[rail].addr.port());
            let Ok(socket) = Socket::connect(&self.doors[rail].origin, to) else { return };
            let token = u64::from_le_bytes(random());
            link.roaming.question = Some(Question { rail, source, token, began: now, socket });
        }
        let Some(question) = &link.roaming.question else { return };
        let mut packet = [0; 64];
        let challenge = Aside::Challenge(question.token);
        let packed = link.connection.pack_aside(now, &mut packet, challenge, false);
        let Some(packed) = packed else { return };
        let packet = &mut packet[..packed.len + TAG_LEN];
        if link.keys.seal(packet).is_ok() {
            question.socket.send(packet, None).ok();
        }
    }

    fn move_peer(&mut self, index: usize, rail: usize, socket: Socket) {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        let way = &mut self.peers[link.peer].ways[rail];
        let to = socket.peer();
        tracing::info!(peer = %link.member, ?to, "the peer has another address");
        way.moved = to.filter(|&to| to != way.addr);
        way.connect(socket);
        if rail == link.rails.current() {
            link.change_path(way.packet_max());
        }
    }

    /// Opens the sockets to a peer anew that send from an address which this machine no longer has.
    pub(super) fn reopen_if_stranded(&mut self, peer: usize) -> bool {
        let mut any = false;
        for (way, door) in self.peers[peer].ways.iter_mut().zip(&self.doors) {
            let stranded = way.socket.as_ref().filter(|socket| socket.is_stranded());
            let to = stranded.and_then(Socket::peer);
            if let Some(Ok(fresh)) = to.map(|to| Socket::connect(&door.origin, to)) {
                way.connect(fresh);
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::super::socket::refusal;
    use super::super::tests::{Node, linked_pair};
    use super::*;
    use crate::lane::CONTROL;

    #[test]
    fn the_answer_to_an_earlier_question_is_good_for_a_later_one() {
        let (addrs, mut a, mut b) = linked_pair();
        (0..20).for_each(|_| [&mut a, &mut b].into_iter().for_each(Node::turn));
        // What `b` sends comes from elsewhere; nobody answers there yet.
        let caught = Rc::new(RefCell::new(Vec::new()));
        let (net, to_a) = (caught.clone(), addrs[0]);
        refusal::set(move |peer, bytes, _| {
            (peer == to_a).then(|| {
                net.borrow_mut().push(bytes.to_vec());
                libc::ENETUNREACH
            })
        });
        let mut numbers = Vec::new();
        for round in 1..=3 {
            b.own.set_word(CONTROL, 0, round);
            b.turn();
            for mut packet in caught.take() {
                a.udp.arrival.from = Some("127.0.0.9".parse().unwrap());
                a.udp.on_datagram(clock::now(), &mut packet, &a.own);
            }
            let link = a.udp.links_mut().next().unwrap();
            numbers.push(link.roaming.question.as_ref().map(|question| question.token));
            std::thread::sleep(CHALLENGE_APART * 2);
        }
        assert!(numbers[0].is_some());
        assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    }
}
