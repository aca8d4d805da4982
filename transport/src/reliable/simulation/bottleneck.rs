//! Several senders and one cable: who gets how much of it, how long the queue before it is, and what is dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::delay::TARGET;
use super::super::zeros::Zeros;
use super::super::*;
use crate::time::Time;

/// Bytes a second that the cable carries: 10 Gbit/s.
const RATE: u64 = 1_250_000_000;
const DATAGRAM: usize = 1200;
const LOG: u64 = 4 << 20;
const BULK: u8 = 2;

/// A stream that always has more to send, from `ends[0]` to `ends[1]`.
struct Flow {
    ends: [Connection; 2],
    starts: Time,
}

struct Flying {
    flow: usize,
    to: usize,
    bytes: Vec<u8>,
    congested: bool,
    waited: Duration,
}

/// What there is between the ends.
#[derive(Clone, Copy)]
struct Path {
    /// Travelling time of one way.
    way: Duration,
    /// Bytes that the queue before the cable holds.
    queue: u64,
    /// Bytes in it from which on packets are marked.
    mark: u64,
    /// The receivers are run only that often, once all have seen how short the way is.
    nap: Duration,
    /// Time from one stream's beginning to the next one's.
    apart: Duration,
}

/// Two hosts at one switch that marks nothing.
const SHORT: Path = Path {
    way: Duration::from_micros(20),
    queue: 1 << 20,
    mark: u64::MAX,
    nap: Duration::ZERO,
    apart: Duration::from_millis(5),
};

struct Cable {
    path: Path,
    now: Time,
    flows: Vec<Flow>,
    flying: BTreeMap<(Time, u64), Flying>,
    sequence: u64,
    /// When all that is queued will have passed.
    busy: Time,
    offered: u64,
    dropped: u64,
    /// Sum and number of the lengths that arriving packets found.
    queue: (u64, u64),
}

/// What the streams made of a cable.
#[derive(Debug)]
struct Outcome {
    /// Of what it carries, including headers.
    used: f64,
    /// Jain's index: 1 if all got the same, 1/n if one got all.
    fairness: f64,
    /// Mean bytes in the queue.
    queue: u64,
    /// Of all packets.
    dropped: f64,
}

impl Cable {
    fn new(flows: u32, path: Path) -> Cable {
        let table =
            LaneTable::new([(); 3].map(|()| LaneShape { words: 0, log_bytes: LOG })).unwrap();
        let start = Time::from_millis(1);
        let flow = |index| {
            let starts = start + path.apart * index;
            let end = |remote| {
                let heartbeat = Duration::from_millis(15);
                let settings =
                    Settings { remote, own: table, peer: table, datagram: DATAGRAM, heartbeat };
                Connection::new(settings, starts)
            };
            let mut ends = [end(1), end(0)];
            ends[0].attach(BULK, 0, 0, |_| false);
            ends[1].open(BULK, 0);
            Flow { ends, starts }
        };
        Cable {
            path,
            now: start,
            flows: (0..flows).map(flow).collect(),
            flying: BTreeMap::new(),
            sequence: 0,
            busy: start,
            offered: 0,
            dropped: 0,
            queue: (0, 0),
        }
    }

    fn backlog(&self) -> u64 {
        (self.busy.since(self.now).as_nanos() as u64) * RATE / 1_000_000_000
    }

    /// Data passes the queue; acks have the other direction for themselves.
    fn send(&mut self, flow: usize, from: usize, bytes: Vec<u8>) {
        let (mut at, mut congested) = (self.now, false);
        if from == 0 {
            let (backlog, len) = (self.backlog(), bytes.len() as u64);
            self.offered += 1;
            self.queue = (self.queue.0 + backlog, self.queue.1 + 1);
            if backlog + len > self.path.queue {
                self.dropped += 1;
                return;
            }
            congested = backlog > self.path.mark;
            self.busy = self.busy.max(self.now) + Duration::from_nanos(len * 1_000_000_000 / RATE);
            at = self.busy;
        }
        at += self.path.way;
        let mut waited = Duration::ZERO;
        if from == 0 && !self.path.nap.is_zero() && self.now > Time::from_millis(40) {
            // When the receiver looks next; all it knows then is when it did so before.
            waited = self.path.nap;
            let nap = waited.as_nanos() as u64;
            at = Time::from_nanos(at.as_nanos().next_multiple_of(nap));
        }
        self.sequence += 1;
        let flying = Flying { flow, to: 1 - from, bytes, congested, waited };
        self.flying.insert((at, self.sequence), flying);
    }

