//! Random histories: managers that answer, refuse, change views and go, in any order.

use proptest::{collection::vec, prelude::*};

use super::*;

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Call {
        deadline_ms: Option<u64>,
    },
    /// The manager of a call that was sent answers it.
    Reply {
        pick: usize,
    },
    Refuse {
        pick: usize,
        reason: u8,
    },
    /// A connection breaks.
    Lose {
        pick: usize,
    },
    /// A manager reports the view of these members.
    View {
        by: u16,
        members: u8,
        primary: bool,
    },
    Goodbye {
        pick: usize,
    },
    Pass {
        ms: u64,
    },
    Greet {
        pick: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![3 => Just(None), 1 => (1..3000u64).prop_map(Some)].prop_map(|deadline_ms| Step::Call { deadline_ms }),
        6 => any::<usize>().prop_map(|pick| Step::Reply { pick }),
        3 => (any::<usize>(), 0..5u8).prop_map(|(pick, reason)| Step::Refuse { pick, reason }),
        2 => any::<usize>().prop_map(|pick| Step::Lose { pick }),
        2 => (1..4u16, 1..8u8, any::<bool>()).prop_map(|(by, members, primary)| Step::View { by, members, primary }),
        1 => any::<usize>().prop_map(|pick| Step::Goodbye { pick }),
        3 => (0..1500u64).prop_map(|ms| Step::Pass { ms }),
        6 => any::<usize>().prop_map(|pick| Step::Greet { pick }),
    ]
}

/// Plays managers at random and checks everything that leaves the session.
struct Play {
    world: World,
    /// Connections greeted, with the node at the other end.
    open: Vec<(LinkId, u16)>,
    views: u64,
    made: u32,
    unanswered: BTreeSet<u64>,
    bodies: BTreeMap<u64, Vec<u8>>,
    first_incomplete: u64,
    seen: usize,
    answered: usize,
    /// Copies sent that were neither answered nor refused.
    copies: Vec<(LinkId, u64)>,
}

impl Play {
    fn check(&mut self) {
        self.open.retain(|(link, _)| !self.world.closed.contains(link));
        for (waiter, outcome) in &self.world.answers[self.answered..] {
            let seq = u64::from(*waiter) + 1;
            assert!(self.unanswered.remove(&seq), "call {seq} was answered twice");
            if let Ok(reply) = outcome {
                assert_eq!(reply.seq, seq, "an answer to another call");
            }
        }
        self.answered = self.world.answers.len();
        for (link, frame) in &self.world.sent[self.seen..] {
            let Frame::Call(call) = frame else { continue };
            let body = self.bodies.entry(call.seq).or_insert_with(|| call.body.to_vec());
            assert_eq!(*body, call.body.to_vec(), "two bodies under one number");
            assert_eq!(*body, (call.seq as u32 - 1).to_le_bytes(), "the number of another call");
            assert!(call.first_incomplete >= self.first_incomplete, "first_incomplete went back");
            assert!(call.first_incomplete <= call.seq);
            assert!(
                self.unanswered.iter().all(|seq| *seq >= call.first_incomplete),
                "an unanswered call is written off"
            );
            self.first_incomplete = call.first_incomplete;
            self.copies.push((*link, call.seq));
        }
        self.seen = self.world.sent.len();
        let lowest = self.unanswered.first().copied().unwrap_or(u64::from(self.made) + 1);
        assert_eq!(self.world.session.first_incomplete(), lowest);
        assert_eq!(self.world.session.in_flight(), self.unanswered.len());
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Call { deadline_ms } => {
                self.unanswered.insert(u64::from(self.made) + 1);
                self.world.call(self.made, deadline_ms);
                self.made += 1;
            }
            Step::Reply { pick } if !self.copies.is_empty() => {
                let (link, seq) = self.copies.swap_remove(pick % self.copies.len());
                let _ = self.world.session.handle_frame(self.world.now, link, reply(seq, seq));
            }
            Step::Refuse { pick, reason } if !self.copies.is_empty() => {
                use Reason::{Draining, NotPrimary, Overloaded, Starting, UnknownMethod};
                let (link, seq) = self.copies.swap_remove(pick % self.copies.len());
                let reason = [NotPrimary, Starting, Overloaded, Draining, UnknownMethod]
                    [usize::from(reason)];
                let _ = self.world.session.handle_frame(self.world.now, link, refuse(seq, reason));
            }
            Step::Lose { pick } if !self.open.is_empty() => {
                let (link, _) = self.open.swap_remove(pick % self.open.len());
                self.world.lose(link);
            }
            Step::View { by, members, primary } => {
                self.views += 1;
                let nodes: Vec<u16> =
                    (1..4).filter(|node| members >> (node - 1) & 1 == 1).collect();
                if let Some((link, _)) = self.open.iter().find(|(_, node)| *node == by) {
                    let view = view(self.views, primary && nodes.contains(&by), &nodes);
                    let _ =
                        self.world.session.handle_frame(self.world.now, *link, Frame::View(view));
                }
            }
            Step::Goodbye { pick } if !self.open.is_empty() => {
                let (link, _) = self.open[pick % self.open.len()];
                let goodbye = Goodbye { reason: Farewell::Draining, message: Text::default() };
                self.world.hear(link, Frame::Goodbye(goodbye));
            }
            Step::Pass { ms } => self.world.pass(ms),
            Step::Greet { pick } if !self.world.dials.is_empty() => {
                let at = pick % self.world.dials.len();
                let node = (1..4)
                    .find(|node| address(*node) == self.world.dials[at].1)
                    .expect("one of the three");
                let link = self.world.greet(node, view(self.views, true, &[1, 2, 3]));
                self.open.push((link, node));
            }
            _ => {}
        }
        self.world.drain();
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_call_gets_one_answer_whatever_happens(steps in vec(step(), 1..150)) {
        let world = World::new(|config| config.endpoints = vec![address(1), address(2), address(3)]);
        let mut play = Play {
            world, open: vec![], views: 1, made: 0, unanswered: BTreeSet::new(), bodies: BTreeMap::new(),
            first_incomplete: 1, seen: 0, answered: 0, copies: vec![],
        };
        for step in &steps {
            play.play(step);
        }
        // At last everybody is well, and answers: nothing may be left over.
        for (link, _) in std::mem::take(&mut play.open) {
            play.world.lose(link);
        }
        play.check();
        play.views += 1;
        for node in 1..4 {
            let link = play.world.greet(node, view(play.views, true, &[1, 2, 3]));
            play.open.push((link, node));
        }
        play.world.pass(300);
        play.check();
        for (link, seq) in std::mem::take(&mut play.copies) {
            let _ = play.world.session.handle_frame(play.world.now, link, reply(seq, seq));
            play.world.drain();
        }
        play.check();
        prop_assert!(play.unanswered.is_empty(), "unanswered: {:?}", play.unanswered);
        prop_assert_eq!(play.world.answers.len(), play.made as usize);
    }
}

