//! UDP: the driver that moves the packets of all UDP links of a node.
//!
//! Everything with a protocol in it is in [`reliable`](crate::reliable), without sockets. Here are one port, one
//! connected socket per peer, the dialling of peers, and the turn of the loop:
//!
//! - [`Udp::poll`] takes what has arrived and runs timers;
//! - [`Udp::flush`] packs what was published and marked since, and sends it;
//! - in between the owner (the poller) reads replicas, publishes, and judges silence by [`Udp::heard`].
//!
//! What costs nothing while nothing happens: no call per message (packing and segmentation offload), no
//! wake-up per heartbeat (see `socket`), no timer of an idle link but the heartbeat, and all links' heartbeats fall
//! on the same instant.

mod dial;
mod entropy;
#[cfg(feature = "faults")]
mod faults;
mod filter;
#[cfg(test)]
mod flood;
mod greet;
#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod hostile_tests;
mod link;
mod links;
mod means;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod namespaces;
mod notes;
#[cfg(test)]
mod rails_tests;
mod rebind;
mod receive;
mod replica;
mod send;
mod socket;
mod strangers;
#[cfg(test)]
mod tests;
mod ways;

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::config::{Config, Rail, Wait};
use crate::error::Error;
use crate::event::{Evidence, LinkCounters};
use crate::id::{Incarnation, Member, NodeId};
use crate::lane::LaneId;
use crate::limits::{DATAGRAM_MAX, LINKS_PER_PEER_MAX};
use crate::log::{LogBytes, Malformed, Record};
use crate::own::Own;
use crate::reliable::{
    CloseReason, FLAG_HANDSHAKE, Header, LaneShape, LaneTable, Note, Source, TAG_LEN,
};
use crate::secure::{Cookies, Identity};
use crate::time::Time;
use dial::Peer;
pub(crate) use link::Lent;
use link::{Arrival, Change, Link, Phase};
use means::Means;
pub use means::UdpStatus;
use socket::{Batch, Origin, Port, SEGMENTS_MAX, Socket};
pub use socket::{UdpCalls, probe_busy_poll};
use strangers::Strangers;
use ways::{Door, Way};

/// Distance of the probes of a peer that is silent.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// Bytes packed for one send: the kernel's limit for one segmented message, too.
const SEND_BUFFER: usize = DATAGRAM_MAX;

/// A UDP link. Never reused for another link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UdpLink {
    slot: u16,
    generation: u32,
}

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UdpEvent {
    /// A link came up; its control log is open at `control_from`, ours is attached.
    Up { link: UdpLink, peer: Member, control_from: u64 },
    /// A link that was up is dead. Silence is not judged here.
    Dead { link: UdpLink, evidence: Evidence },
    /// That node refuses our incarnation.
    Refused { node: NodeId },
    /// Packets of a link take another rail.
    Rail { link: UdpLink },
    /// The peer's driver says something.
    Note { link: UdpLink, note: Note },
}

#[derive(Default)]
struct Slot {
    generation: u32,
    link: Option<Box<Link>>,
}

/// All UDP links of a node.
pub(crate) struct Udp {
    me: Member,
    identity: Arc<Identity>,
    cookies: Cookies,
    strangers: Strangers,
    table: LaneTable,
    heartbeat: Duration,
    give_up: Duration,
    doors: Vec<Door>,
    /// Adapters are polled; or why not.
    busy_poll: Option<std::io::Result<()>>,
    /// Out while its packets are handled.
    batch: Option<Box<Batch>>,
    /// What [`Udp::look`] found, for the next turn: the own end of which rail, how much, and whether there is more.
    looked: Option<(usize, usize, bool)>,
    out: Box<[u8]>,
    means: Means,
    peers: Vec<Peer>,
    slots: Vec<Slot>,
    events: VecDeque<UdpEvent>,
    /// Next look at the quiet socket, at errors and at silent peers.
    tick: Time,
    /// A sleep was ended by packets that no turn would look for.
    expected: bool,
    /// A peer is silent: it is asked at every tick, and ticks come often.
    probing: bool,
    /// Slot that the last packet was for.
    recent: usize,
    serial: u64,
    /// Whose links these are.
    process: u32,
    /// How what is taken in at the moment came, and the own end of the rail that it came by.
    arrival: Arrival,
    door: usize,
    /// Messages taken since the last flush.
    taken: usize,
    /// Packets that belonged to nothing, were unreadable or forged.
    pub(crate) strays: u64,
    #[cfg(feature = "faults")]
    faults: faults::Faults,
}

