//! Sealing and opening a packet in place, and what a forged one costs. `cargo bench -p quintet-bench --bench aead`.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quintet_transport::Time;
use quintet_transport::reliable::{HEADER_LEN, TAG_LEN, VERSION};
use quintet_transport::secure::{PacketKeys, Secret};

fn packet(number: u64, len: usize) -> Vec<u8> {
    let mut packet = vec![0; HEADER_LEN + len + TAG_LEN];
    packet[0] = VERSION;
    packet[12..20].copy_from_slice(&number.to_le_bytes());
    packet
}

fn pair() -> (PacketKeys, PacketKeys) {
    let (a, b) = (Secret::new([1; 32]), Secret::new([2; 32]));
    (PacketKeys::new(&a, &b, Time::ZERO), PacketKeys::new(&b, &a, Time::ZERO))
}

fn aead(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet");
    for len in [64_usize, 1400, 8100] {
        group.throughput(Throughput::Bytes(len as u64));
        let (mut a, mut b) = pair();
        let (mut out, mut number) = (packet(0, len), 0_u64);
        group.bench_function(BenchmarkId::new("seal", len), |bencher| {
            bencher.iter(|| {
                number += 1;
                // A key seals a bounded number of packets.
                if number % (1 << 20) == 0 {
                    a = pair().0;
                }
                out[12..20].copy_from_slice(&number.to_le_bytes());
                a.seal(&mut out).expect("a fresh number");
            });
        });
        let mut sealed = packet(1, len);
        pair().0.seal(&mut sealed).expect("a fresh key");
        group.bench_function(BenchmarkId::new("open", len), |bencher| {
            let copy = || sealed.clone();
            bencher.iter_batched_ref(
                copy,
                |packet| b.open(packet).expect("sealed"),
                BatchSize::LargeInput,
            );
        });
        let mut forged = sealed.clone();
        forged[HEADER_LEN + len] ^= 1;
        group.bench_function(BenchmarkId::new("refuse a forged one", len), |bencher| {
            let copy = || forged.clone();
            bencher.iter_batched_ref(
                copy,
                |packet| b.open(packet).expect_err("forged"),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, aead);
criterion_main!(benches);
