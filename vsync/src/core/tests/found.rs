//! What the simulator found: each scenario is a failing seed told as a story.

use quintet_transport::{Member, NodeId, Time};

use super::net::Net;
use crate::core::codec::{Announce, Control};
use crate::core::*;

/// Seed 84: an acceptor outside had counted the votes before it heard what they were for. Hearing it then decided
/// the view, and the acceptor went on to vote for it, in the consensus on the view after.
#[test]
fn votes_that_decide_a_proposal_as_it_comes_are_the_end_of_it() {
    let now = Time::from_millis(1);
    let old: Vec<Member> = (1..=3).map(|n| Member::new(n, 1)).collect();
    let value = |id, members: &[Member], joined: &[Member], trim, gone: &[Member]| Value {
        view: View {
            id: ViewId(id),
            members: members.to_vec(),
            base: vec![0; members.len()],
            joined: joined.to_vec(),
            departed: gone.iter().map(|m| Departure { member: *m, why: Why::Exited }).collect(),
            origin: if joined.is_empty() { Origin::Changed } else { Origin::Founded },
        },
        trim,
        owed: Position::ZERO,
        founded: ViewId(1),
    };
    let decided = value(1, &old, &old, Position::ZERO, &[]);
    let next = value(2, &old[..2], &[], Position::new(ViewId(1), 0), &old[2..]);
    let durable = Durable { decided: decided.clone(), promised: None, accepted: None };
    let config = Config::new(Member::new(3, 2), old.iter().map(|m| m.node).collect());
    let mut core = Core::new(now, config, Recovered { durable, state: Position::ZERO });
    for peer in &old[..2] {
        core.handle_up(now, *peer);
        let (standing, lost) = (Standing::Member, Vec::new());
        let (leaving, votes, decided, state) = (false, true, decided.clone(), Position::ZERO);
        let given_up = None;
        let announce = Announce { standing, leaving, votes, decided, lost, state, given_up };
        core.handle_control(now, *peer, &Control::Announce(announce).encode()).unwrap();
    }
    let (view, ballot) = (ViewId(1), Ballot { round: 1, by: old[0] });
    for peer in &old[..2] {
        core.handle_control(now, *peer, &Control::Accepted { view, ballot }.encode()).unwrap();
    }
    let accept = Control::Accept { view, ballot, value: next.clone() };
    core.handle_control(now, old[0], &accept.encode()).unwrap();
    assert_eq!(core.known_view().id, ViewId(2));
    let (_, record) = core.poll_store().expect("a new view is recorded");
    assert_eq!(record, Durable { decided: next, promised: None, accepted: None });
}

/// Seed 175: two of three had made a message durable, so it was acknowledged. They died; the third, who had it in
/// memory, went on alone with the vote of one that came back, and died too. Restarted alone, it is a quorum of the
/// last view, but what was acknowledged is not on its disk.
#[test]
fn a_restart_does_not_come_back_with_less_than_was_acknowledged() {
    let mut net = Net::founded(3);
    let durable = Position::new(net.view(1).id, 9);
    for node in [2, 3] {
        net.state(node, durable);
        net.procs.get_mut(&node).unwrap().core.report_persisted(durable);
    }
    net.calm();
    net.kill(2, Why::Exited);
    net.kill(3, Why::Exited);
    net.start(2);
    net.procs.get_mut(&2).unwrap().load = false;
    net.calm();
    assert_eq!(net.members(1), [1]);
    net.kill(2, Why::Exited);
    net.kill(1, Why::Exited);
    net.start(1);
    net.run();
    assert!(net.procs[&1].views.is_empty());
    let reason = net.procs[&1].core.blocked().unwrap();
    let short = Shortfall { owed: durable, longest: Position::ZERO, at: NodeId(1) };
    assert_eq!(reason.owed, Some(short), "{reason}");
    assert_eq!(reason.missing, [NodeId(2), NodeId(3)], "either may have it");
    net.start(2);
    net.run();
    assert_eq!(net.members(2), [2, 1], "n2 has it; n1 learns it");
}

/// Three nodes of which nobody has all that was acknowledged, on a quorum of disks, before the last view: those disks
/// have lost it since. All are running.
fn fallen_short() -> (Net, Shortfall) {
    let mut net = Net::founded(3);
    let view = net.view(1).id;
    let owed = Position::new(view, 9);
    for node in [1, 2] {
        net.procs.get_mut(&node).unwrap().core.report_persisted(owed);
    }
    net.calm();
    net.kill(3, Why::Exited);
    net.run();
    (1..=2).for_each(|node| net.kill(node, Why::Exited));
    let longest = Position::new(view, 5);
    net.state(2, longest);
    (1..=3).for_each(|node| net.start(node));
    net.run();
    (net, Shortfall { owed, longest, at: NodeId(2) })
}