impl Udp {
    /// Takes the port. Peers are dialled once they are [`wanted`](Udp::want).
    pub(crate) fn new(config: &Config, now: Time) -> Result<Udp, Error> {
        let identity = config
            .identity
            .clone()
            .ok_or_else(|| Error::Config("UDP needs an identity, and there is none".into()))?;
        let secret = entropy::first()?;
        let mark = filter::mark(entropy::random());
        let mut doors = vec![Door::open(config.bind, config.interface.as_deref())?];
        for rail in &config.rails {
            doors.push(Door::open(rail.bind, rail.interface.as_deref())?);
        }
        // One who never sleeps need not wait for interrupts either.
        let poll = || doors.iter().try_for_each(|door| door.port.main.poll_adapter());
        let busy_poll = (config.wait == Wait::Spin).then(poll);
        let mut peers = Vec::with_capacity(config.peers.len());
        for peer in &config.peers {
            let on = |rail: &Rail| rail.peers.iter().find(|p| p.node == peer.node).map(|p| p.addr);
            let addrs = std::iter::once(peer.addr).chain(config.rails.iter().map_while(on));
            let ways = doors.iter().zip(addrs).map(|(door, addr)| Way::new(door, addr)).collect();
            peers.push(Peer::new(peer.node, ways, now));
        }
        let shape = |lane: &crate::lane::LaneSpec| LaneShape {
            words: lane.words as u32,
            log_bytes: lane.log_bytes as u64,
        };
        let table = LaneTable::new(config.lanes.iter().map(shape))
            .ok_or_else(|| Error::Config(format!("{} lanes are too many", config.lanes.len())))?;
        let slots =
            (0..(peers.len() * LINKS_PER_PEER_MAX).max(1)).map(|_| Slot::default()).collect();
        let calls = UdpCalls::probe()
            .map_err(|source| Error::System { what: "a socket of its own", source })?;
        let means = Means::choose(calls, config.offload);
        if !means.joins {
            doors.iter().for_each(|door| _ = door.port.main.join(false));
        }
        let mut udp = Udp {
            me: config.me,
            identity,
            cookies: Cookies::new(secret, mark),
            strangers: Strangers::new(mark, now),
            table,
            heartbeat: config.timing.heartbeat,
            give_up: config.timing.dead,
            doors,
            busy_poll,
            batch: Some(Box::new(Batch::new(means.takes_many))),
            looked: None,
            out: vec![0; SEND_BUFFER].into_boxed_slice(),
            means,
            events: VecDeque::with_capacity(peers.len() * LINKS_PER_PEER_MAX),
            peers,
            slots,
            tick: now,
            expected: false,
            probing: false,
            recent: 0,
            serial: 0,
            process: std::process::id(),
            arrival: Arrival::default(),
            door: 0,
            taken: 0,
            strays: 0,
            #[cfg(feature = "faults")]
            faults: faults::Faults::default(),
        };
        udp.screen(now);
        Ok(udp)
    }

    // ---- the turn ----

    /// Receives, runs timers, dials. True if anything happened that the owner should look at.
    pub(crate) fn poll(&mut self, now: Time, own: &Own) -> bool {
        let mut happened = false;
        // Where everybody is met by other paths little is to come: no system call in every turn.
        let due = now >= self.tick;
        let all = due || std::mem::take(&mut self.expected);
        if all || self.looked.is_some() || self.is_used() {
            happened |= self.receive(now, own, false, all);
        }
        if all {
            happened |= self.receive(now, own, true, all);
        }
        if due {
            self.on_tick(now);
        }
        self.screen(now);
        for index in 0..self.slots.len() {
            let Some(link) = self.slots[index].link.as_deref_mut() else { continue };
            if link.next_timeout().is_some_and(|at| at <= now) {
                link.connection.handle_timeout(now);
                let change = link.run_burst(now);
                happened |= self.apply(index, change);
                self.attend(index, now, false);
            }
        }
        happened |= self.take_in_late(now, own);
        self.dial_all(now);
        happened || !self.events.is_empty()
    }

    /// Whether there are links that carry lanes or are not up yet, or peers to link with. A link whose lanes another path
    /// carries has signs of life only, and its close.
    pub(crate) fn is_used(&self) -> bool {
        let carries = |link: &Link| {
            link.phase != Phase::Up || link.connection.is_read() || link.is_questioned()
        };
        let is_met = |(index, peer): (usize, &Peer)| !peer.wanted || self.live(index).is_some();
        self.slots.iter().any(|slot| slot.link.as_deref().is_some_and(carries))
            || !self.peers.iter().enumerate().all(is_met)
    }

