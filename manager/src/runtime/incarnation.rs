//! One incarnation, from recovery to its end.

use super::delivery::Delivery;
use super::{Live, Machine, Shared};
use crate::admin::types::{EventKind, NodeState};
use crate::config::{Config, NodeConfig, OffloadChoice, PathChoice, WaitChoice};
use crate::journal::{self, Entry, Journal, Recovered};
use crate::transfer::stream;
use quintet_transport::{Identity, Marks, VerbsConfig};
use quintet_vsync::{
    self as vsync, Node, NodeId, PathPolicy, PeerConfig, Position, Rail, ViewId, Wait,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How an incarnation ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// The group went on without it: begin another.
    Evicted(ViewId),
    /// It could not take over the state of the group: begin another.
    Learn(String),
    /// It left as it was told.
    Left,
    /// It was stopped.
    Stopped,
    /// It cannot go on, and neither can another: says why.
    Failed(String),
}

/// Recovers from disk, runs until the end, and leaves nothing of the incarnation behind.
pub fn run(shared: &Arc<Shared>) -> End {
    shared.standing.send_modify(|standing| {
        standing.state = NodeState::Starting;
        standing.incarnation = 0;
        standing.incarnations += 1;
        standing.view = None;
    });
    let (machine, journal, unusable) = match recover(shared) {
        Ok(recovered) => recovered,
        Err(why) => return End::Failed(why.to_string()),
    };
    machine.publish();
    let identity = match shared.config.identity() {
        Ok(identity) => identity,
        Err(why) => return End::Failed(why.to_string()),
    };
    let mut config = engine_config(&shared.config, identity, machine.upto());
    config.stats = Some(shared.board.clone());
    let started = Node::start(config);
    let (node, group, deliveries) = match started {
        Ok(started) => started,
        Err(why) => return End::Failed(why.to_string()),
    };
    let me = node.me();
    let release = Release::start(shared);
    group.on_persisted(release.on_kept());
    shared.live.store(Some(Arc::new(Live { node, group: group.clone() })));
    let search = search(&shared.config);
    shared.standing.send_modify(|standing| {
        standing.state = NodeState::Outside;
        standing.reason = Some(search.clone());
        standing.incarnation = me.incarnation.0;
    });
    let what = format!(
        "incarnation {:x} began, with state up to {}; {search}",
        me.incarnation.0,
        Position(machine.upto())
    );
    shared.events.note(EventKind::Node, what);
    if shared.is_stopping()
        && let Some(live) = &*shared.live.load()
    {
        live.node.leave();
    }
    let end = Delivery::new(shared.clone(), group, machine, journal, unusable).run(deliveries);
    let state = match end {
        End::Evicted(_) | End::Learn(_) => NodeState::Evicted,
        End::Left | End::Stopped => NodeState::Draining,
        End::Failed(_) => NodeState::Failed,
    };
    shared.stand(state, Some(end.to_string()));
    shared.live.store(None);
    shared.outbox.clear();
    end
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Evicted(view) => {
                write!(f, "removed: the group went on without it in view {}", view.0)
            }
            End::Learn(why) => write!(f, "it begins again: {why}"),
            End::Left => f.write_str("left the group"),
            End::Stopped => f.write_str("stopped"),
            End::Failed(why) => f.write_str(why),
        }
    }
}

/// What the data directory holds, and why that cannot be used if it cannot: then the node joins with nothing, to
/// receive the state of the group. Its own stays on disk until it has, for it may be the only one left.
fn recover(shared: &Arc<Shared>) -> Result<(Machine, Journal, Option<String>), journal::Error> {
    let config = &shared.config;
    let dir = &journal::settle(&config.data_dir)?;
    let mut machine = Machine::new(shared.clone());
    let load = |machine: &mut Machine, bytes: &[u8], position: u64| {
        let snapshot = stream::read_snapshot(bytes).map_err(|e| e.to_string())?;
        machine.load(snapshot).map_err(|e| e.to_string())?;
        if machine.upto() == position {
            Ok(())
        } else {
            Err("its position is not its name's".into())
        }
    };
    let replay = |machine: &mut Machine, entry: Entry<'_>| match entry {
        Entry::Message { at, bytes } => machine.apply(at, bytes),
        Entry::View { at, view, members } => machine.install(at, view, members),
    };
    let recovered = journal::recover(dir, &mut machine, load, replay)?;
    report(shared, &recovered);
    let journal = Journal::open(dir, config.journal.sync, &recovered)?;
    let unusable = machine.problem().map(str::to_owned);
    if let Some(why) = &unusable {
        let what =
            format!("the state on disk cannot be rebuilt ({why}); the group's will be received");
        shared.events.note(EventKind::Journal, what);
        machine = Machine::new(shared.clone());
    } else if machine.upto() > 0 {
        for gone in shared.packages.sweep(machine.packages()) {
            tracing::info!("deleted {}: no component needs it", gone.display());
        }
    }
    Ok((machine, journal, unusable))
}

