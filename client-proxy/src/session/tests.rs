//! The session against managers that are played by the test.

mod random;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::wire::{Farewell, Late, Member, Reason, Refuse, ViewMember, Welcome};

/// A session, and everything that came out of it.
struct World {
    session: Session<u32>,
    now: Time,
    dials: Vec<(LinkId, Text)>,
    sent: Vec<(LinkId, Frame)>,
    closed: BTreeSet<LinkId>,
    answers: Vec<(u32, Result<Reply, Status>)>,
    late: Vec<(u32, Code)>,
    reports: Vec<Report>,
}

fn member(node: u16) -> Member {
    Member { node, incarnation: 1 }
}

fn address(node: u16) -> Text {
    format!("10.0.0.{node}:1").into()
}

fn view(id: u64, primary: bool, nodes: &[u16]) -> View {
    let members =
        nodes.iter().map(|node| ViewMember { member: member(*node), address: address(*node) });
    View { id, primary, members: members.collect() }
}

impl World {
    fn new(adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new("test", ClientId(7), vec![address(1)]);
        adjust(&mut config);
        let mut world = Self {
            session: Session::new(Time::ZERO, config),
            now: Time::ZERO,
            dials: vec![],
            sent: vec![],
            closed: BTreeSet::new(),
            answers: vec![],
            late: vec![],
            reports: vec![],
        };
        world.pass(0);
        world
    }

    /// Three managers, all connected, in view 1.
    fn of_three() -> (Self, BTreeMap<u16, LinkId>) {
        let mut world = Self::new(|_| {});
        let links = [1, 2, 3].map(|node| (node, world.greet(node, view(1, true, &[1, 2, 3]))));
        (world, links.into())
    }

    fn drain(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Dial { link, address } => self.dials.push((link, address)),
                Action::Send { link, frame } => self.sent.push((link, frame)),
                Action::Close { link } => {
                    self.dials.retain(|(other, _)| *other != link);
                    assert!(self.closed.insert(link), "closed once");
                }
                Action::Answer { waiter, outcome } => self.answers.push((waiter, outcome)),
                Action::Late { seq, status } => {
                    let waiter = *self.session.waiter(seq).expect("it goes on");
                    self.late.push((waiter, status.code));
                }
                Action::Report(report) => self.reports.push(report),
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            self.session.handle_timeout(self.now);
            self.drain();
            match self.session.next_timeout() {
                Some(next) if next <= end => self.now = next.max(self.now),
                _ => break,
            }
        }
        self.now = end;
        self.session.handle_timeout(self.now);
        self.drain();
    }

    /// The manager of `node` accepts the connection that the session opens to it.
    fn greet(&mut self, node: u16, view: View) -> LinkId {
        self.greet_as(node, member(node), view)
    }

    fn greet_as(&mut self, node: u16, member: Member, view: View) -> LinkId {
        for _ in 0..40 {
            if let Some(at) = self.dials.iter().position(|(_, to)| *to == address(node)) {
                let (link, _) = self.dials.remove(at);
                self.session.handle_connected(self.now, link);
                self.drain();
                assert!(
                    self.sent
                        .iter()
                        .any(|(to, frame)| *to == link && matches!(frame, Frame::Hello(_)))
                );
                self.hear(link, Frame::Welcome(Welcome { member, view }));
                self.pass(0);
                return link;
            }
            self.pass(50);
        }
        panic!("node {node} is not dialled");
    }

    fn hear(&mut self, link: LinkId, frame: Frame) {
        self.session.handle_frame(self.now, link, frame).unwrap();
        self.drain();
    }

    fn lose(&mut self, link: LinkId) {
        self.session.handle_lost(self.now, link, "connection reset");
        self.drain();
    }

    fn call(&mut self, waiter: u32, deadline_ms: Option<u64>) {
        let deadline = deadline_ms.map(|ms| self.now + Duration::from_millis(ms));
        let body = Body::from(&waiter.to_le_bytes()[..]);
        self.session.call(self.now, "/a.B/C".into(), body, deadline, waiter).unwrap();
        self.drain();
    }

    fn calls_on(&self, link: LinkId) -> Vec<&Call> {
        let on = self.sent.iter().filter(|(to, _)| *to == link);
        on.filter_map(|(_, frame)| if let Frame::Call(call) = frame { Some(call) } else { None })
            .collect()
    }

    fn seqs_on(&self, link: LinkId) -> Vec<u64> {
        self.calls_on(link).iter().map(|call| call.seq).collect()
    }

    fn routed(&self) -> u16 {
        self.session.status(self.now).routed.expect("there is a route")
    }

    fn code(&self, waiter: u32) -> Code {
        let mut outcomes = self.answers.iter().filter(|(other, _)| *other == waiter);
        let (_, outcome) = outcomes.next().expect("answered");
        assert!(outcomes.next().is_none(), "answered once");
        outcome.as_ref().map_or_else(|status| status.code, |reply| reply.status.code)
    }
}

