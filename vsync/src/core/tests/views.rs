//! Views change: by death at any instant, by leaving, by joining, by restart, and not without a quorum.

use std::time::Duration;

use super::net::{ACCEPT, ACCEPTED, Net, PREPARE};
use crate::core::*;

#[test]
fn three_found_a_group() {
    let net = Net::founded(3);
    for node in 1..=3 {
        assert_eq!(net.members(node), [1, 2, 3]);
        assert_eq!(net.procs[&node].causes, ["founded"]);
    }
    net.assert_agreement();
}

#[test]
fn two_of_three_found_it_after_a_while_and_the_third_joins() {
    let mut net = Net::new(3);
    net.start(2);
    net.start(3);
    net.calm();
    assert!(net.procs[&2].views.is_empty(), "the third gets its chance");
    net.run();
    assert_eq!(net.members(2), [2, 3]);
    net.start(1);
    net.run();
    for node in 1..=3 {
        assert_eq!(net.members(node), [2, 3, 1], "at {node}");
    }
    assert_eq!(net.procs[&1].causes, ["n1 joined"]);
    let m = net.send(1);
    net.calm();
    assert_eq!(net.messages(3), [m]);
}

#[test]
fn one_of_three_founds_nothing_and_says_why() {
    let mut net = Net::new(3);
    net.start(2);
    net.run();
    assert!(net.procs[&2].views.is_empty());
    let reason = net.procs[&2].core.blocked().unwrap().to_string();
    assert_eq!(reason, "no quorum of view 0: 1 of 3 nodes present (n2); missing n1 n3");
}

#[test]
fn the_group_goes_on_when_a_member_is_killed() {
    for victim in 1..=3u16 {
        for why in [Why::Exited, Why::Silent] {
            let mut net = Net::founded(3);
            let mut sent: Vec<u64> = (1..=3).map(|n| net.send(n)).collect();
            net.calm();
            net.kill(victim, why);
            let others: Vec<u16> = (1..=3).filter(|n| *n != victim).collect();
            sent.extend(others.iter().map(|n| net.send(*n)));
            net.run();
            for &node in &others {
                assert_eq!(net.members(node), others, "victim {victim} at {node}");
                let mut got = net.messages(node);
                got.sort_unstable();
                assert_eq!(got, sent);
                assert_eq!(*net.procs[&node].causes.last().unwrap(), format!("n{victim} {why}"));
            }
            net.assert_agreement();
        }
    }
}

#[test]
fn a_certain_death_is_not_waited_out_and_an_uncertain_one_is() {
    let mut net = Net::founded(3);
    net.kill(3, Why::Exited);
    net.calm();
    assert_eq!(net.members(1), [1, 2]);
    let mut net = Net::founded(3);
    net.kill(3, Why::Silent);
    net.calm();
    assert_eq!(net.members(1), [1, 2, 3], "its read lease may be valid");
    net.pass(Duration::from_millis(60));
    assert_eq!(net.members(1), [1, 2]);
}

#[test]
fn what_is_on_its_way_goes_on_in_the_next_view_in_order_and_once() {
    let mut net = Net::founded(3);
    // Rank 2 stands still, so nothing becomes stable; then it dies.
    net.procs.get_mut(&3).unwrap().stopped = true;
    let sent: Vec<u64> = (0..6).map(|i| net.send(1 + i % 2)).collect();
    net.calm();
    assert!(net.messages(1).is_empty());
    net.kill(3, Why::Exited);
    net.run();
    for node in [1, 2] {
        let mut got = net.messages(node);
        let first: Vec<u64> = got.iter().copied().filter(|m| m % 2 == 1).collect();
        assert!(first.is_sorted());
        got.sort_unstable();
        assert_eq!(got, sent);
        // Rank 2's turn never came, so the old view ends there; the rest is re-sent.
        let views: Vec<u64> = net.procs[&node].delivered.iter().map(|d| d.0.view().0).collect();
        assert_eq!(views, [1, 1, 2, 2, 2, 2]);
    }
}

