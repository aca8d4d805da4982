//! `quintet status`, `node list`: what every daemon says, side by side.

use super::api::{self, Failure};
use super::cluster::{Cluster, Daemon, Proxy};
use super::table::{Table, micros};
use super::{Error, print_json};
use crate::admin::types::{Link, NodeState, Packets, Status};
use crate::limits::Limits;
use crate::print::say;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// What `quintet status -o json` prints.
#[derive(Serialize)]
pub(super) struct Whole {
    cluster: Option<String>,
    view: Option<WholeView>,
    pub(super) nodes: Vec<NodeRow>,
    proxy: Option<ProxyRow>,
    /// Why there is no `proxy`, where there should be one.
    proxy_problem: Option<String>,
}

#[derive(Serialize)]
struct WholeView {
    id: u64,
    members: Vec<u16>,
}

#[derive(Serialize)]
pub(super) struct NodeRow {
    pub(super) node: Option<u16>,
    pid: Option<u32>,
    state: String,
    reason: Option<String>,
    view: Option<u64>,
    incarnation: Option<u64>,
    incarnations: Option<u64>,
    position: Option<u64>,
    client: Option<String>,
    parking: Option<String>,
    udp: Option<Packets>,
    limits: Option<Limits>,
    pub(super) links: Vec<Link>,
    /// Why nothing is known of its links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) links_unknown: Option<String>,
}

/// What the proxy's status page says, as far as it is shown here.
#[derive(Deserialize)]
struct ProxyPage {
    pid: u32,
    listen: Vec<String>,
    session: Option<ProxyRow>,
}

#[derive(Deserialize, Serialize)]
struct ProxyRow {
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    listen: String,
    routed: Option<u16>,
    view: Option<u64>,
    in_flight: u64,
    calls: u64,
    replays: u64,
    reroutes: u64,
    longest_gap_us: u64,
    hindrance: Option<String>,
}

/// `quintet status`.
pub(super) async fn status(cluster: &Cluster, json: bool) -> Result<(), Error> {
    let whole = gather(cluster).await;
    if json {
        print_json(&whole)?;
        return whole.answered();
    }
    match &whole.view {
        Some(view) => {
            let members: Vec<String> = view.members.iter().map(u16::to_string).collect();
            let name = whole.cluster.as_deref().unwrap_or("?");
            say!("cluster {name}: view {}, members {} (first leads)\n", view.id, members.join(" "));
        }
        None => say!("no node is member of a primary view: nothing is served\n"),
    }
    print_nodes(&whole.nodes);
    say!();
    print_links(&whole.nodes);
    print_ways("waiting in", &whole.nodes, |row| row.parking.as_deref());
    print_packets(&whole.nodes);
    print_proxy(&whole);
    whole.answered()
}

/// `quintet status --limits`: the bounds in force, side by side.
pub(super) async fn limits(cluster: &Cluster, json: bool) -> Result<(), Error> {
    let whole = gather(cluster).await;
    let rows: Vec<_> = whole.nodes.iter().filter(|row| row.limits.is_some()).collect();
    if json {
        let rows =
            rows.iter().map(|row| serde_json::json!({"node": row.node, "limits": row.limits}));
        print_json(&rows.collect::<Vec<_>>())?;
        return whole.answered();
    }
    let mut table = Table::new(&["node", "limit", ">value"]);
    for row in rows {
        let limits = serde_json::to_value(&row.limits).unwrap_or_default();
        for (name, value) in limits.as_object().into_iter().flatten() {
            let node = row.node.map_or_else(String::new, |node| node.to_string());
            table.row(vec![node, name.clone(), value.to_string()]);
        }
    }
    table.print();
    whole.answered()
}

/// By which calls packets pass the kernel, and what it keeps away.
pub(super) fn print_packets(rows: &[NodeRow]) {
    print_ways("sending packets:", rows, |row| Some(&row.udp.as_ref()?.sending));
    print_ways("receiving packets:", rows, |row| Some(&row.udp.as_ref()?.receiving));
    print_ways("socket filter:", rows, |row| Some(&row.udp.as_ref()?.filter));
}

/// One line for each way of doing something: all nodes of one kind of machine have the same.
fn print_ways<'a>(what: &str, rows: &'a [NodeRow], way: impl Fn(&'a NodeRow) -> Option<&'a str>) {
    let mut ways: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (node, way) in rows.iter().filter_map(|row| Some((row.node?, way(row)?))) {
        ways.entry(way).or_default().push(node.to_string());
    }
    for (way, nodes) in ways {
        let who = if nodes.len() == 1 { "node" } else { "nodes" };
        say!("\n{who} {}: {what} {way}", nodes.join(" "));
    }
}

fn print_proxy(whole: &Whole) {
    if let Some(problem) = &whole.proxy_problem {
        say!("\n{problem}");
    }
    let Some(proxy) = &whole.proxy else { return };
    let route = proxy.routed.map_or("no node".to_owned(), |node| format!("node {node}"));
    say!(
        "\nproxy on {}: sends to {route}; {} calls, {} in flight, {} replayed, {} changes of route, longest gap {}",
        proxy.listen,
        proxy.calls,
        proxy.in_flight,
        proxy.replays,
        proxy.reroutes,
        micros(proxy.longest_gap_us as f64)
    );
    if let Some(hindrance) = &proxy.hindrance {
        say!("  calls do not get through: {hindrance}");
    }
}

