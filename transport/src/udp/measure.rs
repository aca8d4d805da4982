//! Figures over loopback, two threads, one driver each. A short run always (that it works is the test); the real one:
//!
//! ```sh
//! QUINTET_MEASURE=1 cargo test --release -p quintet-transport --lib udp::measure -- --nocapture --test-threads 1
//! ```

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::tests::{Node, addresses, config, identity};
use super::*;
use crate::clock;
use crate::lane::GROUP;
use crate::reliable::{COOKIE_LEN, Claim, Handshake, INIT_LEN, NOISE_1_LEN};

fn long() -> bool {
    std::env::var_os("QUINTET_MEASURE").is_some()
}

/// Two nodes with their group lanes attached and open, `log_bytes` each.
fn pair(log_bytes: usize) -> [(Node, UdpLink, u64); 2] {
    let addrs = addresses(2);
    let mut nodes: Vec<_> = (0..2)
        .map(|me| {
            let mut config = config(&addrs, me, 1);
            config.lanes[GROUP.index()].log_bytes = log_bytes;
            Node::with(&config)
        })
        .collect();
    while nodes.iter().enumerate().any(|(me, node)| node.link_to(1 - me).is_none()) {
        nodes.iter_mut().for_each(Node::turn);
    }
    let mut pair = nodes.into_iter().enumerate().map(|(me, mut node)| {
        let link = node.link_to(1 - me).unwrap();
        node.udp.attach(link, GROUP, 0, &node.own);
        node.udp.open(link, GROUP, 0).unwrap();
        (node, link, 0)
    });
    [pair.next().unwrap(), pair.next().unwrap()]
}

fn send(node: &mut Node, writer: &crate::log::LogWriter, len: usize, index: u64) -> bool {
    let Ok(mut reservation) = writer.reserve(len) else { return false };
    reservation[0] = index as u8;
    reservation.commit();
    node.own.publish(GROUP, index);
    true
}

/// Reads all that is visible; returns the number of records.
fn drain((node, link, at): &mut (Node, UdpLink, u64)) -> u64 {
    let mut count = 0;
    while let Some(record) = node.udp.peek(*link, GROUP, *at).unwrap() {
        *at = record.end;
        count += 1;
    }
    if count > 0 {
        node.udp.release(*link, GROUP, *at);
    }
    count
}

fn reclaim((node, link, _): &mut (Node, UdpLink, u64)) {
    let released = node.udp.released(*link, GROUP);
    node.own.lane_mut(GROUP).log.reclaim(released);
}

#[test]
fn ping_pong() {
    let length = Duration::from_millis(if long() { 3000 } else { 30 });
    let [mut a, mut b] = pair(1 << 20);
    let done = Arc::new(AtomicBool::new(false));
    let over = done.clone();
    let echo = std::thread::spawn(move || {
        let writer = b.0.own.lane(GROUP).log.writer();
        let mut seen = 0;
        while !over.load(Ordering::Relaxed) {
            b.0.turn();
            for _ in 0..drain(&mut b) {
                assert!(send(&mut b.0, &writer, 64, seen));
                seen += 1;
            }
            b.0.turn();
            reclaim(&mut b);
        }
        b
    });
    let writer = a.0.own.lane(GROUP).log.writer();
    let mut times = Vec::with_capacity(1 << 20);
    let begin = clock::now();
    while clock::now().since(begin) < length {
        let start = clock::now();
        assert!(send(&mut a.0, &writer, 64, times.len() as u64));
        a.0.turn();
        while drain(&mut a) == 0 {
            a.0.turn();
        }
        reclaim(&mut a);
        times.push(clock::now().since(start));
    }
    done.store(true, Ordering::Relaxed);
    let rounds = times.len();
    let b = echo.join().unwrap();
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    println!(
        "udp ping-pong, 64 B, {rounds} rounds: p50 {:?}, p99 {:?}, p99.9 {:?}",
        at(0.5),
        at(0.99),
        at(0.999)
    );
    println!("  {:?}\n  {:?}", a.0.udp.counters(a.1), b.0.udp.counters(b.1));
}

