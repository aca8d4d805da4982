//! Taking in: what happens when a packet of a connection arrives.
//!
//! - A packet is judged as a whole before any of it is applied; a malformed one changes nothing.
//! - A packet is acked only if all of it was taken in. What does not fit now is not acked, and comes again.
//! - A packet is a sign of life ([`Connection::heard`]) when it was taken in, or is newer than all before. A duplicate is
//!   not; nor is, a second time, what was not taken in: it is not remembered, and somebody else may have recorded it.

use std::time::Duration;

use super::Sink;
use super::connection::{ACK_DELAY, CloseReason, Connection, Received, Rejected};
use super::note::Note;
use super::planted::Bug;
use super::recv_lane::Refusal;
use super::timer::Timer;
use super::wire::{AckFrame, FLAG_QUIET, Frame, Frames, PacketView};
use crate::time::Time;

/// Packets that may go unacked before an ack is sent at once.
const ACK_EVERY: u32 = 8;
/// Bytes that may: datagrams may be large, and the sender's window is in bytes.
const ACK_BYTES: usize = 128 << 10;
/// Close packets are repeated at most this often.
const CLOSE_INTERVAL: Duration = Duration::from_millis(1);

impl Connection {
    /// Goes on reading the peer's `lane`, which another path has brought as far as `visible`, with those words.
    pub fn resume(
        &mut self,
        lane: u8,
        (released, visible): (u64, u64),
        words: impl Iterator<Item = u64>,
    ) {
        if !self.closed {
            self.recv[usize::from(lane)].resume(released, visible, words);
        }
    }

    /// Reads the peer's `lane` no more, and returns the words as far as they are visible.
    pub fn shut_lane(&mut self, lane: u8) -> Vec<u64> {
        let lane = &mut self.recv[usize::from(lane)];
        lane.shut();
        lane.words().collect()
    }

    /// A packet arrived for this connection.
    pub fn handle_packet(
        &mut self,
        now: Time,
        packet: &PacketView<'_>,
        sink: &mut impl Sink,
    ) -> Result<Received, Rejected> {
        let now = self.advance(now);
        if self.closed {
            if now.since(self.close_sent) >= CLOSE_INTERVAL && self.close_sent != Time::ZERO {
                self.close_due = Some(self.close_reason);
            }
            return Err(Rejected::Closed);
        }
        let number = packet.header.number;
        if number < self.received_floor || self.received.contains(number) {
            self.counters.duplicates += 1;
            return Err(Rejected::Duplicate);
        }
        if number == u64::MAX || self.check(packet).is_err() {
            self.counters.malformed += 1;
            return Err(Rejected::Malformed);
        }
        self.counters.received += 1;
        self.counters.received_bytes += (packet.payload.len() + super::HEADER_LEN) as u64;
        let mut received = Received::default();
        let taken_in = self.apply(now, packet, sink, &mut received);
        if taken_in || number > self.largest_met {
            self.heard = self.heard.max(now);
            if self.planted.is(Bug::ConfirmsHeard) {
                self.confirmed = self.heard;
            }
        }
        received.newest = number > self.largest_met;
        self.largest_met = self.largest_met.max(number);
        if let Some(reason) = received.closed {
            self.close_reason = reason;
            self.shut();
            return Ok(received);
        }
        if taken_in {
            self.note_received(now, packet);
        }
        Ok(received)
    }

    /// Walks all frames without changing anything.
    fn check(&self, packet: &PacketView<'_>) -> Result<(), Rejected> {
        let wrong = Rejected::Malformed;
        for frame in Frames::new(packet.payload) {
            match frame.map_err(|_| wrong)? {
                Frame::Log { lane, position, bytes } => {
                    let lane = self.recv.get(usize::from(lane)).ok_or(wrong)?;
                    if lane.check_log(position, bytes.len()) == Err(Refusal::Violation) {
                        return Err(wrong);
                    }
                }
                Frame::Words { lane, mut entries } => {
                    let lane = self.recv.get(usize::from(lane)).ok_or(wrong)?;
                    if entries.any(|entry| lane.check_word(&entry) == Err(Refusal::Violation)) {
                        return Err(wrong);
                    }
                }
                Frame::Ack(ack) => {
                    if ack.largest >= self.sent.next_number() {
                        return Err(wrong);
                    }
                }
                Frame::Credit { lane, .. } => {
                    self.send.get(usize::from(lane)).ok_or(wrong)?;
                }
                Frame::Start { lane, .. } => {
                    self.recv.get(usize::from(lane)).ok_or(wrong)?;
                }
                Frame::Ping
                | Frame::Padding
                | Frame::Challenge(_)
                | Frame::Response(_)
                | Frame::Note { .. }
                | Frame::Close { .. } => {}
            }
        }
        Ok(())
    }

