//! The routes that only look.

use super::Api;
use super::types::{
    Addresses, Class, Component, ComponentState, Instance, Link, Method, Node, Packets, Rail,
    Status, Watch,
};
use crate::package::Digest;
use crate::replica::{Entry, Phase};
use crate::runtime::Shared;
use axum::Json;
use axum::extract::State;
use quintet_component::Kind;
use quintet_transport::{LinkStatus, Path, Time, clock};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub(super) async fn status(State(api): State<Api>) -> Json<Status> {
    let shared = &api.shared;
    let config = &shared.config;
    let standing = shared.standing.borrow().clone();
    let live = shared.live.load_full();
    let c = &shared.counters;
    let mut counters: BTreeMap<String, u64> = [
        ("calls", &c.calls),
        ("updates", &c.updates),
        ("reads", &c.reads),
        ("refused", &c.refused),
        ("malformed_frames", &c.malformed_frames),
        ("messages", &c.messages),
        ("snapshots", &c.snapshots),
        ("transfers_received", &c.transfers_received),
    ]
    .into_iter()
    .map(|(name, counter)| (name.to_owned(), counter.load(Relaxed)))
    .collect();
    let (mut persisted, mut parking, mut udp) = (0, None, None);
    if let Some(live) = &live {
        persisted = live.group.persisted_by_quorum().0;
        let status = live.group.status();
        parking = Some(status.parking.clone());
        udp = status.udp.clone().map(|udp| Packets {
            sending: udp.sending,
            receiving: udp.receiving,
            filter: udp.filter,
        });
        let engine = &status.counters;
        for (name, value) in [
            ("engine_sent", engine.sent),
            ("engine_delivered", engine.delivered),
            ("engine_nulls", engine.nulls),
            ("engine_views", engine.views),
            ("engine_sweeps", engine.sweeps),
            ("engine_parks", engine.parks),
            ("engine_queue_full", engine.queue_full),
            ("engine_bulk_bytes", engine.bulk_bytes),
        ] {
            counters.insert(name.to_owned(), value);
        }
    }
    let state =
        if shared.is_stopping() { super::types::NodeState::Draining } else { standing.state };
    Json(Status {
        node: config.node,
        cluster: config.cluster.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: clock::now().as_nanos().saturating_sub(shared.started_ns) / 1_000_000,
        incarnation: standing.incarnation,
        incarnations: standing.incarnations,
        state,
        reason: standing.reason,
        view: standing.view,
        position: shared.delivered.load(Relaxed),
        persisted,
        addresses: Addresses {
            transport: config.own().transport.clone(),
            client: config.client.listen,
            admin: config.admin.socket.clone(),
            http: config.admin.http,
        },
        data_dir: config.data_dir.clone(),
        journal_bytes: shared.journal_bytes.load(Relaxed),
        connections: shared.connections.taken() as u64,
        calls_waiting: shared.calls.taken() as u64,
        counters,
        limits: config.limits.clone(),
        parking,
        udp,
    })
}

fn link_list(shared: &Shared) -> Vec<LinkStatus> {
    shared.live.load().as_ref().map_or_else(Vec::new, |live| live.group.status().links.clone())
}

fn path_name(path: Path) -> String {
    format!("{path:?}").to_lowercase()
}

fn micros(link: &LinkStatus) -> Option<f64> {
    link.rtt.map(|rtt| (rtt.as_nanos() as f64 / 100.0).round() / 10.0)
}

pub(super) async fn nodes(State(api): State<Api>) -> Json<Vec<Node>> {
    let shared = &api.shared;
    let standing = shared.standing.borrow().clone();
    let links = link_list(shared);
    let members = standing.view.map_or_else(Vec::new, |view| view.members);
    let describe = |n: &crate::config::NodeConfig| {
        let here = n.id == shared.config.node;
        let rank = members.iter().position(|m| m.node == n.id);
        let link = links.iter().find(|l| l.peer.node.0 == n.id && l.alive);
        let state = match (here, rank, link) {
            (true, _, _) => format!("{:?}", standing.state).to_lowercase(),
            (_, Some(_), Some(link)) if link.suspected => "suspected".into(),
            (_, Some(_), _) => "member".into(),
            (_, None, Some(_)) => "connected".into(),
            (_, None, None) => "unreachable".into(),
        };
        let incarnation = rank
            .map(|rank| members[rank].incarnation)
            .or_else(|| link.map(|l| l.peer.incarnation.0))
            .or_else(|| here.then_some(standing.incarnation));
        Node {
            id: n.id,
            transport: n.transport.clone(),
            client: n.client,
            here,
            state,
            rank: rank.map(|rank| rank as u8),
            incarnation,
            path: link.map(|l| path_name(l.path)),
            rtt_us: link.and_then(micros),
        }
    };
    Json(shared.config.nodes.iter().map(describe).collect())
}

