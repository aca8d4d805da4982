//! What a poller is told at start, and the check that it makes sense.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::id::{Member, NodeId};
use crate::lane::LaneSpec;
use crate::limits::*;
use crate::reliable::RAILS_MAX;
use crate::secure::Identity;

/// Which paths to a peer may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathPolicy {
    /// Shared memory where the peer is reachable through it, else verbs where both nodes have them and
    /// [`VerbsConfig::trusted_fabric`] is stated, else UDP.
    #[default]
    Auto,
    /// Shared memory only; a peer that cannot be reached so stays down.
    Shm,
    /// UDP only, even on one host.
    Udp,
    /// Verbs only. Where they cannot be used the poller is not made, and a peer without them stays down.
    Verbs,
}

impl PathPolicy {
    /// Whether links may go over adapters, where the binary can do that.
    pub(crate) fn may_be_verbs(self) -> bool {
        cfg!(feature = "verbs") && matches!(self, PathPolicy::Auto | PathPolicy::Verbs)
    }
}

/// InfiniBand and RoCE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerbsConfig {
    /// The operator's word that nobody but the cluster reaches the adapters' network: verbs neither encrypt nor
    /// authenticate. Without it they are not used.
    pub trusted_fabric: bool,
    /// Use this adapter only.
    pub device: Option<String>,
    /// How the network shall treat what is sent.
    pub marks: Marks,
    /// InfiniBand: the key of the partition that links go through, one of those of the port. The port's first, if not said.
    /// The highest bit, full membership, is not looked at: the port's own is what counts.
    pub partition: Option<u16>,
}

/// Bits of a partition's key that say which it is.
pub(crate) const PARTITION: u16 = 0x7fff;

/// What adapters mark packets with, for switches that treat traffic by it. Unmarked is what a network carries by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// RoCE: the IP header's traffic class, that is DSCP times four. (InfiniBand routers see it as well.)
    pub traffic_class: u8,
    /// InfiniBand: the service level, at most [`SERVICE_LEVEL_MAX`](crate::limits::SERVICE_LEVEL_MAX). RoCE: the priority in a VLAN.
    pub service_level: u8,
}

impl std::fmt::Display for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "traffic class {}, service level {}", self.traffic_class, self.service_level)
    }
}

/// What the poller's thread does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Never sleeps. Only for a core of its own.
    Spin,
    /// Yields for about 20 µs, then parks.
    #[default]
    Adaptive,
    /// Parks at once.
    Block,
}

/// Failure-detection times. `heartbeat < suspect < dead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Interval of heartbeats over UDP; over shared memory they are rarer, see ARCHITECTURE.md.
    pub heartbeat: Duration,
    /// Silence after which a peer is suspected (revocable).
    pub suspect: Duration,
    /// Silence after which a link is declared dead (for ever).
    pub dead: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(15),
            suspect: Duration::from_millis(45),
            dead: Duration::from_millis(100),
        }
    }
}

/// A configured peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its node id.
    pub node: NodeId,
    /// Where it receives UDP.
    pub addr: SocketAddr,
}

/// One more network that nodes reach each other by, beside that of [`Config::bind`] and [`Config::peers`]. A link goes over one
/// at a time, the first that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rail {
    /// UDP address to receive on.
    pub bind: SocketAddr,
    /// As [`Config::interface`].
    pub interface: Option<String>,
    /// The peers that are in it, and where.
    pub peers: Vec<PeerConfig>,
}

/// Everything a [`Poller`](crate::Poller) needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the cluster; nodes of different clusters never link. At most
    /// [`CLUSTER_NAME_MAX`] bytes, without `/` and NUL.
    pub cluster: String,
    /// Who we are: this node and this run of it.
    pub me: Member,
    /// The lanes, the same on every node; lane 0 is [`CONTROL`](crate::CONTROL).
    pub lanes: Vec<LaneSpec>,
    /// UDP address to receive on.
    pub bind: SocketAddr,
    /// Send and receive by this network interface only, at whatever address it has: only the port of [`Config::bind`] counts.
    /// What this host sends to its own address does not go by it.
    pub interface: Option<String>,
    /// The other nodes.
    pub peers: Vec<PeerConfig>,
    /// Further networks, the better ones first. A peer that is not in one is not in those after it either.
    pub rails: Vec<Rail>,
    /// Which paths may be used.
    pub path: PathPolicy,
    /// Share memory also with nodes of other users that are in this group (its number). This process must be in it. They are
    /// trusted as this user is: what they publish is read where they wrote it, and they could still change it.
    pub shm_gid: Option<u32>,
    /// InfiniBand and RoCE, where the policy allows them.
    pub verbs: VerbsConfig,
    /// How to wait.
    pub wait: Wait,
    /// When a silent peer is suspected and declared dead.
    pub timing: Timing,
    /// What this node proves itself with. Needed for UDP, which is encrypted and authenticated always.
    pub identity: Option<Arc<Identity>>,
    /// Longest park while nothing is due: the backstop that bounds the harm of a lost wake-up.
    pub backstop: Duration,
    /// Whether io_uring may be used for parking; with `false`, or where the kernel refuses it, ppoll is.
    pub io_uring: bool,
    /// Whether the kernel may cut and join datagrams (UDP_SEGMENT, UDP_GRO); with `false`, or where it or a device refuses, they
    /// pass one by one, many a call.
    pub offload: bool,
}

