//! What a packet costs between its opening and its bytes being visible: its frames are checked, its log bytes copied to
//! their place in the ring, the visible prefix moved. In order, and each batch backwards, where nothing becomes visible
//! before its last packet. `cargo bench -p quintet-bench --bench placement`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quintet_transport::reliable::{
    Connection, LaneShape, LaneTable, PacketView, Settings, Sink, Source,
};
use quintet_transport::{Time, clock};
use std::time::Duration;

const LOG: usize = 1 << 20;
/// Packets under way at a time: no more than a young connection may send.
fn batch(len: usize) -> u64 {
    (32_768 / len as u64).clamp(1, 16)
}

/// Room for a payload of that size and the headers; a datagram has 512 bytes at least.
fn room(len: usize) -> usize {
    (len + 100).max(512)
}

/// The ring that packets are placed into.
struct Ring(Vec<u8>);

impl Sink for Ring {
    fn place(&mut self, _lane: u8, position: u64, bytes: &[u8]) {
        let at = position as usize % LOG;
        let (first, second) = bytes.split_at(bytes.len().min(LOG - at));
        self.0[at..at + first.len()].copy_from_slice(first);
        self.0[..second.len()].copy_from_slice(second);
    }
}

/// What is sent.
struct Sevens;

impl Source for Sevens {
    fn log(&self, _lane: u8, _position: u64, out: &mut [u8]) {
        out.fill(7);
    }

    fn word(&self, _lane: u8, _index: u16) -> (u64, u64) {
        (0, 0)
    }
}

/// Two connections without a network between them.
struct Pair {
    now: Time,
    len: usize,
    sender: Connection,
    receiver: Connection,
    ring: Ring,
    head: u64,
    packets: Vec<Vec<u8>>,
}

impl Pair {
    fn new(len: usize) -> Pair {
        let now = Time::from_millis(1);
        let lanes = LaneTable::new([LaneShape { words: 1, log_bytes: LOG as u64 }]);
        let lanes = lanes.expect("one lane");
        let connection = |remote| {
            let (datagram, heartbeat) = (room(len), Duration::from_secs(1));
            let settings = Settings { remote, own: lanes, peer: lanes, datagram, heartbeat };
            Connection::new(settings, now)
        };
        let (mut sender, mut receiver) = (connection(1), connection(2));
        sender.attach(0, 0, 0, |_| false);
        receiver.open(0, 0);
        let ring = Ring(vec![0; LOG]);
        let mut pair = Pair { now, len, sender, receiver, ring, head: 0, packets: Vec::new() };
        pair.answer();
        pair
    }

    /// Packs that many packets.
    fn pack(&mut self, count: u64) {
        self.packets.clear();
        let mut buffer = vec![0; room(self.len)];
        for _ in 0..count {
            self.head += self.len as u64;
            self.sender.publish(0, self.head);
            while let Some(packed) = self.sender.poll_transmit(self.now, &mut buffer, &Sevens) {
                self.packets.push(buffer[..packed.len].to_vec());
            }
        }
    }

    /// What is measured.
    fn place(&mut self) {
        for packet in &self.packets {
            let view = PacketView::parse(packet).expect("as it was packed");
            self.receiver.handle_packet(self.now, &view, &mut self.ring).expect("news");
        }
    }

    /// The receiver gives back all room, and the sender hears of it.
    fn answer(&mut self) {
        assert_eq!(self.receiver.visible(0), self.head, "all has arrived");
        self.receiver.release(0, self.head);
        self.now += Duration::from_millis(30);
        self.receiver.handle_timeout(self.now);
        let mut buffer = vec![0; room(self.len)];
        while let Some(packed) = self.receiver.poll_transmit(self.now, &mut buffer, &Sevens) {
            let view = PacketView::parse(&buffer[..packed.len]).expect("as it was packed");
            let _ = self.sender.handle_packet(self.now, &view, &mut Ring(Vec::new()));
        }
        self.sender.handle_timeout(self.now);
    }
}

fn placement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placement");
    for len in [64_usize, 1400, 8100] {
        group.throughput(Throughput::Bytes(len as u64));
        for backwards in [false, true] {
            let name = if backwards { "backwards" } else { "in order" };
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                let mut pair = Pair::new(len);
                bencher.iter_custom(|packets| {
                    let mut spent = Duration::ZERO;
                    for begin in (0..packets).step_by(batch(len) as usize) {
                        pair.pack(batch(len).min(packets - begin));
                        if backwards {
                            pair.packets.reverse();
                        }
                        let began = clock::now();
                        pair.place();
                        spent += clock::now().since(began);
                        pair.answer();
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, placement);
criterion_main!(benches);
