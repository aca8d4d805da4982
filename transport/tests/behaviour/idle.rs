//! What idling costs, however many peers there are: one wake-up a heartbeat, and a packet for each peer.
//!
//! ```sh
//! QUINTET_MEASURE=1 cargo nextest run -p quintet-transport --test behaviour idle:: --no-capture
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quintet_transport::*;

use crate::harness::*;

/// What one node did.
struct Done {
    parks: u64,
    packets: u64,
    processor: Duration,
    span: Duration,
}

/// Processor time of this thread.
fn processor() -> Duration {
    // SAFETY: all zeroes is a valid timespec, and it is writable.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time), 0);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nodes that are linked and have nothing to say, each on its own thread.
fn idle(n: u16, span: Duration) -> Vec<Done> {
    let mut configs = configs(n, PathPolicy::Udp);
    for config in &mut configs {
        config.wait = Wait::Block;
        (config.timing.suspect, config.timing.dead) = (PATIENCE / 2, PATIENCE);
    }
    let over = Arc::new(AtomicBool::new(false));
    let run = |mut node: Node| {
        let over = over.clone();
        std::thread::spawn(move || {
            let sent = |node: &Node| {
                node.poller.links().iter().map(|link| link.counters.packets_sent).sum::<u64>()
            };
            // What the handshakes left to say is said.
            let begin = clock::now() + Duration::from_millis(200);
            let mut before = None;
            while !over.load(Ordering::Relaxed) {
                node.turn();
                let now = clock::now();
                if before.is_none() && now >= begin {
                    before = Some((node.poller.counters().parks, sent(&node), processor(), now));
                }
                node.poller.park(now, Some(now + Duration::from_millis(100)), &mut || false);
            }
            let (parks, packets, cpu, since) = before.expect("it lasts longer than that");
            Done {
                parks: node.poller.counters().parks - parks,
                packets: sent(&node) - packets,
                processor: processor() - cpu,
                span: clock::now().since(since),
            }
        })
    };
    let threads: Vec<_> = connected(configs).into_iter().map(run).collect();
    std::thread::sleep(span);
    over.store(true, Ordering::Relaxed);
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn one_wake_up_a_heartbeat_serves_all_peers() {
    let long = std::env::var_os("QUINTET_MEASURE").is_some();
    let (span, counts) = match long {
        true => (Duration::from_secs(8), &[3, 9, 17, 33][..]),
        false => (Duration::from_millis(700), &[17][..]),
    };
    for &n in counts {
        let nodes = idle(n, span);
        let beats = |done: &Done| {
            done.span.as_nanos() as u64 / Timing::default().heartbeat.as_nanos() as u64 + 1
        };
        for done in &nodes {
            // Besides, probes for the size of datagrams, and a look now and then.
            let (parks, packets) = (2 * beats(done) + 40, 2 * u64::from(n) * (beats(done) + 10));
            assert!(done.parks <= parks, "{} sleeps, {} beats", done.parks, beats(done));
            assert!(done.packets <= packets, "{} packets, {} beats", done.packets, beats(done));
        }
        let share = |of: fn(&Done) -> f64| {
            nodes.iter().map(|done| of(done) / done.span.as_secs_f64()).sum::<f64>() / f64::from(n)
        };
        println!(
            "{n} nodes, each a second: {:.0} sleeps, {:.0} packets sent, {:.2} % of a core",
            share(|done| done.parks as f64),
            share(|done| done.packets as f64),
            100.0 * share(|done| done.processor.as_secs_f64()),
        );
    }
}
