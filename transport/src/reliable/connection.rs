//! One connection: its lanes, what it knows of the peer, and what happens when a time-out comes. What arrives is taken
//! in by `receive`, what leaves is packed by `pack`.
//!
//! Rules that the rest depends on:
//! - [`Connection::confirmed`] is the moment at which a packet was *packed* that the peer acked: an instant at
//!   or before the peer heard us. Read leases rest on it, so it errs towards the past only.
//! - After [`Connection::close`] nothing becomes visible any more and no data is sent, only the news of the close.

use std::time::Duration;

use super::congestion::Congestion;
use super::handshake::LaneTable;
use super::mtu::PathMtu;
use super::note::Note;
use super::planted::{Bug, Planted};
use super::ranges::RangeSet;
use super::recv_lane::RecvLane;
use super::rtt::Rtt;
use super::send_lane::SendLane;
use super::sent::{Item, SentPackets};
use super::timer::{Timer, Timers};
use crate::time::Time;

/// Longest that an ack waits for data to ride on.
pub(crate) const ACK_DELAY: Duration = Duration::from_micros(500);
/// Ranges of received packet numbers that are remembered.
const RECEIVED_MAX: usize = 64;

/// What a connection is made of.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connection id that the peer wants to see on packets to it.
    pub remote: u64,
    /// Lanes that this side writes.
    pub own: LaneTable,
    /// Lanes that the peer writes.
    pub peer: LaneTable,
    /// Largest packet that the first link takes: a datagram without its tag. What the path carries is found out.
    pub datagram: usize,
    /// A sign of life is sent at least about this often.
    pub heartbeat: Duration,
}

/// Why a connection was closed, as told to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It shuts down.
    Shutdown,
    /// It fenced us or declared us dead.
    Fenced,
    /// Anything else.
    Other(u8),
}

impl CloseReason {
    pub(super) fn from_wire(raw: u8) -> Self {
        match raw {
            0 => CloseReason::Shutdown,
            1 => CloseReason::Fenced,
            other => CloseReason::Other(other),
        }
    }
    pub(crate) fn to_wire(self) -> u8 {
        match self {
            CloseReason::Shutdown => 0,
            CloseReason::Fenced => 1,
            CloseReason::Other(raw) => raw,
        }
    }
}

/// A packet that changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Seen before, or so old that it cannot be told.
    #[error("duplicate or outdated packet")]
    Duplicate,
    /// It breaks the format or the rules of the lanes.
    #[error("malformed packet")]
    Malformed,
    /// The connection is closed.
    #[error("connection is closed")]
    Closed,
}

/// What a packet brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Log bytes, words or credit.
    pub news: bool,
    /// The peer has closed the connection; so is this side now.
    pub closed: Option<CloseReason>,
    /// It was sent later than all that came before.
    pub newest: bool,
    /// A challenge, to be answered with [`Connection::pack_aside`].
    pub challenge: Option<u64>,
    /// The answer to a challenge.
    pub response: Option<u64>,
}

/// A packed datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Its length.
    pub len: usize,
    /// It is a mere sign of life.
    pub quiet: bool,
    /// Its last bytes, if they were not put there.
    pub tail: Option<Tail>,
}

/// Log bytes that a packet ends with and that [`Source`](super::Source) has kept: whoever seals it takes them from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The lane.
    pub lane: u8,
    /// Of the first byte.
    pub position: u64,
    /// How many.
    pub len: usize,
}

/// What is said in a packet of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Asks whoever reads it to say that number.
    Challenge(u64),
    /// Says it.
    Response(u64),
}

/// What a connection has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets packed.
    pub sent: u64,
    /// Bytes packed.
    pub sent_bytes: u64,
    /// Packets taken in.
    pub received: u64,
    /// Bytes taken in.
    pub received_bytes: u64,
    /// Packets declared lost.
    pub lost: u64,
    /// Packets that had been declared lost and were acked after all.
    pub late: u64,
    /// Probe time-outs.
    pub probes: u64,
    /// Duplicate or outdated packets.
    pub duplicates: u64,
    /// Malformed packets.
    pub malformed: u64,
    /// Own packets that met congestion, as the peer says.
    pub congested: u64,
}