fn report(shared: &Shared, recovered: &Recovered) {
    for repair in &recovered.repairs {
        shared.events.note(EventKind::Journal, repair.clone());
    }
    if recovered.upto > 0 {
        let what = format!(
            "recovered up to {}: snapshot at {}, {} journal entries",
            Position(recovered.upto),
            Position(recovered.snapshot),
            recovered.entries
        );
        shared.events.note(EventKind::Journal, what);
    }
}

/// What a node does that has just begun, in words.
fn search(config: &Config) -> String {
    let others = config.nodes.iter().filter(|n| n.id != config.node);
    let others: Vec<String> = others.map(|n| format!("n{}", n.id)).collect();
    match &others[..] {
        [] => "the only node of its group".to_owned(),
        others => format!("looking for the group: for {}", others.join(" ")),
    }
}

fn engine_config(config: &Config, identity: Option<Identity>, state: u64) -> vsync::Config {
    // The n-th addresses of all nodes are a network.
    let network = |n: usize| -> Vec<PeerConfig> {
        let others = config.nodes.iter().filter(|node| node.id != config.node);
        let there = |node: &NodeConfig| Some((NodeId(node.id), *node.transport.0.get(n)?));
        others.filter_map(there).map(|(node, addr)| PeerConfig { node, addr }).collect()
    };
    // Found when the configuration was checked; should it be gone since, its name is in the error.
    let interface = |n: usize| -> Option<String> {
        let choice = config.transport.interface.0.get(n)?;
        Some(choice.name().unwrap_or_else(|_| choice.to_string()))
    };
    let own = &config.own().transport;
    let (cluster, node) = (config.cluster.clone(), NodeId(config.node));
    let mut engine = vsync::Config::new(cluster, node, own.first(), network(0));
    engine.interface = interface(0);
    let further = own.iter().enumerate().skip(1);
    let rail = |(n, &bind)| Rail { bind, interface: interface(n), peers: network(n) };
    engine.rails = further.map(rail).collect();
    engine.path = match config.transport.path {
        PathChoice::Auto => PathPolicy::Auto,
        PathChoice::Shm => PathPolicy::Shm,
        PathChoice::Udp => PathPolicy::Udp,
        PathChoice::Verbs => PathPolicy::Verbs,
    };
    engine.shm_gid = config.transport.shm_gid;
    engine.verbs = VerbsConfig {
        trusted_fabric: config.transport.trusted_fabric,
        device: config.transport.device.clone(),
        marks: Marks {
            traffic_class: config.transport.traffic_class,
            service_level: config.transport.service_level,
        },
        partition: config.transport.partition,
    };
    engine.wait = match config.transport.wait {
        WaitChoice::Spin => Wait::Spin,
        WaitChoice::Adaptive => Wait::Adaptive,
        WaitChoice::Block => Wait::Block,
    };
    engine.offload = config.transport.offload == OffloadChoice::Auto;
    engine.timing.heartbeat = Duration::from_millis(config.timing.heartbeat_ms);
    engine.timing.suspect = Duration::from_millis(config.timing.suspect_ms);
    engine.timing.dead = Duration::from_millis(config.timing.dead_ms);
    engine.identity = identity.map(Arc::new);
    engine.data_dir = Some(config.data_dir.clone());
    engine.state = Position(state);
    engine
}

/// The thread that lets answers go when a quorum keeps them; the poller only wakes it.
struct Release {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
    over: Arc<std::sync::atomic::AtomicBool>,
}

impl Release {
    fn start(shared: &Arc<Shared>) -> Release {
        let over = Arc::<std::sync::atomic::AtomicBool>::default();
        let (outbox, end) = (shared.outbox.clone(), over.clone());
        let thread = std::thread::Builder::new()
            .name("release".into())
            .spawn(move || {
                while !end.load(Ordering::Acquire) {
                    outbox.release();
                    std::thread::park();
                }
            })
            .expect("the system gives a thread");
        Release { shared: shared.clone(), thread: Some(thread), over }
    }

    fn on_kept(&self) -> impl Fn(Position) + Send + Sync + 'static {
        let outbox = self.shared.outbox.clone();
        let thread = self.thread.as_ref().expect("until dropped").thread().clone();
        move |upto: Position| {
            if outbox.kept(upto.0) {
                thread.unpark();
            }
        }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
