//! What was sent and is not yet accounted for, by packet number.
//!
//! No packet is kept: only what it carried, as references into memory that cannot change meanwhile (log
//! ranges are immutable until released; words have one recorded value). When a packet is lost its references
//! go back to the lanes, which send them again under a new number.
//!
//! Loss detection is RACK's idea (RFC 8985, RFC 9002 §6): a packet is lost when one sent *after* it was acked
//! and either a few packets or a fraction of a round trip lie between. If an ack comes in for a packet that
//! was declared lost, the network reorders: both thresholds grow.
//!
//! The table is a ring indexed by packet number. Its size bounds memory and work: whatever an ack claims,
//! only slots between `base` and `next` are looked at, and each leaves that interval once.

use std::time::Duration;

use super::rtt::Rtt;
use crate::time::Time;

/// References one packet may carry.
pub(crate) const ITEMS_MAX: usize = 8;
/// Slots of the ring.
const SLOTS: usize = 2048;
/// Slots kept free for packets that must go out even when the peer acks nothing.
const RESERVE: u64 = 64;
/// How long, in packets, a lost one is remembered to notice that it was only late.
const LATE_WINDOW: u64 = 256;
const PACKET_THRESHOLD: u64 = 3;
const PACKET_THRESHOLD_MAX: u64 = 64;
const STRETCH_MAX: u32 = 32;

/// What a packet carried, as a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A range of a lane's log.
    Log { lane: u8, position: u64, len: u32 },
    /// Words `64 * block + bit` of a lane, for every bit in `mask`.
    Words { lane: u8, block: u16, mask: u64 },
    /// The released positions of every lane whose bit is set.
    Credit { lanes: u16 },
    /// The starting positions of every lane whose bit is set.
    Start { lanes: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InFlight,
    /// Its references were taken back, it is not yet acked nor lost.
    Requeued,
    Lost,
    Acked,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    sent: Time,
    bytes: u32,
    state: State,
    eliciting: bool,
    aside: bool,
    count: u8,
    items: [Item; ITEMS_MAX],
}

const EMPTY: Packet = Packet {
    sent: Time::ZERO,
    bytes: 0,
    state: State::Acked,
    eliciting: false,
    aside: false,
    count: 0,
    items: [Item::Credit { lanes: 0 }; ITEMS_MAX],
};

/// What happened to one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) number: u64,
    pub(crate) sent: Time,
    pub(crate) bytes: u64,
    /// Whether it counted as in flight until now.
    pub(crate) counted: bool,
    /// Whether it had been declared lost before: it was only late.
    pub(crate) late: bool,
    pub(crate) eliciting: bool,
    /// Whether it took another way than its neighbours.
    pub(crate) aside: bool,
}

/// The ring of sent packets of one connection.
#[derive(Debug)]
pub(crate) struct SentPackets {
    slots: Box<[Packet]>,
    /// Everything below is settled.
    base: u64,
    next: u64,
    largest_acked: Option<u64>,
    /// Packets in flight that ask for an ack.
    eliciting: usize,
    threshold: u64,
    stretch: u32,
}

impl SentPackets {
    pub(crate) fn new() -> Self {
        SentPackets {
            slots: vec![EMPTY; SLOTS].into_boxed_slice(),
            base: 1,
            next: 1,
            largest_acked: None,
            eliciting: 0,
            threshold: PACKET_THRESHOLD,
            stretch: 0,
        }
    }

    fn slot(&mut self, number: u64) -> &mut Packet {
        &mut self.slots[(number % SLOTS as u64) as usize]
    }

    /// Number that the next packet will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Whether packets are in flight that the peer must ack.
    pub(crate) fn awaits_ack(&self) -> bool {
        self.eliciting > 0
    }

    /// Whether another data packet may be recorded.
    pub(crate) fn has_room(&self) -> bool {
        self.next - self.base < SLOTS as u64 - RESERVE
    }

