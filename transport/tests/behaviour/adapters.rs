//! Verbs in trouble, in the guest of scripts/soft-roce-vm: which path is taken, and what ends a link.

use std::process::Command;
use std::time::{Duration, Instant};

use quintet_transport::*;

use crate::harness::*;
use crate::trouble::*;

/// What is said of a link between two queue pairs.
const BEING_MADE: &str = ", the next is being made";

/// Whether a queue pair of that node's link was replaced.
fn has_failed(node: &Node) -> bool {
    node.poller.links()[0].reason.contains("queue pairs that failed lately")
}

#[test]
fn an_interface_that_is_down_for_a_while_costs_a_queue_pair_and_no_link() {
    if !has_adapters() {
        return;
    }
    for paths in [[PathPolicy::Verbs; 2], [PathPolicy::Auto, PathPolicy::Verbs]] {
        let mut nodes = connected(patient(paths));
        let mut traffic = Traffic::on(GROUP, &mut nodes);
        until(&mut nodes, "the rings have wrapped", |nodes| {
            traffic.go_on(nodes, true);
            traffic.got.iter().all(|&got| got > 500)
        });
        let mended = |node: &Node| !node.poller.links()[0].reason.ends_with(BEING_MADE);
        for _ in 0..2 {
            let (down, start) = (Down::now(), Instant::now());
            until(&mut nodes, "both queue pairs failed, and some time has passed", |nodes| {
                traffic.go_on(nodes, true);
                nodes.iter().all(|node| !mended(node)) && start.elapsed() > Duration::from_secs(3)
            });
            let before = traffic.sent;
            drop(down);
            until(&mut nodes, "much more was sent", |nodes| {
                traffic.go_on(nodes, true);
                assert!(no_link_died(nodes), "{:?}", nodes[0].events);
                (0..2).all(|i| traffic.got[i] > before[1 - i] + 500)
            });
            assert!(nodes.iter().all(|node| mended(node) && has_failed(node)));
        }
        until(&mut nodes, "all of it arrived", |nodes| {
            traffic.go_on(nodes, false);
            traffic.all_arrived(nodes)
        });
        assert!(no_link_died(&nodes));
        assert!(nodes.iter().all(|node| node.poller.links()[0].path == Path::Verbs));
    }
}

#[test]
fn an_interface_that_stays_down_ends_the_link_and_another_comes_with_it() {
    if !has_adapters() {
        return;
    }
    let mut nodes = connected(patient([PathPolicy::Verbs; 2]));
    let (mine, theirs) = (nodes[0].link(2), nodes[1].link(1));
    let mut value = 0;
    {
        let _down = Down::now();
        until(&mut nodes, "the link is dead at both ends", |nodes| {
            value += 1;
            nodes[0].poller.set_word(CONTROL, 0, value);
            nodes[0].dead(mine).is_some() && nodes[1].dead(theirs).is_some()
        });
        // One gives up, and the other is told by UDP, which goes by loopback here.
        let evidence = [nodes[0].dead(mine), nodes[1].dead(theirs)].map(Option::unwrap);
        assert!(evidence.contains(&Evidence::PathBroken), "{evidence:?}");
        let known = |e: &Evidence| matches!(e, Evidence::ClosedByPeer | Evidence::PathBroken);
        assert!(evidence.iter().all(known), "{evidence:?}");
    }
    until(&mut nodes, "both are linked again", |nodes| {
        nodes[0].try_link(2) != Some(mine) && nodes[1].try_link(1) != Some(theirs)
    });
    nodes[0].poller.set_word(CONTROL, 0, value + 1);
    until(&mut nodes, "the new link carries words", |nodes| {
        nodes[1].poller.peer_word(nodes[1].link(1), CONTROL, 0) == value + 1
    });
}

