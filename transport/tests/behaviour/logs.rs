//! Logs: order, wrap, back-pressure, positions.

use quintet_transport::*;

use crate::harness::*;
use crate::on_every_path;

on_every_path!(
    arrive_in_order_over_many_wraps,
    a_full_log_waits_for_its_reader,
    aborted_records_do_not_clog_the_log,
    reading_starts_where_it_was_opened,
    control_is_read_by_itself,
    bytes_outlive_the_link,
    a_lane_that_was_shut_may_be_overwritten_and_opened_again,
);

fn payload(i: u64) -> Vec<u8> {
    (0..(i * 7 % 300)).map(|b| (b + i) as u8).collect()
}

fn arrive_in_order_over_many_wraps(path: PathPolicy) {
    const N: u64 = 3000;
    let mut nodes = reading(path, GROUP);
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    let (mut sent, mut got, mut at) = (0, 0, 0);
    until(&mut nodes, "all records arrived", |nodes| {
        while sent < N && nodes[0].send(GROUP, sent, &payload(sent)) {
            sent += 1;
        }
        while let Some(record) = nodes[1].poller.peek(from, GROUP, at) {
            assert_eq!((record.index, record.payload), (got, &payload(got)[..]));
            at = record.end;
            got += 1;
        }
        nodes[1].poller.release(from, GROUP, at);
        let released = nodes[0].poller.released(to, GROUP);
        nodes[0].poller.reclaim(GROUP, released);
        got == N
    });
}

fn a_full_log_waits_for_its_reader(path: PathPolicy) {
    let mut nodes = reading(path, GROUP);
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    let mut sent = 0;
    while nodes[0].send(GROUP, sent, &[sent as u8; 100]) {
        sent += 1;
    }
    assert!(sent > 20);
    until(&mut nodes, "all is visible", |nodes| {
        nodes[1].poller.peer_head(from, GROUP) == nodes[0].poller.head(GROUP)
    });
    // Whatever the owner asks for, what an attached reader holds is not reclaimed.
    let head = nodes[0].poller.head(GROUP);
    nodes[0].poller.reclaim(GROUP, head);
    assert!(!nodes[0].send(GROUP, sent, &[0; 100]));
    let first = nodes[1].poller.peek(from, GROUP, 0).map(|r| (r.index, r.end)).unwrap();
    assert_eq!(first.0, 0);
    nodes[1].poller.release(from, GROUP, first.1);
    until(&mut nodes, "the release is known", |nodes| {
        nodes[0].poller.released(to, GROUP) >= first.1
    });
    nodes[0].poller.reclaim(GROUP, first.1);
    assert!(nodes[0].send(GROUP, sent, &[0; 80]));
}

fn aborted_records_do_not_clog_the_log(path: PathPolicy) {
    let mut nodes = reading(path, GROUP);
    let to = nodes[0].link(2);
    // The first of each pair can't be rolled back, since the second was reserved after it.
    let mut rounds = 0;
    until(&mut nodes, "many aborts went through", |nodes| {
        let writer = nodes[0].poller.log(GROUP);
        while let Ok(first) = writer.reserve(100) {
            let Ok(second) = writer.reserve(8) else { break };
            drop(first);
            drop(second);
            rounds += 1;
            assert!(nodes[0].poller.committed(GROUP).is_none());
        }
        let released = nodes[0].poller.released(to, GROUP);
        nodes[0].poller.reclaim(GROUP, released);
        rounds > 500
    });
}

fn reading_starts_where_it_was_opened(path: PathPolicy) {
    let mut nodes = connected(configs(2, path));
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    for i in 0..5 {
        assert!(nodes[0].send(GROUP, i, &[i as u8; 10]));
    }
    let start = nodes[0].poller.head(GROUP);
    for i in 5..8 {
        assert!(nodes[0].send(GROUP, i, &[i as u8; 10]));
    }
    nodes[0].poller.attach(to, GROUP, start);
    assert_eq!(nodes[0].poller.released(to, GROUP), start);
    nodes[1].poller.open(from, GROUP, start);
    let mut seen = Vec::new();
    let mut at = start;
    until(&mut nodes, "three records arrived", |nodes| {
        while let Some(record) = nodes[1].poller.peek(from, GROUP, at) {
            seen.push(record.index);
            at = record.end;
        }
        seen.len() == 3
    });
    assert_eq!(seen, [5, 6, 7]);
}

fn control_is_read_by_itself(path: PathPolicy) {
    let mut nodes = connected(configs(3, path));
    for (i, node) in nodes.iter_mut().enumerate() {
        assert!(node.send(CONTROL, 1, format!("from {i}").as_bytes()));
    }
    until(&mut nodes, "everybody reads everybody's control record", |nodes| {
        nodes.iter().enumerate().all(|(me, node)| {
            (0..3).filter(|&peer| peer != me).all(|peer| {
                let link = node.link(peer as u16 + 1);
                let record = node.poller.peek(link, CONTROL, node.control_from(link));
                record.is_some_and(|r| r.payload == format!("from {peer}").as_bytes())
            })
        })
    });
}

fn bytes_outlive_the_link(path: PathPolicy) {
    let mut nodes = reading(path, GROUP);
    let from = nodes[1].link(1);
    assert!(nodes[0].send(GROUP, 9, b"still here"));
    until(&mut nodes, "the record arrived", |nodes| nodes[1].poller.peek(from, GROUP, 0).is_some());
    let bytes = nodes[1].poller.peer_bytes(from, GROUP).unwrap();
    nodes[1].poller.close(from);
    // Frozen: readable still, through the link and through the bytes.
    assert_eq!(nodes[1].poller.peek(from, GROUP, 0).unwrap().payload, b"still here");
    let frozen = nodes[1].poller.peer_bytes(from, GROUP).unwrap();
    nodes[1].poller.forget(from);
    assert!(nodes[1].poller.peek(from, GROUP, 0).is_none());
    drop(nodes.remove(0));
    for bytes in [bytes, frozen] {
        assert!(bytes.intact(0));
        // SAFETY: the record was visible and was never released; its owner is gone.
        assert_eq!(unsafe { bytes.get(0, 10) }, b"still here");
    }
}

fn a_lane_that_was_shut_may_be_overwritten_and_opened_again(path: PathPolicy) {
    let mut nodes = reading(path, BULK);
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    assert!(nodes[0].send(BULK, 0, b"first"));
    until(&mut nodes, "the record arrived", |nodes| nodes[1].poller.peek(from, BULK, 0).is_some());
    nodes[0].poller.detach(to, BULK);
    nodes[1].poller.shut(from, BULK);
    // Around the ring more than once, for other readers.
    for index in 1..200 {
        assert!(nodes[0].send(BULK, index, &[index as u8; 100]), "no reader holds the log");
        let head = nodes[0].poller.head(BULK);
        nodes[0].poller.reclaim(BULK, head);
        nodes.iter_mut().for_each(|node| _ = node.turn());
    }
    let start = nodes[0].poller.head(BULK);
    nodes[0].poller.attach(to, BULK, start);
    nodes[1].poller.open(from, BULK, start);
    assert!(nodes[0].send(BULK, 200, b"again"));
    until(&mut nodes, "the lane carries records again", |nodes| {
        nodes[1].poller.peek(from, BULK, start).is_some_and(|r| r.payload == b"again")
    });
    assert_eq!((nodes[0].dead(to), nodes[1].dead(from)), (None, None));
}
