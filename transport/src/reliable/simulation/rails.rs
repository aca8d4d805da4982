//! Two connections over several rails, each direction of which is cut and healed at random, but never all of one direction.
//!
//! What must hold: neither side is ever silent to the other for long; everything arrives, nothing twice; packets take a rail
//! that carries soon after the network has come to rest, and the best one of those in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{LANES, Own, Random, Rings};
use super::*;
use crate::reliable::{Aside, LaneTable, Rails, Settings, Signs};

const BEAT: Duration = Duration::from_millis(15);
/// Two heartbeats and a half until somebody asks, and some lost questions.
const SILENCE_MAX: Duration = Duration::from_millis(70);

struct Side {
    connection: Connection,
    rails: Rails,
    own: Own,
    rings: Rings,
    /// Next look that comes with a heartbeat.
    tick: Time,
    changes: u32,
}

struct World {
    random: Random,
    now: Time,
    sides: [Side; 2],
    /// Whether a rail carries what that side sends.
    carries: [Vec<bool>; 2],
    loss: u64,
    wire: BTreeMap<(Time, u64), (usize, Vec<u8>)>,
    sequence: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let now = Time::from_millis(1000);
        let count = 2 + random.below(2) as usize;
        let table = LaneTable::new(LANES).unwrap();
        let side = |me: u64| {
            let settings = Settings {
                remote: 11 - me,
                own: table,
                peer: table,
                datagram: 1400,
                heartbeat: BEAT,
            };
            let rings = LANES.iter().map(|shape| vec![0; shape.log_bytes as usize]).collect();
            let mut connection = Connection::new(settings, now);
            (0..LANES.len() as u8).for_each(|lane| {
                connection.attach(lane, 0, 0, |_| false);
                connection.open(lane, 0);
            });
            Side {
                connection,
                rails: Rails::new(count, 0, BEAT, now),
                own: Own::new(me, 0),
                rings: Rings(rings, vec![0; LANES.len()]),
                tick: now,
                changes: 0,
            }
        };
        World {
            random,
            now,
            sides: [side(0), side(1)],
            carries: [vec![true; count], vec![true; count]],
            loss: 0,
            wire: BTreeMap::new(),
            sequence: 0,
        }
    }

    fn post(&mut self, from: usize, rail: usize, bytes: &[u8]) {
        if !self.carries[from][rail] || self.random.chance(self.loss) {
            return;
        }
        // Rails differ, and packets overtake each other.
        let delay = 50 + 40 * rail as u64 + self.random.below(60);
        self.sequence += 1;
        let at = self.now + Duration::from_micros(delay);
        self.wire.insert((at, self.sequence), (1 - from, bytes.to_vec()));
    }

    fn aside(&mut self, me: usize, rail: usize, frame: Aside) {
        let mut packet = [0; 64];
        let side = &mut self.sides[me];
        let usual = rail == side.rails.current();
        if let Some(packed) = side.connection.pack_aside(self.now, &mut packet, frame, usual) {
            self.post(me, rail, &packet[..packed.len]);
        }
    }

    /// What the driver does.
    fn attend(&mut self, me: usize, asked: bool) {
        let side = &mut self.sides[me];
        let signs = Signs {
            silent: self.now.since(side.connection.heard()),
            unconfirmed: self.now.since(side.connection.carried()),
            probes: side.connection.probe_attempt(),
            round_trip: side.connection.rtt().smoothed(),
            asked,
        };
        side.rails.look(self.now, signs);
        loop {
            let token = self.random.below(u64::MAX);
            let asked = self.sides[me].rails.poll_challenge(self.now, || token);
            let Some((rail, token)) = asked else { break };
            self.aside(me, rail, Aside::Challenge(token));
        }
        let side = &mut self.sides[me];
        if side.rails.poll_change(self.now).is_some() {
            side.connection.change_path(1400);
            side.changes += 1;
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_micros(250);
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (to, bytes) = entry.remove();
            let packet = PacketView::parse(&bytes).unwrap();
            let side = &mut self.sides[to];
            side.rings.1 = (0..LANES.len() as u8).map(|l| side.connection.visible(l)).collect();
            let Ok(received) = side.connection.handle_packet(self.now, &packet, &mut side.rings)
            else {
                continue;
            };
            if let Some(token) = received.response {
                side.rails.on_response(self.now, token);
            }
            if let Some(token) = received.challenge {
                (0..side.rails.count())
                    .for_each(|rail| self.aside(to, rail, Aside::Response(token)));
                self.attend(to, true);
            }
        }
        for me in 0..2 {
            let side = &mut self.sides[me];
            let silent = self.now.since(side.connection.heard());
            assert!(silent < SILENCE_MAX, "side {me} heard nothing for {silent:?}");
            side.connection.handle_timeout(self.now);
            if self.now >= side.tick {
                side.tick = self.now + BEAT;
                self.attend(me, false);
            } else if side.rails.next_timeout().is_some_and(|at| at <= self.now) {
                self.attend(me, false);
            }
            let mut buffer = [0; 1400];
            for _ in 0..20 {
                let side = &mut self.sides[me];
                let rail = side.rails.current();
                let packed = side.connection.poll_transmit(self.now, &mut buffer, &side.own);
                let Some(packed) = packed else { break };
                let packet = side.own.complete(&packed, &mut buffer).to_vec();
                self.post(me, rail, &packet);
            }
        }
    }

    /// One side publishes something, and releases what it has.
    fn act(&mut self, me: usize) {
        let lane = self.random.below(LANES.len() as u64) as u8;
        let Side { connection, own, .. } = &mut self.sides[me];
        let room =
            LANES[usize::from(lane)].log_bytes - (own.head(lane) - connection.released(lane));
        own.publish(lane, self.random.below(2000).min(room));
        connection.publish(lane, own.head(lane));
        self.release(me);
    }

    /// Checks what is visible, and releases it.
    fn release(&mut self, me: usize) {
        let (one, other) = self.sides.split_at_mut(1);
        let (side, peer) =
            if me == 0 { (&mut one[0], &other[0]) } else { (&mut other[0], &one[0]) };
        for lane in 0..LANES.len() as u8 {
            let visible = side.connection.visible(lane);
            for position in side.connection.unreleased_from(lane)..visible {
                let mask = LANES[usize::from(lane)].log_bytes - 1;
                let byte = side.rings.0[usize::from(lane)][(position & mask) as usize];
                assert_eq!(byte, peer.own.byte(lane, position), "lane {lane} byte {position}");
            }
            side.connection.release(lane, visible);
        }
    }

    fn converged(&self) -> bool {
        (0..2).all(|me| {
            let (own, peer) = (&self.sides[me].own, &self.sides[1 - me].connection);
            (0..LANES.len() as u8).all(|lane| peer.visible(lane) == own.head(lane))
        })
    }

    /// Cuts and heals, but leaves each direction a rail.
    fn trouble(&mut self) {
        self.loss = self.random.below(20);
        for direction in 0..2 {
            let count = self.carries[direction].len();
            let spared = self.random.below(count as u64) as usize;
            for rail in 0..count {
                self.carries[direction][rail] = rail == spared || self.random.chance(400);
            }
        }
    }
}

