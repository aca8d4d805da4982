//! Two connections with their applications and clocks, and a network as bad as is asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::*;
use crate::limits::DATAGRAM_MAX;
use crate::time::Time;

pub(super) const LANES: [LaneShape; 3] = [
    LaneShape { words: 4, log_bytes: 4096 },
    LaneShape { words: 70, log_bytes: 16384 },
    LaneShape { words: 1, log_bytes: 65536 },
];
pub(super) const DATAGRAM: usize = DATAGRAM_MAX - TAG_LEN;

/// Stands in for sealing: what was damaged on its way must not reach the connection.
fn sealed(packet: &[u8]) -> Vec<u8> {
    [packet, &crc32fast::hash(packet).to_le_bytes()].concat()
}

fn opened(sealed: &[u8]) -> Option<PacketView<'_>> {
    let (packet, sum) = sealed.split_last_chunk()?;
    (crc32fast::hash(packet).to_le_bytes() == *sum).then(|| PacketView::parse(packet).ok())?
}

/// SplitMix64.
pub(super) struct Random(pub(super) u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What byte stands at a position: any mix-up of lanes, positions, or lives shows.
fn byte_at(life: u64, lane: u8, position: u64) -> u8 {
    Random(life ^ (u64::from(lane) << 56) ^ position).next() as u8
}

pub(super) struct OwnLane {
    ring: Vec<u8>,
    head: u64,
    words: Vec<(u64, u64)>,
}

pub(super) struct Own {
    life: u64,
    lanes: Vec<OwnLane>,
}

impl Own {
    pub(super) fn new(life: u64, from: u64) -> Self {
        let lane = |shape: &LaneShape| OwnLane {
            ring: vec![0; shape.log_bytes as usize],
            head: from,
            words: vec![(0, 0); shape.words as usize],
        };
        Own { life, lanes: LANES.iter().map(lane).collect() }
    }
    pub(super) fn head(&self, lane: u8) -> u64 {
        self.lanes[usize::from(lane)].head
    }
    /// What stands there.
    pub(super) fn byte(&self, lane: u8, position: u64) -> u8 {
        byte_at(self.life, lane, position)
    }
    pub(super) fn publish(&mut self, lane: u8, len: u64) {
        let own = &mut self.lanes[usize::from(lane)];
        let mask = own.ring.len() as u64 - 1;
        for position in own.head..own.head + len {
            own.ring[(position & mask) as usize] = byte_at(self.life, lane, position);
        }
        own.head += len;
    }
    /// The whole packet.
    pub(super) fn complete<'a>(&self, packed: &Transmit, buffer: &'a mut [u8]) -> &'a [u8] {
        if let Some(Tail { lane, position, len }) = packed.tail {
            self.log(lane, position, &mut buffer[packed.len - len..packed.len]);
        }
        &buffer[..packed.len]
    }
}

impl Source for Own {
    fn log(&self, lane: u8, position: u64, out: &mut [u8]) {
        let own = &self.lanes[usize::from(lane)];
        assert!(position + out.len() as u64 <= own.head, "read beyond what is published");
        let mask = own.ring.len() as u64 - 1;
        for (offset, byte) in out.iter_mut().enumerate() {
            *byte = own.ring[((position + offset as u64) & mask) as usize];
        }
    }
    /// Now and then.
    fn seals_in_place(&self, _: u8, position: u64, _: usize) -> bool {
        position % 3 == 1
    }
    fn word(&self, lane: u8, index: u16) -> (u64, u64) {
        self.lanes[usize::from(lane)].words[usize::from(index)]
    }
}

/// Replica memory, and how far each lane was visible before the packet at hand.
pub(super) struct Rings(pub(super) Vec<Vec<u8>>, pub(super) Vec<u64>);
impl Sink for Rings {
    fn place(&mut self, lane: u8, position: u64, bytes: &[u8]) {
        assert!(position >= self.1[usize::from(lane)], "visible bytes were written again");
        let ring = &mut self.0[usize::from(lane)];
        let mask = ring.len() as u64 - 1;
        for (offset, byte) in bytes.iter().enumerate() {
            ring[((position + offset as u64) & mask) as usize] = *byte;
        }
    }
}