/// The coordinator of a change dies in the middle: after each kind of record that it may or may not have sent.
#[test]
fn the_next_takes_over_from_a_coordinator_that_dies_in_the_act() {
    for stage in [PREPARE, ACCEPT, ACCEPTED] {
        for hole in [0, PREPARE, ACCEPT, ACCEPTED] {
            let mut net = Net::founded(5);
            for node in 1..=5 {
                net.send(node);
            }
            net.kill(5, Why::Exited);
            net.drop_kind = Some((1, stage));
            net.calm();
            net.drop_kind = if hole == 0 { None } else { Some((2, hole)) };
            net.kill(1, Why::Exited);
            net.calm();
            net.drop_kind = None;
            net.run();
            for node in 2..=4 {
                assert_eq!(net.members(node), [2, 3, 4], "stage {stage} hole {hole} at {node}");
            }
            let m = net.send(3);
            net.calm();
            assert_eq!(net.messages(4).last(), Some(&m));
            net.assert_agreement();
        }
    }
}

#[test]
fn a_promise_is_not_sent_before_it_is_durable() {
    let mut net = Net::founded(3);
    net.procs.get_mut(&2).unwrap().slow_disk = true;
    net.kill(3, Why::Exited);
    net.calm();
    assert_eq!(net.members(1), [1, 2, 3], "one promise is no quorum");
    net.disk_again(2);
    net.calm();
    assert_eq!(net.members(1), [1, 2]);
}

#[test]
fn a_killed_node_comes_back_and_joins() {
    let mut net = Net::founded(3);
    net.kill(2, Why::Exited);
    net.run();
    net.start(2);
    net.run();
    for node in 1..=3 {
        assert_eq!(net.members(node), [1, 3, 2]);
    }
    let sent: Vec<u64> = (1..=3).map(|n| net.send(n)).collect();
    net.calm();
    assert_eq!(net.messages(2).len(), sent.len());
    net.assert_agreement();
}

#[test]
fn a_node_that_restarts_before_its_death_is_noticed_joins_too() {
    let mut net = Net::founded(3);
    let old = net.me(3);
    net.kill(3, Why::Silent);
    net.start(3);
    net.run();
    for node in 1..=3 {
        assert_eq!(net.members(node), [1, 2, 3]);
        assert!(!net.view(node).contains(old));
    }
}

#[test]
fn a_survivor_of_three_blocks_until_one_is_back_with_its_record() {
    for survivor in 1..=3u16 {
        let mut net = Net::founded(3);
        let m = net.send(survivor);
        net.calm();
        let others: Vec<u16> = (1..=3).filter(|n| *n != survivor).collect();
        for &o in &others {
            net.kill(o, Why::Silent);
        }
        net.run();
        let reason = net.procs[&survivor].core.blocked().unwrap().clone();
        assert_eq!(reason.missing.len(), 2, "{reason}");
        net.send(survivor);
        net.run();
        assert_eq!(net.messages(survivor), [m], "nothing without a quorum");
        net.start(others[0]);
        net.run();
        assert_eq!(net.members(survivor), [survivor, others[0]]);
        assert!(net.procs[&survivor].events.contains(&Event::Resumed));
        assert_eq!(net.messages(survivor).len(), 2);
        net.start(others[1]);
        net.run();
        assert_eq!(net.members(survivor).len(), 3);
        net.assert_agreement();
    }
}

#[test]
fn all_killed_restart_from_the_longest_state() {
    let mut net = Net::founded(3);
    let at = net.view(1).id;
    for node in 1..=3 {
        net.kill(node, Why::Exited);
        net.state(node, Position::new(at, if node == 2 { 9 } else { 5 }));
    }
    net.start(1);
    net.run();
    assert!(net.procs[&1].core.blocked().is_some());
    net.start(2);
    net.run();
    assert_eq!(net.members(2), [2, 1], "n2 has the longest state, n1 learns it");
    assert_eq!(net.procs[&2].causes[0], "recovered");
    assert_eq!(net.procs[&1].causes, ["n1 joined"]);
    net.start(3);
    net.run();
    assert_eq!(net.members(3), [2, 1, 3]);
    net.assert_agreement();
}

#[test]
fn a_member_leaves_at_once_and_the_last_may_go_too() {
    let mut net = Net::founded(3);
    let before = net.now;
    net.procs.get_mut(&1).unwrap().core.leave(before);
    net.calm();
    assert!(net.procs[&1].events.contains(&Event::Left));
    assert_eq!(net.members(2), [2, 3]);
    assert_eq!(net.procs[&2].causes.last().unwrap(), "n1 left");
    net.kill(1, Why::Exited);
    net.procs.get_mut(&2).unwrap().core.leave(before);
    net.procs.get_mut(&3).unwrap().core.leave(before);
    net.calm();
    assert!(net.procs[&2].events.contains(&Event::Left));
    assert!(net.procs[&3].events.contains(&Event::Left));
}