/// One that restarted waited for a quorum and said so. The second came with the state that was owed, but knew only the view
/// before: as long as it has not said more, its vote is here and its state is not.
#[test]
fn a_quorum_that_has_just_met_is_not_yet_short_of_what_is_owed() {
    let mut now = Time::from_millis(1);
    let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let members: Vec<Member> = (1..=3).map(|n| Member::new(n, 1)).collect();
    let owed = Position::new(ViewId(1), 9);
    let view = View {
        id: ViewId(1),
        base: vec![0; 3],
        joined: members.clone(),
        members,
        departed: Vec::new(),
        origin: Origin::Founded,
    };
    let decided = Value { view, trim: Position::ZERO, owed, founded: ViewId(1) };
    let durable = Durable { decided: decided.clone(), promised: None, accepted: None };
    let config = Config::new(Member::new(1, 2), nodes.clone());
    let patience = config.settle * 2;
    let mut core = Core::new(now, config, Recovered { durable, state: Position::ZERO });
    now += patience;
    core.handle_timeout(now);
    assert!(core.blocked().is_some_and(|b| b.owed.is_none()), "it waits for a quorum");

    let second = Member::new(2, 2);
    let says = |decided: Value| {
        let (standing, votes, leaving) = (Standing::Outside, true, false);
        let (lost, state, given_up) = (Vec::new(), owed, None);
        Control::Announce(Announce { standing, leaving, votes, decided, lost, state, given_up })
            .encode()
    };
    core.handle_up(now, second);
    core.handle_control(now, second, &says(Durable::configured(&nodes).decided)).unwrap();
    let soon = now + patience / 2;
    core.handle_timeout(soon);
    assert!(core.blocked().is_some_and(|b| b.owed.is_none()), "nobody is asked to give it up");
    assert!(!core.recover(soon, owed), "nor heard who does");
    // It never says more.
    core.handle_timeout(now + patience);
    assert!(core.blocked().is_some_and(|b| b.owed.is_some()), "it is missing indeed");
    core.handle_control(now + patience, second, &says(decided)).unwrap();
    assert_eq!(core.blocked(), None);
}

/// That all nodes are here does not make good what their disks have lost.
#[test]
fn all_nodes_together_do_not_restart_below_what_is_owed_either() {
    let (mut net, short) = fallen_short();
    for proc in net.procs.values() {
        assert!(proc.views.is_empty());
        assert_eq!(proc.core.blocked().unwrap().owed, Some(short), "each of them says so");
    }
    assert_eq!(
        net.procs[&1].core.blocked().unwrap().to_string(),
        "state that was acknowledged is not here: owed 1:9, the longest state here is 1:5 at n2; \
         2 of 2 nodes present (n1 n2); start whoever has it, or have an operator give it up"
    );
    // A disk is brought back.
    net.kill(3, Why::Exited);
    net.state(3, short.owed);
    net.start(3);
    net.run();
    assert_eq!(net.members(1), [3, 1, 2]);
    assert_eq!(net.procs[&3].causes[0], "recovered");
}

#[test]
fn an_operator_gives_up_what_is_owed_and_the_view_says_so() {
    let (mut net, short) = fallen_short();
    let now = net.now;
    // At a node that is not in the last view, and so cannot propose.
    let core = &mut net.procs.get_mut(&3).unwrap().core;
    let less = Position(short.owed.0 - 1);
    assert!(!core.recover(now, less), "more is owed than was given up");
    assert!(core.recover(now, short.owed));
    net.run();
    assert_eq!(net.members(2), [2, 1, 3], "n2 has the longest state");
    assert_eq!(net.view(2).origin, Origin::Changed);
    assert_eq!(net.procs[&2].views[0].origin, Origin::RecoveredBelow(short));
    let cause = "recovered by operator below owed: 1:5 at n2 < 1:9";
    assert_eq!(net.procs[&2].causes[0], cause);
    assert!((1..=3).all(|node| net.procs[&node].core.blocked().is_none()));
    // It was given up once: what is owed from now on is what the group was founded with.
    (1..=3).for_each(|node| net.kill(node, Why::Exited));
    (1..=3).for_each(|node| net.start(node));
    net.run();
    assert_eq!(net.procs[&2].causes[0], "recovered");
}

