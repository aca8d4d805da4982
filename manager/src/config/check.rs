//! What types cannot say: each value by itself, and whether they fit together.

use super::{Config, Error, NodeConfig, PathChoice};
use quintet_transport::limits::{CLUSTER_NAME_MAX, NODE_ID_MAX, NODES_MAX, SERVICE_LEVEL_MAX};
use quintet_transport::reliable::RAILS_MAX;
use std::net::SocketAddr;

impl Config {
    /// Says what is wrong with it, if anything is.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.check_names()?;
        self.check_nodes()?;
        self.check_doors()?;
        self.check_fabric()?;
        self.check_times_and_sizes()
    }

    fn check_names(&self) -> Result<(), Error> {
        is_cluster_name(&self.cluster)?;
        is_node_id("node", self.node)
    }

    fn check_nodes(&self) -> Result<(), Error> {
        let count = self.nodes.len();
        if !(1..=NODES_MAX).contains(&count) {
            return bad(
                "nodes",
                format!("{count} nodes are listed"),
                &format!("list 1 to {NODES_MAX} nodes"),
            );
        }
        for (i, node) in self.nodes.iter().enumerate() {
            is_node_id("nodes.id", node.id)?;
            for other in &self.nodes[..i] {
                if other.id == node.id {
                    return bad(
                        "nodes.id",
                        format!("node {} is listed twice", node.id),
                        "give every node an id of its own",
                    );
                }
                let shared =
                    other.transport.iter().find(|at| node.transport.iter().any(|a| a == *at));
                let client = (other.client == node.client).then_some(&node.client);
                for (key, shared) in [("nodes.transport", shared), ("nodes.client", client)] {
                    if let Some(at) = shared {
                        return bad(
                            key,
                            format!("nodes {} and {} share the address {at}", other.id, node.id),
                            "give every node addresses of its own",
                        );
                    }
                }
            }
            self.check_transport_of(node)?;
            let transport = node.transport.iter().map(|at| ("nodes.transport", at));
            for (key, at) in transport.chain([("nodes.client", &node.client)]) {
                if at.port() == 0 || at.ip().is_unspecified() {
                    return bad(
                        key,
                        format!("nobody can reach node {} at {at}", node.id),
                        "write the address and port at which the other machines reach it",
                    );
                }
            }
        }
        if !self.nodes.iter().any(|n| n.id == self.node) {
            let ids: Vec<String> = self.nodes.iter().map(|n| n.id.to_string()).collect();
            return bad(
                "node",
                format!("node {} is not in the list of nodes ({})", self.node, ids.join(", ")),
                "add a [[nodes]] entry for it, or correct `node`",
            );
        }
        Ok(())
    }

    fn check_transport_of(&self, node: &NodeConfig) -> Result<(), Error> {
        let list = &node.transport;
        if !(1..=RAILS_MAX).contains(&list.iter().len()) {
            return bad(
                "nodes.transport",
                format!("node {} has {} addresses", node.id, list.iter().len()),
                &format!("write 1 to {RAILS_MAX}, one in each network that it is in"),
            );
        }
        let twice = list.iter().enumerate().find(|(i, at)| list.0[..*i].contains(at));
        match twice {
            Some((_, at)) => bad(
                "nodes.transport",
                format!("node {} has {at} twice", node.id),
                "write one address in each network that it is in",
            ),
            None => Ok(()),
        }
    }

    fn check_fabric(&self) -> Result<(), Error> {
        let transport = &self.transport;
        if transport.path == PathChoice::Verbs && !transport.trusted_fabric {
            return bad(
                "transport.trusted_fabric",
                "path = \"verbs\" moves everything over the RDMA network, unencrypted".to_owned(),
                "write trusted_fabric = true if nobody else reaches that network",
            );
        }
        if transport.service_level > SERVICE_LEVEL_MAX {
            return bad(
                "transport.service_level",
                format!(
                    "{} is none: InfiniBand knows 0 to {SERVICE_LEVEL_MAX}",
                    transport.service_level
                ),
                "write one that the subnet manager has, or leave the line out",
            );
        }
        if let Some(key) = transport.partition
            && key & 0x7fff == 0
        {
            return bad(
                "transport.partition",
                format!("{key:#06x} is no partition's key"),
                "write one that the subnet manager has, such as 0x8001 (quintet doctor lists those of a port), or leave the line out",
            );
        }
        Ok(())
    }

    fn check_doors(&self) -> Result<(), Error> {
        let own = self.own();
        if !self.bind.is_empty() && self.bind != own.transport {
            return bad(
                "bind",
                format!(
                    "{} is not where the others look for node {} (nodes.transport is {})",
                    self.bind, own.id, own.transport
                ),
                "write the same in both places, or leave `bind` out",
            );
        }
        let (interfaces, addresses) = (&self.transport.interface, &own.transport);
        if !interfaces.is_empty() && interfaces.iter().len() != addresses.iter().len() {
            return bad(
                "transport.interface",
                format!("{interfaces} for the addresses {addresses}"),
                "name one interface for each address of this node",
            );
        }
        for other in self.nodes.iter().filter(|other| other.id != own.id) {
            for (theirs, ours) in other.transport.iter().zip(addresses.iter()) {
                let local = |at: &SocketAddr| (at.is_ipv4(), at.ip().is_loopback());
                if local(theirs) != local(ours) {
                    return bad(
                        "nodes.transport",
                        format!("node {} at {theirs} cannot be reached from {ours}", other.id),
                        "give all nodes loopback addresses, or none, and all of IPv4 or all of IPv6, in each network",
                    );
                }
            }
        }
        // A server may listen at all addresses of its machine and be known by one.
        let listen = self.client.listen;
        let everywhere = listen.ip().is_unspecified() && listen.port() == own.client.port();
        if listen != own.client && !everywhere {
            return bad(
                "client.listen",
                format!(
                    "{listen} is not where clients and the others look for node {} (nodes.client is {})",
                    own.id, own.client
                ),
                "write the same address in both places",
            );
        }
        if let Some(http) = self.admin.http {
            if !http.ip().is_loopback() {
                return bad(
                    "admin.http",
                    format!("{http} is not a loopback address"),
                    "it is served on this machine only, for it is not encrypted: use 127.0.0.1 (and from elsewhere a \
                     tunnel, as of ssh -L)",
                );
            }
            if http.port() == listen.port() && (http == listen || listen.ip().is_unspecified()) {
                return bad(
                    "admin.http",
                    format!("{http} is taken by client.listen"),
                    "give it a port of its own",
                );
            }
            if http.port() == 0 {
                return bad("admin.http", "0 is no port".into(), "choose one");
            }
        }
        let socket = &self.admin.socket;
        if socket.as_os_str().is_empty() || socket.as_os_str().len() > 100 {
            return bad(
                "admin.socket",
                format!("`{}` cannot be the path of a Unix socket", socket.display()),
                "use a path of 1 to 100 bytes",
            );
        }
        if self.data_dir.as_os_str().is_empty() {
            return bad("data_dir", "it is empty".into(), "name a directory, /var/lib/quintet say");
        }
        Ok(())
    }

    fn check_times_and_sizes(&self) -> Result<(), Error> {
        let t = &self.timing;
        let (beat, suspect, dead) = (t.heartbeat_ms, t.suspect_ms, t.dead_ms);
        if beat == 0 || beat.saturating_mul(2) > suspect || suspect >= dead {
            return bad(
                "timing",
                format!(
                    "heartbeat_ms {beat}, suspect_ms {suspect}, dead_ms {dead} do not fit together"
                ),
                "suspect_ms must be at least twice heartbeat_ms, and dead_ms greater than suspect_ms",
            );
        }
        if self.journal.snapshot_every_bytes < 64 << 10 {
            return bad(
                "journal.snapshot_every_bytes",
                format!("{} is too small", self.journal.snapshot_every_bytes),
                "use at least 65536",
            );
        }
        let most = request_bytes_max();
        if self.limits.request_bytes > most {
            return bad(
                "limits.request_bytes",
                format!(
                    "{} is more than the group takes in one message",
                    self.limits.request_bytes
                ),
                &format!("use at most {most}"),
            );
        }
        self.limits.check().or_else(|(key, default)| {
            bad(
                &format!("limits.{key}"),
                "0 would stop everything".into(),
                &format!("use 1 or more, or leave it out for the usual {default}"),
            )
        })
    }
}

/// The longest request that still makes one message of the group, with what a call carries beside it.
fn request_bytes_max() -> usize {
    let log = quintet_vsync::Limits::default().group_log;
    quintet_vsync::MAX_MESSAGE.min(log / 4) - crate::replica::call_len(0)
}

/// What a cluster may be called.
pub(crate) fn is_cluster_name(name: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() || name.len() > CLUSTER_NAME_MAX || !name.bytes().all(plain) {
        return bad(
            "cluster",
            format!("`{name}` is not a cluster name"),
            &format!("use 1 to {CLUSTER_NAME_MAX} letters, digits, '-', '_' or '.'"),
        );
    }
    Ok(())
}

fn is_node_id(key: &str, id: u16) -> Result<(), Error> {
    if (1..=NODE_ID_MAX).contains(&id) {
        return Ok(());
    }
    bad(key, format!("{id} is not a node id"), &format!("use a number from 1 to {NODE_ID_MAX}"))
}

fn bad(key: &str, what: String, fix: &str) -> Result<(), Error> {
    Err(Error::value(key, what, fix))
}