/// A member that is voted out for its silence may be alive, and tell its own side of it.
#[test]
fn only_who_certainly_died_is_said_to_have_died() {
    use Why::*;
    for why in [Exited, Restarted, Unreachable, Silent, Closed, Cut, Left] {
        let told = why.to_string();
        assert_eq!(told.starts_with("died: "), why.certain(), "{told}");
        assert_eq!(told.starts_with("removed: "), !why.certain() && why != Left, "{told}");
    }
}

/// Member 1 has published what nobody delivers, because member 3 says nothing any more.
fn with_something_on_its_way() -> Net {
    let mut net = Net::founded(3);
    net.procs.get_mut(&3).unwrap().stopped = true;
    (0..4).for_each(|_| assert!(net.send(1) > 0));
    net.calm();
    assert!(net.procs[&1].core.undelivered().count() > 1);
    net
}

#[test]
fn who_leaves_and_delivers_to_the_trim_knows_that_nobody_delivers_the_rest() {
    let mut net = with_something_on_its_way();
    let now = net.now;
    net.procs.get_mut(&1).unwrap().core.leave(now);
    net.kill(3, Why::Exited);
    net.run();
    let core = &net.procs[&1].core;
    assert!(net.procs[&1].events.contains(&Event::Left));
    assert!(core.departed_at_trim() && core.undelivered().count() > 0);
    assert_eq!(net.members(2), [2]);
    let m = net.send(2);
    net.run();
    assert_eq!(net.messages(2), [net.messages(1), vec![m]].concat());
}

#[test]
fn who_leaves_and_hears_of_it_from_others_does_not_know_what_they_delivered() {
    let mut net = with_something_on_its_way();
    net.cut(1, 2);
    net.cut(1, 3);
    let now = net.now;
    net.procs.get_mut(&1).unwrap().core.leave(now);
    net.procs.get_mut(&3).unwrap().stopped = false;
    net.run();
    assert_eq!(net.members(2), [2, 3]);
    net.heal();
    net.run();
    let core = &net.procs[&1].core;
    assert!(net.procs[&1].events.contains(&Event::Left));
    assert!(!core.departed_at_trim() && core.undelivered().count() > 0);
}

#[test]
fn a_minority_is_evicted_when_the_partition_heals() {
    let mut net = Net::founded(3);
    net.cut(1, 2);
    net.cut(1, 3);
    net.run();
    assert_eq!(net.members(2), [2, 3]);
    assert_eq!(net.members(1), [1, 2, 3]);
    assert!(net.procs[&1].core.blocked().is_some());
    assert_eq!(net.procs[&1].core.lease_ranks(), 0, "and answers no reads");
    net.heal();
    net.run();
    assert!(net.evicted(1));
    net.kill(1, Why::Exited);
    net.start(1);
    net.run();
    assert_eq!(net.members(1), [2, 3, 1]);
    net.assert_agreement();
}

#[test]
fn of_a_pair_that_cannot_hear_each_other_the_higher_rank_goes() {
    let mut net = Net::founded(3);
    net.cut(1, 2);
    net.run();
    assert_eq!(net.members(1), [1, 3]);
    assert_eq!(net.members(3), [1, 3]);
}

#[test]
fn a_pair_that_lost_its_link_for_a_moment_does_not_stay_together() {
    let mut net = Net::founded(3);
    net.cut(2, 3);
    net.heal();
    net.run();
    assert_eq!(net.members(1), [1, 2]);
    assert!(net.evicted(3));
}

#[test]
fn everybody_apart_and_together_again_ends_in_one_primary() {
    let mut net = Net::founded(3);
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        net.cut(a, b);
    }
    net.run();
    net.heal();
    net.run();
    assert_eq!(net.members(1), [1]);
    assert!(net.evicted(2) && net.evicted(3));
    for node in [2, 3] {
        net.kill(node, Why::Exited);
        net.start(node);
    }
    net.run();
    assert_eq!(net.members(1).len(), 3);
}

#[test]
fn reads_are_answered_in_a_whole_view_only() {
    let mut net = Net::founded(3);
    net.calm();
    let core = &net.procs[&1].core;
    assert_eq!(core.lease_ranks(), 0b111);
    assert!(core.lease_valid(|m| m.node.0 == 2));
    assert!(!core.lease_valid(|_| false));
}