pub(super) async fn links(State(api): State<Api>) -> Json<Vec<Link>> {
    let live = api.shared.live.load_full();
    let status = live.map(|live| live.group.status());
    Json(
        status.map_or_else(Vec::new, |status| {
            status.links.iter().map(|l| link(l, status.at)).collect()
        }),
    )
}

/// A link as the API shows it; what is known of it was known at `at`.
fn link(l: &LinkStatus, at: Time) -> Link {
    let millis = |d: Duration| (d.as_secs_f64() * 1e4).round() / 10.0;
    let c = &l.counters;
    let counters = match l.path {
        Path::Shm | Path::Verbs => vec![("doorbells", c.doorbells)],
        Path::Udp => vec![
            ("packets_sent", c.packets_sent),
            ("packets_received", c.packets_received),
            ("bytes_sent", c.bytes_sent),
            ("bytes_received", c.bytes_received),
            ("retransmits", c.retransmits),
            ("marked", c.marked),
            ("congestion", c.congestion),
            ("failovers", c.failovers),
        ],
    };
    let rail = l.rail.map(|rail| Rail {
        number: rail.rail as u64 + 1,
        of: rail.of as u64,
        to: rail.to,
        reason: rail.reason.to_string(),
        silent: (0..rail.of).filter(|n| rail.silent >> n & 1 != 0).map(|n| n as u64 + 1).collect(),
    });
    Link {
        peer: l.peer.node.0,
        incarnation: l.peer.incarnation.0,
        path: path_name(l.path),
        reason: l.reason.to_string(),
        state: match (l.alive, l.suspected) {
            (false, _) => "dead",
            (true, true) => "suspected",
            (true, false) => "up",
        }
        .to_owned(),
        rtt_us: micros(l),
        heard_ms: Some(millis(at.since(l.heard))),
        watch: Some(Watch {
            heartbeat_ms: millis(l.watch.heartbeat),
            suspect_ms: millis(l.watch.suspect),
            dead_ms: millis(l.watch.dead),
            longest_ms: millis(l.watch.longest),
        }),
        rail,
        datagram: l.datagram.map(|bytes| bytes as u64),
        counters: counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

pub(super) async fn components(State(api): State<Api>) -> Json<Vec<Component>> {
    let directory = api.shared.directory.load_full();
    let packages = directory.catalogue.packages.iter();
    Json(packages.map(|(digest, entry)| component(&api.shared, digest, entry)).collect())
}

/// A package as the API shows it.
pub(super) fn component(shared: &Shared, digest: &Digest, entry: &Entry) -> Component {
    let (state, reason) = match &entry.phase {
        Phase::Offered => (ComponentState::Offered, None),
        Phase::Active => (ComponentState::Active, None),
        Phase::Rejected { node, problem } => {
            (ComponentState::Rejected, Some(format!("n{node}: {problem}")))
        }
    };
    let directory = shared.directory.load();
    let classes = entry.classes.iter().map(|name| {
        let instance = directory.instances.iter().find(|i| i.class().name() == name);
        let methods = instance.map_or(&[][..], |i| i.class().methods()).iter().map(|m| Method {
            name: m.name().to_owned(),
            kind: if m.kind() == Kind::Update { "update" } else { "read" }.to_owned(),
            path: m.path().to_owned(),
            request: m.descriptor().input().full_name().to_owned(),
            reply: m.descriptor().output().full_name().to_owned(),
        });
        Class { name: name.clone(), methods: methods.collect() }
    });
    Component {
        name: entry.name.clone(),
        version: entry.version.clone(),
        digest: digest.to_string(),
        state,
        reason,
        ready: entry.ready.iter().copied().collect(),
        classes: classes.collect(),
    }
}

pub(super) async fn instances(State(api): State<Api>) -> Json<Vec<Instance>> {
    let directory = api.shared.directory.load_full();
    let show = |i: &std::sync::Arc<crate::executor::Instance>| {
        let (position, updates, repeats, reads, records) = i.figures();
        let error = i.failure().map(|why| (*why).clone());
        Instance {
            id: i.id(),
            class: i.class().name().to_owned(),
            node: api.shared.config.node,
            state: if error.is_none() { "running" } else { "failed" }.to_owned(),
            error,
            position,
            updates,
            repeats,
            reads,
            records,
        }
    };
    Json(directory.instances.iter().map(show).collect())
}
