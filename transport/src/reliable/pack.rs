//! Packing: everything that is ready goes into as few datagrams as possible.
//!
//! Order within a datagram: acks and credit (small, and the peer waits for them), then the control lane, then
//! the other lanes, words before log. Control goes first always; all but bulk may exceed the congestion window a
//! little.
//! The other lanes share: the last one (bulk) comes after the rest three times out of four, and before them the
//! fourth time, so that a busy group cannot starve a transfer, nor a transfer delay the group by more than one
//! datagram.
//!
//! A full datagram is filled to the last byte where log bytes allow it: equal sizes are what segmentation
//! offload wants.

use super::Source;
use super::congestion::Rank;
use super::connection::{Aside, Connection, Tail, Transmit, give_back};
use super::mtu::BASE;
use super::send_lane::SendLane;
use super::sent::{ITEMS_MAX, Item};
use super::wire::{
    ACK_OVERHEAD, ACK_RANGE, CREDIT_LEN, FLAG_QUIET, Header, LOG_OVERHEAD, NOTE_OVERHEAD,
    START_LEN, TAG_LEN, WORD_ENTRY, WORDS_OVERHEAD, WordEntry, Writer,
};
use crate::time::Time;

/// Log pieces smaller than this are not worth a frame at the end of a datagram.
const LOG_PIECE_MIN: usize = 32;
/// Largest packet while there are both words and log, or several lanes, to send: the whole of a packet must have come and been opened
/// before anything in it is seen, so what is small would wait for what is large.
const SHARED_MAX: usize = 16_384 - TAG_LEN;
/// Of this many data packets one serves the last lane first.
const TURNS: u32 = 4;

/// The references of the packet being packed.
struct Carried {
    items: [Item; ITEMS_MAX],
    count: usize,
    /// What was left out of it.
    tail: Option<Tail>,
}

impl Carried {
    fn push(&mut self, item: Item) {
        self.items[self.count] = item;
        self.count += 1;
    }
    fn has_room(&self) -> bool {
        self.count < ITEMS_MAX
    }
}

impl Connection {
    /// Lost pieces of the own log of `lane` and of its words that were sent again.
    pub fn resent(&self, lane: u8) -> u64 {
        self.send[usize::from(lane)].resent()
    }

