//! One link of the driver: connection, replicas, and what the network said about the peer's death.
//!
//! A link is *opening* until the peer's first packet says where its control log starts, then *up*, then *dead* for
//! good. Being dead it holds its replicas, frozen, until it is forgotten.
//!
//! "Port unreachable" is not believed at once: it can be forged, and a firewall sends it too. It starts a burst of
//! probes, one a millisecond. Any packet from the peer ends the burst; if none comes the peer is dead.

use std::net::IpAddr;
use std::time::Duration;

use super::rebind::Roaming;
use super::replica::Replicas;
use crate::event::{Evidence, LinkCounters};
use crate::id::Member;
use crate::lane::CONTROL;
use crate::log::{Reader, Ring};
use crate::own::Own;
use crate::reliable::{CloseReason, Connection, LaneTable, PacketView, Rails, Settings};
use crate::secure::PacketKeys;
use crate::time::Time;

/// How long a burst lasts at least: well inside 50 ms, and long enough for a busy peer to answer.
const BURST: Duration = Duration::from_millis(20);
/// Round trips it lasts at least: over a long way nobody can answer sooner.
const BURST_ROUND_TRIPS: u32 = 3;
/// Distance of its probes.
const BURST_STEP: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening,
    Up,
    Dead,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    /// What it means if nobody answers.
    evidence: Evidence,
    started: Time,
    next: Time,
    until: Time,
}

/// What became of a packet or a look at the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// Log, words or credit moved.
    News,
    /// The link has come up; reading its control log starts there.
    Up(u64),
    Dead(Evidence),
}

/// A batch that the peer's socket did not take.
#[derive(Debug, Default)]
pub(crate) struct Stash {
    pub(crate) bytes: Vec<u8>,
    pub(crate) segment: usize,
    pub(crate) retry: Time,
}

/// What two paths of one link hand over to each other: per lane of the peer the reader, if it is read, its words, and
/// the memory that it lies in.
#[derive(Default)]
pub(crate) struct Lent {
    pub(crate) readers: Vec<Option<Reader>>,
    pub(crate) words: Vec<Vec<u64>>,
    pub(crate) rings: Vec<Ring>,
}

/// The end of the handshake, which the peer may not have got.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) packet: Vec<u8>,
    pub(crate) next: Time,
}

pub(crate) struct Link {
    /// Index of the peer in the configuration.
    pub(crate) peer: usize,
    pub(crate) member: Member,
    pub(crate) phase: Phase,
    /// Connection id the peer puts on packets to us.
    pub(crate) id: u64,
    /// Serial of the peer's offer or answer that made this link.
    pub(crate) peer_serial: u64,
    pub(crate) keys: PacketKeys,
    /// Repeated until the link is up.
    pub(crate) finish: Option<Finish>,
    pub(crate) connection: Connection,
    pub(crate) rails: Rails,
    /// Times that packets took another rail.
    pub(crate) failovers: u64,
    /// Packets whose content was sent again, as far as a probe has told of it.
    pub(crate) lost: u64,
    replicas: Replicas,
    table: LaneTable,
    burst: Option<Burst>,
    pub(crate) stash: Stash,
    pub(crate) roaming: Roaming,
    /// The last flush left something to send.
    pub(crate) unfinished: bool,
}

/// What is known of how a packet came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrival {
    /// It has met congestion on its way.
    pub(crate) congested: bool,
    /// It lay in the socket for that long at most.
    pub(crate) waited: Duration,
    /// Where it says to come from.
    pub(crate) from: Option<IpAddr>,
}

/// Who the peer is and what it has agreed to.
#[derive(Debug)]
pub(crate) struct Agreement {
    pub(crate) peer: usize,
    pub(crate) member: Member,
    pub(crate) id: u64,
    pub(crate) peer_serial: u64,
    pub(crate) finish: Option<Finish>,
}

