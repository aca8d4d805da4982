//! Latency and throughput of a group of three, each member a process of its own.
//!
//! ```text
//! cargo run --release -p quintet-vsync --example measure -- shm
//! cargo run --release -p quintet-vsync --example measure -- udp
//! ```
//! The first member measures: from the commit of a message to its own stable delivery.

use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use quintet_transport::Authority;
use quintet_vsync::{
    Config, Deliveries, Event, Group, Node, NodeId, PathPolicy, PeerConfig, SendError,
};

const NODES: usize = 3;
const LONE: usize = 20_000;
const LONE_THINK: usize = 5_000;
const STREAM: usize = 1_000_000;

const DATA: u8 = 0;
const EVERYBODY_SEND: u8 = 1;
const DONE: u8 = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "shm".into());
    let policy = match path.as_str() {
        "shm" => PathPolicy::Shm,
        "udp" => PathPolicy::Udp,
        other => return Err(format!("{other}: shm or udp?").into()),
    };
    let (index, ports) = match (args.next(), args.next()) {
        (Some(index), Some(ports)) => (index.parse()?, ports),
        _ => (0, free_ports()?),
    };
    let mut children: Vec<Child> = Vec::new();
    if index == 0 {
        for i in 1..NODES {
            children.push(
                Command::new(std::env::current_exe()?)
                    .args([&path, &i.to_string(), &ports])
                    .spawn()?,
            );
        }
    }
    let addresses: Vec<std::net::SocketAddr> =
        ports.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let peer = |i: usize| PeerConfig { node: NodeId(i as u16 + 1), addr: addresses[i] };
    let peers = (0..NODES).filter(|i| *i != index).map(peer).collect();
    let name = format!("measure-{}", addresses[0].port());
    let authority = Authority::new(&name, [1; 32])?;
    let mut config = Config::new(name, peer(index).node, addresses[index], peers);
    config.path = policy;
    config.identity = Some(Arc::new(authority.admit(peer(index).node, [index as u8; 32])));
    let (_node, group, mut deliveries) = Node::start(config)?;
    while view_size(&mut deliveries) != NODES {}
    if index == 0 {
        lead(&group, &mut deliveries, &path);
    } else {
        follow(&group, &mut deliveries);
    }
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

fn free_ports() -> std::io::Result<String> {
    let sockets = (0..NODES)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>()?;
    let all: Vec<String> =
        sockets.iter().map(|s| s.local_addr().map(|a| a.to_string())).collect::<Result<_, _>>()?;
    Ok(all.join(","))
}

fn view_size(deliveries: &mut Deliveries) -> usize {
    match deliveries.next(Duration::from_secs(30)) {
        Some(Event::View(change)) => change.view.members.len(),
        _ => 0,
    }
}

fn send(group: &Group, kind: u8, len: usize) {
    loop {
        match group.reserve(len) {
            Ok(mut slot) => {
                slot[0] = kind;
                slot.commit();
                return;
            }
            Err(SendError::Full) => thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
}

/// Waits for `n` data messages; true if the end came instead.
fn receive(deliveries: &mut Deliveries, n: usize, mut on_start: impl FnMut()) -> bool {
    let mut seen = 0;
    while seen < n {
        match deliveries.next(Duration::from_secs(30)) {
            Some(Event::Message(m)) => match m.bytes[0] {
                EVERYBODY_SEND => on_start(),
                DONE => return true,
                _ => seen += 1,
            },
            Some(Event::View(_)) => {}
            other => panic!("the group did not hold: {other:?}"),
        }
    }
    false
}

fn lead(group: &Group, deliveries: &mut Deliveries, path: &str) {
    println!(
        "{NODES} members over {path}, 100-byte messages, stable total order, delivery at the sender"
    );
    latency("lone message, back to back   ", group, deliveries, LONE, Duration::ZERO);
    latency(
        "lone message, 200 µs between ",
        group,
        deliveries,
        LONE_THINK,
        Duration::from_micros(200),
    );
    for len in [100, 1024, 65_536] {
        let n = (STREAM * 100 / len).clamp(5_000, STREAM);
        throughput(&format!("one sender, {len} B"), n, len, || {
            thread::scope(|s| {
                s.spawn(|| (0..n).for_each(|_| send(group, DATA, len)));
                receive(deliveries, n, || {});
            });
        });
    }
    throughput("all send, 100 B", STREAM, 100, || {
        send(group, EVERYBODY_SEND, 100);
        thread::scope(|s| {
            s.spawn(|| (0..STREAM / NODES).for_each(|_| send(group, DATA, 100)));
            receive(deliveries, STREAM / NODES * NODES, || {});
        });
    });
    send(group, DONE, 100);
    receive(deliveries, usize::MAX, || {});
    // The others must get it, too, before this process goes.
    thread::sleep(Duration::from_millis(200));
}

fn latency(what: &str, group: &Group, deliveries: &mut Deliveries, n: usize, think: Duration) {
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        if !think.is_zero() {
            thread::sleep(think);
        }
        let start = Instant::now();
        send(group, DATA, 100);
        receive(deliveries, 1, || {});
        times.push(start.elapsed());
    }
    times.sort();
    let at = |q: f64| times[((n as f64 * q) as usize).min(n - 1)].as_nanos() as f64 / 1000.0;
    println!(
        "{what}  p50 {:8.1} µs   p99 {:8.1} µs   p99.9 {:8.1} µs",
        at(0.5),
        at(0.99),
        at(0.999)
    );
}

fn throughput(what: &str, n: usize, len: usize, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    let s = start.elapsed().as_secs_f64();
    println!(
        "{what:<28}  {:8.0} k messages/s   {:6.0} MB/s",
        n as f64 / s / 1e3,
        (n * len) as f64 / s / 1e6
    );
}

fn follow(group: &Group, deliveries: &mut Deliveries) {
    let sender = || {
        let group = group.clone();
        thread::spawn(move || (0..STREAM / NODES).for_each(|_| send(&group, DATA, 100)));
    };
    receive(deliveries, usize::MAX, sender);
}
