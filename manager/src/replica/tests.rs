//! The replica against a model, and its bytes against anything.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashMap;

const DIGEST: Digest = Digest([7; 32]);

fn deploy() -> Message<'static> {
    Message::Deploy(Deploy {
        digest: DIGEST,
        source: 1,
        name: "bank",
        version: "1",
        classes: vec!["bank.Bank"],
    })
}

fn loaded(node: u16, problem: &str) -> Message<'_> {
    Message::Loaded { digest: DIGEST, node, problem }
}

struct Driven(Replica);

impl Driven {
    fn of(members: &[u16]) -> Driven {
        let mut replica = Replica::default();
        assert!(replica.install(1 << 40, 1, members.to_vec()).is_empty());
        Driven(replica)
    }

    fn order(&mut self, message: Message<'_>) -> Effect<'static> {
        let bytes = message.encode(self.0.time_ns + 5).leak();
        self.0.apply(self.0.upto(), bytes)
    }

    fn active() -> Driven {
        let mut d = Driven::of(&[1]);
        d.order(deploy());
        d.order(loaded(1, ""));
        d
    }
}

#[test]
fn a_package_becomes_active_when_every_member_of_the_view_has_loaded_it() {
    let mut d = Driven::of(&[1, 2, 3]);
    assert_eq!(d.order(deploy()), Effect::Load { digest: DIGEST, source: 1 });
    assert_eq!(d.order(loaded(1, "")), Effect::Nothing);
    assert_eq!(d.order(loaded(3, "")), Effect::Nothing);
    let instances = vec![(1, "bank.Bank".to_owned())];
    assert_eq!(d.order(loaded(2, "")), Effect::Activated { digest: DIGEST, instances });
    assert_eq!(d.order(deploy()), Effect::Nothing, "the same package again changes nothing");
}

#[test]
fn the_death_of_the_last_member_without_it_activates_it_too() {
    let mut d = Driven::of(&[1, 2, 3]);
    d.order(deploy());
    d.order(loaded(1, ""));
    d.order(loaded(3, ""));
    let effects = d.0.install(2 << 40, 2, vec![1, 3]);
    assert!(matches!(effects[..], [Effect::Activated { .. }]), "{effects:?}");
}

#[test]
fn one_member_that_cannot_use_it_rejects_it_for_all_and_it_may_be_offered_again() {
    let mut d = Driven::of(&[1, 2]);
    d.order(deploy());
    assert!(matches!(d.order(loaded(2, "no such symbol")), Effect::Rejected { node: 2, .. }));
    assert_eq!(d.order(loaded(1, "")), Effect::Nothing);
    assert!(d.0.catalogue().instances.is_empty());
    assert_eq!(d.order(deploy()), Effect::Load { digest: DIGEST, source: 1 });
}

#[test]
fn another_package_of_a_deployed_component_is_rejected_until_it_is_undeployed() {
    let mut d = Driven::active();
    let other = Message::Deploy(Deploy {
        digest: Digest([8; 32]),
        source: 2,
        name: "bank",
        version: "2",
        classes: vec!["bank.Bank"],
    });
    assert!(matches!(d.order(other.clone()), Effect::Rejected { .. }));
    let removed = d.order(Message::Undeploy { digest: DIGEST });
    let gone = Effect::Removed { digest: DIGEST, name: "bank".into(), instances: vec![1] };
    assert_eq!(removed, gone);
    assert!(matches!(d.order(other), Effect::Load { .. }));
}

fn call(client: u128, seq: u64) -> Message<'static> {
    let (first_incomplete, instance, method, body) = (1, 1, 0, &b"x"[..]);
    Message::Call(Call { client, seq, first_incomplete, instance, method, body })
}

