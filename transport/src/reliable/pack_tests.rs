//! What goes into a datagram that could hold much.

use std::time::Duration;

use super::super::zeros::Zeros;
use super::super::{Connection, LaneShape, LaneTable, PacketView, Settings, Source};
use super::*;
use crate::limits::DATAGRAM_MAX;

const LARGEST: usize = DATAGRAM_MAX - TAG_LEN;
const LANES: [LaneShape; 3] = [LaneShape { words: 4, log_bytes: 1 << 20 }; 3];
const GROUP: u8 = 1;
const BULK: u8 = 2;

/// One who leaves all that it may where it is.
struct Kept;
impl Source for Kept {
    fn log(&self, _: u8, _: u64, _: &mut [u8]) {}
    fn seals_in_place(&self, _: u8, _: u64, _: usize) -> bool {
        true
    }
    fn word(&self, _: u8, _: u16) -> (u64, u64) {
        (1, 0)
    }
}

fn at(micros: u64) -> Time {
    Time::from_nanos(1_000_000_000 + micros * 1000)
}

/// What one sends that the other takes in, at once; the lengths of the packets.
fn exchange(from: &mut Connection, to: &mut Connection, now: Time) -> Vec<usize> {
    let mut out = vec![0; LARGEST];
    let mut lengths = Vec::new();
    let mut deliver = |len: usize, out: &[u8]| {
        to.handle_packet(now, &PacketView::parse(&out[..len]).unwrap(), &mut Zeros).unwrap();
        lengths.push(len);
    };
    while let Some(probe) = from.poll_mtu_probe(now, &mut out) {
        deliver(probe.len, &out);
    }
    while let Some(packed) = from.poll_transmit(now, &mut out, &Zeros) {
        deliver(packed.len, &out);
    }
    lengths
}

/// Two that know that the path carries the largest datagrams; all lanes of the first are open.
fn pair() -> [Connection; 2] {
    let connection = |remote| {
        let table = LaneTable::new(LANES).unwrap();
        let heartbeat = Duration::from_secs(10);
        let settings = Settings { remote, own: table, peer: table, datagram: LARGEST, heartbeat };
        Connection::new(settings, at(0))
    };
    let [mut a, mut b] = [connection(1), connection(2)];
    for lane in 0..3 {
        a.attach(lane, 0, 0, |_| false);
        b.open(lane, 0);
    }
    for turn in 0..10 {
        exchange(&mut a, &mut b, at(turn));
        exchange(&mut b, &mut a, at(turn));
    }
    assert_eq!(a.datagram_max(), LARGEST);
    [a, b]
}

#[test]
fn a_lane_alone_fills_the_largest_datagram() {
    let [mut a, mut b] = pair();
    a.publish(BULK, 200_000);
    assert_eq!(exchange(&mut a, &mut b, at(20))[..2], [LARGEST; 2]);
}

#[test]
fn what_is_small_waits_for_nothing_large_in_its_datagram() {
    for (lane, word) in [(GROUP, false), (GROUP, true), (BULK, true)] {
        let [mut a, mut b] = pair();
        a.publish(BULK, 200_000);
        if word {
            a.mark_word(lane, 0)
        } else {
            a.publish(lane, 100)
        };
        let lengths = exchange(&mut a, &mut b, at(20));
        assert!(lengths[0] <= SHARED_MAX, "{lane} {word}: {lengths:?}");
        let whole = |lane: u8, len| b.visible(lane) == len;
        assert!(whole(GROUP, 100) || word, "nothing is left out");
        assert_eq!(lengths[1], LARGEST, "afterwards the lane is alone");
    }
}

#[test]
fn many_bytes_are_acked_at_once_however_few_the_packets() {
    let [mut a, mut b] = pair();
    a.publish(BULK, 2 * LARGEST as u64 - 100);
    assert_eq!(exchange(&mut a, &mut b, at(20)).len(), 2);
    assert_eq!(exchange(&mut b, &mut a, at(20)), [], "less than waits for company");
    a.publish(BULK, 3 * LARGEST as u64 - 200);
    assert_eq!(exchange(&mut a, &mut b, at(21)).len(), 1);
    assert_eq!(exchange(&mut b, &mut a, at(21)).len(), 1);
}

#[test]
fn only_what_ends_a_full_packet_is_left_out_of_it() {
    let [mut a, _] = pair();
    let mut out = vec![0; LARGEST];
    a.publish(BULK, LARGEST as u64 * 2);
    let full = a.poll_transmit(at(20), &mut out, &Kept).unwrap();
    let tail = full.tail.expect("it may stay where it is");
    assert_eq!((tail.lane, tail.position, full.len), (BULK, 0, LARGEST));
    assert!(tail.len > LARGEST - 200);
    let next = a.poll_transmit(at(20), &mut out, &Kept).unwrap();
    assert_eq!(next.tail.unwrap().position, tail.len as u64);
    let last = a.poll_transmit(at(20), &mut out, &Kept).unwrap();
    assert_eq!((last.tail, last.len < 200), (None, true), "more could have followed");
}
