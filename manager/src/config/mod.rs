//! The node-local facts of one daemon, read once at start from a TOML file.
//!
//! Only what differs between machines lives here (who am I, where do I keep my data, where do I
//! listen); everything that may change while the cluster runs lives in the replicated catalogue.
//! A configuration file is written by people at three in the morning, so a mistake is answered
//! with the file, the line, the key, and the nearest key that exists ([`Error`]).
//!
//! ```toml
//! node = 1
//! cluster = "demo"
//! data_dir = "/var/lib/quintet"
//! bind = "10.0.0.1:7100"
//!
//! [[nodes]]
//! id = 1
//! transport = "10.0.0.1:7100"
//! client = "10.0.0.1:7200"
//!
//! [client]
//! listen = "10.0.0.1:7200"
//!
//! [admin]
//! socket = "/run/quintet/admin.sock"
//! ```

mod check;
mod error;
mod network;
mod suggest;
#[cfg(test)]
mod tests;

pub(crate) use check::is_cluster_name;
pub use error::Error;
pub use network::{AddressList, InterfaceChoice, OneOrMore};

use crate::identity;
use crate::limits::Limits;
use quintet_transport::Identity;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything `quintetd` reads from its file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's id: one of those in `nodes`.
    pub node: u16,
    /// The cluster's name. Nodes of different clusters never talk to each other.
    pub cluster: String,
    /// Where this node keeps its journal, snapshots, packages and votes. One daemon per directory.
    pub data_dir: PathBuf,
    /// The UDP address of the transport, or several; those in `nodes` if not said.
    #[serde(default, skip_serializing_if = "OneOrMore::is_empty")]
    pub bind: AddressList,
    /// All nodes of the cluster, this one included; the same list on every node.
    pub nodes: Vec<NodeConfig>,
    /// The door for clients and proxies.
    pub client: ClientConfig,
    /// The door for `quintet` and the console.
    pub admin: AdminConfig,
    /// How the transport moves bytes.
    #[serde(default)]
    pub transport: TransportConfig,
    /// What this node proves itself with.
    #[serde(default)]
    pub identity: IdentityConfig,
    /// How soon a silent node is suspected and removed.
    #[serde(default)]
    pub timing: TimingConfig,
    /// How delivered messages are kept.
    #[serde(default)]
    pub journal: JournalConfig,
    /// The bounds of every queue and table.
    #[serde(default)]
    pub limits: Limits,
}

/// One node of the cluster, as every node knows it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Its id, 1 or more.
    pub id: u16,
    /// The UDP address its transport is reached at. If the node is in several networks, one in each: the n-th of one node
    /// speaks with the n-th of another, the first that works.
    pub transport: AddressList,
    /// The TCP address its client door is reached at.
    pub client: SocketAddr,
}

/// The door for clients and proxies.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// TCP address to listen at.
    pub listen: SocketAddr,
}

/// The door for administrators.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Path of the Unix socket; who may open it may do everything.
    pub socket: PathBuf,
    /// Optional TCP address; loopback only. What changes something needs the token in `data_dir/admin.token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
}

/// Which path to a peer is taken.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PathChoice {
    /// Shared memory where the peer's abstract socket is reachable, else UDP.
    #[default]
    Auto,
    /// Shared memory or nothing.
    Shm,
    /// UDP even on one host.
    Udp,
    /// InfiniBand or RoCE, or nothing.
    Verbs,
}

/// How threads wait for the network.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitChoice {
    /// Never sleep: one core per node, for dedicated machines.
    Spin,
    /// Yield for some microseconds, then sleep.
    #[default]
    Adaptive,
    /// Sleep at once.
    Block,
}

/// Whether the kernel may cut and join datagrams.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OffloadChoice {
    /// Where it and the device can.
    #[default]
    Auto,
    /// Never: for a device that does it wrong.
    Off,
}

/// How the transport moves bytes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransportConfig {
    /// Which path to a peer is taken.
    pub path: PathChoice,
    /// How the poller waits.
    pub wait: WaitChoice,
    /// Whether the kernel may cut and join datagrams of UDP.
    pub offload: OffloadChoice,
    /// The network interface that the transport goes by, in place of an address: its name, or a subnet that it is in. As many
    /// as the node has addresses.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub interface: OneOrMore<InterfaceChoice>,
    /// The number of a group: nodes on this machine whose users are in it share memory, too, not only those of one user. All
    /// of them must say so, and be in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_gid: Option<u32>,
    /// Nobody but the cluster reaches the network of the RDMA adapters, which encrypt nothing. Without this word they
    /// are not used.
    pub trusted_fabric: bool,
    /// The one RDMA adapter to use; any, if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What RDMA adapters mark packets with on RoCE: the IP header's traffic class, which is DSCP times four. Unmarked, if not said.
    pub traffic_class: u8,
    /// The service level on InfiniBand (0 to 15), or the priority in a VLAN.
    pub service_level: u8,
    /// InfiniBand: the key of the partition that links go through, such as 0x8001; each port's first, if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u16>,
}

/// What this node proves itself with.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// Where `node.key`, `node.cert` and `cluster.pub` are; `identity` in the data directory if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
}

/// How soon a silent node is suspected and removed, in milliseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimingConfig {
    /// Sign of life to every peer at least this often.
    pub heartbeat_ms: u64,
    /// Silence after which a peer is suspected (revocable).
    pub suspect_ms: u64,
    /// Silence after which a peer is dead (for ever).
    pub dead_ms: u64,
}

impl Default for TimingConfig {
    fn default() -> Self {
        TimingConfig { heartbeat_ms: 15, suspect_ms: 45, dead_ms: 100 }
    }
}

/// When a journalled message counts as kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// When the operating system has it: survives kill -9, not a power cut on a majority at once.
    #[default]
    Os,
    /// When the disk has it (fdatasync per batch).
    Disk,
}

/// How delivered messages are kept.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// When a journalled message counts as kept.
    pub sync: Sync,
    /// A snapshot is taken when the journal has grown by this many bytes since the last one.
    pub snapshot_every_bytes: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig { sync: Sync::Os, snapshot_every_bytes: 64 << 20 }
    }
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Config, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Config::parse(&text).map_err(|error| error.in_file(path))
    }

    /// Parses and checks a file's text.
    pub fn parse(text: &str) -> Result<Config, Error> {
        let config: Config = toml::from_str(text).map_err(|e| error::from_toml(text, &e))?;
        config.check()?;
        Ok(config)
    }

    /// What this node proves itself with; nothing where it uses shared memory only.
    pub fn identity(&self) -> Result<Option<Identity>, identity::Error> {
        if self.transport.path == PathChoice::Shm {
            return Ok(None);
        }
        let usual = || self.data_dir.join("identity");
        let dir = self.identity.dir.clone().unwrap_or_else(usual);
        identity::load(&dir, &self.cluster, self.node).map(Some)
    }

    /// This node's own entry in `nodes`.
    pub fn own(&self) -> &NodeConfig {
        self.nodes.iter().find(|n| n.id == self.node).expect("checked by Config::check")
    }
}
