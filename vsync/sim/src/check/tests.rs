//! A checker that cannot fail is a defect: each is shown the thing it exists for.

use super::*;

fn member(node: u16) -> Member {
    Member::new(node, 1)
}

fn view(id: u64, nodes: &[u16], joined: &[u16]) -> ViewInfo {
    let list = |nodes: &[u16]| nodes.iter().map(|&n| member(n)).collect::<Vec<_>>();
    ViewInfo { id, members: list(nodes), joined: list(joined), ..ViewInfo::default() }
}

/// Three nodes in view 1, decided properly.
fn three() -> Checks {
    let mut checks = Checks::default();
    let genesis: Vec<Member> = (1..=3).map(|n| Member::new(n, 0)).collect();
    checks.views.genesis(ViewInfo { members: genesis, ..ViewInfo::default() });
    accept(&mut checks, 1, &[1, 2], 77);
    for node in 1..=3 {
        checks.install(node as Boot, member(node), &view(1, &[1, 2, 3], &[1, 2, 3]), &[]);
    }
    assert_eq!(checks.found(), None);
    checks
}

fn accept(checks: &mut Checks, id: u64, nodes: &[u16], value: u64) {
    for &node in nodes {
        let members = (1..=3).map(member).collect();
        let view = ViewInfo { id, members, ..ViewInfo::default() };
        let verdict = checks.views.accepted(member(node).node, 1, value, view);
        checks.note(verdict);
    }
}

fn at(view: u64, p: u64) -> u64 {
    (view << VIEW_SHIFT) + p
}

/// Everybody has received everything of view 1.
fn received(checks: &mut Checks) {
    for node in 1..=3 {
        let verdict = checks.words.publish(member(node), [100, at(1, 100), at(1, 0), 0]);
        checks.note(verdict);
    }
}

fn send(checks: &mut Checks, node: u16) -> u64 {
    let message = checks.order.send(member(node));
    checks.outcome.send(node as Boot, message);
    message
}

fn found(checks: &Checks) -> u8 {
    checks.found().expect("a violation").invariant
}

#[test]
fn what_did_not_hold_has_a_name_of_its_own() {
    let traps = crate::canary::TABLE.iter().flat_map(|t| t.invariants);
    let name = |invariant: &u8| Violation::new(*invariant, "").name();
    assert_eq!(traps.map(name).find(|n| n.contains("not checked")), None);
    assert_eq!(name(&4), "4 primary uniqueness");
    assert!(name(&PANIC) != name(&REFUSAL));
}

#[test]
fn a_view_without_oneself() {
    let mut checks = three();
    accept(&mut checks, 2, &[1, 2], 78);
    checks.install(3, member(3), &view(2, &[1, 2], &[]), &[]);
    assert_eq!(found(&checks), 1);
}

#[test]
fn a_view_with_two_faces() {
    let mut checks = three();
    accept(&mut checks, 2, &[1, 2], 78);
    checks.install(1, member(1), &view(2, &[1, 2], &[]), &[]);
    checks.install(2, member(2), &view(2, &[1, 2, 3], &[]), &[]);
    assert_eq!(found(&checks), 3);
}

#[test]
fn a_view_that_a_minority_decided() {
    let mut checks = three();
    accept(&mut checks, 2, &[3], 78);
    checks.install(3, member(3), &view(2, &[3], &[]), &[]);
    assert_eq!(found(&checks), 4);
}

#[test]
fn two_values_for_one_view() {
    let mut checks = three();
    accept(&mut checks, 2, &[1, 2], 78);
    accept(&mut checks, 2, &[2, 3], 79);
    assert_eq!(found(&checks), 4);
}

#[test]
fn a_survivor_that_came_from_elsewhere() {
    let mut checks = three();
    accept(&mut checks, 2, &[1, 2], 78);
    checks.install(1, member(1), &view(2, &[1, 2], &[1]), &[]);
    assert_eq!(found(&checks), 10);
}

#[test]
fn a_message_nobody_sent() {
    let mut checks = three();
    received(&mut checks);
    checks.deliver(1, member(1), at(1, 0), 0, member(1), 5);
    assert_eq!(found(&checks), 5);
}