#[test]
fn a_call_begins_a_session_and_needs_an_instance() {
    let mut d = Driven::of(&[1]);
    let refused = |seq| Effect::Refuse { client: 9, seq, refusal: Refusal::Removed };
    assert_eq!(d.order(call(9, 1)), refused(1));
    d.order(deploy());
    d.order(loaded(1, ""));
    assert!(matches!(d.order(call(9, 2)), Effect::Update { .. }));
    d.order(Message::Undeploy { digest: DIGEST });
    assert_eq!(d.order(call(9, 3)), refused(3));
    assert_eq!(d.0.sessions().len(), 1);
}

#[test]
fn a_clock_that_was_set_ends_no_session() {
    let mut d = Driven::active();
    d.order(call(9, 1));
    let a_year_ahead = d.0.time_ns + 365 * 24 * 3600 * 1_000_000_000;
    let bytes = call(8, 1).encode(a_year_ahead).leak();
    d.0.apply(d.0.upto(), bytes);
    assert_eq!(d.0.time_ns(), a_year_ahead);
    for round in 0..IDLE_ROUNDS {
        assert_eq!(d.order(Message::Round { round }), Effect::Nothing, "round {round}");
        assert_eq!(
            d.order(Message::Round { round }),
            Effect::Nothing,
            "the same round counts once"
        );
    }
    assert_eq!(d.0.sessions().len(), 2);
    d.order(Message::Renew { client: 9 });
    let ended = d.order(Message::Round { round: IDLE_ROUNDS });
    assert_eq!(ended, Effect::Forget { clients: vec![8] });
}

#[test]
fn what_may_have_run_in_a_session_that_ended_is_not_run_again_and_what_is_new_begins_another() {
    let mut d = Driven::active();
    d.order(call(9, 1));
    d.order(call(9, 3));
    assert_eq!(d.order(Message::Finish { client: 9 }), Effect::Forget { clients: vec![9] });
    assert_eq!(d.order(Message::Finish { client: 9 }), Effect::Nothing);
    for again in 0..2 {
        for seq in 1..=3 {
            let effect = d.order(call(9, seq));
            let Effect::Answer { reply, .. } = effect else { panic!("{again} {seq}: {effect:?}") };
            assert!(reply.code == 2 && reply.message.contains("outcome is unknown"), "{reply:?}");
        }
        assert!(matches!(d.order(call(9, 4 + again)), Effect::Update { .. }));
        assert_eq!(d.0.sessions().len(), 1);
    }
}

#[test]
fn a_client_within_the_span_of_the_protocol_is_never_refused_for_its_replies() {
    let span = quintet_client::wire::limits::CALL_SPAN_MAX as u64;
    let mut records = Records::default();
    let reply = Reply { code: 0, message: String::new(), position: 1, body: Default::default() };
    for seq in 1..=3 * span {
        // It has acknowledged as little as allows it to make this call.
        let first_incomplete = (seq + 1).saturating_sub(span).max(1);
        assert_eq!(records.check(1, seq, first_incomplete), Verdict::New, "{seq}");
        records.insert(1, seq, reply.clone());
    }
    assert_eq!(records.check(1, 3 * span + 1, 2 * span + 1), Verdict::Full, "one beyond the span");
}

#[test]
fn there_is_a_most_of_sessions_and_the_marks_of_the_oldest_give_way() {
    let mut sessions = Sessions::default();
    let most = crate::limits::SESSIONS as u128;
    for client in 0..most {
        assert_eq!(sessions.call(client, 1), Standing::Open);
    }
    assert_eq!(sessions.call(most, 1), Standing::Full);
    assert_eq!(sessions.call(0, 2), Standing::Open);
    assert!(sessions.end(0));
    assert_eq!(sessions.call(most, 1), Standing::Open);
    for client in 0..2 * most {
        sessions.end(most + client);
        sessions.call(most + client + 1, 1);
    }
    assert_eq!(sessions.call(0, 1), Standing::Full, "its mark gave way");
    assert_eq!(sessions.call(most, 1), Standing::Ended, "this one is remembered");
}