fn reply(seq: u64, position: u64) -> Frame {
    Frame::Reply(Reply { seq, status: Status::OK, position, body: Body::empty() })
}

fn refuse(seq: u64, reason: Reason) -> Frame {
    Frame::Refuse(Refuse { seq, reason, message: "no".into() })
}

#[test]
fn learns_managers_from_the_first_and_keeps_a_connection_to_each() {
    let (world, links) = World::of_three();
    assert_eq!(links.len(), 3);
    assert!(
        world.session.status(world.now).managers.iter().all(|manager| manager.state == "connected")
    );
}

#[test]
fn a_lost_connection_moves_unanswered_calls_under_the_same_numbers() {
    let (mut world, links) = World::of_three();
    let first = world.routed();
    (0..3).for_each(|waiter| world.call(waiter, None));
    world.hear(links[&first], reply(2, 10));
    world.lose(links[&first]);
    let second = links[&world.routed()];
    assert_eq!(world.seqs_on(second), [1, 3]);
    assert!(world.calls_on(second).iter().all(|call| call.first_incomplete == 1));
    assert_eq!(&world.calls_on(second)[1].body[..], 2u32.to_le_bytes());
    world.hear(second, reply(1, 11));
    world.hear(second, reply(3, 12));
    assert_eq!(world.session.first_incomplete(), 4);
    assert_eq!([world.code(0), world.code(1), world.code(2)], [Code::Ok; 3]);
}

#[test]
fn a_paused_manager_is_left_as_soon_as_another_reports_a_view_without_it() {
    let (mut world, links) = World::of_three();
    let paused = world.routed();
    world.call(0, None);
    let others: Vec<u16> = [1, 2, 3].into_iter().filter(|node| *node != paused).collect();
    world.hear(links[&others[0]], Frame::View(view(2, true, &others)));
    let next = world.routed();
    assert!(others.contains(&next));
    assert_eq!(world.seqs_on(links[&next]), [1]);
    assert!(world.closed.contains(&links[&paused]), "nothing it says counts any more");
    world.hear(links[&paused], reply(1, 5));
    assert!(world.answers.is_empty());
    let why = world.reports.iter().rev().find_map(|report| match report {
        Report::Rerouted { why, replayed, .. } => Some((why.to_string(), *replayed)),
        _ => None,
    });
    assert_eq!(why, Some(("view 2".into(), 1)));
}

#[test]
fn a_manager_that_wakes_in_an_old_view_is_not_believed() {
    let (mut world, links) = World::of_three();
    let stale = world.routed();
    let others: Vec<u16> = [1, 2, 3].into_iter().filter(|node| *node != stale).collect();
    world.hear(links[&others[0]], Frame::View(view(2, true, &others)));
    world.greet(stale, view(1, true, &[1, 2, 3]));
    assert_ne!(world.routed(), stale);
    // Even when it is the only one left.
    world.lose(links[&others[0]]);
    world.lose(links[&others[1]]);
    assert!(!world.session.is_routed());
}

#[test]
fn a_refusal_moves_the_call_and_the_refuser_is_passed_over_until_it_is_primary() {
    let (mut world, links) = World::of_three();
    let first = world.routed();
    world.call(0, None);
    world.hear(links[&first], refuse(1, Reason::NotPrimary));
    let second = world.routed();
    assert_ne!(first, second);
    world.hear(links[&second], refuse(1, Reason::Starting));
    let third = world.routed();
    world.hear(links[&third], refuse(1, Reason::NotPrimary));
    assert!(!world.session.is_routed());
    world.hear(links[&second], Frame::View(view(1, true, &[1, 2, 3])));
    assert_eq!(world.routed(), second);
    assert_eq!(world.seqs_on(links[&second]), [1, 1]);
}