    /// Applies a checked packet; `false` if some of it could not be taken in now.
    fn apply(
        &mut self,
        now: Time,
        packet: &PacketView<'_>,
        sink: &mut impl Sink,
        received: &mut Received,
    ) -> bool {
        let mut taken_in = true;
        let mut touched = 0u16;
        for frame in Frames::new(packet.payload).flatten() {
            match frame {
                Frame::Log { lane, position, bytes } => {
                    taken_in &=
                        self.recv[usize::from(lane)].place(lane, position, bytes, sink).is_ok();
                    touched |= 1 << lane;
                }
                Frame::Words { lane, entries } => {
                    for mut entry in entries {
                        if self.planted.is(Bug::WordOvertakesLog) {
                            entry.after = 0;
                        }
                        taken_in &= self.recv[usize::from(lane)].offer_word(&entry).is_ok();
                    }
                    received.news = true;
                }
                Frame::Ack(ack) => self.on_ack(now, &ack, packet.waited),
                Frame::Credit { lane, released } => {
                    let lane = &mut self.send[usize::from(lane)];
                    let before = lane.released();
                    if !lane.on_credit(released) {
                        self.counters.malformed += 1;
                    }
                    received.news |= lane.released() != before;
                }
                Frame::Start { lane, from } => {
                    self.recv[usize::from(lane)].start(from);
                    received.news = true;
                }
                Frame::Ping => self.ack_now = true,
                Frame::Padding => {}
                Frame::Challenge(token) => received.challenge = Some(token),
                Frame::Response(token) => received.response = Some(token),
                Frame::Note { bytes } => self.note_in = Some(Note::new(bytes)),
                Frame::Close { reason } => received.closed = Some(CloseReason::from_wire(reason)),
            }
        }
        for (index, lane) in self.recv.iter_mut().enumerate() {
            if touched & (1 << index) != 0 {
                received.news |= lane.advance();
            }
        }
        taken_in
    }

    /// Remembers the packet's number, and decides when to ack it.
    fn note_received(&mut self, now: Time, packet: &PacketView<'_>) {
        let number = packet.header.number;
        let largest = self.received.last().map_or(0, |(_, end)| end - 1);
        if let Some((_, end)) = self.received.insert_dropping_lowest(number, number + 1) {
            self.received_floor = end;
        }
        if number > largest {
            (self.largest_received_at, self.largest_waited) = (now, packet.waited);
        }
        self.congested = self.congested.wrapping_add(u32::from(packet.congested));
        self.ack_pending = true;
        let eliciting = packet.header.flags & FLAG_QUIET == 0
            && Frames::new(packet.payload).flatten().any(|frame| {
                matches!(
                    frame,
                    Frame::Log { .. } | Frame::Words { .. } | Frame::Start { .. } | Frame::Ping
                )
            });
        if eliciting {
            self.unacked += 1;
            self.unacked_bytes += packet.payload.len();
            let many = self.unacked >= ACK_EVERY || self.unacked_bytes >= ACK_BYTES;
            if many || number != largest + 1 {
                self.ack_now = true;
            } else {
                self.timers.set_earliest(Timer::Ack, now + ACK_DELAY);
            }
        }
    }

    pub(super) fn ack_packed(&mut self) {
        self.ack_pending = false;
        self.ack_now = false;
        self.unacked = 0;
        self.unacked_bytes = 0;
        self.timers.set(Timer::Ack, None);
    }

    fn on_ack(&mut self, now: Time, ack: &AckFrame<'_>, waited: Duration) {
        let resumed = self.resumed;
        let mut acked = 0;
        let Connection { sent, rtt, congestion, mtu, counters, confirmed, probe_attempt, .. } =
            self;
        let (carried, path_from) = (&mut self.carried, self.path_from);
        for (first, last) in ack.ranges() {
            sent.on_ack(first, last, |outcome, _| {
                *confirmed = (*confirmed).max(outcome.sent);
                if !outcome.aside && outcome.number >= path_from {
                    *carried = (*carried).max(outcome.sent);
                }
                counters.late += u64::from(outcome.late && outcome.eliciting);
                if outcome.counted {
                    acked += 1;
                    congestion.on_acked(outcome.bytes, outcome.sent);
                    if mtu.on_acked(outcome.number, outcome.bytes as usize) {
                        congestion.resize(mtu.current());
                    }
                    *probe_attempt = 0;
                }
                if outcome.number == ack.largest && outcome.eliciting && outcome.sent >= resumed {
                    let micros = |us: u16| Duration::from_micros(us.into());
                    let (elapsed, held) = (now.since(outcome.sent), micros(ack.held_us));
                    rtt.sample(elapsed, held.min(4 * ACK_DELAY));
                    let waited = waited + micros(ack.waited_us);
                    let elapsed = elapsed.saturating_sub(held);
                    congestion.on_round_trip(now, outcome.sent, elapsed, waited);
                }
            });
        }
        // Acks overtake each other: an older one knows of fewer.
        let marked = ack.congested.wrapping_sub(self.peer_congested);
        if marked <= u32::MAX / 2 {
            self.peer_congested = ack.congested;
            let marked = marked.min(acked);
            self.counters.congested += u64::from(marked);
            let next = self.sent.next_number();
            self.congestion.on_marks(now, acked, marked, ack.largest, next);
        }
        self.detect_losses(now);
        self.arm_probe();
    }
}