#[test]
fn a_partition_that_no_port_is_in_is_told_with_those_that_there_are() {
    if !has_adapters() {
        return;
    }
    let mut config = patient([PathPolicy::Verbs; 2]).remove(0);
    config.verbs.partition = Some(0x8001);
    let refusal = Poller::new(config.clone()).err().expect("no partition").to_string();
    assert!(refusal.contains("partition 0x8001; its keys are: 0xffff"), "{refusal}");
    // As a limited member says it.
    config.verbs.partition = Some(0x7fff);
    drop(Node::new(config.clone()));
    config.verbs.partition = Some(0x8000);
    assert!(matches!(Poller::new(config), Err(Error::Config(_))));
}

#[test]
fn a_library_that_does_not_load_is_told_in_the_loaders_words() {
    const TEST: &str = "adapters::a_library_that_does_not_load_is_told_in_the_loaders_words";
    if std::env::var_os("T_DAMAGED").is_some() {
        let config = patient([PathPolicy::Verbs; 2]).remove(0);
        let refusal = Poller::new(config).err().expect("no library").to_string();
        let said = "library: no library libibverbs.so.1: ";
        assert!(refusal.contains(said) && refusal.contains("file too short"), "{refusal}");
        return;
    }
    // The loader of a child finds this before what the system has.
    let dir = std::env::temp_dir().join(format!("quintet-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("libibverbs.so.1"), "\x7fELF").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([TEST, "--exact"]).env("T_DAMAGED", "1").env("LD_LIBRARY_PATH", &dir);
    let status = child.status();
    std::fs::remove_dir_all(&dir).ok();
    assert!(status.unwrap().success());
}

#[test]
fn what_an_adapter_reports_wakes_a_sleeper_once() {
    if !has_adapters() {
        return;
    }
    let mut config = patient([PathPolicy::Auto; 2]).remove(1);
    // A sleeper wakes for what it is told, and for little else.
    (config.wait, config.backstop) = (Wait::Block, Duration::from_secs(1));
    let mut node = Node::new(config);
    let mut parks_in_two_seconds = || {
        let (before, start) = (node.poller.counters().parks, Instant::now());
        while start.elapsed() < Duration::from_secs(2) {
            if !node.turn() {
                node.poller.park(clock::now(), None, &mut || false);
            }
        }
        node.poller.counters().parks - before
    };
    let quiet = parks_in_two_seconds();
    let down = Down::now();
    let reported = parks_in_two_seconds();
    drop(down);
    let again = parks_in_two_seconds();
    // Unread, a report ends thousands of sleeps a second.
    let limit = quiet * 2 + 100;
    assert!(reported < limit && again < limit, "{quiet}, then {reported}, then {again} parks");
}

/// The cable carries less than when the adapters were opened, while this lives.
struct Narrow;

impl Narrow {
    fn now() -> Narrow {
        sh("ip link set eth-a mtu 1500; ip link set eth-b mtu 1500");
        Narrow
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        sh("ip link set eth-a mtu 4200; ip link set eth-b mtu 4200");
    }
}

/// Sends large records over the link that there is, until one is read at the other end.
fn carry_large(nodes: &mut [Node]) -> (LinkId, LinkId) {
    let (mut links, mut sent) = (None, 0);
    until(nodes, "a large record arrived", |nodes| {
        let now = (nodes[0].link(2), nodes[1].link(1));
        if links != Some(now) {
            links = Some(now);
            let head = nodes[0].poller.head(BULK);
            nodes[0].poller.attach(now.0, BULK, head);
            nodes[1].poller.open(now.1, BULK, head);
            sent = head;
        }
        let head = nodes[0].poller.head(BULK);
        nodes[0].poller.reclaim(BULK, head);
        nodes[0].send(BULK, 1, &[5; 20_000]);
        nodes[1].poller.peek(now.1, BULK, sent).is_some_and(|record| record.payload == [5; 20_000])
    });
    links.expect("a link")
}

#[test]
fn a_smaller_mtu_costs_a_queue_pair_and_the_next_one_fits() {
    if !has_adapters() {
        return;
    }
    let mut nodes = connected(patient([PathPolicy::Verbs; 2]));
    let before = carry_large(&mut nodes);
    let narrow = Narrow::now();
    let small = carry_large(&mut nodes);
    assert_eq!(before, small);
    assert!(
        nodes.iter().any(has_failed),
        "the old one does not fit: {:?}",
        nodes[0].poller.links()
    );
    drop(narrow);
    // A cable that carries more again is no trouble.
    let large = carry_large(&mut nodes);
    assert_eq!(before, large);
    assert!(no_link_died(&nodes));
}

#[test]
fn a_reader_that_stands_still_is_waited_for() {
    if !has_adapters() {
        return;
    }
    // More writes than our queue holds, and then as many as it takes until its room for doorbells is used up.
    const FLUSHES: u64 = 1000;
    // How often the first adapter was told that the receiver is not ready.
    let not_ready = || -> u64 {
        let counter = "/sys/class/infiniband/rxe0/ports/1/hw_counters/rcvd_rnr_err";
        std::fs::read_to_string(counter).expect(counter).trim().parse().expect("a number")
    };
    let before = not_ready();
    let mut nodes = connected(patient([PathPolicy::Verbs; 2]));
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    nodes[0].poller.attach(to, GROUP, 0);
    nodes[1].poller.open(from, GROUP, 0);
    let (mut sent, mut value, start) = (0, 0, Instant::now());
    while value < FLUSHES || value % 50 != 0 || not_ready() == before {
        assert!(start.elapsed() < PATIENCE, "its reader had room for everything");
        value += 1;
        if nodes[0].send(GROUP, sent, &sent.to_le_bytes()) {
            sent += 1;
        }
        nodes[0].poller.set_word(GROUP, 0, value);
        nodes[0].turn();
    }
    assert!(sent > 50);
    let (mut got, mut at) = (0u64, 0);
    until(&mut nodes, "all of it arrived", |nodes| {
        while let Some(record) = nodes[1].poller.peek(from, GROUP, at) {
            assert_eq!((record.index, record.payload), (got, &got.to_le_bytes()[..]));
            got += 1;
            at = record.end;
        }
        got == sent && nodes[1].poller.peer_word(from, GROUP, 0) == value
    });
    assert_eq!((nodes[0].dead(to), nodes[1].dead(from)), (None, None));
}

#[test]
fn who_may_use_anything_and_is_not_in_shared_memory_is_met_by_verbs() {
    if !has_adapters() {
        return;
    }
    for paths in [[PathPolicy::Auto, PathPolicy::Verbs], [PathPolicy::Verbs, PathPolicy::Auto]] {
        let mut configs = patient(paths);
        configs[0].verbs.marks = Marks { traffic_class: 104, service_level: 3 };
        let nodes = connected(configs);
        let marks = "; traffic class 104, service level 3";
        for (node, marked) in nodes.iter().zip([true, false]) {
            let link = &node.poller.links()[0];
            assert_eq!(link.path, Path::Verbs, "{}", link.reason);
            assert_eq!(link.reason.ends_with(marks), marked, "{}", link.reason);
            let levels = if marked { "is 0, ours 3" } else { "is 3, ours 0" };
            assert!(link.reason.contains(levels), "{}", link.reason);
        }
    }
}

#[test]
fn a_peer_that_declines_is_met_by_udp_where_that_may_be_and_the_reason_is_told() {
    if !has_adapters() {
        return;
    }
    for paths in [[PathPolicy::Auto, PathPolicy::Udp], [PathPolicy::Udp, PathPolicy::Auto]] {
        let nodes = connected(patient(paths));
        let able = usize::from(paths[1] == PathPolicy::Auto);
        let link = &nodes[able].poller.links()[0];
        assert_eq!(link.path, Path::Udp);
        assert!(link.reason.contains("the peer declines"), "{}", link.reason);
    }
}

#[test]
fn a_peer_without_verbs_stays_down_where_nothing_else_may_be() {
    if !has_adapters() {
        return;
    }
    let mut nodes: Vec<Node> =
        patient([PathPolicy::Verbs, PathPolicy::Udp]).into_iter().map(Node::new).collect();
    let start = Instant::now();
    let mut linked = false;
    until(&mut nodes, "some time has passed", |nodes| {
        linked |= nodes[0].try_link(2).is_some();
        start.elapsed() > Duration::from_millis(1500)
    });
    assert!(!linked, "never by another path");
}
