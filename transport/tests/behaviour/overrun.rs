//! A reader in shared memory that slept through its own removal, with real processes.
//!
//! Its owner waited for it until it was dead, then went round the log, which is still mapped by the one who wakes. That
//! one must never take new bytes for old ones.

use quintet_transport::*;

use crate::harness::*;

fn payload(index: u64) -> Vec<u8> {
    vec![index as u8 + 1; 20 + (index * 13 % 90) as usize]
}

/// Not a test by itself: reads everything, releases nothing, and looks at all of it again and again, until it is told
/// that it was overrun. Bytes that are said to be intact and are not what was sent fail it.
#[test]
fn reader() {
    let Some(config) = child_config() else { return };
    let mut nodes = vec![Node::new(config)];
    until(&mut nodes, "the writer is linked", |nodes| nodes[0].try_link(1).is_some());
    let mut node = nodes.remove(0);
    let link = node.link(1);
    node.poller.open(link, GROUP, 0);
    let bytes = node.poller.peer_bytes(link, GROUP).unwrap();
    let (mut held, mut at, mut overrun) = (Vec::<(u64, u64)>::new(), 0, false);
    while !overrun {
        node.turn();
        while let Some(record) = node.poller.peek(link, GROUP, at) {
            let (index, position, end) = (record.index, record.position, record.end);
            let seen = record.payload.to_vec();
            if !bytes.intact(position) {
                break;
            }
            assert_eq!((index, &seen), (held.len() as u64, &payload(index)), "a record");
            held.push((position, index));
            at = end;
        }
        for &(position, index) in &held {
            let sent = payload(index);
            // SAFETY: the record was visible and is not released. Its owner may have fenced us and write here all the
            // same; that is what is tested: the copy counts only if it was intact afterwards.
            let seen = unsafe { bytes.get(position, sent.len()) }.to_vec();
            match bytes.intact(position) {
                true => assert_eq!(seen, sent, "record {index} is said to be intact"),
                false => overrun = true,
            }
        }
        node.poller.set_word(CONTROL, 0, held.len() as u64);
    }
    let mut nodes = vec![node];
    until(&mut nodes, "the link is known to be dead", |nodes| nodes[0].dead(link).is_some());
    assert!(!nodes[0].poller.intact(link));
    assert_eq!(nodes[0].poller.peek(link, GROUP, at).map(|record| record.index), None);
}

#[test]
fn a_reader_that_slept_while_its_log_was_overwritten_is_told() {
    let configs = configs(2, PathPolicy::Shm);
    let mut process = Process::start("overrun::reader", &as_arguments(&configs[1]));
    let mut nodes = vec![Node::new(configs[0].clone())];
    until(&mut nodes, "the reader is linked", |nodes| nodes[0].try_link(2).is_some());
    let link = nodes[0].link(2);
    nodes[0].poller.attach(link, GROUP, 0);
    let mut sent = 0;
    while nodes[0].send(GROUP, sent, &payload(sent)) {
        sent += 1;
    }
    until(&mut nodes, "it holds a full log", |nodes| {
        nodes[0].poller.peer_word(link, CONTROL, 0) == sent
    });
    process.signal(libc::SIGSTOP);
    until(&mut nodes, "it is dead", |nodes| nodes[0].dead(link).is_some());
    nodes[0].poller.refuse(configs[1].me);
    // Every byte it holds is overwritten, twice.
    let round = nodes[0].poller.head(GROUP);
    while nodes[0].poller.head(GROUP) < 3 * round {
        if nodes[0].send(GROUP, sent, &payload(sent)) {
            sent += 1;
        } else {
            let head = nodes[0].poller.head(GROUP);
            nodes[0].poller.reclaim(GROUP, head);
        }
    }
    nodes[0].turn();
    process.signal(libc::SIGCONT);
    assert!(process.ends_well(), "the reader took new bytes for old ones; its words are above");
}

/// The link ends before the reader has looked again: that there is nothing to read must not pass for "nothing was sent".
#[test]
fn a_log_that_was_overwritten_before_its_link_was_closed_is_not_intact() {
    let mut nodes = reading(PathPolicy::Shm, GROUP);
    let (to, from) = (nodes[0].link(2), nodes[1].link(1));
    assert!(nodes[0].send(GROUP, 0, &payload(0)));
    until(&mut nodes, "the record is there", |nodes| {
        nodes[1].poller.peek(from, GROUP, 0).is_some()
    });
    nodes[0].poller.close(to);
    for index in 1..200 {
        while !nodes[0].send(GROUP, index, &payload(index)) {
            let head = nodes[0].poller.head(GROUP);
            nodes[0].poller.reclaim(GROUP, head);
        }
    }
    nodes[0].turn();
    nodes[1].poller.close(from);
    assert!(nodes[1].poller.peek(from, GROUP, 0).is_none());
    assert!(!nodes[1].poller.intact(from));
}
