//! A network namespace for each node, so that neither shared memory nor pidfds can help it.
//!
//! ```text
//!   this namespace ── veth ──┐
//!   node 1's        ── veth ──┤ bridge in a namespace of its own
//!   node 2's …      ── veth ──┤
//!   the proxy's     ── veth ──┘
//! ```
//! The bridge has a namespace of its own because the machine's firewall rules may apply to bridged traffic.
//! They have no names, so that nothing of them is left when this process is gone, however it was ended.

use super::control::Target;
use super::network::Network;
use crate::cli::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Last byte of this machine's own address on the cluster's network.
const HERE: u8 = 254;
/// Last byte of the proxy's address.
const PROXY: u8 = 253;

/// The namespaces of one cluster. The kernel takes them apart, and the cables in them, when they are dropped and nobody
/// lives in them any more.
#[derive(Debug)]
pub(crate) struct Namespaces {
    subnet: u8,
    switch: Network,
    /// Each with the last byte of its address.
    hosts: Vec<(u8, Network)>,
}

impl Namespaces {
    /// Makes them; needs root and iproute2.
    pub(crate) fn create(nodes: u16) -> Result<Namespaces, Error> {
        Namespaces::build(nodes).map_err(|error| {
            error.hint("namespaces need root and the package iproute2; without them run `quintet dev` without --netns")
        })
    }

    fn build(nodes: u16) -> Result<Namespaces, Error> {
        let pid = std::process::id();
        let made = Namespaces {
            subnet: free_subnet(pid)?,
            switch: network()?,
            hosts: (1..=nodes as u8)
                .chain([PROXY])
                .map(|host| Ok((host, network()?)))
                .collect::<Result<_, Error>>()?,
        };
        let switch = &made.switch;
        ip_in(switch, &["link", "add", "br0", "type", "bridge"])?;
        ip_in(switch, &["link", "set", "br0", "up"])?;
        // This machine's end goes when the other one does.
        let (here, inside) = (format!("qd{pid}"), switch.path());
        ip(&["link", "add", &here, "type", "veth", "peer", "name", "p0", "netns", &inside])?;
        made.plug("p0")?;
        ip(&["addr", "add", &format!("{}/24", made.address(HERE)), "dev", &here])?;
        ip(&["link", "set", &here, "up"])?;
        for (host, own) in &made.hosts {
            let (port, address) = (format!("p{host}"), format!("{}/24", made.address(*host)));
            ip_in(
                own,
                &["link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &inside],
            )?;
            made.plug(&port)?;
            ip_in(own, &["addr", "add", &address, "dev", "eth0"])?;
            ip_in(own, &["link", "set", "eth0", "up"])?;
            ip_in(own, &["link", "set", "lo", "up"])?;
        }
        Ok(made)
    }

    fn plug(&self, port: &str) -> Result<(), Error> {
        ip_in(&self.switch, &["link", "set", port, "master", "br0"])?;
        ip_in(&self.switch, &["link", "set", port, "up"])
    }

    /// Cuts (or heals) a cable.
    pub(crate) fn set_link(&self, target: Target, up: bool) -> Result<(), Error> {
        let host = match target {
            Target::Node(node) => node as u8,
            Target::Proxy => PROXY,
        };
        let state = if up { "up" } else { "down" };
        ip_in(&self.switch, &["link", "set", &format!("p{host}"), state])
    }

    /// The address of a node.
    pub(crate) fn node_address(&self, node: u16) -> IpAddr {
        self.address(node as u8)
    }

    /// The address of the proxy.
    pub(crate) fn proxy_address(&self) -> IpAddr {
        self.address(PROXY)
    }

    /// Where a node lives.
    pub(crate) fn node(&self, node: u16) -> Network {
        self.host(node as u8)
    }

    /// Where the proxy lives.
    pub(crate) fn proxy(&self) -> Network {
        self.host(PROXY)
    }

    fn host(&self, host: u8) -> Network {
        let found = self.hosts.iter().find(|(known, _)| *known == host);
        found.expect("every node and the proxy has one").1.clone()
    }

    fn address(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(10, 77, self.subnet, host).into()
    }
}

fn network() -> Result<Network, Error> {
    Network::new().map_err(|error| Error::new(format!("cannot make a network namespace: {error}")))
}

/// A third byte of 10.77.x.0/24 that this machine does not use.
fn free_subnet(pid: u32) -> Result<u8, Error> {
    let used = Command::new("ip").args(["-4", "-o", "addr"]).output().map_err(no_ip)?;
    let used = String::from_utf8_lossy(&used.stdout).into_owned();
    (0..250)
        .map(|offset| ((pid + offset) % 250) as u8)
        .find(|subnet| !used.contains(&format!(" 10.77.{subnet}.")))
        .ok_or_else(|| Error::new("all networks 10.77.x.0/24 are in use on this machine"))
}

/// Runs `ip` in this process's own network namespace.
fn ip(arguments: &[&str]) -> Result<(), Error> {
    run(Command::new("ip").args(arguments), arguments)
}

/// Runs `ip` in another one.
fn ip_in(network: &Network, arguments: &[&str]) -> Result<(), Error> {
    let (mut command, network) = (Command::new("ip"), network.clone());
    // SAFETY: the closure runs in the child between fork and exec. It makes one async-signal-safe system call (setns),
    // allocates nothing, and owns the open descriptor that it uses.
    unsafe {
        command.pre_exec(move || network.enter());
    }
    run(command.args(arguments), arguments)
}

fn run(command: &mut Command, arguments: &[&str]) -> Result<(), Error> {
    let output = command.output().map_err(no_ip)?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(format!("ip {}: {why}", arguments.join(" "))))
}

fn no_ip(error: std::io::Error) -> Error {
    Error::new(format!("cannot run `ip`: {error}"))
}