/// What the network does to packets, and the machines to time; chances are per mille.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    /// Of packets to either side.
    pub(super) loss: [u64; 2],
    pub(super) duplicate: u64,
    pub(super) corrupt: u64,
    /// Overtaken by everything that is sent in the next milliseconds.
    pub(super) late: u64,
    /// Microseconds by which travel times differ.
    pub(super) jitter: u64,
    /// A side's clock jumps ahead, or it is not run for a while, or it is handed an instant of the past.
    pub(super) clock: u64,
    /// Larger packets to either side are dropped without a word.
    pub(super) mtu: [usize; 2],
}

impl Default for Trouble {
    fn default() -> Trouble {
        Trouble {
            loss: [0; 2],
            duplicate: 0,
            corrupt: 0,
            late: 0,
            jitter: 0,
            clock: 0,
            mtu: [usize::MAX; 2],
        }
    }
}

pub(super) struct Side {
    pub(super) own: Own,
    pub(super) connection: Connection,
    id: u64,
    rings: Rings,
    seen_words: Vec<Vec<u64>>,
    checked: Vec<u64>,
    /// By how much its clock is ahead of the world's.
    ahead: Duration,
    /// Not run before.
    stalled: Time,
    /// Latest time handed in.
    told: Time,
    /// The latest own instant at which a packet was packed that the peer has taken in.
    reached: Time,
}

impl Side {
    /// Latest time handed in.
    pub(super) fn told(&self) -> Time {
        self.told
    }

    /// A new connection, to a peer that wants to see `remote`.
    fn connect(&mut self, id: u64, remote: u64, now: Time) {
        self.id = id;
        self.told = self.told.max(now + self.ahead);
        self.connection = connection(remote, self.told);
        self.reached = Time::ZERO;
    }
}

struct Flying {
    to: usize,
    /// The sender's instant.
    packed: Time,
    bytes: Vec<u8>,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: Time,
    pub(super) sides: [Side; 2],
    wire: BTreeMap<(Time, u64), Flying>,
    sequence: u64,
    pub(super) trouble: Trouble,
    /// Packets that were sent.
    pub(super) packets: u64,
    /// What applications did: published, set a word, released.
    pub(super) ops: u64,
    lives: u64,
}