/// Protocol state of one link. See the [module](super) documentation.
#[derive(Debug)]
pub struct Connection {
    pub(super) settings: Settings,
    pub(super) send: Box<[SendLane]>,
    pub(super) recv: Box<[RecvLane]>,
    pub(super) sent: SentPackets,
    pub(super) rtt: Rtt,
    pub(super) congestion: Congestion,
    pub(super) mtu: PathMtu,
    pub(super) timers: Timers,
    pub(super) counters: Counters,
    /// Latest time handed in.
    pub(super) now: Time,
    /// When this side was run again after it, or its clock, had stood still.
    pub(super) resumed: Time,
    pub(super) heard: Time,
    pub(super) confirmed: Time,
    /// The same of packets by the path in use, whose numbers begin there.
    pub(super) carried: Time,
    pub(super) path_from: u64,
    /// Packet numbers received, as half-open ranges; all below `received_floor` count as seen.
    pub(super) received: RangeSet,
    pub(super) received_floor: u64,
    /// Packets taken in that had met congestion.
    pub(super) congested: u32,
    /// The same of the peer, in its latest ack.
    pub(super) peer_congested: u32,
    /// Above this a packet cannot be one that came before and was not taken in.
    pub(super) largest_met: u64,
    pub(super) largest_received_at: Time,
    /// How long that packet may have lain unread before.
    pub(super) largest_waited: Duration,
    /// Something was received since the last ack went out.
    pub(super) ack_pending: bool,
    pub(super) unacked: u32,
    pub(super) unacked_bytes: usize,
    pub(super) ack_now: bool,
    pub(super) ping: bool,
    /// To be said, and heard; the latest of each.
    pub(super) note_out: Option<Note>,
    pub(super) note_in: Option<Note>,
    pub(super) heartbeat_due: bool,
    /// Data packets that may exceed the window to probe the path.
    pub(super) probe_packets: u32,
    pub(super) probe_attempt: u32,
    pub(super) last_sent: Time,
    pub(super) last_eliciting: Time,
    /// Counts data packets, to take turns between lanes.
    pub(super) turn: u32,
    pub(super) closed: bool,
    pub(super) close_due: Option<CloseReason>,
    pub(super) close_reason: CloseReason,
    pub(super) close_sent: Time,
    pub(super) planted: Planted,
}

impl Connection {
    /// A connection that starts at `now`, with no lane attached or open.
    pub fn new(settings: Settings, now: Time) -> Self {
        assert!(settings.datagram >= 512, "datagrams of at least 512 bytes");
        assert!(!settings.heartbeat.is_zero(), "a heartbeat has an interval");
        let lanes = |table: &LaneTable| table.as_slice().to_vec();
        let mtu = PathMtu::new(settings.datagram);
        let mut connection = Connection {
            settings,
            send: lanes(&settings.own).into_iter().map(SendLane::new).collect(),
            recv: lanes(&settings.peer).into_iter().map(RecvLane::new).collect(),
            sent: SentPackets::new(),
            rtt: Rtt::default(),
            congestion: Congestion::new(mtu.current()),
            mtu,
            timers: Timers::default(),
            counters: Counters::default(),
            now,
            resumed: now,
            heard: now,
            confirmed: Time::ZERO,
            carried: now,
            path_from: 0,
            received: RangeSet::new(RECEIVED_MAX),
            received_floor: 1,
            congested: 0,
            peer_congested: 0,
            largest_met: 0,
            largest_received_at: now,
            largest_waited: Duration::ZERO,
            ack_pending: false,
            unacked: 0,
            unacked_bytes: 0,
            ack_now: false,
            ping: true,
            note_out: None,
            note_in: None,
            heartbeat_due: false,
            probe_packets: 0,
            probe_attempt: 0,
            last_sent: now,
            last_eliciting: now,
            turn: 0,
            closed: false,
            close_due: None,
            close_reason: CloseReason::Shutdown,
            close_sent: Time::ZERO,
            planted: Planted::default(),
        };
        connection.arm_heartbeat(now);
        connection
    }

    /// Plants a bug, for a simulator to find.
    #[cfg(feature = "canary")]
    pub fn plant(&mut self, bug: Bug) {
        self.planted.plant(bug);
    }

    // ---- getters ----

    /// Connection id on packets to the peer.
    pub fn remote(&self) -> u64 {
        self.settings.remote
    }

    /// Time of the last valid packet.
    pub fn heard(&self) -> Time {
        self.heard
    }

    /// The latest own instant of which the peer has confirmed to have heard from us at or after;
    /// [`Time::ZERO`] if none yet.
    pub fn confirmed(&self) -> Time {
        self.confirmed
    }

    /// When the latest packet was packed by the path in use that the peer has confirmed; at first, when that path was taken.
    pub fn carried(&self) -> Time {
        self.carried
    }

    /// Probe time-outs since anything was acked, while something waits for that.
    pub fn probe_attempt(&self) -> u32 {
        if self.sent.awaits_ack() { self.probe_attempt } else { 0 }
    }