#[test]
fn a_message_at_two_places() {
    let mut checks = three();
    received(&mut checks);
    let message = send(&mut checks, 1);
    checks.deliver(2, member(2), at(1, 0), 0, member(1), message);
    checks.deliver(3, member(3), at(1, 3), 0, member(1), message);
    assert_eq!(found(&checks), 6);
}

#[test]
fn a_message_of_another_view() {
    let mut checks = three();
    received(&mut checks);
    let message = send(&mut checks, 1);
    checks.deliver(2, member(2), at(2, 0), 0, member(1), message);
    assert_eq!(found(&checks), 7);
}

#[test]
fn a_gap_between_messages_of_one_sender() {
    let mut checks = three();
    let first = send(&mut checks, 1);
    let second = send(&mut checks, 1);
    assert_eq!(checks.order.fifo(member(2), second, 0).expect_err("a gap").invariant, 11);
    assert_eq!(checks.order.fifo(member(2), first, 1).expect_err("again").invariant, 6);
}

#[test]
fn two_orders() {
    let mut checks = three();
    received(&mut checks);
    let (a, b) = (send(&mut checks, 1), send(&mut checks, 2));
    checks.deliver(1, member(1), at(1, 0), 0, member(1), a);
    checks.deliver(1, member(1), at(1, 1), 1, member(2), b);
    checks.deliver(2, member(2), at(1, 1), 1, member(2), b);
    assert_eq!(found(&checks), 13);
}

#[test]
fn a_message_that_survivors_miss() {
    let mut checks = three();
    received(&mut checks);
    let a = send(&mut checks, 1);
    checks.deliver(1, member(1), at(1, 0), 0, member(1), a);
    accept(&mut checks, 2, &[2, 3], 78);
    checks.install(2, member(2), &view(2, &[2, 3], &[]), &[]);
    assert_eq!(found(&checks), 14);
}

#[test]
fn survivors_with_different_sets() {
    let mut checks = three();
    received(&mut checks);
    let a = send(&mut checks, 1);
    accept(&mut checks, 2, &[2, 3], 78);
    checks.install(2, member(2), &view(2, &[2, 3], &[]), &[]);
    checks.deliver(3, member(3), at(1, 0), 0, member(1), a);
    assert_eq!(found(&checks), 14);
}

#[test]
fn states_that_differ_at_a_cut() {
    let mut checks = three();
    let two = view(2, &[1, 2, 3], &[3]);
    assert_eq!(checks.synchrony.start(member(1), &two, (5, 9)), Ok(()));
    assert_eq!(checks.synchrony.start(member(2), &two, (5, 8)).expect_err("differs").invariant, 9);
    assert_eq!(checks.synchrony.start(member(3), &two, (4, 9)).expect_err("differs").invariant, 18);
}

#[test]
fn a_delivery_before_all_have_received() {
    let mut checks = three();
    let a = send(&mut checks, 1);
    for node in 1..=2 {
        let verdict = checks.words.publish(member(node), [1, at(1, 1), at(1, 0), 0]);
        checks.note(verdict);
    }
    checks.deliver(1, member(1), at(1, 0), 0, member(1), a);
    assert_eq!(found(&checks), 17);
}

#[test]
fn words_that_shrink_run_ahead_or_are_fenced() {
    let mut checks = three();
    received(&mut checks);
    let words = &mut checks.words;
    assert_eq!(
        words.publish(member(1), [99, at(1, 100), 0, 0]).expect_err("shrinks").invariant,
        15
    );
    assert_eq!(words.copy(member(2), member(1), [101, 0, 0, 0]).expect_err("ahead").invariant, 15);
    words.fence(member(2), member(1));
    assert_eq!(words.copy(member(2), member(1), [1, 0, 0, 0]).expect_err("fenced").invariant, 16);
}

#[test]
fn a_slot_reused_too_early() {
    let mut checks = three();
    received(&mut checks);
    let then = view(1, &[1, 2, 3], &[]);
    let verdict = checks.words.reuse(member(1), at(1, 0), &then, &then.members);
    assert_eq!(verdict.expect_err("not delivered").invariant, 15);
}

