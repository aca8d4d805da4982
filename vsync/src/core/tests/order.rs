//! The normal case: everybody sends, everybody delivers the same.

use proptest::prelude::*;

use super::net::Net;
use crate::core::*;

#[test]
fn a_lone_message_is_delivered_without_a_timer() {
    let mut net = Net::founded(3);
    let before = net.now;
    let m = net.send(2);
    net.calm();
    for node in 1..=3 {
        assert_eq!(net.messages(node), [m], "at {node}");
    }
    assert_eq!(net.now, before);
}

#[test]
fn nulls_stop_when_messages_stop() {
    let mut net = Net::founded(3);
    net.send(3);
    net.calm();
    let rows: Vec<Row> = (1..=3).map(|n| net.procs.get_mut(&n).unwrap().core.row()).collect();
    net.calm();
    let again: Vec<Row> = (1..=3).map(|n| net.procs.get_mut(&n).unwrap().core.row()).collect();
    assert_eq!(rows, again);
    // Ranks 0 and 1 had to let rank 2's message pass: a null each.
    assert_eq!(rows.iter().map(|r| r.next).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn one_alone_orders_for_itself() {
    let mut net = Net::founded(1);
    let sent: Vec<u64> = (0..5).map(|_| net.send(1)).collect();
    net.calm();
    assert_eq!(net.messages(1), sent);
}

#[test]
fn a_sender_waits_when_somebody_does_not_deliver() {
    let mut net = Net::founded(2);
    net.procs.get_mut(&2).unwrap().stopped = true;
    for _ in 0..5000 {
        net.send(1);
    }
    net.calm();
    assert!(net.messages(1).is_empty(), "nothing is stable");
    net.procs.get_mut(&2).unwrap().stopped = false;
    net.calm();
    assert_eq!(net.messages(1).len(), 5000);
    net.assert_agreement();
}

#[test]
fn a_word_of_another_view_or_rank_is_no_news() {
    let mut net = Net::founded(2);
    let core = &mut net.procs.get_mut(&1).unwrap().core;
    let odd = Row { next: u64::MAX / 2, ..Row::default() };
    assert!(core.handle_row(Rank(1), odd).is_err());
    assert!(core.handle_row(Rank(0), Row::default()).is_err(), "own row");
    assert!(core.handle_row(Rank(9), Row::default()).is_err());
    assert!(core.handle_record(Rank(9), Record::default()).is_err());
    let ahead = Row { received: Position::new(ViewId(7), 100), ..Row::default() };
    core.handle_row(Rank(1), ahead).unwrap();
    assert!(core.poll_delivery().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any interleaving of sends, pauses and sweeps ends with everybody having delivered everything, alike,
    /// and each sender's messages in the order sent.
    #[test]
    fn all_deliver_all_alike(steps in proptest::collection::vec((1u16..=4, 0u8..4), 1..60)) {
        let mut net = Net::founded(4);
        let mut sent: Vec<Vec<u64>> = vec![Vec::new(); 5];
        for (node, what) in steps {
            match what {
                0 | 1 => { let m = net.send(node); sent[node as usize].push(m); }
                2 => { let p = net.procs.get_mut(&node).unwrap(); p.stopped = !p.stopped; }
                _ => net.calm(),
            }
        }
        net.procs.values_mut().for_each(|p| p.stopped = false);
        net.calm();
        net.assert_agreement();
        for node in 1..=4 {
            let got = net.messages(node);
            prop_assert_eq!(got.len(), sent.iter().map(Vec::len).sum::<usize>());
            for of in &sent {
                let stream: Vec<u64> = got.iter().copied().filter(|m| of.contains(m)).collect();
                prop_assert_eq!(&stream, of);
            }
        }
    }
}
