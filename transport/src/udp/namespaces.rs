//! Two nodes in two network namespaces with a cable between: what loopback cannot show.
//!
//! An MTU of 1500, ARP that nobody answers, a cut cable, a port closed on another machine. Needs root and the
//! `ip` tool; where they are missing the test is skipped.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::tests::{Node, config, linked, stream, until};
use super::*;
use crate::clock;
use crate::lane::CONTROL;

/// Namespaces and the cables between them; gone when dropped.
pub(super) struct Lab {
    pub(super) names: [String; 2],
}

/// Sockets that this thread opens from now on are of that namespace.
pub(super) fn enter(space: &File) {
    // SAFETY: no pointers; moves only this thread into the namespace.
    assert_eq!(unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
}

pub(super) fn ip(arguments: &str) -> bool {
    Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .is_ok_and(|output| output.status.success())
}

impl Lab {
    fn new() -> Option<Lab> {
        Lab::with(&["cable"])
    }

    /// With so many cables; each is a network of its own: 10.231.77.0/24 and fd77:0::/64, and on from there.
    pub(super) fn with(cables: &[&str]) -> Option<Lab> {
        // Unique among processes and tests.
        static LABS: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let names = [format!("qt{id}a"), format!("qt{id}b")];
        if !names.iter().all(|name| ip(&format!("netns add {name}"))) {
            crate::skip::skip(
                "`ip netns add` does not work here: it needs root and the package iproute2",
            );
            return None;
        }
        let lab = Lab { names };
        let [a, b] = &lab.names;
        for (number, cable) in cables.iter().enumerate() {
            let ends = format!("link add {cable} netns {a} type veth peer name {cable} netns {b}");
            assert!(ip(&ends), "a cable between the namespaces");
            for (index, name) in lab.names.iter().enumerate() {
                let (net, host) = (77 + number, index + 1);
                assert!(ip(&format!("-n {name} addr add 10.231.{net}.{host}/24 dev {cable}")));
                // Addresses that may be used at once.
                ip(&format!("-n {name} addr add fd77:{number}::{host}/64 dev {cable} nodad"));
                assert!(ip(&format!("-n {name} link set {cable} up")));
            }
        }
        assert!(lab.names.iter().all(|name| ip(&format!("-n {name} link set lo up"))));
        Some(lab)
    }

    /// What is done in one of the namespaces by `act` is done there.
    pub(super) fn inside<T>(&self, me: usize, act: impl FnOnce() -> T) -> (T, File) {
        let space = File::open(format!("/run/netns/{}", self.names[me])).unwrap();
        enter(&space);
        (act(), space)
    }

    /// Starts a node that lives in one of the namespaces.
    fn start(&self, addrs: &[SocketAddr], me: usize, incarnation: u64) -> Node {
        self.start_at(addrs, me, incarnation)
    }

    /// The same; the own address may be that of all interfaces.
    fn start_at(&self, addrs: &[SocketAddr], me: usize, incarnation: u64) -> Node {
        self.start_with(&config(addrs, me, incarnation), me)
    }

    fn start_with(&self, config: &Config, me: usize) -> Node {
        let (mut node, space) = self.inside(me, || Node::with(config));
        node.space = Some(space);
        node
    }

    fn mtu(&self, end: usize, mtu: u32) {
        assert!(ip(&format!("-n {} link set cable mtu {mtu}", self.names[end])));
    }

    fn cable(&self, state: &str) {
        assert!(ip(&format!("-n {} link set cable {state}", self.names[0])));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns del {name}"));
        }
    }
}