/// Sends of member 1, which process 1 publishes in view 1; the last one stays unpublished.
fn sends(outcomes: &mut outcome::Outcomes) -> [u64; 4] {
    let messages = [11, 12, 13, 14];
    messages.iter().for_each(|&m| outcomes.send(1, m));
    messages[..3].iter().for_each(|&m| outcomes.publish(1, m));
    messages
}

/// The last report of process 1, whose sends are those.
fn last(outcomes: &mut outcome::Outcomes, saw: bool, lost: &[u64], dropped: &[u64]) -> Verdict {
    let (indeterminate, not_delivered) = (lost.to_vec(), dropped.to_vec());
    let report = outcome::LastReport { saw_the_end: saw, indeterminate, not_delivered };
    outcomes.end(1, member(1), &report)
}

fn eighth(verdict: Verdict, part: &str) {
    let violation = verdict.expect_err(part);
    assert_eq!(violation.invariant, 8);
    assert!(violation.text.contains(part), "{}", violation.text);
}

#[test]
fn a_send_with_two_outcomes() {
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    assert_eq!(o.deliver(1, member(1), member(1), 11, at(1, 0)), Ok(()));
    assert_eq!(o.open(1), 4, "the application has not been told");
    assert_eq!(o.tell(1, member(1), 11, at(1, 0)), Ok(()));
    assert_eq!(o.open(1), 3);
    eighth(o.deliver(1, member(1), member(1), 11, at(1, 3)), "has had its outcome");
    eighth(o.tell(1, member(1), 12, at(1, 3)), "has not delivered");
    o.over(1);
    eighth(o.deliver(1, member(1), member(2), 5, at(1, 4)), "after its end");
    eighth(last(&mut o, false, &[11, 12, 13], &[14]), "open");
}

#[test]
fn a_send_with_no_outcome_or_the_same_one_twice() {
    let all: &[(&[u64], &[u64])] = &[
        (&[11, 12], &[14]),
        (&[11, 12, 13], &[]),
        (&[11, 12, 13], &[13, 14]),
        (&[11, 12, 12, 13], &[14]),
        (&[12, 11, 13], &[14]),
        (&[13], &[11, 12, 14]),
    ];
    for (lost, dropped) in all {
        let mut o = outcome::Outcomes::default();
        sends(&mut o);
        eighth(last(&mut o, false, lost, dropped), "ends with [11, 12, 13, 14] open");
    }
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    assert_eq!(last(&mut o, false, &[11, 12, 13], &[14]), Ok(()));
}

#[test]
fn a_message_reported_as_delivered_that_a_survivor_lacks() {
    let kept = |o: &mut outcome::Outcomes, boot: Boot| {
        o.deliver(boot, member(boot as u16), member(1), 11, at(1, 0))
    };
    // Told first, then a survivor without it goes on.
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    assert_eq!(kept(&mut o, 1), Ok(()));
    assert_eq!(o.tell(1, member(1), 11, at(1, 0)), Ok(()));
    assert_eq!(kept(&mut o, 2), Ok(()));
    assert_eq!(o.install(2, member(2), Some(1), 2, &[]), Ok(()));
    eighth(o.install(3, member(3), Some(1), 2, &[]), "lacks it");
    // The survivors have gone on, one of them without it, before the sender is told.
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    assert_eq!(kept(&mut o, 1), Ok(()));
    assert_eq!(kept(&mut o, 2), Ok(()));
    assert_eq!(o.install(2, member(2), Some(1), 2, &[]), Ok(()));
    assert_eq!(o.install(3, member(3), Some(1), 2, &[]), Ok(()));
    eighth(o.tell(1, member(1), 11, at(1, 0)), "lacks it");
}

#[test]
fn a_message_reported_as_not_delivered_that_somebody_has_or_gets() {
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    assert_eq!(o.deliver(2, member(2), member(1), 12, at(1, 3)), Ok(()));
    eighth(last(&mut o, true, &[], &[11, 12, 13, 14]), "delivered it at 1:3");
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    assert_eq!(last(&mut o, true, &[], &[11, 12, 13, 14]), Ok(()));
    eighth(o.deliver(2, member(2), member(1), 12, at(1, 3)), "not delivered by report");
}

