//! What a node is told at its start. Every queue and log gets its size here, once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quintet_transport::stats::Board;
use quintet_transport::{
    Identity, NodeId, PathPolicy, PeerConfig, Rail, Timing, VerbsConfig, Wait,
};

use crate::core::Position;
use crate::error::Error;
use crate::passages::Passages;

/// Longest message, bytes (a shorter limit holds for small logs: a quarter of [`Limits::group_log`]).
pub const MAX_MESSAGE: usize = 1 << 20;

/// Sizes of a node's queues and logs. Reaching one is back-pressure, never growth.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Deliveries waiting for the application, entries (power of two).
    pub queue: usize,
    /// Own messages not yet consumed by every member, bytes (power of two).
    pub group_log: usize,
    /// Own control records not yet read by every peer, bytes (power of two).
    pub control_log: usize,
    /// State transfer bytes under way to a learner (power of two).
    pub bulk_log: usize,
    /// How long a donor waits for a learner that consumes nothing.
    pub transfer_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 1 << 14,
            group_log: 8 << 20,
            control_log: 1 << 20,
            bulk_log: 4 << 20,
            transfer_patience: Duration::from_secs(30),
        }
    }
}

/// Settings of one node. Start from [`Config::new`] and change what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Name of the cluster; nodes of different names never talk.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// UDP address of this node.
    pub bind: SocketAddr,
    /// Send and receive by this network interface only, at whatever address it has.
    pub interface: Option<String>,
    /// The other nodes of the cluster.
    pub peers: Vec<PeerConfig>,
    /// Further networks that nodes reach each other by, the better ones first.
    pub rails: Vec<Rail>,
    /// Which path to use to peers.
    pub path: PathPolicy,
    /// Share memory also with nodes of other users that are in the group of this number.
    pub shm_gid: Option<u32>,
    /// InfiniBand and RoCE, where [`path`](Config::path) allows them.
    pub verbs: VerbsConfig,
    /// How the poller waits when there is nothing to do.
    pub wait: Wait,
    /// Whether the kernel may cut and join datagrams of UDP.
    pub offload: bool,
    /// Failure detection times.
    pub timing: Timing,
    /// What this node proves itself with; needed unless [`path`](Config::path) is shared memory only.
    pub identity: Option<Arc<Identity>>,
    /// Where the acceptor record lives. `None` keeps it in memory: for tests, and for uses where a restarted node is
    /// a node without memory. **With `None` a group whose quorum restarts can lose its agreement.**
    pub data_dir: Option<PathBuf>,
    /// What the application recovered by itself: its state contains everything up to here.
    pub state: Position,
    /// How long a read lease lasts after the instant of which a majority confirmed to have heard from this node.
    /// `None`: three quarters of [`Timing::dead`]. Must be less than that.
    pub lease: Option<Duration>,
    /// Sizes.
    pub limits: Limits,
    /// Where the node shows its figures, made with [`stat_names`](crate::stat_names) and [`stat_texts`](crate::stat_texts) of its peers.
    pub stats: Option<Arc<Board>>,
    /// Where the stages of own messages are told, for measurements.
    pub passages: Option<Arc<Passages>>,
}

impl Config {
    /// A node with default sizes and times, shared memory where possible, no identity yet, and its record in memory.
    pub fn new(
        cluster: impl Into<String>,
        node: NodeId,
        bind: SocketAddr,
        peers: Vec<PeerConfig>,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            node,
            bind,
            interface: None,
            peers,
            rails: Vec::new(),
            path: PathPolicy::Auto,
            shm_gid: None,
            verbs: VerbsConfig::default(),
            wait: Wait::Adaptive,
            offload: true,
            timing: Timing::default(),
            identity: None,
            data_dir: None,
            state: Position::ZERO,
            lease: None,
            limits: Limits::default(),
            stats: None,
            passages: None,
        }
    }

    /// The lease that holds.
    pub fn lease(&self) -> Duration {
        self.lease.unwrap_or(self.timing.dead * 3 / 4)
    }

    /// All nodes of the cluster, this one among them, in ascending order.
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.peers.iter().map(|p| p.node).chain([self.node]).collect();
        nodes.sort();
        nodes
    }

    /// Longest message with these sizes.
    pub fn max_message(&self) -> usize {
        MAX_MESSAGE.min(self.limits.group_log / 4)
    }

    /// Checks what can be checked without the system.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |what: String| Err(Error::Config(what));
        let nodes = self.nodes();
        if let Some(w) = nodes.windows(2).find(|w| w[0] == w[1]) {
            return bad(format!("node {} is listed twice", w[0]));
        }
        if nodes.iter().any(|n| n.0 == 0) {
            return bad("node ids start at 1".into());
        }
        if nodes.len() > 64 {
            return bad(format!("{} nodes; a group has at most 64", nodes.len()));
        }
        if self.lease() >= self.timing.dead {
            return bad(format!(
                "lease {:?} must be shorter than the time after which a silent node is dead, {:?}",
                self.lease(),
                self.timing.dead
            ));
        }
        let sizes = [
            ("queue", self.limits.queue, 16),
            ("group_log", self.limits.group_log, 4096),
            ("control_log", self.limits.control_log, 65536),
            ("bulk_log", self.limits.bulk_log, 4096),
        ];
        for (name, size, least) in sizes {
            if !size.is_power_of_two() || size < least {
                return bad(format!(
                    "limits.{name} = {size}: must be a power of two and at least {least}"
                ));
            }
        }
        Ok(())
    }
}