    fn run(&mut self, until: Time) {
        while self.now < until {
            let timeouts = self.flows.iter().flat_map(|flow| {
                flow.ends.iter().filter_map(|end| Some(end.next_timeout()?.max(flow.starts)))
            });
            let arrival = self.flying.first_key_value().map(|(&(at, _), _)| at);
            let next = timeouts.chain(arrival).min().expect("heartbeats");
            self.now = next.max(self.now);
            let mut touched = vec![arrival != Some(next); self.flows.len()];
            while let Some(entry) = self.flying.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let Flying { flow, to, bytes, congested, waited } = entry.remove();
                let mut packet = PacketView::parse(&bytes).unwrap();
                (packet.congested, packet.waited) = (congested, waited);
                let end = &mut self.flows[flow].ends[to];
                end.handle_packet(self.now, &packet, &mut Zeros).ok();
                end.release(BULK, end.visible(BULK));
                touched[flow] = true;
            }
            for flow in (0..self.flows.len()).filter(|&flow| touched[flow]) {
                self.turn(flow);
            }
        }
    }

    fn turn(&mut self, flow: usize) {
        if self.flows[flow].starts > self.now {
            return;
        }
        for from in 0..2 {
            let end = &mut self.flows[flow].ends[from];
            end.handle_timeout(self.now);
            if from == 0 {
                end.publish(BULK, end.released(BULK) + LOG);
            }
            let mut buffer = [0; DATAGRAM];
            while let Some(packed) =
                self.flows[flow].ends[from].poll_transmit(self.now, &mut buffer, &Zeros)
            {
                self.send(flow, from, buffer[..packed.len].to_vec());
            }
        }
    }

    /// Lets all streams find their pace, then measures them for a while.
    fn measure(mut self) -> Outcome {
        self.run(Time::from_millis(100));
        let carried = |cable: &Cable| -> Vec<u64> {
            cable.flows.iter().map(|flow| flow.ends[1].visible(BULK)).collect()
        };
        let before = carried(&self);
        (self.offered, self.dropped, self.queue) = (0, 0, (0, 0));
        self.run(Time::from_millis(300));
        let after = carried(&self);
        let got: Vec<f64> =
            before.iter().zip(&after).map(|(before, after)| (after - before) as f64).collect();
        let sum: f64 = got.iter().sum();
        let squares: f64 = got.iter().map(|got| got * got).sum();
        Outcome {
            used: sum / (RATE as f64 * 0.2),
            fairness: sum * sum / (squares * got.len() as f64),
            queue: self.queue.0 / self.queue.1,
            dropped: self.dropped as f64 / self.offered as f64,
        }
    }
}

#[test]
fn streams_share_a_cable_that_marks_without_a_loss_and_with_a_short_queue() {
    for flows in [2, 4, 8] {
        let outcome = Cable::new(flows, Path { mark: 80 << 10, ..SHORT }).measure();
        assert!(outcome.used > 0.9, "{outcome:?}");
        assert!(outcome.fairness > 0.85, "{outcome:?}");
        assert!(outcome.queue < 200 << 10, "{outcome:?}");
        assert!(outcome.dropped == 0.0, "{outcome:?}");
    }
}

#[test]
fn streams_share_a_cable_that_only_delays_without_a_loss_and_with_a_queue_near_the_target() {
    // What the target leaves for the queue.
    let target = (TARGET - SHORT.way * 2).as_nanos() as u64 * RATE / 1_000_000_000;
    for flows in [1, 2, 4, 8] {
        let outcome = Cable::new(flows, SHORT).measure();
        assert!(outcome.used > 0.9, "{outcome:?}");
        assert!(outcome.fairness > 0.9, "{outcome:?}");
        assert!((target / 2..target * 5 / 4).contains(&outcome.queue), "{target} {outcome:?}");
        assert!(outcome.dropped == 0.0, "{outcome:?}");
    }
}

#[test]
fn who_comes_late_to_a_queue_takes_no_more_than_the_others() {
    for flows in [2, 4] {
        let outcome =
            Cable::new(flows, Path { apart: Duration::from_millis(20), ..SHORT }).measure();
        assert!(outcome.fairness > 0.9, "{outcome:?}");
        assert!(outcome.dropped == 0.0, "{outcome:?}");
    }
}

#[test]
fn a_receiver_that_is_rarely_run_slows_nobody_down() {
    for nap in [1000, 2000, 4000] {
        let path = Path { nap: Duration::from_micros(nap), ..SHORT };
        let outcome = Cable::new(1, path).measure();
        // No more than a queue full can come between two looks.
        let most = (path.queue as f64 / (RATE as f64 * path.nap.as_secs_f64())).min(1.0);
        assert!(outcome.used > 0.5 * most, "{most} {outcome:?}");
    }
}

#[test]
fn streams_share_a_cable_whose_queue_is_too_short_to_delay() {
    for flows in [2, 4, 8] {
        let outcome = Cable::new(flows, Path { queue: 128 << 10, ..SHORT }).measure();
        assert!(outcome.used > 0.85, "{outcome:?}");
        assert!(outcome.fairness > 0.8, "{outcome:?}");
        assert!(outcome.dropped < 0.02, "{outcome:?}");
    }
}

#[test]
fn a_long_way_is_no_queue_and_streams_share_it_by_losses() {
    for flows in [1, 2, 4, 8] {
        let path = Path { way: Duration::from_micros(500), ..SHORT };
        let outcome = Cable::new(flows, path).measure();
        assert!(outcome.used > 0.85, "{outcome:?}");
        assert!(outcome.fairness > 0.7, "{outcome:?}");
        assert!(outcome.dropped < 0.02, "{outcome:?}");
    }
}