#[test]
#[should_panic(expected = "position")]
fn a_position_is_never_applied_twice() {
    let mut d = Driven::of(&[1]);
    d.order(deploy());
    d.0.apply(d.0.upto() - 1, &[]);
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let client = 0u128..5;
    prop_oneof![
        client.clone().prop_map(|client| Message::Renew { client }.encode(1)),
        client.clone().prop_map(|client| Message::Finish { client }.encode(2)),
        (0u64..20).prop_map(|round| Message::Round { round }.encode(2)),
        (client, any::<u64>(), any::<u64>(), 0u32..4, any::<u32>(), vec(any::<u8>(), 0..50))
            .prop_map(|(client, seq, first_incomplete, instance, method, body)| {
                let body = &body[..];
                Message::Call(Call { client, seq, first_incomplete, instance, method, body })
                    .encode(3)
            }),
        (0u8..4, 1u16..4, 0usize..3).prop_map(|(d, source, n)| {
            let classes = ["a.A", "b.B", "c.C"][..n].to_vec();
            let name = ["x", "y"][usize::from(d % 2)];
            let digest = Digest([d; 32]);
            Message::Deploy(Deploy { digest, source, name, version: "1", classes }).encode(4)
        }),
        (0u8..4, 1u16..4, prop_oneof![Just(""), Just("bad")]).prop_map(|(d, node, problem)| {
            Message::Loaded { digest: Digest([d; 32]), node, problem }.encode(5)
        }),
        (0u8..4).prop_map(|d| Message::Undeploy { digest: Digest([d; 32]) }.encode(6)),
        any::<u64>().prop_map(|token| Message::Audit { token }.encode(7)),
        (any::<u64>(), any::<[u8; 32]>()).prop_map(|(token, hash)| {
            let hashes = vec![(1, Ok(hash)), (2, Err("failed"))];
            Message::Audited { token, node: 2, hashes }.encode(8)
        }),
        vec(any::<u8>(), 0..80),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else_panics(bytes in any_message(), cut: prop::sample::Index) {
        if let Ok((message, time)) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(time), bytes.clone());
            let shorter = &bytes[..cut.index(bytes.len())];
            if !matches!(message, Message::Call(_)) {
                prop_assert!(Message::decode(shorter).is_err());
            }
        }
    }

    #[test]
    fn a_replica_that_starts_from_a_snapshot_ends_equal(
        messages in vec(any_message(), 1..80), at: prop::sample::Index, view_at: prop::sample::Index,
    ) {
        let mut whole = Replica::default();
        whole.install(1 << 40, 1, vec![1, 2]);
        let (at, view_at) = (at.index(messages.len()), view_at.index(messages.len()));
        let mut joined: Option<Replica> = None;
        for (i, message) in messages.iter().enumerate() {
            if i == at {
                joined = Some(Replica::decode(&whole.encode()).unwrap());
            }
            let both = [Some(&mut whole), joined.as_mut()];
            let effects: Vec<_> = both.into_iter().flatten().map(|replica| {
                let installed = if i == view_at { replica.install(2 << 40, 2, vec![2]) } else { vec![] };
                (installed, replica.apply(replica.upto() + 1, message))
            }).collect();
            if let [a, b] = &effects[..] {
                prop_assert_eq!(a, b);
            }
        }
        prop_assert_eq!(Some(whole), joined);
    }

    #[test]
    fn damaged_state_never_panics(messages in vec(any_message(), 1..40), at: prop::sample::Index, with: u8) {
        let mut replica = Replica::default();
        replica.install(1 << 40, 1, vec![1]);
        for message in &messages {
            replica.apply(replica.upto(), message);
        }
        let mut bytes = replica.encode();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = Replica::decode(&bytes);
        prop_assert!(Replica::decode(&bytes[..at]).is_err());
    }

    /// Sessions end, by themselves and by being told, in the middle of calls, repeats and late copies: no call is
    /// executed twice, and one above all that came before is executed.
    #[test]
    fn a_call_is_executed_once_across_the_ends_of_sessions(
        steps in vec((0u8..12, 0u128..3, 1u64..30, 0u64..30), 1..300),
    ) {
        let mut d = Driven::active();
        let mut records = Records::default();
        let mut executed = std::collections::HashSet::new();
        let mut greatest: HashMap<u128, u64> = HashMap::new();
        for (kind, client, seq, first_incomplete) in steps {
            let effect = match kind {
                0 => d.order(Message::Round { round: d.0.sessions().round() }),
                1 => d.order(Message::Finish { client }),
                2 => {
                    d.0 = Replica::decode(&d.0.encode()).unwrap();
                    continue;
                }
                _ => {
                    let first_incomplete = first_incomplete.min(seq);
                    let (instance, method, body) = (1, 0, &b""[..]);
                    d.order(Message::Call(Call { client, seq, first_incomplete, instance, method, body }))
                }
            };
            match effect {
                Effect::Forget { clients } => clients.iter().for_each(|client| records.forget(*client)),
                Effect::Update { call, .. }
                    if records.check(client, seq, call.first_incomplete) == Verdict::New =>
                {
                    prop_assert!(executed.insert((client, seq)), "{client} {seq} executed twice");
                    let (message, body) = (String::new(), Default::default());
                    records.insert(client, seq, Reply { code: 0, message, position: 1, body });
                }
                _ => {}
            }
            if kind > 2 {
                let greatest = greatest.entry(client).or_default();
                prop_assert!(seq <= *greatest || executed.contains(&(client, seq)), "{client} {seq} was new");
                *greatest = seq.max(*greatest);
            }
        }
    }

    /// Any mixture of calls, repeats and late copies executes each (client, seq) at most once, and
    /// every repeat that is still wanted gets the first reply.
    #[test]
    fn a_call_is_executed_once_whatever_is_repeated(
        steps in vec((0u128..3, 1u64..20, 0u64..20, any::<bool>()), 1..200),
    ) {
        let mut records = Records::default();
        let mut executed: HashMap<(u128, u64), Reply> = HashMap::new();
        let mut first: HashMap<u128, u64> = HashMap::new();
        for (i, (client, seq, first_incomplete, snapshot)) in steps.into_iter().enumerate() {
            let wanted = first.entry(client).or_default();
            *wanted = (*wanted).max(first_incomplete);
            let position = i as u64;
            let reply = Reply { code: 0, message: String::new(), position, body: vec![i as u8].into() };
            match records.check(client, seq, first_incomplete) {
                Verdict::New => {
                    prop_assert!(seq >= *wanted);
                    prop_assert!(executed.insert((client, seq), reply.clone()).is_none(), "executed twice");
                    records.insert(client, seq, reply);
                }
                Verdict::Repeat(known) => prop_assert_eq!(Some(known), executed.get(&(client, seq))),
                Verdict::Late => prop_assert!(seq < *wanted),
                Verdict::Full => prop_assert!(false, "far below the limit"),
            }
            if snapshot {
                let again = Records::decode(&records.encode()).unwrap();
                prop_assert_eq!(again.len(), records.len());
                prop_assert_eq!(&again, &records);
                records = again;
            }
        }
        for client in 0..3 {
            records.forget(client);
        }
        prop_assert!(records.is_empty());
    }
}

#[test]
fn a_client_that_never_acknowledges_is_refused_at_the_limit() {
    let mut records = Records::default();
    let reply = Reply { code: 0, message: String::new(), position: 1, body: Default::default() };
    for seq in 1..=crate::limits::REPLIES_PER_CLIENT as u64 {
        assert_eq!(records.check(1, seq, 1), Verdict::New);
        records.insert(1, seq, reply.clone());
    }
    assert_eq!(records.check(1, u64::MAX, 1), Verdict::Full);
    assert!(matches!(records.check(1, 5, 1), Verdict::Repeat(_)));
    assert_eq!(records.check(1, u64::MAX, 6), Verdict::New);
    assert_eq!(records.check(1, 5, 6), Verdict::Late);
}
