//! Nodes in one process, driven by hand, and nodes in child processes.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use quintet_transport::*;

/// Runs a behaviour over every path.
#[macro_export]
macro_rules! on_every_path {
    ($($name:ident),* $(,)?) => {
        mod shm { $( #[test] fn $name() { super::$name(quintet_transport::PathPolicy::Shm) } )* }
        mod udp { $( #[test] fn $name() { super::$name(quintet_transport::PathPolicy::Udp) } )* }
        mod udp_ipv6 {
            $( #[test] fn $name() {
                $crate::harness::IPV6.set(true);
                super::$name(quintet_transport::PathPolicy::Udp)
            } )*
        }
        #[cfg(feature = "verbs")]
        mod verbs {
            $( #[test] fn $name() {
                if $crate::harness::has_adapters() { super::$name(quintet_transport::PathPolicy::Verbs) }
            } )*
        }
    };
}

/// Whether this is the guest of scripts/soft-roce-vm, with an adapter for every other node.
#[cfg(feature = "verbs")]
pub(crate) fn has_adapters() -> bool {
    let there = std::env::var_os("QUINTET_RXE").is_some();
    if !there {
        crate::skip::skip("no adapters: run it with scripts/soft-roce-vm");
    }
    there
}

/// Longest that anything may take before a test gives up. With verbs that is in a guest with emulated processors.
pub(crate) const PATIENCE: Duration =
    Duration::from_secs(if cfg!(feature = "verbs") { 120 } else { 20 });

/// A cluster name that no other test uses.
pub(crate) fn cluster() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

thread_local! {
    /// The nodes of this test have addresses of IPv6.
    pub(crate) static IPV6: Cell<bool> = const { Cell::new(false) };
}

/// Loopback addresses that no other process takes. All of 127.0.0.0/8 is this machine's, and a process id fits into it; with
/// IPv6 there is one address for all, and a port that was free a moment ago may be somebody else's by then.
pub(crate) fn addresses(n: usize) -> Vec<SocketAddr> {
    if IPV6.get() {
        let sockets: Vec<UdpSocket> = (0..n).map(|_| UdpSocket::bind("[::1]:0").unwrap()).collect();
        return sockets.iter().map(|s| s.local_addr().unwrap()).collect();
    }
    static NEXT: AtomicU16 = AtomicU16::new(7100);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 + a, b, c);
    (0..n).map(|_| SocketAddr::from((own, NEXT.fetch_add(1, Ordering::Relaxed)))).collect()
}

/// The identity of a node, the same in every process.
pub(crate) fn identity(cluster: &str, node: u16) -> Arc<Identity> {
    let authority = Authority::new(cluster, [1; 32]).unwrap();
    Arc::new(authority.admit(NodeId(node), [node as u8; 32]))
}

/// Small lanes, so that the wrap is met often.
pub(crate) fn lanes() -> Vec<LaneSpec> {
    vec![
        LaneSpec { name: "control", words: 8, log_bytes: 4096 },
        LaneSpec { name: "group", words: 8, log_bytes: 4096 },
        LaneSpec { name: "bulk", words: 8, log_bytes: 65536 },
    ]
}

/// Configurations of `n` nodes that know each other.
pub(crate) fn configs(n: u16, path: PathPolicy) -> Vec<Config> {
    let (cluster, addrs) = (cluster(), addresses(n as usize));
    let config = |i: u16| {
        let mut c = Config::new(&cluster, Member::new(i + 1, 100 + i as u64), addrs[i as usize]);
        c.peers = (0..n)
            .filter(|&j| j != i)
            .map(|j| PeerConfig { node: NodeId(j + 1), addr: addrs[j as usize] })
            .collect();
        c.lanes = lanes();
        c.path = path;
        c.identity = Some(identity(&cluster, i + 1));
        c.verbs = VerbsConfig {
            trusted_fabric: true,
            device: Some(format!("rxe{}", i % 2)),
            ..VerbsConfig::default()
        };
        // The machine that runs the tests may be busy.
        c.timing.suspect = Duration::from_millis(250);
        c.timing.dead = Duration::from_millis(800);
        c
    };
    (0..n).map(config).collect()
}

/// A node: its poller, and what it was told.
pub(crate) struct Node {
    pub(crate) poller: Poller,
    pub(crate) events: Vec<Event>,
}

impl Node {
    pub(crate) fn new(config: Config) -> Node {
        Node { poller: Poller::new(config).expect("poller"), events: Vec::new() }
    }

    /// One turn, without waiting.
    pub(crate) fn turn(&mut self) -> bool {
        let progress = self.poller.poll(clock::now());
        while let Some(event) = self.poller.poll_event() {
            self.events.push(event);
        }
        self.poller.flush(clock::now());
        progress
    }

    /// The link to the latest incarnation of that node.
    pub(crate) fn link(&self, node: u16) -> LinkId {
        self.try_link(node).unwrap_or_else(|| panic!("no link to n{node}: {:?}", self.events))
    }

    pub(crate) fn try_link(&self, node: u16) -> Option<LinkId> {
        self.events.iter().rev().find_map(|e| match e {
            Event::Up { link, peer, .. } if peer.node.0 == node => Some(*link),
            _ => None,
        })
    }

    pub(crate) fn control_from(&self, link: LinkId) -> u64 {
        let from = |e: &Event| match e {
            Event::Up { link: l, control_from, .. } if *l == link => Some(*control_from),
            _ => None,
        };
        self.events.iter().find_map(from).expect("Up")
    }

    pub(crate) fn dead(&self, link: LinkId) -> Option<Evidence> {
        self.events.iter().find_map(|e| match e {
            Event::Dead { link: l, evidence, .. } if *l == link => Some(*evidence),
            _ => None,
        })
    }

    /// Publishes one record, or says that the log is full.
    pub(crate) fn send(&mut self, lane: LaneId, index: u64, payload: &[u8]) -> bool {
        let writer = self.poller.log(lane);
        let Ok(mut slot) = writer.reserve(payload.len()) else { return false };
        slot.copy_from_slice(payload);
        slot.commit();
        while self.poller.committed(lane).is_some() {
            self.poller.publish(lane, index);
        }
        true
    }
}

/// Turns all nodes until `done`, or panics.
pub(crate) fn until(nodes: &mut [Node], what: &str, mut done: impl FnMut(&mut [Node]) -> bool) {
    let start = Instant::now();
    loop {
        for node in nodes.iter_mut() {
            node.turn();
        }
        if done(nodes) {
            return;
        }
        if start.elapsed() > PATIENCE {
            let seen: Vec<_> = nodes.iter().map(|n| (n.events.clone(), n.poller.links())).collect();
            panic!("waited too long until {what}: {seen:#?}");
        }
        std::thread::yield_now();
    }
}

/// Everybody linked with everybody.
pub(crate) fn connected(configs: Vec<Config>) -> Vec<Node> {
    let mut nodes: Vec<Node> = configs.into_iter().map(Node::new).collect();
    meet(&mut nodes);
    nodes
}

/// Lets everybody meet everybody.
pub(crate) fn meet(nodes: &mut [Node]) {
    let n = nodes.len();
    until(nodes, "all links are up", |nodes| {
        nodes.iter().all(|node| {
            let up = |id: usize| node.try_link(id as u16).filter(|&link| node.dead(link).is_none());
            (1..=n).filter_map(up).count() == n - 1
        })
    });
    for node in nodes {
        let died = node.events.iter().find(|event| matches!(event, Event::Dead { .. }));
        assert!(died.is_none(), "they met, and lost each other: {:?}", node.events);
    }
}

/// A connected pair in which the second reads the first's lane from the beginning.
pub(crate) fn reading(path: PathPolicy, lane: LaneId) -> Vec<Node> {
    let mut nodes = connected(configs(2, path));
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    nodes[0].poller.attach(to, lane, 0);
    nodes[1].poller.open(from, lane, 0);
    nodes
}

/// A child process: this test binary, running `test` with `args` in the environment. Killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(test: &str, args: &[(&str, String)]) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]).env("QUINTET_TEST_CHILD", "1");
        for (key, value) in args {
            command.env(key, value);
        }
        Process(command.stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: no pointers; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }
}