    /// Packs the next datagram into `out`; `None` if there is nothing to send now.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        out: &mut [u8],
        source: &impl Source,
    ) -> Option<Transmit> {
        let now = self.advance(now);
        let limit = out.len().min(self.packet_max());
        let out = &mut out[..limit];
        if self.is_closed() {
            return self.pack_close(now, out);
        }
        let lowest = self.data_rank();
        let urgent = self.ack_now
            || self.ping
            || self.note_out.is_some()
            || self.recv.iter().any(|lane| lane.owes_credit_now())
            || self.send.iter().any(|lane| lane.owes_start());
        if !urgent && lowest.is_none() && !self.heartbeat_due {
            return None;
        }
        let quiet = !urgent && lowest.is_none();
        let number = self.sent.next_number();
        let mut writer = Writer::packet(out);
        let items = [Item::Credit { lanes: 0 }; ITEMS_MAX];
        let mut carried = Carried { items, count: 0, tail: None };

        self.pack_acks(now, &mut writer);
        let asks = self.pack_credit(quiet, &mut writer, &mut carried);
        let ping = std::mem::take(&mut self.ping) || (asks && !quiet);
        if ping {
            writer.ping();
        }
        if let Some(note) = self.note_out
            && writer.space() >= NOTE_OVERHEAD + note.bytes().len()
        {
            writer.note(note.bytes());
            self.note_out = None;
        }
        let mut data = self.pack_starts(&mut writer, &mut carried);
        if let Some(lowest) = lowest {
            data |= self.pack_lanes(lowest, number, source, &mut writer, &mut carried);
        }
        self.heartbeat_due = false;
        self.ack_now = false;
        let len = writer.len();
        let flags = if quiet { FLAG_QUIET } else { 0 };
        Header { flags, connection: self.settings.remote, number }.emit(&mut out[..len]);
        self.record(now, len, ping || data, &carried.items[..carried.count]);
        Some(Transmit { len, quiet, tail: carried.tail })
    }

    /// Largest packet to pack now. When probing again and again for an answer, one that every path carries.
    pub fn packet_max(&self) -> usize {
        let max = self.mtu.current();
        if self.probe_packets > 0 && self.probe_attempt > 1 {
            return max.min(BASE);
        }
        let kinds = |lane: &SendLane| u8::from(lane.has_words()) + u8::from(lane.has_log());
        if max > SHARED_MAX && self.send.iter().map(kinds).sum::<u8>() > 1 {
            return SHARED_MAX;
        }
        max
    }

    /// Packs a packet of padding that finds out whether the path carries larger ones than so far, if it is time for that
    /// and it fits. It has to leave as a datagram of its own.
    pub fn poll_mtu_probe(&mut self, now: Time, out: &mut [u8]) -> Option<Transmit> {
        let now = self.advance(now);
        if self.is_closed() || self.confirmed == Time::ZERO || !self.sent.has_room() {
            return None;
        }
        let size = self.mtu.wanted(now)?;
        let out = out.get_mut(..size)?;
        let number = self.sent.next_number();
        let mut writer = Writer::packet(out);
        writer.ping();
        writer.padding();
        Header { flags: 0, connection: self.settings.remote, number }.emit(out);
        self.mtu.on_sent(number, size);
        self.record(now, size, true, &[]);
        Some(Transmit { len: size, quiet: false, tail: None })
    }

    /// Packs a packet of one frame that leaves by itself: to the address in question, or by a certain rail. `usual`: that is
    /// the way which all other packets take. It
    /// may be asked for when nothing else has room: that is when another way is looked for.
    pub fn pack_aside(
        &mut self,
        now: Time,
        out: &mut [u8],
        frame: Aside,
        usual: bool,
    ) -> Option<Transmit> {
        let now = self.advance(now);
        if self.is_closed() {
            return None;
        }
        let number = self.sent.next_number();
        let mut writer = Writer::packet(out);
        match frame {
            Aside::Challenge(token) => writer.challenge(token),
            Aside::Response(token) => writer.response(token),
        }
        let len = writer.len();
        Header { flags: 0, connection: self.settings.remote, number }.emit(&mut out[..len]);
        // It holds no ack, so it takes no heartbeat's place.
        let last_sent = self.last_sent;
        self.record(now, len, false, &[]);
        self.last_sent = last_sent;
        if !usual {
            self.sent.set_aside();
        }
        Some(Transmit { len, quiet: false, tail: None })
    }

    fn pack_close(&mut self, now: Time, out: &mut [u8]) -> Option<Transmit> {
        let reason = self.close_due?;
        self.close_packed(now);
        let mut writer = Writer::packet(out);
        writer.close(reason.to_wire());
        let len = writer.len();
        let number = self.sent.next_number();
        Header { flags: 0, connection: self.settings.remote, number }.emit(&mut out[..len]);
        self.sent.record(now, len, false, &[], |_, _| {});
        self.counters.sent += 1;
        Some(Transmit { len, quiet: false, tail: None })
    }

    fn record(&mut self, now: Time, len: usize, eliciting: bool, items: &[Item]) {
        let Connection { sent, send, recv, congestion, .. } = self;
        sent.record(now, len, eliciting, items, |outcome, items| {
            if outcome.counted {
                congestion.on_discarded(outcome.bytes);
            }
            give_back(send, recv, outcome.number, items);
        });
        self.counters.sent += 1;
        self.counters.sent_bytes += len as u64;
        self.last_sent = now;
        if eliciting {
            self.congestion.on_sent(len as u64);
            self.probe_packets = self.probe_packets.saturating_sub(1);
            self.last_eliciting = now;
            self.arm_probe();
        }
    }

    /// The lowest rank that may send data now; `None` if no lane has any or none may.
    fn data_rank(&mut self) -> Option<Rank> {
        let mut ready = None;
        let lanes = self.send.len();
        for (index, lane) in self.send.iter().enumerate() {
            if lane.has_words() || lane.has_log() {
                ready = ready.max(Some(rank(index, lanes)));
            }
        }
        let ready = ready.filter(|_| self.sent.has_room())?;
        if self.probe_packets > 0 {
            return Some(Rank::Bulk);
        }
        let ranks = [Rank::Bulk, Rank::Group, Rank::Control];
        let allowed = ranks.into_iter().find(|&rank| self.congestion.allows(rank))?;
        (allowed <= ready).then_some(allowed)
    }

    fn pack_acks(&mut self, now: Time, writer: &mut Writer<'_>) {
        if self.received.is_empty() || !(self.ack_pending || self.ack_now || self.heartbeat_due) {
            return;
        }
        debug_assert!(writer.space() >= ACK_OVERHEAD + ACK_RANGE, "acks come first");
        writer.ack(
            now.since(self.largest_received_at),
            self.largest_waited,
            self.congested,
            self.received.iter().rev().map(|(start, end)| (start, end - 1)),
        );
        self.ack_packed();
    }

    /// Credit for all lanes that owe some, or for all open lanes in a heartbeat, which repairs what was lost.
    /// Returns whether the peer must be asked to confirm it.
    fn pack_credit(&mut self, quiet: bool, writer: &mut Writer<'_>, carried: &mut Carried) -> bool {
        let (mut lanes, mut asks) = (0u16, false);
        for (index, lane) in self.recv.iter_mut().enumerate() {
            let wanted = lane.owes_credit() || (quiet && lane.is_open());
            if wanted && writer.space() >= CREDIT_LEN {
                asks |= lane.uncredited().is_none();
                writer.credit(index as u8, lane.credited());
                lanes |= 1 << index;
            }
        }
        if lanes != 0 && !quiet {
            carried.push(Item::Credit { lanes });
        }
        asks
    }

    /// Tells the reader where it begins. Returns whether there was anything to tell.
    fn pack_starts(&mut self, writer: &mut Writer<'_>, carried: &mut Carried) -> bool {
        let mut lanes = 0u16;
        for (index, lane) in self.send.iter_mut().enumerate() {
            if lane.owes_start() && writer.space() >= START_LEN {
                writer.start(index as u8, lane.take_start());
                lanes |= 1 << index;
            }
        }
        if lanes != 0 {
            carried.push(Item::Start { lanes });
        }
        lanes != 0
    }

    fn pack_lanes(
        &mut self,
        lowest: Rank,
        number: u64,
        source: &impl Source,
        writer: &mut Writer<'_>,
        carried: &mut Carried,
    ) -> bool {
        let lanes = self.send.len();
        let before = carried.count;
        self.turn = (self.turn + 1) % TURNS;
        let last_first = self.turn == 0 && lanes > 2 && lowest == Rank::Bulk;
        self.pack_lane(0, number, source, writer, carried);
        if last_first {
            self.pack_lane(lanes - 1, number, source, writer, carried);
        }
        for lane in 1..lanes - usize::from(last_first) {
            if rank(lane, lanes) >= lowest {
                self.pack_lane(lane, number, source, writer, carried);
            }
        }
        carried.count > before
    }

    fn pack_lane(
        &mut self,
        index: usize,
        number: u64,
        source: &impl Source,
        writer: &mut Writer<'_>,
        carried: &mut Carried,
    ) {
        let lane = &mut self.send[index];
        let id = index as u8;
        while lane.has_words() && carried.has_room() {
            let room = writer.space().saturating_sub(WORDS_OVERHEAD) / WORD_ENTRY;
            let Some((block, mask)) = lane.take_words(room, number) else { break };
            writer.words(id, mask.count_ones() as u8);
            let mut rest = mask;
            while rest != 0 {
                let index = block * 64 + rest.trailing_zeros() as u16;
                rest &= rest - 1;
                let (value, after) = source.word(id, index);
                writer.word(WordEntry { index, value, after });
            }
            carried.push(Item::Words { lane: id, block, mask });
        }
        while lane.has_log() && carried.has_room() && writer.space() >= LOG_OVERHEAD + LOG_PIECE_MIN
        {
            let room = (writer.space() - LOG_OVERHEAD).min(usize::from(u16::MAX));
            let Some((position, len)) = lane.take_log(room) else { break };
            let ends = len + LOG_OVERHEAD == writer.space();
            let place = writer.log(id, position, len as u16);
            if ends && source.seals_in_place(id, position, len) {
                carried.tail = Some(Tail { lane: id, position, len });
            } else {
                source.log(id, position, place);
            }
            carried.push(Item::Log { lane: id, position, len: len as u32 });
        }
    }
}

/// How urgent a lane is among `lanes`: the first is control, the last of several is bulk.
fn rank(lane: usize, lanes: usize) -> Rank {
    match lane {
        0 => Rank::Control,
        lane if lane > 1 && lane + 1 == lanes => Rank::Bulk,
        _ => Rank::Group,
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