#[test]
fn a_message_reported_as_indeterminate_by_one_who_knows() {
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    eighth(last(&mut o, true, &[11, 12, 13], &[14]), "saw how its view ended");
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    eighth(last(&mut o, false, &[11, 12, 13, 14], &[]), "14 indeterminate and never published");
}

#[test]
fn a_message_reported_as_sent_again_that_is_not() {
    let cases: &[&[u64]] = &[&[], &[11, 12], &[12, 13], &[11, 13, 12], &[11, 12, 13, 14]];
    for resent in cases {
        let mut o = outcome::Outcomes::default();
        sends(&mut o);
        eighth(o.install(1, member(1), Some(1), 2, resent), "not [11, 12, 13]");
    }
    // It was delivered in the view before, or is later.
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    assert_eq!(o.deliver(2, member(2), member(1), 11, at(1, 0)), Ok(()));
    eighth(o.install(1, member(1), Some(1), 2, &[11, 12, 13]), "delivered it at 1:0");
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    assert_eq!(o.install(1, member(1), Some(1), 2, &[11, 12, 13]), Ok(()));
    assert_eq!(o.deliver(2, member(2), member(1), 12, at(2, 0)), Ok(()));
    eighth(o.deliver(3, member(3), member(1), 11, at(1, 0)), "re-sent in view 2");
}

#[test]
fn a_crash_reports_nothing() {
    let mut o = outcome::Outcomes::default();
    sends(&mut o);
    o.crash(1);
    assert_eq!((o.open(1), o.totals().untold), (0, 4));
    eighth(o.deliver(1, member(1), member(2), 5, at(1, 4)), "after its end");
}

#[test]
fn an_acknowledged_message_that_is_gone() {
    let mut durable = durable::Durable::default();
    durable.acknowledge(at(1, 3), 8, 1);
    durable.acknowledge(at(1, 0), 7, 1);
    assert_eq!(durable.holds(member(1), &[(at(1, 0), 7), (at(1, 3), 8)], u64::MAX), Ok(()));
    assert_eq!(durable.holds(member(1), &[(at(1, 0), 7)], at(1, 3)), Ok(()));
    let lost = durable.holds(member(1), &[(at(1, 0), 7), (at(1, 1), 9)], u64::MAX);
    assert_eq!(lost.expect_err("gone").invariant, 19);
}

/// After a power failure: what view 3 is founded without.
#[test]
fn what_a_restart_after_a_power_failure_may_lose() {
    let founded = |given_up| ViewInfo { founded: true, given_up, ..view(3, &[1], &[1]) };
    let (early, late) = ((at(1, 3), 8), (at(2, 0), 9));
    let verdict = |given_up, history: &[(u64, u64)]| {
        let mut durable = durable::Durable::default();
        durable.acknowledge(early.0, early.1, 1);
        durable.acknowledge(late.0, late.1, 2);
        durable.forgive(history, &[&founded(given_up)]);
        durable.holds(member(1), history, u64::MAX).map_err(|v| v.invariant)
    };
    assert_eq!(verdict(None, &[early]), Ok(()), "acknowledged in the last view");
    assert_eq!(verdict(None, &[late]), Err(19), "acknowledged before it, so owed");
    assert_eq!(verdict(Some((at(1, 3), at(1, 4))), &[]), Ok(()), "given up");
    assert_eq!(verdict(Some((at(1, 0), at(1, 3))), &[]), Err(19), "more than was given up");
}

#[test]
fn a_read_of_the_past() {
    let mut lease = lease::Lease::default();
    lease.complete(at(1, 4));
    let floor = lease.begin();
    assert_eq!(lease.answer(member(1), floor, at(1, 5), true), Ok(()));
    assert_eq!(lease.answer(member(1), floor, at(1, 4), true).expect_err("old").invariant, 0);
}

#[test]
fn a_fence_ends_with_a_view_that_has_both() {
    let mut checks = three();
    received(&mut checks);
    checks.words.fence(member(2), member(1));
    accept(&mut checks, 2, &[1, 2], 78);
    checks.install(2, member(2), &view(2, &[1, 2, 3], &[]), &[]);
    assert_eq!(checks.words.copy(member(2), member(1), [1, 0, 0, 0]), Ok(()));
}