impl Config {
    /// A node of `cluster` without peers and identity, with the default lanes and times.
    pub fn new(cluster: &str, me: Member, bind: SocketAddr) -> Config {
        Config {
            cluster: cluster.to_owned(),
            me,
            lanes: Config::default_lanes(),
            bind,
            interface: None,
            peers: Vec::new(),
            rails: Vec::new(),
            path: PathPolicy::default(),
            shm_gid: None,
            verbs: VerbsConfig::default(),
            wait: Wait::default(),
            timing: Timing::default(),
            identity: None,
            backstop: Duration::from_millis(100),
            io_uring: true,
            offload: true,
        }
    }

    /// Control 1 MiB, group 8 MiB, bulk 4 MiB.
    pub fn default_lanes() -> Vec<LaneSpec> {
        vec![
            LaneSpec { name: "control", words: 8, log_bytes: 1 << 20 },
            LaneSpec { name: "group", words: 8, log_bytes: 8 << 20 },
            LaneSpec { name: "bulk", words: 8, log_bytes: 4 << 20 },
        ]
    }

    /// Says what is wrong with it, if anything is.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        let c = &self.cluster;
        if c.is_empty() || c.len() > CLUSTER_NAME_MAX || c.contains(['/', '\0']) {
            return wrong(format!(
                "cluster name {c:?} must have 1..={CLUSTER_NAME_MAX} bytes and no '/' or NUL"
            ));
        }
        let id_ok = |n: NodeId| (1..=NODE_ID_MAX).contains(&n.0);
        if !id_ok(self.me.node) {
            return wrong(format!("node id {} is not in 1..={NODE_ID_MAX}", self.me.node.0));
        }
        if self.me.incarnation.0 == 0 {
            return wrong("incarnation 0 is reserved for the genesis view".into());
        }
        match &self.identity {
            None if self.path == PathPolicy::Shm => {}
            None => {
                return wrong(
                    "UDP needs an identity: give this node one, or use shared memory only".into(),
                );
            }
            Some(identity) => {
                identity.check(c, self.me.node).map_err(|e| Error::Config(e.to_string()))?;
            }
        }
        if self.peers.len() >= NODES_MAX {
            return wrong(format!(
                "{} peers; at most {} are possible",
                self.peers.len(),
                NODES_MAX - 1
            ));
        }
        for (i, p) in self.peers.iter().enumerate() {
            if !id_ok(p.node) {
                return wrong(format!("peer id {} is not in 1..={NODE_ID_MAX}", p.node.0));
            }
            if p.node == self.me.node || self.peers[..i].iter().any(|q| q.node == p.node) {
                return wrong(format!("node {} is configured twice", p.node));
            }
        }
        if self.rails.len() >= RAILS_MAX {
            return wrong(format!("{} networks; at most {RAILS_MAX}", self.rails.len() + 1));
        }
        let mut before = &self.peers;
        for rail in &self.rails {
            for (i, p) in rail.peers.iter().enumerate() {
                if rail.peers[..i].iter().any(|q| q.node == p.node) {
                    return wrong(format!("node {} is twice in one network", p.node));
                }
                if !before.iter().any(|q| q.node == p.node) {
                    return wrong(format!(
                        "node {} is in a network, and not in the one before",
                        p.node
                    ));
                }
            }
            before = &rail.peers;
        }
        let level = self.verbs.marks.service_level;
        if level > SERVICE_LEVEL_MAX {
            return wrong(format!(
                "service level {level}; InfiniBand knows 0..={SERVICE_LEVEL_MAX}"
            ));
        }
        if self.verbs.partition.is_some_and(|key| key & PARTITION == 0) {
            return wrong("partition 0; keys of partitions are 1..=0x7fff".into());
        }
        if self.lanes.is_empty() || self.lanes.len() > LANES_MAX {
            return wrong(format!("{} lanes; 1..={LANES_MAX} are possible", self.lanes.len()));
        }
        for l in &self.lanes {
            let log_ok = l.log_bytes.is_power_of_two()
                && (LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&l.log_bytes);
            if !log_ok {
                return wrong(format!(
                    "lane {}: log of {} bytes; it must be a power of two in {LOG_BYTES_MIN}..={LOG_BYTES_MAX}",
                    l.name, l.log_bytes
                ));
            }
            if l.words > LANE_WORDS_MAX {
                return wrong(format!(
                    "lane {}: {} words; at most {LANE_WORDS_MAX}",
                    l.name, l.words
                ));
            }
        }
        let t = self.timing;
        if t.heartbeat.is_zero() || t.suspect <= t.heartbeat || t.dead <= t.suspect {
            return wrong(format!(
                "timing must satisfy 0 < heartbeat ({:?}) < suspect ({:?}) < dead ({:?})",
                t.heartbeat, t.suspect, t.dead
            ));
        }
        if self.backstop.is_zero() {
            return wrong("backstop must not be zero".into());
        }
        Ok(())
    }
}
