//! The native client protocol's codec: a call as the proxy writes it and the manager reads it.
//! `cargo bench -p quintet-bench`.

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quintet_client::wire::{Body, Call, Frame, Text, decode, encode};
use std::hint::black_box;

/// Bytes of gRPC's prefix: a flag and the length.
const PREFIX: usize = 5;

fn call(size: usize) -> Frame {
    let mut framed = vec![0; PREFIX + size];
    framed[1..PREFIX].copy_from_slice(&(size as u32).to_be_bytes());
    Frame::Call(Call {
        seq: 7,
        first_incomplete: 5,
        deadline_ms: 1000,
        min_position: 1 << 41,
        path: Text::from("/bank.Bank/Transfer"),
        body: Body::from_framed(Bytes::from(framed)).expect("a well-formed message"),
    })
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("client frame");
    for size in [64_usize, 16_384] {
        let frame = call(size);
        group.throughput(Throughput::Elements(1));
        let mut out = BytesMut::with_capacity(64 << 10);
        group.bench_function(BenchmarkId::new("encode call", size), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(encode(&frame, &mut out).expect("within the limits"))
            });
        });
        out.clear();
        if let Some(tail) = encode(&frame, &mut out).expect("within the limits") {
            out.extend_from_slice(&tail);
        }
        let whole = out.split().freeze().slice(4..);
        group.bench_function(BenchmarkId::new("decode call", size), |bencher| {
            bencher.iter(|| black_box(decode(whole.clone()).expect("just encoded")));
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