#[test]
fn a_call_that_expired_before_it_was_ordered_ends_unless_another_copy_is_under_way() {
    let (mut world, links) = World::of_three();
    let refuse =
        |seq| Frame::Refuse(Refuse { seq, reason: Reason::Expired, message: "late".into() });
    let first = world.session.route.expect("there is one");
    world.session.call(world.now, "/a.B/C".into(), Body::from(&b"1"[..]), None, 1).unwrap();
    world.drain();
    world.hear(first, refuse(1));
    assert!(
        matches!(&world.answers[..], [(1, Err(status))] if status.code == Code::DeadlineExceeded)
    );
    // Of the second call, the first manager may have ordered a copy before it was lost.
    world.session.call(world.now, "/a.B/C".into(), Body::from(&b"2"[..]), None, 2).unwrap();
    world.drain();
    world.session.handle_lost(world.now, first, "gone");
    world.drain();
    let second = world.session.route.expect("another takes over");
    assert!(second != first && links.values().any(|link| *link == second));
    world.hear(second, refuse(2));
    assert_eq!(world.answers.len(), 1, "its outcome is not known");
    world.pass(1000);
    let again =
        world.sent.iter().filter(|(_, frame)| matches!(frame, Frame::Call(call) if call.seq == 2));
    assert_eq!(again.count(), 3);
}

#[test]
fn a_late_call_ends_if_it_has_a_deadline_and_else_goes_on() {
    let (mut world, _) = World::of_three();
    let route = world.session.route.expect("there is one");
    let deadline = world.now + Duration::from_secs(9);
    for (waiter, deadline) in [(1, Some(deadline)), (2, None)] {
        let body = Body::from(&b"x"[..]);
        world.session.call(world.now, "/a.B/C".into(), body, deadline, waiter).unwrap();
    }
    world.drain();
    for seq in [1, 2, 3] {
        world.hear(route, Frame::Late(Late { seq, message: "longer than allowed".into() }));
    }
    assert!(
        matches!(&world.answers[..], [(1, Err(status))] if status.code == Code::DeadlineExceeded)
    );
    assert_eq!(world.late, [(2, Code::DeadlineExceeded)]);
    let reply = Reply { seq: 2, status: Status::OK, position: 5, body: Body::from(&b"y"[..]) };
    world.hear(route, Frame::Reply(reply));
    assert!(matches!(&world.answers[1..], [(2, Ok(_))]));
}