pub(super) fn connection(remote: u64, now: Time) -> Connection {
    let table = LaneTable::new(LANES).unwrap();
    let heartbeat = Duration::from_millis(5);
    Connection::new(
        Settings { remote, own: table, peer: table, datagram: DATAGRAM, heartbeat },
        now,
    )
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let now = Time::from_millis(random.below(1000));
        let side = |me: u64| Side {
            own: Own::new(me, 100 * me),
            connection: connection(1 - me + 10, now),
            id: me + 10,
            rings: Rings(
                LANES.iter().map(|shape| vec![0; shape.log_bytes as usize]).collect(),
                vec![0; LANES.len()],
            ),
            seen_words: LANES.iter().map(|shape| vec![0; shape.words as usize]).collect(),
            checked: vec![0; LANES.len()],
            ahead: Duration::ZERO,
            stalled: Time::ZERO,
            told: now,
            reached: Time::ZERO,
        };
        let mut world = World {
            random,
            now,
            sides: [side(0), side(1)],
            wire: BTreeMap::new(),
            sequence: 0,
            trouble: Trouble::default(),
            packets: 0,
            ops: 0,
            lives: 2,
        };
        world.join();
        world
    }

    /// Attaches and opens all lanes, as the layers above would after a handshake.
    fn join(&mut self) {
        for me in 0..2 {
            for lane in 0..LANES.len() {
                let from = self.sides[me].own.lanes[lane].head;
                let Side { own, connection, .. } = &mut self.sides[me];
                let words = &own.lanes[lane].words;
                connection.attach(lane as u8, from, from, |index| words[usize::from(index)].0 != 0);
                let peer = &mut self.sides[1 - me];
                peer.connection.open(lane as u8, from);
                peer.checked[lane] = from;
                peer.seen_words[lane].fill(0);
            }
        }
    }

    /// One side starts anew; the other one keeps its memory and gets a new connection.
    pub(super) fn restart(&mut self, who: usize) {
        self.lives += 1;
        let from = self.random.below(5000);
        self.sides[who].own = Own::new(self.lives, from);
        for me in 0..2 {
            let id = |side| self.lives * 10 + side as u64;
            let (own, remote) = (id(me), id(1 - me));
            self.sides[me].connect(own, remote, self.now);
        }
        self.join();
    }

    /// One side has another address, and the other one knows: what was under way is lost.
    pub(super) fn rebind(&mut self, who: usize) {
        self.wire.retain(|_, flying| flying.to != who);
        self.sides[1 - who].connection.change_path(DATAGRAM);
    }

    /// What a side is told that the time is.
    fn tell(&mut self, me: usize) -> Time {
        let mut time = self.now + self.sides[me].ahead;
        if self.random.chance(self.trouble.clock) {
            time = time.saturating_sub(Duration::from_micros(self.random.below(50_000)));
        }
        let side = &mut self.sides[me];
        side.told = side.told.max(time);
        time
    }

    /// Sometimes a machine sleeps, or a process is not run: afterwards much time has passed at once.
    fn trouble_clocks(&mut self) {
        for me in 0..2 {
            if self.random.chance(self.trouble.clock) {
                self.sides[me].ahead += Duration::from_micros(self.random.below(20_000_000));
            }
            if self.random.chance(self.trouble.clock) {
                self.sides[me].stalled =
                    self.now + Duration::from_micros(self.random.below(40_000));
            }
        }
    }

    /// The application of one side does something at random.
    pub(super) fn act(&mut self, me: usize) {
        let lane = self.random.below(3) as u8;
        let index = usize::from(lane);
        match self.random.below(4) {
            0 => {
                let Side { own, connection, .. } = &mut self.sides[me];
                let room =
                    LANES[index].log_bytes - (own.lanes[index].head - connection.released(lane));
                let len = self.random.below(3000).min(room);
                own.publish(lane, len);
                connection.publish(lane, own.lanes[index].head);
            }
            1 => {
                let word = self.random.below(u64::from(LANES[index].words)) as usize;
                let Side { own, connection, .. } = &mut self.sides[me];
                let head = own.lanes[index].head;
                let old = own.lanes[index].words[word].0;
                own.lanes[index].words[word] = ((head << 16).max(old + 1), head);
                connection.mark_word(lane, word as u16);
            }
            2 => {
                let side = &mut self.sides[me];
                let visible = side.connection.visible(lane);
                let from = side.connection.unreleased_from(lane);
                let upto = from + self.random.below(visible - from + 1);
                side.connection.release(lane, upto);
                side.checked[index] = side.checked[index].max(upto);
            }
            _ => return,
        }
        self.ops += 1;
    }

    pub(super) fn release_all(&mut self) {
        for side in &mut self.sides {
            for lane in 0..LANES.len() as u8 {
                side.connection.release(lane, side.connection.visible(lane));
            }
        }
    }

    fn check(&mut self, me: usize) {
        let peer_life = self.sides[1 - me].own.life;
        let side = &mut self.sides[me];
        for (index, shape) in LANES.iter().enumerate() {
            let lane = index as u8;
            let visible = side.connection.visible(lane);
            let from = side.connection.unreleased_from(lane);
            assert!(visible >= side.checked[index].max(from), "the prefix went back");
            let mask = shape.log_bytes - 1;
            for position in side.checked[index].max(from)..visible {
                let got = side.rings.0[index][(position & mask) as usize];
                assert_eq!(got, byte_at(peer_life, lane, position), "lane {lane} byte {position}");
            }
            side.checked[index] = visible;
            for word in 0..shape.words as usize {
                let value = side.connection.word(lane, word);
                let seen = &mut side.seen_words[index][word];
                assert!(value >= *seen, "word {lane}/{word} went back");
                assert!(value >> 16 <= visible, "word {lane}/{word} overtook its payload");
                *seen = value;
            }
        }
        let (confirmed, heard) = (side.connection.confirmed(), side.connection.heard());
        assert!(confirmed <= side.reached, "confirmed what the peer did not hear");
        assert!(heard <= side.told, "heard in the future");
    }

    /// Everything still unreleased is as it was when it became visible.
    pub(super) fn check_all_unreleased(&self, me: usize) {
        let side = &self.sides[me];
        for (index, shape) in LANES.iter().enumerate() {
            let lane = index as u8;
            for position in side.connection.unreleased_from(lane)..side.connection.visible(lane) {
                let got = side.rings.0[index][(position & (shape.log_bytes - 1)) as usize];
                assert_eq!(
                    got,
                    byte_at(self.sides[1 - me].own.life, lane, position),
                    "changed under a reader"
                );
            }
        }
    }

    fn post(&mut self, to: usize, packed: Time, mut bytes: Vec<u8>) {
        self.packets += 1;
        let trouble = self.trouble;
        if bytes.len() > trouble.mtu[to] || self.random.chance(trouble.loss[to]) {
            return;
        }
        let copies = 1 + u64::from(self.random.chance(trouble.duplicate));
        if self.random.chance(trouble.corrupt) {
            let bit = self.random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let mut delay = 20 + self.random.below(trouble.jitter + 1);
        if self.random.chance(trouble.late) {
            delay += self.random.below(30_000);
        }
        for copy in 0..copies {
            self.sequence += 1;
            let at = self.now + Duration::from_micros(delay + copy * 1_000);
            self.wire.insert((at, self.sequence), Flying { to, packed, bytes: bytes.clone() });
        }
    }

    fn is_stalled(&self, me: usize) -> bool {
        self.sides[me].stalled > self.now
    }

    /// Sends what a side has.
    pub(super) fn drain(&mut self, me: usize) {
        let mut buffer = [0; DATAGRAM];
        for _ in 0..100 {
            if self.is_stalled(me) {
                return;
            }
            let time = self.tell(me);
            let side = &mut self.sides[me];
            if let Some(probe) = side.connection.poll_mtu_probe(time, &mut buffer) {
                let told = side.told;
                self.post(1 - me, told, sealed(&buffer[..probe.len]));
                continue;
            }
            let Some(transmit) = side.connection.poll_transmit(time, &mut buffer, &side.own) else {
                return;
            };
            let packet = sealed(side.own.complete(&transmit, &mut buffer));
            let told = side.told;
            self.post(1 - me, told, packet);
        }
    }

    /// Goes to the next thing that happens, at most `limit` ahead.
    pub(super) fn step(&mut self, limit: Duration) {
        self.trouble_clocks();
        let mut next = self.now + limit;
        if let Some((&(at, _), _)) = self.wire.first_key_value() {
            next = next.min(at);
        }
        for side in &self.sides {
            let at = side.connection.next_timeout().expect("an open link has a heartbeat");
            next = next.min(at.saturating_sub(side.ahead).max(side.stalled));
        }
        self.now = next.max(self.now + Duration::from_micros(1));
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let flying = entry.remove();
            self.deliver(flying);
        }
        for me in 0..2 {
            if !self.is_stalled(me) {
                let time = self.tell(me);
                let Side { connection, told, .. } = &mut self.sides[me];
                connection.handle_timeout(time);
                assert!(connection.next_timeout() > Some(*told), "went back in time");
            }
            self.check(me);
        }
    }

    fn deliver(&mut self, flying: Flying) {
        let to = flying.to;
        if self.is_stalled(to) {
            self.sequence += 1;
            self.wire.insert((self.sides[to].stalled, self.sequence), flying);
            return;
        }
        // What is forged or for another life never reaches the connection, nor does the time.
        let Some(packet) = opened(&flying.bytes) else { return };
        if packet.header.connection != self.sides[to].id {
            return;
        }
        let time = self.tell(to);
        let side = &mut self.sides[to];
        side.rings.1 = (0..LANES.len()).map(|lane| side.connection.visible(lane as u8)).collect();
        if side.connection.handle_packet(time, &packet, &mut side.rings).is_ok() {
            let peer = &mut self.sides[1 - to];
            peer.reached = peer.reached.max(flying.packed);
        }
    }

    pub(super) fn converged(&self) -> bool {
        (0..2).all(|me| {
            let (own, peer) = (&self.sides[me].own, &self.sides[1 - me].connection);
            own.lanes.iter().enumerate().all(|(lane, own)| {
                peer.visible(lane as u8) == own.head
                    && own
                        .words
                        .iter()
                        .enumerate()
                        .all(|(i, word)| peer.word(lane as u8, i) == word.0)
            })
        })
    }
}
