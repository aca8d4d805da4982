//! No allocation per message: a counting allocator over a steady stream.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quintet_transport::Authority;
use quintet_transport::stats::Board;
use quintet_vsync::{
    Config, Deliveries, Event, Group, Node, NodeId, PathPolicy, PeerConfig, SendError, stat_names,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above with this layout, which is the system's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn steady_stream(path: PathPolicy, n: usize) {
    let sockets: Vec<_> =
        (0..n).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
    drop(sockets);
    let mut nodes: Vec<(Node, Group, Deliveries)> = (0..n)
        .map(|i| {
            let peers = (0..n)
                .filter(|p| *p != i)
                .map(|p| PeerConfig { node: NodeId(p as u16 + 1), addr: addresses[p] })
                .collect();
            let name = format!("allocations-{}-{path:?}-{n}", std::process::id());
            let authority = Authority::new(&name, [1; 32]).unwrap();
            let mut config = Config::new(name, NodeId(i as u16 + 1), addresses[i], peers);
            config.path = path;
            // Others may read its figures meanwhile.
            let peers = config.peers.iter().map(|peer| peer.node);
            config.stats = Some(Board::new(stat_names(peers)).unwrap());
            config.identity = Some(Arc::new(authority.admit(NodeId(i as u16 + 1), [i as u8; 32])));
            Node::start(config).unwrap()
        })
        .collect();
    for (_, _, deliveries) in &mut nodes {
        let mut members = 0;
        while members != n {
            match deliveries.next(Duration::from_secs(30)) {
                Some(Event::View(change)) => members = change.view.members.len(),
                Some(_) => {}
                None => panic!("no view of {n} over {path:?}"),
            }
        }
    }
    stream(&mut nodes, 20_000);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let messages = 100_000;
    stream(&mut nodes, messages);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    // What is not per message (a timer's entry, a growing window) may allocate now and then; a message may not.
    assert!(
        allocations < messages / 1000,
        "{allocations} allocations for {messages} messages over {path:?}"
    );
    // Nothing to send: heartbeats and the figures of the board go on, many times a second.
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(1));
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(allocations < 10, "{allocations} allocations in an idle second over {path:?}");
}

/// Every node sends its share, one thread consumes for all.
fn stream(nodes: &mut [(Node, Group, Deliveries)], messages: u64) {
    let n = nodes.len() as u64;
    let (mut sent, mut received) = (0, vec![0; nodes.len()]);
    while received.iter().any(|r| *r < messages) {
        for _ in 0..64 {
            if sent < messages {
                match nodes[(sent % n) as usize].1.reserve(100) {
                    Ok(mut slot) => {
                        slot[0] = sent as u8;
                        slot.commit();
                        sent += 1;
                    }
                    Err(SendError::Full) => break,
                    Err(e) => panic!("{e}"),
                }
            }
        }
        for (i, (_, _, deliveries)) in nodes.iter_mut().enumerate() {
            while let Some(event) = deliveries.try_next() {
                match event {
                    Event::Message(m) => assert_eq!(m.bytes.len(), 100),
                    other => panic!("the group changed in the middle: {other:?}"),
                }
                received[i] += 1;
            }
        }
        std::thread::yield_now();
    }
}

/// One test, because the counter is the process's: tests beside it would count too.
#[test]
fn a_message_costs_no_allocation() {
    steady_stream(PathPolicy::Auto, 1);
    steady_stream(PathPolicy::Shm, 3);
    steady_stream(PathPolicy::Udp, 3);
}
