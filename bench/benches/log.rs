//! One message's way into the log: reserve, write in place, commit, publish, reclaim. `cargo bench -p quintet-bench`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quintet_transport::{Config, GROUP, Incarnation, Member, NodeId, PathPolicy, Poller};
use std::net::Ipv4Addr;

fn log(criterion: &mut Criterion) {
    let me = Member { node: NodeId(1), incarnation: Incarnation(u64::from(std::process::id())) };
    let mut config =
        Config::new(&format!("bench-{}", std::process::id()), me, (Ipv4Addr::LOCALHOST, 0).into());
    config.path = PathPolicy::Shm;
    let mut poller = Poller::new(config).expect("a poller without peers");
    let writer = poller.log(GROUP);
    let mut group = criterion.benchmark_group("log");
    let mut index = 0;
    for size in [64_usize, 1024, 16_384] {
        let payload = vec![1; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("reserve to publish", size), |bencher| {
            bencher.iter(|| {
                let mut slot = writer.reserve(size).expect("reclaimed at once, so never full");
                slot.copy_from_slice(&payload);
                slot.commit();
                poller.committed(GROUP).expect("just committed");
                poller.publish(GROUP, index);
                index += 1;
                let head = poller.head(GROUP);
                poller.reclaim(GROUP, head);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, log);
criterion_main!(benches);