    /// Records a packet. If the ring is full the oldest entry goes: its references are handed to `requeue`.
    pub(crate) fn record(
        &mut self,
        sent: Time,
        bytes: usize,
        eliciting: bool,
        items: &[Item],
        mut evicted: impl FnMut(Outcome, &[Item]),
    ) {
        if self.next - self.base == SLOTS as u64 {
            let number = self.base;
            let (outcome, items, count) = self.settle(number, State::Lost);
            if outcome.counted || count > 0 {
                evicted(outcome, &items[..count]);
            }
            self.base += 1;
        }
        let mut packet = EMPTY;
        packet.sent = sent;
        packet.bytes = bytes as u32;
        packet.eliciting = eliciting;
        packet.state = State::InFlight;
        packet.count = items.len() as u8;
        packet.items[..items.len()].copy_from_slice(items);
        let number = self.next;
        *self.slot(number) = packet;
        self.next += 1;
        self.eliciting += usize::from(eliciting);
    }

    /// The packet that was recorded last takes another way than its neighbours.
    pub(crate) fn set_aside(&mut self) {
        let number = self.next - 1;
        self.slot(number).aside = true;
    }

    /// Moves a packet to a final state and returns what it was.
    fn settle(&mut self, number: u64, to: State) -> (Outcome, [Item; ITEMS_MAX], usize) {
        let packet = self.slot(number);
        let before = packet.state;
        let unsettled = matches!(before, State::InFlight | State::Requeued);
        let outcome = Outcome {
            number,
            sent: packet.sent,
            bytes: u64::from(packet.bytes),
            counted: packet.eliciting && unsettled,
            late: before == State::Lost,
            eliciting: packet.eliciting,
            aside: packet.aside,
        };
        let count = if before == State::InFlight { usize::from(packet.count) } else { 0 };
        packet.state = to;
        let items = packet.items;
        if outcome.counted {
            self.eliciting -= 1;
        }
        (outcome, items, count)
    }

    /// The peer acks `first..=last`. Calls `acked` for each packet that was not acked before, newest last.
    /// `false`: it acks what was never sent.
    pub(crate) fn on_ack(
        &mut self,
        first: u64,
        last: u64,
        mut acked: impl FnMut(Outcome, &[Item]),
    ) -> bool {
        if last >= self.next {
            return false;
        }
        for number in first.max(self.base)..=last {
            if self.slot(number).state == State::Acked {
                continue;
            }
            let (outcome, items, count) = self.settle(number, State::Acked);
            // Of what takes the usual way, one that went another says nothing.
            if !outcome.aside {
                self.largest_acked = self.largest_acked.max(Some(number));
            }
            if outcome.late && outcome.eliciting {
                self.threshold = (self.threshold * 2).min(PACKET_THRESHOLD_MAX);
                self.stretch = (self.stretch + 4).min(STRETCH_MAX);
            }
            acked(outcome, &items[..count]);
        }
        true
    }

    /// Declares lost what the thresholds say; returns when the next packet would be lost by time.
    pub(crate) fn detect_losses(
        &mut self,
        now: Time,
        rtt: &Rtt,
        mut lost: impl FnMut(Outcome, &[Item]),
    ) -> Option<Time> {
        let largest = self.largest_acked?;
        let delay = rtt.loss_delay(self.stretch);
        let mut next_loss: Option<Time> = None;
        for number in self.base..largest {
            let packet = *self.slot(number);
            if !matches!(packet.state, State::InFlight | State::Requeued) {
                continue;
            }
            if number + self.threshold <= largest || packet.sent + delay <= now {
                let (outcome, items, count) = self.settle(number, State::Lost);
                lost(outcome, &items[..count]);
            } else if packet.eliciting {
                let at = packet.sent + delay;
                next_loss = Some(next_loss.map_or(at, |old| old.min(at)));
            }
        }
        self.advance_base(largest, now, delay);
        next_loss
    }

    fn advance_base(&mut self, largest: u64, now: Time, delay: Duration) {
        while self.base < self.next {
            let packet = *self.slot(self.base);
            let settled = match packet.state {
                State::Acked => true,
                State::Lost => self.base + LATE_WINDOW < largest || packet.sent + delay * 4 < now,
                State::InFlight | State::Requeued => false,
            };
            if !settled {
                break;
            }
            self.base += 1;
        }
    }

