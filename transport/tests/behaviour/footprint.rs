//! Memory of a node's own that an idle peer takes, with lanes of the usual size.
//!
//! A peer in shared memory is mapped, not copied: its pages are its own. Of a peer on the network there is a replica, of
//! which only those pages exist that something arrived in.

use quintet_transport::*;

use crate::harness::*;
use crate::on_every_path;

on_every_path!(an_idle_peer_takes_little);

/// Bytes for each peer at most, with its share of what a node takes by itself.
fn bytes_max(path: PathPolicy) -> u64 {
    let lanes = Config::default_lanes().iter().map(|lane| lane.log_bytes as u64).sum::<u64>();
    match path {
        PathPolicy::Auto | PathPolicy::Shm => 16 << 10,
        // Buffers for datagrams, and what is known of each packet under way.
        PathPolicy::Udp => 512 << 10,
        // An adapter writes into memory that it pins.
        PathPolicy::Verbs => lanes + (1 << 20),
    }
}

fn private_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line =
        status.lines().find_map(|l| l.strip_prefix("RssAnon:")).expect("a line of private memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn idle(n: u16, path: PathPolicy) -> Vec<Node> {
    let mut configs = configs(n, path);
    configs.iter_mut().for_each(|config| config.lanes = Config::default_lanes());
    connected(configs)
}

fn an_idle_peer_takes_little(path: PathPolicy) {
    // What is allocated once in a process is there.
    let _first = idle(2, path);
    let before = private_bytes();
    // The guest that has adapters has little memory, and emulated processors.
    let count = if path == PathPolicy::Verbs { 3 } else { 8 };
    let nodes = idle(count, path);
    let ends = nodes.iter().map(|node| node.poller.each_link().count() as u64).sum::<u64>();
    assert_eq!(ends, u64::from(count) * (u64::from(count) - 1));
    let each = private_bytes().saturating_sub(before) / ends;
    println!("{} KiB for each peer", each >> 10);
    assert!(each <= bytes_max(path), "{each} B for each peer, more than {}", bytes_max(path));
}