impl Link {
    /// A link on which our control log starts now.
    pub(crate) fn new(
        agreement: Agreement,
        settings: Settings,
        rails: Rails,
        keys: PacketKeys,
        own: &Own,
        now: Time,
    ) -> Self {
        let mut link = Link {
            peer: agreement.peer,
            member: agreement.member,
            phase: Phase::Opening,
            id: agreement.id,
            peer_serial: agreement.peer_serial,
            keys,
            finish: agreement.finish,
            connection: Connection::new(settings, now),
            rails,
            failovers: 0,
            lost: 0,
            replicas: Replicas::new(&settings.peer),
            table: settings.peer,
            burst: None,
            stash: Stash::default(),
            roaming: Roaming::default(),
            unfinished: false,
        };
        let from = own.lane(CONTROL).log.head();
        link.attach(CONTROL.0, from, own);
        link
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    pub(crate) fn attach(&mut self, lane: u8, from: u64, own: &Own) {
        let lane_own = &own.lanes[usize::from(lane)];
        let head = lane_own.log.head();
        self.connection
            .attach(lane, from, head, |word| lane_own.words[usize::from(word)].value != 0);
    }

    /// Begins to read a lane of the peer.
    pub(crate) fn open(&mut self, lane: u8, from: u64) -> std::io::Result<()> {
        let Some(shape) = self.table.as_slice().get(usize::from(lane)) else { return Ok(()) };
        self.replicas.open(usize::from(lane), shape.log_bytes, from)?;
        self.connection.open(lane, from);
        // Padding after `from` may have been released with it.
        if let Some(released) = self.replicas.released(usize::from(lane)) {
            self.connection.release(lane, released);
        }
        Ok(())
    }

    /// Lanes that another path has carried go on here, in its memory and with its readers; `words` are those of each lane.
    pub(crate) fn borrow(&mut self, lent: Lent) {
        for (lane, (reader, words)) in lent.readers.iter().zip(&lent.words).enumerate() {
            let Some(reader) = reader else {
                self.connection.shut_lane(lane as u8);
                continue;
            };
            let at = (reader.released(), reader.visible());
            self.connection.resume(lane as u8, at, words.iter().copied());
        }
        self.replicas.borrow(lent.rings, lent.readers);
    }

    /// They go on there again. What of them is still on its way here is not taken in.
    pub(crate) fn give_back(&mut self) -> Lent {
        let mut lent = Lent::default();
        for lane in 0..self.table.as_slice().len() {
            let (reader, words) = self.shut(lane as u8);
            lent.readers.push(reader);
            lent.words.push(words);
        }
        self.replicas.give_back();
        lent
    }

    /// Reads that lane of the peer no more.
    pub(crate) fn shut(&mut self, lane: u8) -> (Option<Reader>, Vec<u64>) {
        let words = self.connection.shut_lane(lane);
        (self.replicas.take(usize::from(lane)), words)
    }

    /// An owner that reclaimed what this reader has not released no longer counts it among the readers. False
    /// if that concerns the control lane, without which a link is of no use.
    pub(crate) fn detach_what_was_reclaimed(&mut self, own: &Own) -> bool {
        let mut usable = true;
        for (index, lane) in own.lanes.iter().enumerate() {
            let id = index as u8;
            if self.connection.is_attached(id) && self.connection.released(id) < lane.log.low() {
                self.connection.detach(id);
                usable &= id != CONTROL.0;
            }
        }
        usable
    }

    pub(crate) fn release(&mut self, lane: u8, upto: u64) {
        if let Some(released) = self.replicas.release(usize::from(lane), upto) {
            self.connection.release(lane, released);
        }
    }

    /// Packets take another path from now on; see [`Connection::change_path`].
    pub(crate) fn change_path(&mut self, datagram: usize) {
        self.connection.change_path(datagram);
        self.stash = Stash::default();
    }

    pub(crate) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// A packet with this link's id arrived, and is opened in place. `None` if it was not sealed by the peer.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        datagram: &mut [u8],
        arrival: Arrival,
    ) -> Option<Change> {
        let len = self.keys.open(datagram).ok()?;
        let mut packet = PacketView::parse(&datagram[..len]).ok()?;
        (packet.congested, packet.waited) = (arrival.congested, arrival.waited);
        Some(self.take_in(now, &packet))
    }