/// `quintet node list`.
pub(super) async fn nodes(cluster: &Cluster, json: bool) -> Result<(), Error> {
    let whole = gather(cluster).await;
    if json {
        print_json(&whole.nodes)?;
    } else {
        print_nodes(&whole.nodes);
    }
    whole.answered()
}

impl Whole {
    /// A script asks by the exit status whether there is a cluster at all.
    pub(super) fn answered(&self) -> Result<(), Error> {
        if self.nodes.iter().any(|row| row.pid.is_some()) { Ok(()) } else { Err(nobody()) }
    }
}

/// What a command says that only looks, and found nobody.
pub(super) fn nobody() -> Error {
    Error::new("no daemon of the cluster answers")
        .hint("is it running? `quintet dev --nodes 3` starts one on this machine; --admin names a daemon elsewhere")
}

pub(super) async fn gather(cluster: &Cluster) -> Whole {
    let mut whole =
        Whole { cluster: None, view: None, nodes: Vec::new(), proxy: None, proxy_problem: None };
    // All at once: one that hangs holds up no other.
    let mut asked = JoinSet::new();
    for (place, daemon) in cluster.daemons.iter().cloned().enumerate() {
        asked.spawn(async move { (place, ask(&daemon).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    for (_, (row, answer)) in answers {
        whole.nodes.push(row);
        let Some(status) = answer else { continue };
        if status.state == NodeState::Member
            && let Some(view) = &status.view
            && whole.view.as_ref().is_none_or(|known| known.id < view.id)
        {
            let members = view.members.iter().map(|member| member.node).collect();
            whole.view = Some(WholeView { id: view.id, members });
        }
        whole.cluster.get_or_insert(status.cluster);
    }
    if let Some(proxy) = &cluster.proxy {
        match ask_proxy(proxy).await {
            Ok(row) => whole.proxy = Some(row),
            Err(why) => whole.proxy_problem = Some(format!("proxy on {}: {why}", proxy.listen)),
        }
    }
    whole
}

async fn ask_proxy(proxy: &Proxy) -> Result<ProxyRow, String> {
    let page: ProxyPage = match api::get(&proxy.status, "/status").await {
        Ok(page) => page,
        Err(Failure::Unreachable(_)) => return Err(format!("no answer at {}", proxy.status)),
        Err(refused) => return Err(Error::from(refused).to_string()),
    };
    let mut row = page.session.ok_or("it is stopping")?;
    (row.pid, row.listen) = (page.pid, page.listen.join(" "));
    Ok(row)
}

async fn ask(daemon: &Daemon) -> (NodeRow, Option<Status>) {
    match api::get::<Status>(&daemon.door, "/v1/status").await {
        Ok(status) => {
            let (links, links_unknown) = match api::get(&daemon.door, "/v1/links").await {
                Ok(links) => (links, None),
                Err(failure) => (Vec::new(), Some(Error::from(failure).to_string())),
            };
            let row = NodeRow {
                node: Some(status.node),
                pid: Some(status.pid),
                state: format!("{:?}", status.state).to_lowercase(),
                reason: status.reason.clone(),
                view: status.view.as_ref().map(|view| view.id),
                incarnation: Some(status.incarnation),
                incarnations: Some(status.incarnations),
                position: Some(status.position),
                client: Some(status.addresses.client.to_string()),
                parking: status.parking.clone(),
                udp: status.udp.clone(),
                limits: Some(status.limits.clone()),
                links,
                links_unknown,
            };
            (row, Some(status))
        }
        Err(failure) => {
            let why = Error::from(failure).to_string();
            let row = NodeRow {
                node: daemon.node,
                pid: None,
                state: "unreachable".into(),
                reason: Some(why.clone()),
                view: None,
                incarnation: None,
                incarnations: None,
                position: None,
                client: None,
                parking: None,
                udp: None,
                limits: None,
                links: Vec::new(),
                links_unknown: Some(why),
            };
            (row, None)
        }
    }
}

fn print_nodes(rows: &[NodeRow]) {
    let mut table = Table::new(&[
        "node",
        "state",
        ">pid",
        ">view",
        ">position",
        ">incarnations",
        "clients at",
        "why",
    ]);
    let text = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    for row in rows {
        table.row(vec![
            row.node.map_or_else(|| "?".into(), |node| node.to_string()),
            row.state.clone(),
            text(row.pid.map(u64::from)),
            text(row.view),
            row.position.map_or_else(String::new, super::table::position),
            text(row.incarnations),
            row.client.clone().unwrap_or_default(),
            row.reason.clone().unwrap_or_default(),
        ]);
    }
    table.print();
}

fn print_links(rows: &[NodeRow]) {
    let mut table = Table::new(&["link", "path", "state", ">round trip", "why this path"]);
    for row in rows {
        for link in &row.links {
            table.row(vec![
                format!("{} → {}", row.node.unwrap_or(0), link.peer),
                link.path.clone(),
                link.state.clone(),
                link.rtt_us.map_or_else(String::new, micros),
                link.reason.clone(),
            ]);
        }
    }
    table.print();
}
