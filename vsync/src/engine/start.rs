//! From a configuration to a running node.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::unbounded;
use quintet_transport::{CONTROL, GROUP, Incarnation, LaneSpec, Member, Poller, clock};

use super::control::ControlOut;
use super::deliver::{Item, OWN, Source};
use super::follow::Follower;
use super::gauges::Gauges;
use super::links::{Links, Reader};
use super::outbox::Outbox;
use super::ring::ring;
use super::shared::Shared;
use super::storing::Storing;
use super::sweep::{Engine, LeaseSeen};
use super::transfer::{Donor, Learner};
use crate::config::Config;
use crate::core::{self, Core, Durable, MAX_MEMBERS, Position, Recovered, Row};
use crate::deliveries::Deliveries;
use crate::error::{Error, StoreError};
use crate::group::Group;
use crate::node::Node;
use crate::status::{Counters, State, Status};
use crate::store::{Found, Store};

pub(crate) fn start(config: Config) -> Result<(Node, Group, Deliveries), Error> {
    config.check()?;
    let nodes = config.nodes();
    let (mut store, found) = Store::open(config.data_dir.as_deref(), config.node)?;
    let me = Member { node: config.node, incarnation: next_incarnation(found.as_ref()) };
    let durable = match &found {
        Some(found) if !found.record.is_empty() => recover(&config, found)?,
        _ => Durable::configured(&nodes),
    };
    // The number of this run must never be used again, whatever the clock does next.
    store.save(me.incarnation, &durable.encode())?;

    let poller = Poller::new(transport_config(&config, me))?;
    let mut entropy = [0; 8];
    getrandom::fill(&mut entropy).map_err(|e| Error::Entropy(e.to_string()))?;
    let mut core_config = core::Config::new(me, nodes);
    core_config.lease = config.lease();
    core_config.entropy = u64::from_le_bytes(entropy);
    core_config.durable = config.data_dir.is_some();
    let now = clock::now();
    let window = core_config.queue;
    let core = Core::new(now, core_config, Recovered { durable, state: config.state });

    let (commands_tx, commands) = unbounded();
    let status = Status {
        at: now,
        me,
        state: State::Outside,
        view: None,
        links: Vec::new(),
        parking: poller.parking().into_owned(),
        udp: poller.udp().cloned(),
        counters: Counters::default(),
        history: Vec::new(),
    };
    let shared = Arc::new(Shared::new(config.max_message(), poller.waker(), commands_tx, status));
    let (producer, consumer) = ring(config.limits.queue);
    let mut outbox = Outbox::new(producer, shared.clone());
    let consumed = Arc::new(AtomicU64::new(0));
    let wake_every = (config.limits.group_log / 8) as u64;
    let own_source = Source {
        member: me,
        own: true,
        bytes: poller.own_bytes(GROUP),
        consumed: consumed.clone(),
        wake_every,
    };
    outbox.item(Item::Source { slot: OWN, source: Some(Box::new(own_source)) });

    let storing = Storing::start(store, me.incarnation, poller.waker())?;
    let group_log = poller.log(GROUP);
    let peers = config.peers.iter().map(|peer| peer.node);
    let engine = Engine {
        me,
        follower: config.passages.clone().map(Follower::new),
        gauges: config.stats.as_ref().and_then(|board| Gauges::find(board, peers)),
        lease_ns: config.lease().as_nanos() as u64,
        core,
        shared: shared.clone(),
        commands,
        links: Links::new(),
        outbox,
        control: ControlOut::new(poller.log(CONTROL)),
        storing,
        donor: Donor::default(),
        learner: Learner::default(),
        counters: Counters::default(),
        history: Vec::new(),
        end: None,
        leaving: None,
        own_delivered: 0,
        group_log: group_log.clone(),
        own: Reader { source: OWN, at: 0, released: 0, consumed },
        control_reclaimed: 0,
        row: Row::default(),
        held: true,
        delivered_loud: Position::ZERO,
        delivered_step: window as u64 / 4,
        persisted: Position::ZERO,
        lease: LeaseSeen { ranks: 0, confirmed: [0; MAX_MEMBERS] },
        limits: config.limits,
        poller,
    };
    let thread = thread::Builder::new()
        .name(format!("quintet-{}", me.node))
        .spawn(move || engine.run())
        .map_err(|source| Error::Thread { what: "poller", source })?;
    let node = Node { shared: shared.clone(), me, thread: Some(thread) };
    let group = Group { shared: shared.clone(), log: group_log };
    Ok((node, group, Deliveries::new(shared, consumer)))
}

/// Greater than every earlier run's: the clock, or the last number plus one if the clock went back.
fn next_incarnation(found: Option<&Found>) -> Incarnation {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    Incarnation(clock.max(found.map_or(1, |f| f.incarnation.0 + 1)))
}

fn recover(config: &Config, found: &Found) -> Result<Durable, Error> {
    Durable::decode(&found.record).map_err(|e| {
        let path = config.data_dir.clone().unwrap_or_default().join("acceptor");
        StoreError::Damaged {
            path,
            detail: format!("its record is whole but cannot be understood ({e})"),
        }
        .into()
    })
}

fn transport_config(config: &Config, me: Member) -> quintet_transport::Config {
    let mut t = quintet_transport::Config::new(&config.cluster, me, config.bind);
    t.interface.clone_from(&config.interface);
    t.rails.clone_from(&config.rails);
    t.peers = config.peers.clone();
    t.path = config.path;
    t.shm_gid = config.shm_gid;
    t.verbs = config.verbs.clone();
    t.wait = config.wait;
    t.offload = config.offload;
    t.timing = config.timing;
    t.identity = config.identity.clone();
    t.lanes = vec![
        LaneSpec { name: "control", words: 0, log_bytes: config.limits.control_log },
        LaneSpec { name: "group", words: core::word::COUNT, log_bytes: config.limits.group_log },
        LaneSpec { name: "bulk", words: 0, log_bytes: config.limits.bulk_log },
    ];
    t
}
