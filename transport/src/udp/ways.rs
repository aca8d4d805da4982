//! Ways: the rails of a peer as sockets, and what [`Rails`](crate::reliable::Rails) decides, done.
//!
//! A rail is a network. The n-th address of one node speaks with the n-th of another; where one of them has fewer, the rest
//! is not used between the two. What arrives is taken by any rail at any time; what leaves takes the one in use, but for
//! challenges and the answers to them. There is no link to choose a way for a handshake, so that goes over all.

use std::net::SocketAddr;

use super::entropy::random;
use super::*;
use crate::event::RailStatus;
use crate::limits::EVENTS_MAX;
use crate::reliable::{Aside, RailChange, Signs};

/// The own end of a rail.
pub(super) struct Door {
    pub(super) origin: Origin,
    pub(super) port: Port,
    /// When the main and the quiet socket were last seen empty.
    pub(super) emptied: [Time; 2],
}

impl Door {
    pub(super) fn open(bind: SocketAddr, interface: Option<&str>) -> Result<Door, Error> {
        let origin = Origin::new(bind.ip(), interface);
        Ok(Door { origin, port: Port::bind(bind, interface)?, emptied: [Time::ZERO; 2] })
    }
}

/// The peer's end of a rail.
pub(super) struct Way {
    /// As configured.
    pub(super) addr: SocketAddr,
    /// Where it proved to be instead.
    pub(super) moved: Option<SocketAddr>,
    pub(super) socket: Option<Socket>,
}

impl Way {
    /// A peer that cannot be reached yet (no route) must not keep the node from starting.
    pub(super) fn new(door: &Door, addr: SocketAddr) -> Way {
        Way { addr, moved: None, socket: Socket::connect(&door.origin, addr).ok() }
    }

    /// Sends through that socket from now on.
    pub(super) fn connect(&mut self, socket: Socket) {
        if self.socket.as_mut().is_none_or(|old| old.replace(&socket).is_err()) {
            self.socket = Some(socket);
        }
    }

    /// Before the peer is dialled: who moved may have moved on, or back.
    pub(super) fn try_elsewhere(&mut self, door: &Door) {
        let elsewhere = self.moved.take();
        if self.socket.is_none() || elsewhere.is_some() {
            let at = self.socket.as_ref().and_then(Socket::peer);
            let to = elsewhere.filter(|_| at == Some(self.addr)).unwrap_or(self.addr);
            if let Ok(socket) = Socket::connect(&door.origin, to) {
                self.connect(socket);
            }
            self.moved = elsewhere;
        }
    }

    /// What one packet to the peer may hold at the first link, its tag not counted.
    pub(super) fn packet_max(&self) -> usize {
        let datagram = self.socket.as_ref().map_or(0, Socket::datagram_max);
        datagram.clamp(512 + TAG_LEN, DATAGRAM_MAX) - TAG_LEN
    }

    /// Sends one packet of which nobody keeps account.
    pub(super) fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(socket) = self.socket.as_ref() else { return Ok(()) };
        // A pending "port unreachable" is reported in place of sending: the second try sends.
        match socket.send(bytes, None) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                socket.send(bytes, None)
            }
            other => other,
        }
    }
}

impl Udp {
    /// Looks after the choice of a rail: asks, and changes it. `asked`: the peer has asked just now.
    pub(super) fn attend(&mut self, index: usize, now: Time, asked: bool) {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        if link.rails.count() < 2 || link.is_dead() {
            return;
        }
        let connection = &link.connection;
        let signs = Signs {
            silent: now.since(connection.heard()),
            unconfirmed: now.since(connection.carried()),
            probes: connection.probe_attempt(),
            round_trip: connection.rtt().smoothed(),
            asked,
        };
        link.rails.look(now, signs);
        while let Some(link) = self.slots[index].link.as_deref_mut()
            && let Some((way, token)) =
                link.rails.poll_challenge(now, || u64::from_le_bytes(random()))
        {
            self.send_aside(index, way, Aside::Challenge(token), now);
        }
        if let Some(link) = self.slots[index].link.as_deref_mut()
            && let Some(change) = link.rails.poll_change(now)
        {
            self.change_rail(index, change);
        }
    }

    /// Answers a challenge over every rail: nobody knows yet which of them carry.
    pub(super) fn answer_challenge(&mut self, index: usize, token: u64, now: Time) {
        let ways = self.slots[index].link.as_ref().map_or(0, |link| link.rails.count());
        (0..ways).for_each(|way| self.send_aside(index, way, Aside::Response(token), now));
    }

    fn send_aside(&mut self, index: usize, way: usize, frame: Aside, now: Time) {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        let usual = way == link.rails.current();
        let mut packet = [0; 64];
        let Some(packed) = link.connection.pack_aside(now, &mut packet, frame, usual) else {
            return;
        };
        let packet = &mut packet[..packed.len + TAG_LEN];
        if link.keys.seal(packet).is_ok() {
            self.peers[link.peer].ways[way].send(packet).ok();
        }
    }

    fn change_rail(&mut self, index: usize, change: RailChange) {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        let peer = &mut self.peers[link.peer];
        let way = &peer.ways[change.to];
        link.change_path(way.packet_max());
        link.failovers += 1;
        peer.rail = change.to;
        let to = way.moved.unwrap_or(way.addr);
        let (from, to_number) = (change.from + 1, change.to + 1);
        tracing::info!(peer = %link.member, %to, reason = %change.reason, "rail {from} → {to_number}");
        // Who does not look for so long reads it from the link's status.
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(UdpEvent::Rail { link: self.handle(index) });
        }
    }

    /// The network says that there is no way to a peer.
    pub(super) fn doubt_rail(&mut self, index: usize, now: Time) {
        if let Some(link) = self.slots[index].link.as_deref_mut().filter(|link| !link.is_dead()) {
            link.rails.alarm(now);
        }
    }

    /// How packets are looked for by one who never sleeps, for people; `None` of others.
    pub(crate) fn busy_polling(&self) -> Option<String> {
        Some(match self.busy_poll.as_ref()? {
            Ok(()) if self.doors.iter().any(|door| door.port.main.has_adapter()) => {
                "the adapter is polled (NAPI)".to_owned()
            }
            Ok(()) => "adapters are polled (NAPI), but none was met that can be".to_owned(),
            Err(error) => format!("adapters are not polled (SO_BUSY_POLL: {error})"),
        })
    }

    /// The rail that packets of that link take.
    pub(crate) fn rail(&self, link: UdpLink) -> Option<RailStatus> {
        let link = self.get(link)?;
        let rails = &link.rails;
        let way = &self.peers[link.peer].ways[rails.current()];
        Some(RailStatus {
            rail: rails.current(),
            of: rails.count(),
            to: way.moved.unwrap_or(way.addr),
            reason: rails.reason(),
            silent: (0..rails.count()).filter(|&r| rails.is_silent(r)).map(|r| 1 << r).sum(),
        })
    }
}