fn stream(log_bytes: usize, len: usize, bytes: u64) {
    let [mut a, mut b] = pair(log_bytes);
    let records = bytes / len as u64;
    let done = Arc::new(AtomicBool::new(false));
    let over = done.clone();
    let reader = std::thread::spawn(move || {
        let mut seen = 0;
        while !over.load(Ordering::Relaxed) {
            b.0.turn();
            seen += drain(&mut b);
            std::thread::yield_now();
        }
        assert_eq!(seen, records);
        b
    });
    let writer = a.0.own.lane(GROUP).log.writer();
    let start = clock::now();
    let mut sent = 0;
    while sent < records || a.0.udp.released(a.1, GROUP) < a.0.own.lane(GROUP).log.head() {
        for _ in 0..64 {
            if sent < records && send(&mut a.0, &writer, len, sent) {
                sent += 1;
            }
        }
        a.0.turn();
        reclaim(&mut a);
        std::thread::yield_now();
    }
    let seconds = clock::now().since(start).as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let b = reader.join().unwrap();
    println!(
        "udp stream, {log_bytes} B log, {len} B records: {:.0} MB/s, {:.2} M records/s",
        bytes as f64 / seconds / 1e6,
        records as f64 / seconds / 1e6
    );
    let (out, back) = (a.0.udp.counters(a.1), b.0.udp.counters(b.1));
    println!(
        "  sent {} packets ({} lost), back {} packets",
        out.packets_sent, out.retransmits, back.packets_sent
    );
}

#[test]
fn streams() {
    let scale = if long() { 100 } else { 1 };
    stream(1 << 20, 64, scale << 20);
    stream(1 << 20, 1024, scale << 21);
    stream(1 << 20, 65_536, scale << 23);
    stream(8 << 20, 65_536, scale << 23);
}

#[test]
fn idle() {
    let length = Duration::from_millis(if long() { 10_000 } else { 50 });
    let addrs = addresses(3);
    let mut nodes: Vec<_> = (0..3).map(|me| Node::start(&addrs, me, 1)).collect();
    while (0..3).any(|a| (0..3).any(|b| a != b && nodes[a].link_to(b).is_none())) {
        nodes.iter_mut().for_each(Node::turn);
    }
    let threads: Vec<_> = nodes
        .into_iter()
        .map(|mut node| {
            std::thread::spawn(move || {
                let start = clock::now();
                let used = cpu_time();
                let mut wakes = 0;
                while clock::now().since(start) < length {
                    node.turn();
                    sleep(&node, clock::now());
                    wakes += 1;
                }
                (cpu_time() - used, wakes, clock::now().since(start), node)
            })
        })
        .collect();
    // All nodes live until all have been measured.
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for (used, wakes, wall, node) in &results {
        assert_eq!(node.events.len(), 2, "links stay up");
        let percent = used.as_secs_f64() / wall.as_secs_f64() * 100.0;
        println!("udp idle, 2 peers: {percent:.2} % of a core, {wakes} wake-ups in {wall:?}");
    }
}

/// Sleeps until a packet for the main socket or a timer, as a poller would.
fn sleep(node: &Node, now: Time) {
    let wait = node.udp.next_timeout().map_or(Duration::from_millis(100), |at| at.since(now));
    let spec = libc::timespec { tv_sec: 0, tv_nsec: wait.as_nanos().min(999_999_999) as i64 };
    let mut fd = libc::pollfd {
        fd: node.udp.fds().next().unwrap().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd and a timespec that live through the call; no signal mask.
    unsafe { libc::ppoll(&raw mut fd, 1, &raw const spec, std::ptr::null()) };
}

fn cpu_time() -> Duration {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec that lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut spec) };
    Duration::new(spec.tv_sec as u64, spec.tv_nsec as u32)
}

/// What one forged packet costs a node that has a link, by kind.
#[test]
fn forged_packets() {
    let count: u32 = if long() { 1_000_000 } else { 1_000 };
    let [(mut node, link, _), _peer] = pair(1 << 20);
    let cluster = identity("test", 0).cluster().tag();
    let claim = Claim { cluster, from: Member::new(2, 1), to: NodeId(1) };
    let (cookie, noise) = ([7; COOKIE_LEN], [9; NOISE_1_LEN]);
    let ours = node.udp.get(link).unwrap().id;
    let data = |connection, len| {
        let mut packet = vec![0; len];
        Header { flags: 0, connection, number: 5 }.emit(&mut packet);
        packet
    };
    let mut init = vec![0; INIT_LEN];
    Handshake::Init { claim, cookie, noise }.emit(77, &mut init);
    let mut retry = vec![0; INIT_LEN];
    let len = Handshake::Retry { cookie }.emit(77, &mut retry);
    retry.truncate(len);
    let kinds = [
        ("of no link", data(77, 100)),
        ("of our link, 100 B", data(ours, 100)),
        ("of our link, 8 KiB", data(ours, 8192)),
        ("a hello in the peer's name", init),
        ("a cookie that nobody asked for", retry),
    ];
    let heard = node.udp.heard(link);
    for (what, packet) in kinds {
        let start = clock::now();
        for _ in 0..count {
            let mut packet = packet.clone();
            assert!(!node.udp.on_datagram(clock::now(), &mut packet, &node.own));
        }
        println!("a forged packet {what}: {:?}", clock::now().since(start) / count);
    }
    assert_eq!((node.udp.heard(link), node.link_to(1)), (heard, Some(link)));
}