#[test]
fn nothing_is_given_up_while_nothing_is_missing() {
    let mut net = Net::founded(3);
    let everything = Position(u64::MAX);
    assert!(!net.procs.get_mut(&1).unwrap().core.recover(net.now, everything));
    net.run();
    assert_eq!(net.view(1).origin, Origin::Founded);
}

/// A node had more than the group was restarted with. Back in the group, and restarted once more before it had put the
/// group's state in the place of its own, it says what is on its disk: no state that anybody will ever have again.
#[test]
fn what_the_group_was_restarted_without_is_not_owed() {
    let mut net = Net::founded(3);
    let view = net.view(1).id;
    let (kept, lost) = (Position::new(view, 5), Position::new(view, 9));
    net.state(1, kept);
    net.state(2, kept);
    net.state(3, lost);
    (1..=3).for_each(|node| net.kill(node, Why::Exited));
    net.start(1);
    net.start(2);
    net.run();
    net.start(3);
    net.run();
    assert_eq!(net.members(1), [1, 2, 3]);
    // It votes on the next view, and of three that may have said the same, one is not heard.
    net.procs.get_mut(&2).unwrap().slow_disk = true;
    net.kill(3, Why::Exited);
    net.start(3);
    net.run();
    assert_eq!(net.members(1), [1, 3]);
    net.state(3, kept);
    (1..=3).for_each(|node| net.kill(node, Why::Exited));
    (1..=3).for_each(|node| net.start(node));
    net.run();
    assert!((1..=3).all(|node| !net.procs[&node].views.is_empty()), "nothing is missing");
}

/// One of three had made durable what the others had not, and went, saying so. That was not acknowledged: its disk may
/// rot.
#[test]
fn what_one_alone_had_made_durable_is_not_owed() {
    let mut net = Net::founded(3);
    let alone = Position::new(net.view(1).id, 9);
    net.procs.get_mut(&3).unwrap().core.report_persisted(alone);
    net.calm();
    let now = net.now;
    net.procs.get_mut(&3).unwrap().core.leave(now);
    net.run();
    assert_eq!(net.members(1), [1, 2]);
    (1..=3).for_each(|node| net.kill(node, Why::Exited));
    net.start(1);
    net.start(2);
    net.run();
    assert_eq!(net.members(1), [1, 2]);
}

/// A newcomer heard of the view after the one that joined it before a slow link told it where a peer's log begins.
#[test]
fn a_log_is_opened_however_late_its_owner_says_where_it_begins() {
    let mut net = Net::founded(4);
    net.kill(3, Why::Exited);
    net.run();
    net.start(3);
    net.held = Some((2, 3));
    net.run();
    assert_eq!(net.members(3), [1, 2, 4, 3]);
    net.kill(4, Why::Exited);
    net.run();
    assert_eq!(net.members(3), [1, 2, 3]);
    net.held = None;
    let m = net.send(2);
    net.calm();
    assert_eq!(net.messages(3), [m]);
    net.assert_agreement();
}

/// Seed 20537: a member that had once been a learner was cut off and voted out, and the next change took it in
/// again, because it had asked to join before it was a member.
#[test]
fn who_was_voted_out_is_not_taken_in_again_for_having_asked_once() {
    let mut net = Net::founded(4);
    net.kill(4, Why::Exited);
    net.run();
    net.start(4);
    net.run();
    assert_eq!(net.members(1), [1, 2, 3, 4]);
    let out = net.me(4);
    net.cut(3, 4);
    net.calm();
    assert_eq!(net.members(1), [1, 2, 3]);
    net.kill(3, Why::Exited);
    net.run();
    assert_eq!(net.members(1), [1, 2]);
    assert!(!net.view(1).contains(out));
}

/// Seeds 585 and 21597: of two, one was voted out by a value that only the other's node could decide; that one decided
/// it, found itself out too, ended, and its next incarnation had forgotten what it had decided, for ever.
#[test]
fn who_ends_with_a_view_ends_when_that_is_durable() {
    let mut net = Net::founded(3);
    net.cut(1, 2);
    net.cut(1, 3);
    net.run();
    net.procs.get_mut(&1).unwrap().slow_disk = true;
    net.heal();
    net.run();
    let ended = &net.procs[&1].core;
    assert_eq!((ended.standing(), ended.known_view().id), (Standing::Gone, net.view(2).id));
    assert!(!net.evicted(1), "not before its record says so");
    net.disk_again(1);
    net.calm();
    assert!(net.evicted(1));
}
