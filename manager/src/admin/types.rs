//! The JSON of the admin API: what `quintetd` answers and `quintet` reads.
//!
//! Times ending in `_ns` are CLOCK_MONOTONIC of the machine (comparable between the nodes of one
//! host), `unix_ms` is wall-clock time. Fields are only ever added within `/v1`.

use crate::config::AddressList;
use crate::limits::Limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `GET /v1/status`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// This node's id.
    pub node: u16,
    /// The cluster's name.
    pub cluster: String,
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    /// Incarnation that runs now (0 between two).
    pub incarnation: u64,
    /// How many incarnations this process has begun; more than 1 means it was removed and came back.
    pub incarnations: u64,
    /// Where the node stands.
    pub state: NodeState,
    /// Why it is there, in words: who is missing, what failed, why it starts over.
    pub reason: Option<String>,
    /// The installed view, if there is one.
    pub view: Option<View>,
    /// First position not yet delivered here.
    pub position: u64,
    /// First position not yet kept by a quorum.
    pub persisted: u64,
    /// Where it listens.
    pub addresses: Addresses,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Bytes of journal since the last snapshot.
    pub journal_bytes: u64,
    /// Client connections.
    pub connections: u64,
    /// Calls waiting for their reply.
    pub calls_waiting: u64,
    /// Monotonic counters by name (messages, views, calls, refusals, …).
    pub counters: BTreeMap<String, u64>,
    /// The bounds in force.
    pub limits: Limits,
    /// How the node waits for something to happen: in io_uring or in ppoll, and why.
    #[serde(default)]
    pub parking: Option<String>,
    /// By which calls packets of UDP pass the kernel, where there is UDP.
    #[serde(default)]
    pub udp: Option<Packets>,
}

/// By which calls packets pass the kernel and why, in words.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Packets {
    /// How they leave.
    pub sending: String,
    /// How they come.
    pub receiving: String,
    /// What the kernel keeps away.
    pub filter: String,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Reading its data directory.
    Starting,
    /// Running, looking for the group.
    Outside,
    /// Receiving state from a member.
    Learner,
    /// Member of the primary view: serves.
    Member,
    /// Member that lost the quorum: serves nothing.
    Blocked,
    /// Removed; about to begin a new incarnation.
    Evicted,
    /// Stopping: finishes what is in flight.
    Draining,
    /// Gave up; `reason` says why.
    Failed,
}

/// A view of the group.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct View {
    /// Its number.
    pub id: u64,
    /// Its members in rank order; the first is the coordinator.
    pub members: Vec<Member>,
}

/// One member of a view.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Member {
    /// Node id.
    pub node: u16,
    /// Its incarnation.
    pub incarnation: u64,
}

/// Where a node listens.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Addresses {
    /// Transport, UDP; several if the node is in several networks.
    pub transport: AddressList,
    /// Clients, TCP.
    pub client: SocketAddr,
    /// Admin API, Unix socket.
    pub admin: PathBuf,
    /// Admin API, TCP, if enabled.
    pub http: Option<SocketAddr>,
}

/// `GET /v1/nodes`: one of the configured nodes, as the asked node sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Node {
    /// Node id.
    pub id: u16,
    /// Transport address, or several.
    pub transport: AddressList,
    /// Client address.
    pub client: SocketAddr,
    /// True for the node that answers.
    pub here: bool,
    /// `member`, `suspected`, `connected` (not in the view), `unreachable`, …
    pub state: String,
    /// Rank in the view; 0 is the coordinator.
    pub rank: Option<u8>,
    /// Incarnation, where known.
    pub incarnation: Option<u64>,
    /// Path to it: `shm`, `udp`, or none.
    pub path: Option<String>,
    /// Round trip in microseconds, where measured.
    pub rtt_us: Option<f64>,
}

/// `GET /v1/links`: one link to a peer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Link {
    /// The peer.
    pub peer: u16,
    /// Its incarnation.
    pub incarnation: u64,
    /// `shm` or `udp`.
    pub path: String,
    /// Why this path was taken.
    pub reason: String,
    /// `up`, `suspected`, `dead`.
    pub state: String,
    /// Round trip in microseconds, where measured.
    pub rtt_us: Option<f64>,
    /// How long ago the peer was last heard, milliseconds.
    #[serde(default)]
    pub heard_ms: Option<f64>,
    /// How its silence is judged.
    #[serde(default)]
    pub watch: Option<Watch>,
    /// Which of several networks packets take (UDP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rail: Option<Rail>,
    /// Bytes of the largest datagram that the path is known to carry (UDP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagram: Option<u64>,
    /// Monotonic counters by name: packets, bytes, what was sent again and congestion over UDP, doorbells over shared memory.
    pub counters: BTreeMap<String, u64>,
}

/// The network that packets of a link take.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Rail {
    /// Its number, from 1.
    pub number: u64,
    /// How many networks both nodes are in.
    pub of: u64,
    /// Where packets go.
    pub to: SocketAddr,
    /// Why by this one.
    pub reason: String,
    /// Numbers of those that do not answer.
    pub silent: Vec<u64>,
}

/// How the silence of a link's peer is judged, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Watch {
    /// Interval of signs of life on this path.
    pub heartbeat_ms: f64,
    /// Silence after which the peer is suspected.
    pub suspect_ms: f64,
    /// Silence after which the link is dead, if a lack of processors does not excuse it.
    pub dead_ms: f64,
    /// The longest silence lately.
    pub longest_ms: f64,
}

