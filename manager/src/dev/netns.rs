//! A network namespace for each node, so that neither shared memory nor pidfds can help it.
//!
//! ```text
//!   this namespace ── veth ──┐
//!   node 1's        ── veth ──┤ bridge in a namespace of its own
//!   node 2's …      ── veth ──┤
//!   the proxy's     ── veth ──┘
//! ```
//! The bridge has a namespace of its own because the machine's firewall rules may apply to bridged traffic.
//! Names carry this process's id; what an earlier, killed process left behind is removed at the next start.

use super::control::Target;
use crate::cli::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Last byte of this machine's own address on the cluster's network.
const HERE: u8 = 254;
/// Last byte of the proxy's address.
const PROXY: u8 = 253;

/// The namespaces of one cluster, removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespaces {
    prefix: String,
    subnet: u8,
    nodes: u16,
}

impl Namespaces {
    /// Makes them; needs root and iproute2.
    pub(crate) fn create(nodes: u16) -> Result<Namespaces, Error> {
        sweep();
        let pid = std::process::id();
        let made = Namespaces { prefix: format!("qd{pid}"), subnet: free_subnet(pid)?, nodes };
        made.build().map_err(|error| {
            error.hint("namespaces need root and the package iproute2; without them run `quintet dev` without --netns")
        })?;
        Ok(made)
    }

    fn build(&self) -> Result<(), Error> {
        let switch = self.switch();
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        let here = self.here();
        ip(&["link", "add", &here, "type", "veth", "peer", "name", "p0", "netns", &switch])?;
        self.plug("p0")?;
        ip(&["addr", "add", &format!("{}/24", self.address(HERE)), "dev", &here])?;
        ip(&["link", "set", &here, "up"])?;
        for host in (1..=self.nodes as u8).chain([PROXY]) {
            let (name, port) = (self.host(host), format!("p{host}"));
            ip(&["netns", "add", &name])?;
            ip(&[
                "-n", &name, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns",
                &switch,
            ])?;
            self.plug(&port)?;
            ip(&[
                "-n",
                &name,
                "addr",
                "add",
                &format!("{}/24", self.address(host)),
                "dev",
                "eth0",
            ])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn plug(&self, port: &str) -> Result<(), Error> {
        ip(&["-n", &self.switch(), "link", "set", port, "master", "br0"])?;
        ip(&["-n", &self.switch(), "link", "set", port, "up"])
    }

    /// Cuts (or heals) a cable.
    pub(crate) fn set_link(&self, target: Target, up: bool) -> Result<(), Error> {
        let host = match target {
            Target::Node(node) => node as u8,
            Target::Proxy => PROXY,
        };
        ip(&[
            "-n",
            &self.switch(),
            "link",
            "set",
            &format!("p{host}"),
            if up { "up" } else { "down" },
        ])
    }

    /// The address of a node.
    pub(crate) fn node_address(&self, node: u16) -> IpAddr {
        self.address(node as u8)
    }

    /// The address of the proxy.
    pub(crate) fn proxy_address(&self) -> IpAddr {
        self.address(PROXY)
    }

    /// The file that stands for a node's namespace.
    pub(crate) fn node_file(&self, node: u16) -> PathBuf {
        Path::new("/run/netns").join(self.host(node as u8))
    }

    /// The file that stands for the proxy's namespace.
    pub(crate) fn proxy_file(&self) -> PathBuf {
        Path::new("/run/netns").join(self.host(PROXY))
    }

    fn address(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(10, 77, self.subnet, host).into()
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.prefix)
    }

    fn here(&self) -> String {
        self.prefix.clone()
    }

    fn host(&self, host: u8) -> String {
        format!("{}-{host}", self.prefix)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Deleting a namespace deletes the veth pairs that end in it.
        for host in (1..=self.nodes as u8).chain([PROXY]) {
            let _ = ip(&["netns", "del", &self.host(host)]);
        }
        let _ = ip(&["netns", "del", &self.switch()]);
    }
}

/// Removes namespaces of `quintet dev` processes that are gone.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name
            .strip_prefix("qd")
            .and_then(|rest| rest.split_once('-'))
            .map(|(pid, _)| pid.to_owned());
        let Some(owner) =
            owner.filter(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        if !Path::new("/proc").join(&owner).exists() {
            let _ = ip(&["netns", "del", &name]);
        }
    }
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

fn ip(arguments: &[&str]) -> Result<(), Error> {
    let output = Command::new("ip").args(arguments).output().map_err(no_ip)?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(format!("ip {}: {why}", arguments.join(" "))))
}

fn no_ip(error: std::io::Error) -> Error {
    Error::new(format!("cannot run `ip`: {error}"))
}