#[test]
fn jumbo_frames_are_used_until_the_path_swallows_them() {
    let Some(lab) = Lab::new() else { return };
    (0..2).for_each(|end| lab.mtu(end, 9000));
    let addrs: Vec<SocketAddr> =
        (1..3).map(|host| format!("10.231.77.{host}:7400").parse().unwrap()).collect();
    let (mut a, mut b) = (lab.start(&addrs, 0, 1), lab.start(&addrs, 1, 1));
    until(&mut [&mut a, &mut b], "links", linked);
    let largest = |node: &mut Node| {
        node.udp.links_mut().map(|link| link.connection.datagram_max() + TAG_LEN).max().unwrap()
    };
    until(&mut [&mut a, &mut b], "jumbo frames", |n| largest(n[0]) == 9000 - 28);
    // What the far end of a cable does not take it drops, unless the kernel knows it to be many datagrams.
    a.udp.means.cannot_cut(&std::io::Error::from_raw_os_error(libc::EIO));
    lab.mtu(1, 1500);
    stream(&mut a, &mut b, 300);
    assert!(largest(&mut a) <= 1500 - 28);
    until(&mut [&mut a, &mut b], "what it carries", |n| largest(n[0]) > 1500 - 28 - 40);
}

/// Two nodes of which the second changes its address, and changes it back; it is bound to none in particular, or to an
/// interface.
fn moving(first: &str, places: [&str; 2], interface: Option<&str>) {
    let Some(lab) = Lab::new() else { return };
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 7400);
    let anywhere = if first.contains(':') { "::" } else { "0.0.0.0" };
    let bits = if first.contains(':') { 64 } else { 24 };
    let reached = [at(first), at(places[0])];
    let mut a = lab.start(&reached, 0, 1);
    let mut there = match interface {
        None => config(&[reached[0], at(anywhere)], 1, 1),
        Some(_) => config(&reached, 1, 1),
    };
    there.interface = interface.map(str::to_owned);
    let mut b = lab.start_with(&there, 1);
    until(&mut [&mut a, &mut b], "links", linked);
    stream(&mut a, &mut b, 40);
    let (ab, ba) = (a.link_to(1).unwrap(), b.link_to(0).unwrap());
    let b_ip = |command: &str| assert!(ip(&format!("-n {} addr {command}", lab.names[1])));
    let nodad = if bits == 64 { " nodad" } else { "" };
    for (old, new) in [(places[0], places[1]), (places[1], places[0])] {
        b_ip(&format!("del {old}/{bits} dev cable"));
        b_ip(&format!("add {new}/{bits} dev cable{nodad}"));
        b.own.set_word(CONTROL, 0, 1);
        stream(&mut a, &mut b, 300);
        assert_eq!((a.link_to(1), b.link_to(0)), (Some(ab), Some(ba)), "the same link");
        let to = a.udp.peers[0].socket().and_then(Socket::peer).unwrap();
        assert_eq!(to, at(new));
    }
    assert_eq!((a.events.len(), b.events.len()), (1, 1), "nothing died");
}

#[test]
fn a_node_keeps_its_link_when_its_address_changes() {
    moving("10.231.77.1", ["10.231.77.2", "10.231.77.7"], None);
}

#[test]
fn a_node_keeps_its_link_when_its_ipv6_address_changes() {
    moving("fd77:0::1", ["fd77:0::2", "fd77:0::7"], None);
}

#[test]
fn a_node_that_is_bound_to_an_interface_keeps_its_link_when_the_address_of_that_changes() {
    moving("10.231.77.1", ["10.231.77.2", "10.231.77.7"], Some("cable"));
    moving("fd77:0::1", ["fd77:0::2", "fd77:0::7"], Some("cable"));
}