    /// A sleep was ended by packets: the next turn takes them, wanted or not, or the sleep after it would end at once.
    pub(crate) fn expect_packets(&mut self) {
        self.expected = !self.is_used();
    }

    /// What happened to links; ask until `None`.
    pub(crate) fn poll_event(&mut self) -> Option<UdpEvent> {
        self.events.pop_front()
    }

    /// Sends all that was published and marked since the last flush, and what the protocol owes.
    pub(crate) fn flush(&mut self, mut now: Time, own: &Own) {
        // Much was opened since the turn began: that is our time, neither the network's nor the peer's.
        if std::mem::take(&mut self.taken) > 1 {
            now = clock::now().max(now);
        }
        for (LaneId(id), lane) in own.marked() {
            for link in self.slots.iter_mut().filter_map(|slot| slot.link.as_deref_mut()) {
                link.connection.publish(id, lane.log.head());
                lane.changed.iter().for_each(|&word| link.connection.mark_word(id, word));
            }
        }
        for index in 0..self.slots.len() {
            if self.slots[index].link.is_some() {
                now = self.transmit(index, now, own);
            }
        }
    }

    /// When [`Udp::poll`] wants to be called.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let links = self.slots.iter().filter_map(|slot| slot.link.as_ref()?.next_timeout());
        let dials = self.peers.iter().filter_map(Peer::next_timeout);
        let late = self.next_late();
        links.chain(dials).chain(self.probing.then_some(self.tick)).chain(late).min()
    }

    /// By which calls packets pass the kernel.
    pub(crate) fn status(&self) -> &UdpStatus {
        &self.means.told
    }

    /// What to park on: the sockets that data arrives on.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.doors.iter().map(|door| door.port.main.as_fd())
    }

    /// The send sockets, on which nothing but errors arrive: a peer's port is closed. When one of them wakes the
    /// poller it calls [`Udp::check_errors`]. Not watching them is right too: the next heartbeat meets the error.
    pub(crate) fn error_fds(&self) -> impl Iterator<Item = RawFd> {
        let ways = self.peers.iter().flat_map(|peer| &peer.ways);
        ways.filter_map(|way| way.socket.as_ref().map(Socket::fd))
    }

    /// The own loop stood still for `stall`: silence meanwhile proves nothing.
    pub(crate) fn excuse(&mut self, stall: Duration) {
        self.links_mut().for_each(|link| link.excuse(stall));
    }

    // ---- inside ----

    fn get(&self, link: UdpLink) -> Option<&Link> {
        let slot = self.slots.get(usize::from(link.slot))?;
        if slot.generation == link.generation { slot.link.as_deref() } else { None }
    }

    fn get_mut(&mut self, link: UdpLink) -> Option<&mut Link> {
        let slot = self.slots.get_mut(usize::from(link.slot))?;
        if slot.generation == link.generation { slot.link.as_deref_mut() } else { None }
    }

    fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.slots.iter_mut().filter_map(|slot| slot.link.as_deref_mut())
    }

    fn handle(&self, index: usize) -> UdpLink {
        UdpLink { slot: index as u16, generation: self.slots[index].generation }
    }

    /// Slot of the link to that peer that is not dead.
    fn live(&self, peer: usize) -> Option<usize> {
        let alive = |slot: &Slot| {
            slot.link.as_ref().is_some_and(|link| link.peer == peer && !link.is_dead())
        };
        self.slots.iter().position(alive)
    }

    /// A slot for a new link; `None` while too many dead ones of that peer are not forgotten.
    fn insert(&mut self, link: Link) -> Option<usize> {
        let of_peer =
            |slot: &&Slot| slot.link.as_ref().is_some_and(|other| other.peer == link.peer);
        if self.slots.iter().filter(of_peer).count() >= LINKS_PER_PEER_MAX {
            return None;
        }
        let index = self.slots.iter().position(|slot| slot.link.is_none())?;
        let slot = &mut self.slots[index];
        slot.generation += 1;
        slot.link = Some(Box::new(link));
        Some(index)
    }

    /// Draws the consequences of what happened to a link; true if the owner should look.
    fn apply(&mut self, index: usize, change: Change) -> bool {
        let handle = self.handle(index);
        let Some(link) = self.slots[index].link.as_deref_mut() else { return false };
        match change {
            Change::None => return false,
            Change::News => probe::probe!(quintet, visible, link.member.node.0),
            Change::Up(from) => {
                if link.open(crate::lane::CONTROL.0, from).is_err() {
                    // No memory for its control log: try again with a new link later.
                    self.kill(index, Evidence::Fenced);
                    return false;
                }
                link.phase = Phase::Up;
                link.finish = None;
                let peer = link.member;
                tracing::info!(%peer, "udp link up");
                self.events.push_back(UdpEvent::Up { link: handle, peer, control_from: from });
            }
            Change::Dead(evidence) => self.kill(index, evidence),
        }
        true
    }

    /// A link is dead. One that never came up is dropped without a word.
    fn kill(&mut self, index: usize, evidence: Evidence) {
        let handle = self.handle(index);
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        let was = link.phase;
        if was == Phase::Dead {
            return;
        }
        link.kill(CloseReason::Fenced);
        let (peer, member) = (link.peer, link.member);
        if was == Phase::Up {
            tracing::info!(peer = %member, %evidence, "udp link dead");
            self.events.push_back(UdpEvent::Dead { link: handle, evidence });
        } else {
            self.slots[index].link = None;
        }
        self.peers[peer].redial();
    }

    /// Every heartbeat: links that do not come up, peers that fall silent. Heartbeats are rare, so that idling costs
    /// little; whoever misses one asks often, so that a lossy network does not look like a death.
    fn on_tick(&mut self, now: Time) {
        let late = now.since(self.tick);
        // On the same instants as the heartbeats of the links, so that one wake-up serves all.
        let interval = self.heartbeat.as_nanos() as u64;
        self.tick = Time::from_nanos((now.as_nanos() / interval + 1) * interval);
        self.probing = false;
        self.peers.iter_mut().for_each(|peer| peer.give_up_handshakes(now));
        for index in 0..self.slots.len() {
            let Some(link) = self.slots[index].link.as_deref_mut() else { continue };
            let silence = now.since(link.connection.heard());
            match link.phase {
                Phase::Opening if silence >= self.give_up => {
                    self.kill(index, Evidence::HeartbeatMissed)
                }
                Phase::Up if silence >= self.heartbeat * 2 => {
                    link.connection.probe();
                    self.probing = true;
                    // While we were not run nobody was filtered.
                    if silence.saturating_sub(late) >= self.heartbeat * 2 {
                        self.strangers.doubt(now);
                    }
                    let peer = link.peer;
                    self.reopen_if_stranded(peer);
                }
                _ => {}
            }
            self.attend(index, now, false);
        }
        if self.probing {
            self.tick = self.tick.min(now + PROBE_EVERY);
        }
    }

    /// Looks for "port unreachable" on the send sockets. That of a rail that is not in use says nothing of the peer.
    pub(crate) fn check_errors(&mut self, now: Time) {
        for index in 0..self.peers.len() {
            for way in 0..self.peers[index].ways.len() {
                let peer = &self.peers[index];
                let refused = peer.ways[way].socket.as_ref().is_some_and(Socket::take_refusal);
                if refused && way == peer.rail {
                    self.on_refused(index, now);
                }
            }
        }
    }

    /// Makes the network as bad as `policy` says, for what arrives here.
    #[cfg(feature = "faults")]
    pub(crate) fn set_faults(&mut self, policy: crate::faults::FaultPolicy) {
        self.faults.set(policy);
    }

    fn on_refused(&mut self, peer: usize, now: Time) {
        if let Some(index) = self.live(peer)
            && let Some(link) = self.slots[index].link.as_deref_mut()
        {
            link.on_unreachable(now);
            link.rails.alarm(now);
        }
    }
}

impl Drop for Udp {
    /// A clean end is told to the peers, so that they need not find it out. A child made by fork has none to tell of.
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        struct Nothing;
        impl Source for Nothing {
            fn log(&self, _: u8, _: u64, _: &mut [u8]) {}
            fn word(&self, _: u8, _: u16) -> (u64, u64) {
                (0, 0)
            }
        }
        for slot in std::mem::take(&mut self.slots) {
            let Some(mut link) = slot.link.filter(|link| !link.is_dead()) else { continue };
            link.kill(CloseReason::Shutdown);
            if let Some(packed) = link.connection.poll_transmit(Time::ZERO, &mut self.out, &Nothing)
            {
                let packet = &mut self.out[..packed.len + TAG_LEN];
                if link.keys.seal(packet).is_ok() {
                    self.send_alone(link.peer, &self.out[..packed.len + TAG_LEN]);
                }
            }
        }
    }
}

/// Highest incarnation that is refused, as an order with "none" below all.
type Refused = Option<Incarnation>;