/// `GET /v1/components`: one deployed package.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Component {
    /// Its name, from component.toml.
    pub name: String,
    /// Its version, from component.toml.
    pub version: String,
    /// sha-256 of the package, hex.
    pub digest: String,
    /// Where the deployment stands.
    pub state: ComponentState,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// Nodes that hold and have loaded it.
    pub ready: Vec<u16>,
    /// The classes it brings.
    pub classes: Vec<Class>,
}

/// Where a deployment stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentState {
    /// Nodes are fetching and loading it.
    Offered,
    /// Every member has it; its instances serve.
    Active,
    /// A node could not use it.
    Rejected,
}

/// A class of a component.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Class {
    /// Full service name, `bank.Bank`.
    pub name: String,
    /// Its methods.
    pub methods: Vec<Method>,
}

/// A method of a class.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Method {
    /// `Transfer`.
    pub name: String,
    /// `update` or `read`.
    pub kind: String,
    /// `/bank.Bank/Transfer`.
    pub path: String,
    /// Full name of the request message.
    pub request: String,
    /// Full name of the reply message.
    pub reply: String,
}

/// Answer of `POST /v1/components` (the body is the package, a tar of component.toml and library).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Deployed {
    /// sha-256 of the package, hex.
    pub digest: String,
    /// The component as it now stands.
    pub component: Component,
    /// True if this very package was active already.
    pub unchanged: bool,
}

/// `GET /v1/instances`: one replica of an instance, on the node that answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Instance {
    /// Instance number, the same on every node.
    pub id: u32,
    /// Its class.
    pub class: String,
    /// The node of this replica.
    pub node: u16,
    /// `running` or `failed`.
    pub state: String,
    /// Why it failed.
    pub error: Option<String>,
    /// Position of the last update applied.
    pub position: u64,
    /// Updates applied in this process (repeats not counted).
    pub updates: u64,
    /// Repeated calls answered from the record.
    pub repeats: u64,
    /// Reads answered.
    pub reads: u64,
    /// Replies kept for clients.
    pub records: u64,
}

/// Body and answer of `POST /v1/recover`: what the operator gives up.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Recover {
    /// The position that the blocked node says is owed, as it is shown: `VIEW:PLACE`.
    pub owed: String,
}

/// Answer of `POST /v1/audit`: every replica's state hash at one position of the order.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Audit {
    /// Where in the order the states were hashed.
    pub position: u64,
    /// View in which it happened.
    pub view: u64,
    /// True if all members answered and every instance's hashes are equal.
    pub equal: bool,
    /// Members that have not answered in time.
    pub missing: Vec<u16>,
    /// One row per instance and node.
    pub replicas: Vec<AuditedReplica>,
}

/// The state hash of one replica.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AuditedReplica {
    /// Instance number.
    pub instance: u32,
    /// Its class.
    pub class: String,
    /// Node of the replica.
    pub node: u16,
    /// sha-256 over the component's saved state and the reply records, hex; empty if it failed.
    pub hash: String,
    /// Why there is no hash.
    pub error: Option<String>,
}

/// `GET /v1/events[?since=SEQ]` gives those kept; `GET /v1/events/stream[?since=SEQ]` follows by SSE
/// (each event's `data` is this as JSON).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Event {
    /// Number of the event on this node, from 1; restarts with the process.
    pub seq: u64,
    /// The node that saw it.
    pub node: u16,
    /// Monotonic time, nanoseconds.
    pub at_ns: u64,
    /// Wall-clock time, milliseconds since 1970.
    pub unix_ms: u64,
    /// What kind.
    pub kind: EventKind,
    /// One line for people.
    pub text: String,
    /// For `view`: the details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewChange>,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The daemon or an incarnation started or stopped.
    Node,
    /// A view was installed.
    View,
    /// The quorum is lost; nothing is served.
    Blocked,
    /// The quorum is back.
    Resumed,
    /// This incarnation was removed.
    Evicted,
    /// State is sent to or received from another node.
    Transfer,
    /// A component was offered, activated, rejected or removed.
    Component,
    /// An instance started or failed.
    Instance,
    /// A snapshot was written or the journal repaired.
    Journal,
    /// A link goes by another path, or its packets by another network.
    Link,
    /// A client did something worth knowing (corrupt frame, overload).
    Client,
}

/// How one view replaced another.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ViewChange {
    /// The new view.
    pub view: View,
    /// Who came.
    pub joined: Vec<Member>,
    /// Who went.
    pub departed: Vec<Member>,
    /// Why, in words.
    pub cause: String,
    /// When the first evidence was seen here.
    pub evidence_ns: Option<u64>,
    /// When this member stopped sending in the old view.
    pub wedged_ns: Option<u64>,
    /// When it installed the new one.
    pub installed_ns: u64,
    /// From the evidence to the install, microseconds.
    pub took_us: Option<u64>,
}

/// `POST /v1/call`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CallRequest {
    /// `bank`, `Bank` or `bank.Bank`.
    pub class: String,
    /// `Transfer`; case does not matter.
    pub method: String,
    /// The request message as JSON (the usual protobuf mapping).
    #[serde(default)]
    pub body: serde_json::Value,
    /// How long to wait at most.
    #[serde(default)]
    pub deadline_ms: Option<u32>,
}

/// Answer of `POST /v1/call`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CallReply {
    /// gRPC status code by name, `OK` when all went well.
    pub status: String,
    /// The component's words where it is not OK.
    pub message: String,
    /// Position of the update, or position the read saw.
    pub position: u64,
    /// The reply message as JSON; null where the status is not OK.
    pub body: serde_json::Value,
    /// How long it took here, microseconds.
    pub took_us: u64,
}

/// Every answer that is not 2xx has this body.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Problem {
    /// What happened.
    pub what: String,
    /// What it means.
    pub means: String,
    /// What to do.
    #[serde(rename = "do")]
    pub fix: String,
}
