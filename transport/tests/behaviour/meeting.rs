//! Who links with whom.

use std::thread::sleep;
use std::time::Duration;

use quintet_transport::*;

use crate::harness::*;
use crate::on_every_path;

on_every_path!(
    a_restarted_node_is_a_new_link,
    a_fenced_incarnation_is_told_so,
    a_closed_link_is_seen_and_another_comes_up,
    nodes_that_come_to_their_turn_seldom_meet_once,
);

fn a_restarted_node_is_a_new_link(path: PathPolicy) {
    let configs = configs(2, path);
    let mut again = configs[1].clone();
    let mut nodes = connected(configs);
    let first = nodes[0].link(2);
    drop(nodes.pop());
    again.me.incarnation.0 += 1;
    nodes.push(Node::new(again));
    until(&mut nodes, "the second run is linked", |nodes| {
        nodes[0].try_link(2) != Some(first) && nodes[1].try_link(1).is_some()
    });
    let evidence = nodes[0].dead(first).expect("the first link died");
    assert!(matches!(evidence, Evidence::ClosedByPeer | Evidence::Restarted), "{evidence}");
    let second = nodes[0].link(2);
    assert_ne!(first, second);
    nodes[0].poller.forget(first);
    let links = nodes[0].poller.links();
    assert_eq!(links.len(), 1);
    assert_eq!((links[0].link, links[0].peer.incarnation.0, links[0].alive), (second, 102, true));
}

#[test]
fn a_link_over_udp_says_why_it_is_not_by_verbs_where_they_were_counted_on() {
    for trusted in [true, false] {
        let mut configs = configs(2, PathPolicy::Udp);
        configs[0].path = PathPolicy::Auto;
        configs[0].verbs.trusted_fabric = trusted;
        // Adapters or not: not that one.
        configs[0].verbs.device = Some("none0".into());
        let nodes = connected(configs);
        let link = &nodes[0].poller.links()[0];
        assert_eq!(link.path, Path::Udp);
        assert_eq!(link.reason.contains("; no verbs: "), trusted, "{}", link.reason);
    }
}

fn a_fenced_incarnation_is_told_so(path: PathPolicy) {
    for refuser in [0, 1] {
        let mut nodes = connected(configs(2, path));
        let other = 1 - refuser;
        let link = nodes[refuser].link(other as u16 + 1);
        let fenced = nodes[other].poller.me();
        nodes[refuser].poller.refuse(fenced);
        nodes[refuser].poller.close(link);
        let node = nodes[refuser].poller.me().node;
        until(&mut nodes, "the fenced one knows", |nodes| {
            nodes[other].events.contains(&Event::Refused { node })
        });
        assert!(nodes[refuser].dead(link).is_none(), "closing one's own link makes no event");
        let ups = nodes[refuser].events.iter().filter(|e| matches!(e, Event::Up { .. })).count();
        assert_eq!(ups, 1, "it is never linked again");
    }
}

fn a_closed_link_is_seen_and_another_comes_up(path: PathPolicy) {
    let mut nodes = connected(configs(2, path));
    let (mine, theirs) = (nodes[0].link(2), nodes[1].link(1));
    nodes[0].poller.close(mine);
    until(&mut nodes, "both are linked again", |nodes| {
        nodes[0].try_link(2) != Some(mine) && nodes[1].try_link(1) != Some(theirs)
    });
    assert_eq!(nodes[1].dead(theirs), Some(Evidence::ClosedByPeer));
    nodes[0].poller.set_word(CONTROL, 0, 7);
    until(&mut nodes, "the new link carries words", |nodes| {
        nodes[1].poller.peer_word(nodes[1].link(1), CONTROL, 0) == 7
    });
    assert_eq!(nodes[1].poller.peer_word(theirs, CONTROL, 0), 0, "the old one stays frozen");
}

/// With more pollers than processors a turn comes late, and finds every message repeated.
fn nodes_that_come_to_their_turn_seldom_meet_once(path: PathPolicy) {
    for (pause, slow) in [(30, None), (60, Some(0)), (120, None), (120, Some(1)), (240, None)] {
        let mut nodes: Vec<Node> = configs(2, path).into_iter().map(Node::new).collect();
        let mut after = 0;
        until(&mut nodes, "both are linked, and stay so", |nodes| {
            let step = Duration::from_millis(2);
            for _ in 0..pause / 2 {
                sleep(step);
                if let Some(slow) = slow {
                    nodes[1 - slow].turn();
                }
            }
            after += u8::from(nodes[0].try_link(2).is_some() && nodes[1].try_link(1).is_some());
            after > 5
        });
        for node in &nodes {
            assert_eq!(node.events.len(), 1, "{pause} ms, {slow:?}: {:?}", node.events);
        }
    }
}

#[test]
fn neighbours_meet_in_shared_memory_by_themselves() {
    let mut nodes = connected(configs(3, PathPolicy::Auto));
    for node in &mut nodes {
        for link in node.poller.links() {
            assert_eq!((link.path, link.alive), (Path::Shm, true), "{}", link.reason);
        }
    }
    // Never by UDP first, and not by both.
    let ups = |n: &Node| n.events.iter().filter(|e| matches!(e, Event::Up { .. })).count();
    assert!(nodes.iter().all(|n| ups(n) == 2 && n.events.len() == 2));
}

#[test]
fn who_is_not_in_shared_memory_is_met_by_udp() {
    for alone in [0, 1] {
        let mut configs = configs(2, PathPolicy::Auto);
        // As if in a network namespace of its own.
        configs[alone].path = PathPolicy::Udp;
        let nodes = connected(configs);
        for node in &nodes {
            assert_eq!(node.poller.links()[0].path, Path::Udp, "{}", node.poller.links()[0].reason);
        }
    }
}

#[test]
fn two_runs_of_one_node_on_one_host_are_an_error() {
    let config = configs(1, PathPolicy::Auto).remove(0);
    let mut second = config.clone();
    second.bind = addresses(1)[0];
    second.me.incarnation.0 += 1;
    let _first = Node::new(config);
    let error = Poller::new(second).map(|_| ()).expect_err("taken").to_string();
    assert!(error.contains("already runs on this host"), "{error}");
}

#[test]
fn verbs_alone_are_refused_where_they_cannot_be_with_what_to_do() {
    let mut config = configs(1, PathPolicy::Verbs).remove(0);
    config.verbs = VerbsConfig::default();
    config.verbs.marks.service_level = 16;
    let Err(error) = Poller::new(config.clone()) else { panic!("there is no such level") };
    assert!(error.to_string().contains("service level 16"), "{error}");
    config.verbs.marks.service_level = 15;
    let error = Poller::new(config).map(|_| ()).expect_err("nobody vouches for the fabric");
    let expected = match cfg!(feature = "verbs") {
        true => "state trusted_fabric = true",
        false => "build it with --features verbs",
    };
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_node_that_goes_says_so_by_every_path() {
    for path in [PathPolicy::Shm, PathPolicy::Udp] {
        let mut nodes = connected(configs(2, path));
        let link = nodes[0].link(2);
        drop(nodes.pop());
        until(&mut nodes, "it is dead", |nodes| nodes[0].dead(link).is_some());
        assert_eq!(nodes[0].dead(link), Some(Evidence::ClosedByPeer), "{path:?}");
    }
}
