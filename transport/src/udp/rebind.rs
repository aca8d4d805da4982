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
//! A node keeps its links when its address changes if it is bound to no particular one.

use std::net::{IpAddr, SocketAddr};

use super::dial::{DATAGRAM_MAX, random};
use super::*;

/// Least distance of two challenges of one link, whatever provokes them.
const CHALLENGE_APART: Duration = Duration::from_millis(2);

/// What a link knows of where its peer is.
#[derive(Debug, Default)]
pub(crate) struct Roaming {
    /// Where its packets came from until now.
    source: Option<IpAddr>,
    challenge: Option<Challenge>,
    /// When the last challenge left.
    asked: Time,
    /// The last packet is the newest so far.
    pub(super) newest: bool,
    /// What it answers to a challenge.
    pub(super) response: Option<u64>,
}

#[derive(Debug)]
struct Challenge {
    source: IpAddr,
    token: u64,
    socket: Socket,
}

impl Udp {
    /// A packet of that link was taken in: is the peer where it was?
    pub(super) fn roam(&mut self, index: usize, now: Time) {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        let roaming = &mut link.roaming;
        if let Some(token) = roaming.response.take()
            && let Some(challenge) = roaming.challenge.take_if(|asked| asked.token == token)
        {
            roaming.source = Some(challenge.source);
            return self.move_peer(index, challenge.socket);
        }
        let Some(from) = self.from.filter(|_| roaming.newest) else { return };
        if roaming.source.is_none_or(|source| source == from) {
            roaming.source = Some(from);
            roaming.challenge = None;
        } else if now.since(roaming.asked) >= CHALLENGE_APART {
            roaming.asked = now;
            self.challenge(index, from, now);
        }
    }

    fn challenge(&mut self, index: usize, source: IpAddr, now: Time) {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        let to = SocketAddr::new(source, self.peers[link.peer].addr.port());
        let Ok(socket) = Socket::connect(self.bind_ip, to) else { return };
        let token = u64::from_le_bytes(random());
        let mut packet = [0; 64];
        let Some(packed) = link.connection.pack_challenge(now, &mut packet, token) else { return };
        let packet = &mut packet[..packed.len + TAG_LEN];
        if link.keys.seal(packet).is_ok() {
            socket.send(packet, None).ok();
            link.roaming.challenge = Some(Challenge { source, token, socket });
        }
    }

    fn move_peer(&mut self, index: usize, socket: Socket) {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        let peer = &mut self.peers[link.peer];
        let to = socket.peer();
        link.connection
            .change_path(socket.datagram_max().clamp(512 + TAG_LEN, DATAGRAM_MAX) - TAG_LEN);
        link.stash = link::Stash::default();
        tracing::info!(peer = %link.member, ?to, "the peer has another address");
        peer.moved = to.filter(|&to| to != peer.addr);
        peer.connect(socket);
    }

    /// Opens the socket to a peer anew if this machine no longer has the address that it sends from.
    pub(super) fn reopen_if_stranded(&mut self, peer: usize) -> bool {
        let peer = &mut self.peers[peer];
        let Some(socket) = peer.socket.as_ref().filter(|socket| socket.is_stranded()) else {
            return false;
        };
        let Some(fresh) = socket.peer().and_then(|to| Socket::connect(self.bind_ip, to).ok())
        else {
            return false;
        };
        peer.connect(fresh);
        true
    }
}