#[test]
fn refusers_are_asked_again_after_a_while_even_if_they_say_nothing() {
    let (mut world, links) = World::of_three();
    world.call(0, None);
    for _ in 0..3 {
        let link = links[&world.routed()];
        world.hear(link, refuse(1, Reason::NotPrimary));
    }
    assert!(!world.session.is_routed());
    world.pass(100);
    assert!(world.session.is_routed());
}

#[test]
fn overload_is_waited_out_and_then_reported_as_not_executed() {
    let (mut world, links) = World::of_three();
    let link = links[&world.routed()];
    world.call(0, Some(30));
    world.hear(link, refuse(1, Reason::Overloaded));
    assert_eq!(world.seqs_on(link), [1]);
    world.pass(8);
    assert_eq!(world.seqs_on(link), [1, 1]);
    for _ in 0..4 {
        world.hear(link, refuse(1, Reason::Overloaded));
        world.pass(15);
    }
    assert_eq!(world.code(0), Code::ResourceExhausted);
}

#[test]
fn without_a_manager_calls_wait_and_then_say_why() {
    let mut world = World::new(|_| {});
    world.call(0, Some(500));
    world.pass(400);
    assert!(world.answers.is_empty());
    world.pass(100);
    assert_eq!(world.code(0), Code::Unavailable);
    let message = world.answers[0].1.as_ref().unwrap_err().message.to_string();
    assert!(message.contains("not executed") && message.contains("10.0.0.1:1"), "{message}");
}

#[test]
fn in_a_blocked_cluster_calls_wait_for_a_primary_view() {
    let mut world = World::new(|_| {});
    let link = world.greet(1, view(3, false, &[1, 2, 3]));
    world.call(0, Some(500));
    world.call(1, Some(100));
    world.pass(200);
    assert_eq!(world.code(1), Code::Unavailable);
    world.hear(link, Frame::View(view(3, true, &[1, 2, 3])));
    assert_eq!(world.seqs_on(link), [1]);
    assert_eq!(world.calls_on(link)[0].deadline_ms, 300);
}

#[test]
fn a_call_that_was_sent_and_not_answered_has_an_unknown_outcome() {
    let (mut world, links) = World::of_three();
    let link = links[&world.routed()];
    world.call(0, Some(100));
    world.call(1, None);
    world.pass(100);
    assert_eq!(world.code(0), Code::DeadlineExceeded);
    assert_eq!(world.session.first_incomplete(), 2, "its answer is wanted no more");
    world.hear(link, reply(1, 5));
    assert_eq!(world.answers.len(), 1, "a late answer reaches nobody");
}

#[test]
fn later_calls_carry_the_greatest_position_to_any_manager() {
    let (mut world, links) = World::of_three();
    let first = links[&world.routed()];
    world.call(0, None);
    world.hear(first, reply(1, 77));
    world.lose(first);
    world.call(1, None);
    let second = links[&world.routed()];
    assert_eq!(world.calls_on(second)[0].min_position, 77);
}

#[test]
fn a_draining_manager_may_still_answer_but_gets_nothing_new() {
    let (mut world, links) = World::of_three();
    let first = world.routed();
    world.call(0, None);
    let goodbye = Goodbye { reason: Farewell::Draining, message: "stopping".into() };
    world.hear(links[&first], Frame::Goodbye(goodbye));
    let second = world.routed();
    assert_ne!(first, second);
    assert_eq!(world.seqs_on(links[&second]), [1]);
    world.hear(links[&first], reply(1, 5));
    world.hear(links[&second], reply(1, 5));
    assert_eq!(world.answers.len(), 1);
}

#[test]
fn two_addresses_of_one_manager_take_one_connection() {
    let mut world = World::new(|config| config.endpoints.push(address(9)));
    let link = world.greet(1, view(1, true, &[1]));
    let other = world.greet_as(9, member(1), view(1, true, &[1]));
    assert!(world.closed.contains(&other));
    world.pass(1500);
    assert!(world.dials.is_empty(), "not dialled while the other is up");
    world.lose(link);
    world.pass(2000);
    assert!(world.dials.iter().any(|(_, to)| *to == address(9)));
}