fn run(seed: u64) -> u32 {
    let mut world = World::new(seed);
    let busy = world.random.chance(500);
    // Two who have just met may lose each other.
    (0..400).for_each(|_| world.step());
    for _ in 0..30 {
        world.trouble();
        let steps = 100 + world.random.below(1000);
        for _ in 0..steps {
            if busy || world.random.chance(10) {
                (0..2).for_each(|me| world.act(me));
            }
            world.step();
        }
    }
    // At rest: what carries is found, and everything arrives.
    world.loss = 0;
    for step in 0..4000 {
        world.step();
        (0..2).for_each(|me| world.release(me));
        if step > 800 {
            for me in 0..2 {
                let current = world.sides[me].rails.current();
                assert!(world.carries[me][current], "side {me} is left on a rail that is cut");
            }
        }
    }
    assert!(world.converged());
    // In the end the best is taken; patience has doubled at most to a minute meanwhile.
    for carries in &mut world.carries {
        carries.fill(true);
    }
    for _ in 0..300_000 {
        if world.sides.iter().all(|side| side.rails.current() == 0) {
            break;
        }
        world.step();
    }
    assert!(world.sides.iter().all(|side| side.rails.current() == 0), "the best is not used");
    world.sides.iter().map(|side| side.changes).sum()
}

#[test]
fn a_link_lives_as_long_as_each_direction_has_a_rail() {
    let mut changes = 0;
    for seed in 0..20 {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(count) => changes += count,
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(changes > 200, "{changes}");
}