    fn take_in(&mut self, now: Time, packet: &PacketView<'_>) -> Change {
        (self.roaming.newest, self.roaming.response) = (false, None);
        self.roaming.challenge = None;
        let Ok(received) = self.connection.handle_packet(now, packet, &mut self.replicas) else {
            return Change::None;
        };
        (self.roaming.newest, self.roaming.response) = (received.newest, received.response);
        self.roaming.challenge = received.challenge;
        if let Some(token) = received.response {
            self.rails.on_response(now, token);
        }
        if let Some(burst) = self.burst
            && self.connection.heard() > burst.started
        {
            self.burst = None;
        }
        if received.closed.is_some() {
            return Change::Dead(Evidence::ClosedByPeer);
        }
        if !received.news {
            return Change::None;
        }
        for lane in 0..self.table.as_slice().len() {
            match self.replicas.advance(lane, self.connection.visible(lane as u8)) {
                Ok(false) => {}
                Ok(true) => self.release(lane as u8, 0),
                Err(_) => return Change::Dead(Evidence::Malformed),
            }
        }
        match self.connection.started(CONTROL.0) {
            Some(from) if self.phase == Phase::Opening => Change::Up(from),
            _ => Change::News,
        }
    }

    /// The peer's port was reported unreachable.
    pub(crate) fn on_unreachable(&mut self, now: Time) {
        self.question(Evidence::PortUnreachable, BURST, now);
    }

    /// The peer is asked whether it lives. If it does not answer within `patience` it is dead, of `evidence`.
    pub(super) fn question(&mut self, evidence: Evidence, patience: Duration, now: Time) {
        if self.burst.is_none() && !self.is_dead() {
            let patience = patience.max(self.connection.rtt().smoothed() * BURST_ROUND_TRIPS);
            self.burst = Some(Burst { evidence, started: now, next: now, until: now + patience });
        }
    }

    /// The own loop stood still: what was not heard meanwhile proves nothing.
    pub(crate) fn excuse(&mut self, stall: Duration) {
        if let Some(burst) = &mut self.burst {
            burst.until += stall;
        }
    }

    /// Whether an answer is awaited that shows that the peer lives.
    pub(super) fn is_questioned(&self) -> bool {
        self.burst.is_some()
    }

    /// Sends the next probe of a burst, or gives up.
    pub(crate) fn run_burst(&mut self, now: Time) -> Change {
        match &mut self.burst {
            Some(burst) if burst.until <= now => {
                let evidence = burst.evidence;
                self.burst = None;
                Change::Dead(evidence)
            }
            Some(burst) if burst.next <= now => {
                burst.next = now + BURST_STEP;
                self.connection.probe();
                Change::None
            }
            _ => Change::None,
        }
    }

    /// When the link wants to be looked at.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        if self.is_dead() {
            return None;
        }
        let burst = self.burst.map(|burst| burst.next.min(burst.until));
        let stash = (!self.stash.bytes.is_empty()).then_some(self.stash.retry);
        let at_once = self.unfinished.then_some(Time::ZERO);
        let finish = self.finish.as_ref().map(|finish| finish.next);
        let rails = self.rails.next_timeout();
        let all = [self.connection.next_timeout(), burst, stash, at_once, finish, rails];
        all.into_iter().flatten().min()
    }

    /// Dead for good: nothing becomes visible any more, nothing but the news of it is sent.
    pub(crate) fn kill(&mut self, reason: CloseReason) {
        self.phase = Phase::Dead;
        self.finish = None;
        self.burst = None;
        self.unfinished = false;
        self.stash = Stash::default();
        self.connection.close(reason);
    }

    pub(crate) fn counters(&self) -> LinkCounters {
        let counters = self.connection.counters();
        LinkCounters {
            packets_sent: counters.sent,
            packets_received: counters.received,
            bytes_sent: counters.sent_bytes,
            bytes_received: counters.received_bytes,
            retransmits: counters.lost,
            marked: counters.congested,
            congestion: self.connection.congestion().events(),
            failovers: self.failovers,
            ..LinkCounters::default()
        }
    }
}