#[test]
fn a_silent_manager_is_pinged_and_then_left() {
    let (mut world, links) = World::of_three();
    let silent = world.routed();
    world.call(0, None);
    for _ in 0..8 {
        world.pass(1000);
        for (node, link) in &links {
            if *node != silent {
                world.hear(*link, Frame::Pong(0));
            }
        }
    }
    assert_ne!(world.routed(), silent);
    assert!(
        world
            .sent
            .iter()
            .any(|(link, frame)| *link == links[&silent] && matches!(frame, Frame::Ping(_)))
    );
}

#[test]
fn an_idle_session_sleeps_at_least_a_second_at_a_time() {
    let (mut world, links) = World::of_three();
    let mut wakes = 0;
    let end = world.now + Duration::from_secs(60);
    while let Some(next) = world.session.next_timeout().filter(|next| *next <= end) {
        world.now = next;
        wakes += 1;
        world.session.handle_timeout(next);
        world.drain();
        for (link, frame) in std::mem::take(&mut world.sent) {
            if let Frame::Ping(token) = frame {
                world.hear(link, Frame::Pong(token));
            }
        }
    }
    assert!(wakes <= 61, "{wakes} wake-ups in a minute");
    assert!(links.values().all(|link| !world.closed.contains(link)));
}

#[test]
fn a_manager_that_breaks_the_protocol_is_left() {
    let (mut world, links) = World::of_three();
    let first = world.routed();
    world.call(0, None);
    let odd = [
        reply(99, 0),
        Frame::Fetch(crate::wire::Digest([0; 32])),
        Frame::View(view(9, true, &[8])),
    ];
    for frame in odd {
        let link = links[&world.routed()];
        assert!(world.session.handle_frame(world.now, link, frame).is_err());
        world.drain();
        assert!(world.closed.contains(&link));
    }
    assert!(world.closed.contains(&links[&first]));
    assert!(world.answers.is_empty());
}

#[test]
fn a_cluster_begun_afresh_is_accepted_when_everybody_of_the_old_one_is_gone() {
    let (mut world, links) = World::of_three();
    let link = links[&world.routed()];
    world.call(0, None);
    world.hear(link, reply(1, 1 << 40));
    world.hear(links[&1], Frame::View(view(9, true, &[1, 2, 3])));
    links.values().for_each(|link| world.lose(*link));
    let fresh = |node| Member { node, incarnation: 2 };
    let members = [1, 2, 3].map(|node| ViewMember { member: fresh(node), address: address(node) });
    let link = world.greet_as(1, fresh(1), View { id: 1, primary: true, members: members.into() });
    world.call(1, None);
    assert_eq!(world.calls_on(link).last().unwrap().min_position, 0);
}

#[test]
fn limits_refuse_with_a_reason() {
    let mut world = World::new(|config| {
        config.calls_max = 3;
        config.bytes_max = 100;
        config.span_max = 5;
    });
    let link = world.greet(1, view(1, true, &[1]));
    (0..3).for_each(|waiter| world.call(waiter, None));
    let call = |world: &mut World, bytes: usize| {
        let refused =
            world.session.call(world.now, "/a.B/C".into(), vec![0; bytes].into(), None, 9);
        world.drain();
        refused.map_err(|(_, status)| status)
    };
    let refused = call(&mut world, 0).unwrap_err();
    assert_eq!(refused.code, Code::ResourceExhausted);
    assert!(refused.message.contains("limit 3"), "{refused}");
    world.hear(link, reply(2, 0));
    assert!(call(&mut world, 100).unwrap_err().message.contains("replay"));
    world.hear(link, reply(3, 0));
    call(&mut world, 0).unwrap();
    call(&mut world, 0).unwrap();
    world.hear(link, reply(4, 0));
    assert!(call(&mut world, 0).unwrap_err().message.contains("old call"));
    world.hear(link, reply(1, 0));
    call(&mut world, 0).unwrap();
}

#[test]
fn the_gap_is_the_longest_wait_of_anybody() {
    let (mut world, links) = World::of_three();
    let link = links[&world.routed()];
    world.call(0, None);
    world.pass(10);
    world.hear(link, reply(1, 0));
    world.pass(500);
    world.call(1, None);
    world.call(2, Some(20));
    world.pass(40);
    world.hear(link, reply(2, 0));
    assert_eq!(world.session.status(world.now).longest_gap_us, 40_000);
}