    /// Round-trip estimate.
    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// As if a packet had come back after that time.
    #[cfg(test)]
    pub(crate) fn assume_rtt(&mut self, rtt: Duration) {
        self.rtt.sample(rtt, Duration::ZERO);
    }

    /// Congestion state.
    pub fn congestion(&self) -> &Congestion {
        &self.congestion
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether the connection is closed, by either side.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the peer is among the readers of `lane`.
    pub fn is_attached(&self, lane: u8) -> bool {
        self.send[usize::from(lane)].is_attached()
    }

    /// Whether the peer is among the readers of any lane.
    pub fn is_read(&self) -> bool {
        self.send.iter().any(|lane| lane.is_attached())
    }

    /// How far the peer has released the own log of `lane`.
    pub fn released(&self, lane: u8) -> u64 {
        self.send[usize::from(lane)].released()
    }

    /// End of the visible prefix of the peer's log.
    pub fn visible(&self, lane: u8) -> u64 {
        self.recv[usize::from(lane)].visible()
    }

    /// Where the part of the peer's log begins that was not released yet.
    pub fn unreleased_from(&self, lane: u8) -> u64 {
        self.recv[usize::from(lane)].released()
    }

    /// Where the peer says that we begin to read `lane`, once it has attached us.
    pub fn started(&self, lane: u8) -> Option<u64> {
        self.recv[usize::from(lane)].started()
    }

    /// Visible value of a word of the peer.
    pub fn word(&self, lane: u8, index: usize) -> u64 {
        self.recv[usize::from(lane)].word(index)
    }

    /// When [`Connection::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    // ---- commands: own side ----

    /// Begins to send `lane`: its log from `from` (published up to `head`), and the words that `is_set`.
    pub fn attach(&mut self, lane: u8, from: u64, head: u64, is_set: impl Fn(u16) -> bool) {
        if !self.closed {
            self.send[usize::from(lane)].attach(from, head, is_set);
        }
    }

    /// Stops sending `lane`.
    pub fn detach(&mut self, lane: u8) {
        self.send[usize::from(lane)].detach();
    }

    /// The own log of `lane` is published up to `head`.
    pub fn publish(&mut self, lane: u8, head: u64) {
        self.send[usize::from(lane)].publish(head);
    }

    /// Word `index` of `lane` was recorded anew.
    pub fn mark_word(&mut self, lane: u8, index: u16) {
        self.send[usize::from(lane)].mark_word(index);
    }

    // ---- commands: peer's side ----

    /// Begins to read the peer's `lane` at `from`.
    pub fn open(&mut self, lane: u8, from: u64) {
        if !self.closed {
            self.recv[usize::from(lane)].open(from);
        }
    }

    /// The peer's log below `upto` is not needed any more.
    pub fn release(&mut self, lane: u8, upto: u64) {
        let lane = &mut self.recv[usize::from(lane)];
        lane.release(upto);
        if lane.owes_credit_soon() && !self.closed {
            self.timers.set_earliest(Timer::Ack, self.now + ACK_DELAY);
        }
    }

    // ---- commands: life ----

    /// Asks the peer for an immediate answer, with the next packet.
    pub fn probe(&mut self) {
        self.ping |= !self.closed;
    }

    /// Says that to the peer, with the next packet. It replaces a note that did not leave yet.
    pub fn say(&mut self, note: Note) {
        if !self.closed {
            self.note_out = Some(note);
        }
    }

    /// Whether the peer has said something that was not taken.
    pub fn has_note(&self) -> bool {
        self.note_in.is_some()
    }

    /// What the peer said last, once.
    pub fn take_note(&mut self) -> Option<Note> {
        self.note_in.take()
    }

    /// Packets take another path from now on, whose first link takes `datagram` bytes: nothing is known of it.
    pub fn change_path(&mut self, datagram: usize) {
        self.rtt = Rtt::default();
        self.mtu = PathMtu::new(datagram);
        self.congestion.restart(self.mtu.current(), self.now);
        self.carried = self.now;
        self.path_from = self.sent.next_number();
        self.resumed = self.now;
        self.probe_attempt = 0;
        if !self.closed {
            self.ping = true;
            self.arm_probe();
        }
    }

    /// The first link takes no packets of the size that it took before.
    pub fn shrink_datagram(&mut self) {
        self.mtu.shrink(self.now);
        self.congestion.resize(self.mtu.current());
    }

    /// The first link does not take the packet that was to find out whether the path does.
    pub fn refuse_mtu_probe(&mut self) {
        self.mtu.on_refused();
    }

    /// Largest packet that this side sends data in.
    pub fn datagram_max(&self) -> usize {
        self.mtu.current()
    }

    /// Closes for good: the replicas are frozen, nothing but the news of it is sent.
    pub fn close(&mut self, reason: CloseReason) {
        if !self.closed {
            self.shut();
            self.close_reason = reason;
            self.close_due = Some(reason);
        }
    }

    pub(super) fn shut(&mut self) {
        self.closed = true;
        self.timers.clear();
        self.ping = false;
        self.note_out = None;
        self.ack_now = false;
        self.heartbeat_due = false;
    }

    pub(super) fn close_packed(&mut self, now: Time) {
        self.close_due = None;
        self.close_sent = now;
    }

    // ---- time ----

    /// It is `now`, or as late as it was said to be before. A heartbeat was due meanwhile and nobody asked for it: then how
    /// long a packet took that was under way says nothing of the path.
    pub(super) fn advance(&mut self, now: Time) -> Time {
        if now.since(self.now) > self.settings.heartbeat * 2 {
            self.resumed = now;
        }
        self.now = self.now.max(now);
        self.now
    }

    /// Does what is due; afterwards [`Connection::poll_transmit`] may have something.
    pub fn handle_timeout(&mut self, now: Time) {
        let now = self.advance(now);
        if self.closed {
            return;
        }
        if self.timers.take_due(Timer::Ack, now) {
            self.ack_now = true;
        }
        if self.timers.take_due(Timer::Loss, now) {
            self.detect_losses(now);
            self.arm_probe();
        }
        if self.timers.take_due(Timer::Probe, now) {
            self.on_probe_timeout();
        }
        if self.timers.take_due(Timer::Heartbeat, now) {
            self.heartbeat_due = self.last_sent + self.settings.heartbeat / 2 <= now;
            self.arm_heartbeat(now);
        }
    }

    pub(super) fn detect_losses(&mut self, now: Time) {
        let Connection { sent, rtt, congestion, mtu, counters, send, recv, planted, .. } = self;
        let next = sent.detect_losses(now, rtt, |outcome, items| {
            if outcome.counted {
                if mtu.is_probe(outcome.number) {
                    congestion.on_discarded(outcome.bytes);
                } else {
                    counters.lost += 1;
                    congestion.on_lost(outcome.bytes, outcome.sent, now);
                }
                if mtu.on_lost(outcome.number, outcome.bytes as usize) {
                    congestion.resize(mtu.current());
                }
            }
            if !planted.is(Bug::ForgetsLost) {
                give_back(send, recv, outcome.number, items);
            }
        });
        self.timers.set(Timer::Loss, next);
    }

    /// Heartbeats of all connections fall on multiples of the interval, so that one wake-up serves all.
    fn arm_heartbeat(&mut self, now: Time) {
        let interval = self.settings.heartbeat.as_nanos() as u64;
        let next = (now.as_nanos() / interval + 1) * interval;
        self.timers.set(Timer::Heartbeat, Some(Time::from_nanos(next)));
    }

    /// Nothing was acked for too long: send the oldest content again and ask for an answer (RFC 9002 §6.2).
    fn on_probe_timeout(&mut self) {
        self.counters.probes += 1;
        self.probe_attempt += 1;
        let Connection { sent, send, recv, .. } = self;
        for _ in 0..2 {
            sent.requeue_oldest(|number, items| give_back(send, recv, number, items));
        }
        if self.probe_attempt == 3 {
            self.congestion.on_persistent_congestion();
        }
        self.probe_packets = 2;
        self.ping = true;
        // Armed anew when the probe is packed; should that not happen, in time all the same.
        self.last_eliciting = self.now;
        self.arm_probe();
    }

    pub(super) fn arm_probe(&mut self) {
        let timeout = self.rtt.probe_timeout(ACK_DELAY, self.probe_attempt);
        let at = self.sent.awaits_ack().then(|| self.last_eliciting + timeout);
        self.timers.set(Timer::Probe, at);
    }
}

/// The content of a packet that will not arrive goes back to where it came from.
pub(super) fn give_back(send: &mut [SendLane], recv: &mut [RecvLane], number: u64, items: &[Item]) {
    for item in items {
        match *item {
            Item::Log { lane, position, len } => send[usize::from(lane)].lost_log(position, len),
            Item::Words { lane, block, mask } => {
                send[usize::from(lane)].lost_words(number, block, mask)
            }
            Item::Start { lanes } => {
                for (index, lane) in send.iter_mut().enumerate() {
                    if lanes & (1 << index) != 0 {
                        lane.start_lost();
                    }
                }
            }
            Item::Credit { lanes } => {
                for (index, lane) in recv.iter_mut().enumerate() {
                    if lanes & (1 << index) != 0 {
                        lane.credit_lost();
                    }
                }
            }
        }
    }
}