#[test]
fn a_node_that_is_bound_to_an_address_keeps_its_link_when_that_comes_back() {
    let Some(lab) = Lab::new() else { return };
    let addrs: Vec<SocketAddr> =
        (1..3).map(|host| format!("10.231.77.{host}:7400").parse().unwrap()).collect();
    let (mut a, mut b) = (lab.start(&addrs, 0, 1), lab.start(&addrs, 1, 1));
    until(&mut [&mut a, &mut b], "links", linked);
    let (ab, ba) = (a.link_to(1).unwrap(), b.link_to(0).unwrap());
    let b_ip = |command: &str| assert!(ip(&format!("-n {} addr {command}", lab.names[1])));
    b_ip("del 10.231.77.2/24 dev cable");
    a.own.set_word(CONTROL, 0, 1);
    (0..50).for_each(|_| [&mut a, &mut b].into_iter().for_each(Node::turn));
    assert_eq!(b.udp.peer_word(ba, CONTROL, 0), 0);
    b_ip("add 10.231.77.2/24 dev cable");
    stream(&mut a, &mut b, 40);
    b.own.set_word(CONTROL, 0, 1);
    until(&mut [&mut a, &mut b], "the way back", |n| n[0].udp.peer_word(ab, CONTROL, 0) == 1);
    assert_eq!((a.link_to(1), b.link_to(0)), (Some(ab), Some(ba)), "the same link");
}

#[test]
fn only_what_comes_by_the_interface_is_received() {
    let Some(lab) = Lab::with(&["cable", "other"]) else { return };
    let addrs: Vec<SocketAddr> =
        (1..3).map(|host| format!("10.231.77.{host}:7400").parse().unwrap()).collect();
    let mut there = config(&addrs, 1, 1);
    there.interface = Some("other".to_owned());
    let (mut a, mut b) = (lab.start(&addrs, 0, 1), lab.start_with(&there, 1));
    let start = clock::now();
    until(&mut [&mut a, &mut b], "time", |_| {
        clock::now().since(start) > Duration::from_millis(150)
    });
    assert!(a.link_to(1).is_none() && b.link_to(0).is_none());
    drop(b);
    there.interface = Some("cable".to_owned());
    let mut b = lab.start_with(&there, 1);
    until(&mut [&mut a, &mut b], "links", linked);
    there.interface = Some("nosuch0".to_owned());
    let (refused, _) =
        lab.inside(1, || Udp::new(&there, clock::now()).err().map(|e| e.to_string()));
    assert!(refused.is_some_and(|why| why.contains("no interface nosuch0")));
}

#[test]
fn a_cable_an_absent_node_a_cut_and_a_death() {
    let Some(lab) = Lab::new() else { return };
    // The third node does not exist: nobody answers ARP for it.
    let addrs: Vec<SocketAddr> =
        (1..4).map(|host| format!("10.231.77.{host}:7400").parse().unwrap()).collect();
    let (mut a, mut b) = (lab.start(&addrs, 0, 1), lab.start(&addrs, 1, 1));
    let pair = |n: &mut [&mut Node]| n[0].link_to(1).is_some() && n[1].link_to(0).is_some();
    until(&mut [&mut a, &mut b], "links", pair);
    stream(&mut a, &mut b, 1000);

    // A cut is silence, no evidence: packets get lost, and when it heals everything arrives.
    let (ab, ba) = (a.link_to(1).unwrap(), b.link_to(0).unwrap());
    lab.cable("down");
    let cut = clock::now();
    a.own.set_word(CONTROL, 0, 1);
    until(&mut [&mut a, &mut b], "time", |_| clock::now().since(cut) > Duration::from_millis(300));
    assert!(
        a.udp.heard(ab).since(cut) < Duration::from_millis(200),
        "nothing comes through a cut cable"
    );
    assert_eq!((a.events.len(), b.events.len()), (1, 1));
    lab.cable("up");
    until(&mut [&mut a, &mut b], "the word", |n| n[1].udp.peer_word(ba, CONTROL, 0) == 1);

    // A process dies: its kernel says that the port is closed.
    b.kill();
    until(&mut [&mut a], "death", |n| n[0].events.len() > 1);
    assert_eq!(a.events[1], UdpEvent::Dead { link: ab, evidence: Evidence::PortUnreachable });
    let mut b = lab.start(&addrs, 1, 2);
    until(&mut [&mut a, &mut b], "links", pair);
    assert!(!linked(&mut [&mut a]) || a.link_to(2).is_none());
}
