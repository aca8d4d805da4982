//! The bytes of control records: what is written is read back, and nothing else is believed.

use proptest::prelude::*;
use quintet_transport::{Member, NodeId};

use crate::core::codec::{Announce, Control, Farewell, Join, Promise};
use crate::core::order::Final;
use crate::core::*;

fn member() -> impl Strategy<Value = Member> {
    (1u16..6, 0u64..1000).prop_map(|(n, i)| Member::new(n, i))
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    proptest::collection::btree_map(1u16..70, 0u64..9, 1..8)
        .prop_map(|m| m.into_iter().map(|(n, i)| Member::new(n, i)).collect())
}

fn why() -> impl Strategy<Value = Why> {
    prop_oneof![
        Just(Why::Exited),
        Just(Why::Restarted),
        Just(Why::Unreachable),
        Just(Why::Silent),
        Just(Why::Closed),
        Just(Why::Cut),
        Just(Why::Left)
    ]
}

fn departures() -> impl Strategy<Value = Vec<Departure>> {
    let gone = (100u16..110, 0u64..9, why())
        .prop_map(|(n, i, why)| Departure { member: Member::new(n, i), why });
    proptest::collection::vec(gone, 0..4)
}

fn value() -> impl Strategy<Value = crate::core::Value> {
    (members(), 1u64..1000, departures(), any::<bool>(), 0u64..Position::LIMIT).prop_map(
        |(members, id, departed, changed, p)| {
            let short = Shortfall { owed: Position(p), longest: Position(p / 2), at: NodeId(3) };
            let (origin, trim, joined, founded) = if changed {
                let trim = Position::new(ViewId(id - 1), p);
                (Origin::Changed, trim, vec![members[0]], ViewId(id / 2))
            } else {
                let below = Origin::RecoveredBelow(short);
                let origin = if p % 2 == 0 { Origin::Recovered } else { below };
                (origin, Position::ZERO, members.clone(), ViewId(id))
            };
            let base = (0..members.len() as u64).map(|r| r * 7).collect();
            crate::core::Value {
                view: View { id: ViewId(id), base, joined, departed, origin, members },
                trim,
                owed: Position(p),
                founded,
            }
        },
    )
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (0u64..u64::MAX / 2, member()).prop_map(|(round, by)| Ballot { round, by })
}

fn vote() -> impl Strategy<Value = Option<(Ballot, crate::core::Value)>> {
    proptest::option::of((ballot(), value()))
}

fn farewell() -> impl Strategy<Value = Farewell> {
    (any::<u64>(), any::<u64>(), departures(), members()).prop_map(|(next, p, lost, learners)| {
        Farewell { words: Final { next, received: Position(p) }, lost, learners }
    })
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Outside),
        Just(Standing::Learner),
        Just(Standing::Member),
        Just(Standing::Gone)
    ]
}

fn control() -> impl Strategy<Value = Control> {
    let view = || (0u64..1000).prop_map(ViewId);
    prop_oneof![
        (standing(), any::<(bool, bool, u64)>(), value(), departures()).prop_map(
            |(standing, b, decided, lost)| {
                Control::Announce(Announce {
                    standing,
                    leaving: b.0,
                    votes: b.1,
                    decided,
                    lost,
                    state: Position(b.2),
                    given_up: b.0.then_some(Position(b.2)),
                })
            }
        ),
        (proptest::option::of(member()), any::<bool>(), members())
            .prop_map(|(donor, ready, sees)| Control::Join(Join { donor, ready, sees })),
        (member(), member()).prop_map(|(learner, donor)| Control::Donate { learner, donor }),
        (view(), ballot()).prop_map(|(view, ballot)| Control::Prepare { view, ballot }),
        (
            view(),
            ballot(),
            vote(),
            proptest::option::of(farewell()),
            proptest::option::of(any::<u64>())
        )
            .prop_map(|(view, ballot, accepted, farewell, state)| {
                Control::Promise(Promise {
                    view,
                    ballot,
                    accepted,
                    farewell,
                    state: state.map(Position),
                    persisted: state.map(Position).unwrap_or_default(),
                })
            }),
        (view(), ballot(), value()).prop_map(|(view, ballot, value)| Control::Accept {
            view,
            ballot,
            value
        }),
        (view(), ballot()).prop_map(|(view, ballot)| Control::Accepted { view, ballot }),
        (view(), ballot(), ballot()).prop_map(|(view, ballot, promised)| Control::Nack {
            view,
            ballot,
            promised
        }),
        value().prop_map(|value| Control::Decide { value }),
        (view(), any::<u64>())
            .prop_map(|(view, log_position)| Control::Start { view, log_position }),
    ]
}

#[test]
fn a_position_is_read_as_it_is_shown() {
    let position = Position::new(ViewId(9), 21);
    assert_eq!(position.to_string().parse(), Ok(position));
    for text in ["", "9", "9:", ":21", "9:x", "16777216:0", "1:1099511627776", "-1:2"] {
        assert!(text.parse::<Position>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(control in control()) {
        prop_assert_eq!(Control::decode(&control.encode()), Ok(control));
    }

    #[test]
    fn a_durable_record_is_read_back(decided in value(), promised in proptest::option::of(ballot()), accepted in vote()) {
        let durable = Durable { decided, promised, accepted };
        prop_assert_eq!(Durable::decode(&durable.encode()), Ok(durable));
    }

    /// Arbitrary bytes, and correct bytes with one changed or some missing, are refused or are another record.
    #[test]
    fn arbitrary_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), c in control(), at in any::<usize>(), to in any::<u8>()) {
        let _ = Control::decode(&bytes);
        let _ = Durable::decode(&bytes);
        let mut broken = c.encode();
        let at = at % broken.len();
        prop_assert!(Control::decode(&broken[..at]).is_err(), "a part is not a record");
        broken[at] = to;
        if let Ok(other) = Control::decode(&broken) {
            prop_assert_eq!(other.encode(), broken, "one encoding of each record");
        }
    }

    /// A core survives whatever a linked peer sends.
    #[test]
    fn a_core_survives_any_record(records in proptest::collection::vec(control(), 0..30)) {
        let mut net = super::net::Net::founded(3);
        let (from, now) = (net.me(2), net.now);
        let core = &mut net.procs.get_mut(&1).unwrap().core;
        for record in records {
            let _ = core.handle_control(now, from, &record.encode());
            while core.poll_event().is_some() || core.poll_control().is_some() {}
            if let Some((ticket, _)) = core.poll_store() {
                core.handle_stored(now, ticket);
            }
        }
    }
}