impl Process {
    /// Waits for its end. False if it failed, or did not end.
    pub(crate) fn ends_well(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a child: the argument, else `None`.
pub(crate) fn child_argument(name: &str) -> Option<String> {
    std::env::var("QUINTET_TEST_CHILD").ok()?;
    std::env::var(name).ok()
}

/// Arguments from which a child can rebuild its configuration with [`child_config`].
pub(crate) fn as_arguments(config: &Config) -> Vec<(&'static str, String)> {
    let peers: Vec<String> =
        config.peers.iter().map(|p| format!("{}={}", p.node.0, p.addr)).collect();
    let path = match config.path {
        PathPolicy::Auto => "auto",
        PathPolicy::Shm => "shm",
        PathPolicy::Udp => "udp",
        PathPolicy::Verbs => "verbs",
    };
    vec![
        ("T_CLUSTER", config.cluster.clone()),
        ("T_NODE", config.me.node.0.to_string()),
        ("T_INCARNATION", config.me.incarnation.0.to_string()),
        ("T_BIND", config.bind.to_string()),
        ("T_PEERS", peers.join(",")),
        ("T_PATH", path.to_owned()),
        ("T_DEAD_MS", config.timing.dead.as_millis().to_string()),
    ]
}

/// The configuration given to this child.
pub(crate) fn child_config() -> Option<Config> {
    let get = |name| child_argument(name);
    let node: u16 = get("T_NODE")?.parse().unwrap();
    let me = Member::new(node, get("T_INCARNATION")?.parse().unwrap());
    let mut config = Config::new(&get("T_CLUSTER")?, me, get("T_BIND")?.parse().unwrap());
    config.lanes = lanes();
    config.identity = Some(identity(&config.cluster, node));
    config.path = match get("T_PATH")?.as_str() {
        "shm" => PathPolicy::Shm,
        "udp" => PathPolicy::Udp,
        "verbs" => PathPolicy::Verbs,
        _ => PathPolicy::Auto,
    };
    config.timing.dead = Duration::from_millis(get("T_DEAD_MS")?.parse().unwrap());
    config.timing.suspect = config.timing.dead / 3;
    config.verbs = VerbsConfig {
        trusted_fabric: true,
        device: Some(format!("rxe{}", (node - 1) % 2)),
        ..VerbsConfig::default()
    };
    for peer in get("T_PEERS")?.split(',').filter(|p| !p.is_empty()) {
        let (id, addr) = peer.split_once('=').unwrap();
        config
            .peers
            .push(PeerConfig { node: NodeId(id.parse().unwrap()), addr: addr.parse().unwrap() });
    }
    Some(config)
}