    /// Takes back the references of the oldest packet that still has some, for a tail-loss probe.
    pub(crate) fn requeue_oldest(&mut self, mut requeue: impl FnMut(u64, &[Item])) -> bool {
        for number in self.base..self.next {
            let packet = self.slot(number);
            if packet.state == State::InFlight && packet.eliciting && packet.count > 0 {
                packet.state = State::Requeued;
                let (items, count) = (packet.items, usize::from(packet.count));
                requeue(number, &items[..count]);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Time {
        Time::from_micros(us)
    }

    fn log(position: u64) -> [Item; 1] {
        [Item::Log { lane: 0, position, len: 10 }]
    }

    fn send(sent: &mut SentPackets, us: u64, position: u64) {
        sent.record(at(us), 100, true, &log(position), |_, _| panic!("nothing to evict"));
    }

    fn losses(sent: &mut SentPackets, us: u64) -> Vec<u64> {
        let mut lost = Vec::new();
        sent.detect_losses(at(us), &Rtt::default(), |outcome, _| lost.push(outcome.number));
        lost
    }

    #[test]
    fn three_newer_acks_make_a_loss() {
        let mut sent = SentPackets::new();
        (0..4).for_each(|i| send(&mut sent, i, i));
        assert!(sent.on_ack(2, 3, |_, _| {}));
        assert_eq!(losses(&mut sent, 10), []);
        assert!(sent.on_ack(4, 4, |_, _| {}));
        assert_eq!(losses(&mut sent, 10), [1]);
        assert!(!sent.awaits_ack());
    }

    #[test]
    fn time_makes_a_loss_too_and_an_older_packet_alone_does_not() {
        let mut sent = SentPackets::new();
        send(&mut sent, 0, 0);
        send(&mut sent, 1, 1);
        assert!(sent.on_ack(1, 1, |_, _| {}));
        assert_eq!(losses(&mut sent, 1_000_000), [], "nothing newer was acked");
        send(&mut sent, 2, 2);
        assert!(sent.on_ack(3, 3, |_, _| {}));
        assert_eq!(losses(&mut sent, 1_000_000), [2]);
    }

    #[test]
    fn an_ack_after_the_loss_makes_detection_patient() {
        let mut sent = SentPackets::new();
        (0..5).for_each(|i| send(&mut sent, i, i));
        assert!(sent.on_ack(5, 5, |_, _| {}));
        assert_eq!(losses(&mut sent, 10), [1, 2]);
        let mut late = 0;
        assert!(sent.on_ack(1, 2, |outcome, items| {
            assert!(items.is_empty(), "its content was taken back already");
            late += usize::from(outcome.late);
        }));
        assert_eq!(late, 2);
        (0..6).for_each(|i| send(&mut sent, 10 + i, i));
        assert!(sent.on_ack(11, 11, |_, _| {}));
        assert_eq!(losses(&mut sent, 20), [], "the thresholds have grown");
    }

    #[test]
    fn acks_of_the_future_are_refused() {
        let mut sent = SentPackets::new();
        send(&mut sent, 0, 0);
        assert!(!sent.on_ack(1, 2, |_, _| panic!("must not be believed")));
        assert!(sent.awaits_ack());
    }

    #[test]
    fn what_took_another_way_proves_no_loss() {
        let mut sent = SentPackets::new();
        (0..6).for_each(|i| send(&mut sent, i, i));
        sent.record(at(6), 100, false, &[], |_, _| panic!("nothing to evict"));
        sent.set_aside();
        assert!(sent.on_ack(7, 7, |outcome, _| assert!(outcome.aside)));
        assert_eq!(losses(&mut sent, 10), []);
        assert!(sent.on_ack(6, 6, |outcome, _| assert!(!outcome.aside)));
        assert_eq!(losses(&mut sent, 10), [1, 2, 3]);
    }

    #[test]
    fn a_probe_takes_the_oldest_content_once() {
        let mut sent = SentPackets::new();
        (0..2).for_each(|i| send(&mut sent, i, i));
        let mut taken = Vec::new();
        while sent.requeue_oldest(|number, items| taken.push((number, items[0]))) {}
        assert_eq!(taken, [(1, log(0)[0]), (2, log(1)[0])]);
        assert!(sent.awaits_ack(), "they may still be acked");
    }

    #[test]
    fn a_peer_that_never_acks_costs_no_memory() {
        let mut sent = SentPackets::new();
        let mut evicted = 0;
        for i in 0..SLOTS as u64 * 3 {
            sent.record(at(i), 100, true, &log(i), |_, items| evicted += items.len());
            assert_eq!(sent.has_room(), i + 1 < SLOTS as u64 - RESERVE);
        }
        assert_eq!(evicted, SLOTS * 2);
        assert_eq!(sent.eliciting, SLOTS);
    }
}
