//! A kernel that does not take what it is given, row by row of the table in the parent.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use super::super::UdpStatus;
use super::super::socket::Batch;
use super::super::socket::refusal::{self, Call};
use super::super::tests::{Node, addresses, config, linked, stream, until};
use crate::config::Config;
use crate::lane::CONTROL;
use crate::limits::DATAGRAM_MAX;
use crate::reliable::TAG_LEN;

/// What every path carries.
const DATAGRAM_MIN: usize = 1200;

/// What was handed to the kernel: the peer, the bytes, how, and whether it was refused.
type Send = (SocketAddr, Vec<u8>, Call, bool);

/// Refuses with `errno` what `refuses` says, and notes all sends.
fn kernel(
    errno: i32,
    refuses: impl Fn(SocketAddr, &[u8], Call) -> bool + 'static,
) -> Rc<RefCell<Vec<Send>>> {
    let sends = Rc::new(RefCell::new(Vec::new()));
    let notes = sends.clone();
    refusal::set(move |peer, bytes, call| {
        let refused = refuses(peer, bytes, call);
        notes.borrow_mut().push((peer, bytes.to_vec(), call, refused));
        refused.then_some(errno)
    });
    sends
}

fn start(count: usize) -> (Vec<Node>, Vec<SocketAddr>) {
    start_where(count, DATAGRAM_MAX)
}

/// Where loopback takes no larger datagrams.
fn start_where(count: usize, largest: usize) -> (Vec<Node>, Vec<SocketAddr>) {
    kernel(libc::EMSGSIZE, move |_, bytes, call| call.size(bytes) > largest);
    let addrs = addresses(count);
    let mut nodes: Vec<_> = (0..count).map(|me| Node::start(&addrs, me, 1)).collect();
    until(&mut nodes.iter_mut().collect::<Vec<_>>(), "links", linked);
    let known = |node: &mut Node| {
        node.udp.links_mut().all(|link| link.connection.datagram_max() + TAG_LEN + 100 > largest)
    };
    until(&mut nodes.iter_mut().collect::<Vec<_>>(), "datagrams as large as loopback takes", |n| {
        n.iter_mut().all(|node| known(node))
    });
    (nodes, addrs)
}

#[test]
fn a_device_that_cannot_segment_gets_the_same_batch_as_several_datagrams() {
    for errno in [libc::EIO, libc::EINVAL] {
        let (mut nodes, addrs) = start_where(2, 8000);
        let [a, b] = &mut nodes[..] else { unreachable!() };
        assert!(a.udp.status().sending.starts_with("cut by the kernel"), "{:?}", a.udp.status());
        let sends = kernel(errno, |_, _, call| matches!(call, Call::Cut(_)));
        stream(a, b, 300);
        assert!(a.udp.status().sending.contains("sendmmsg"), "{:?}", a.udp.status());
        let sends = sends.borrow();
        let mut to_b = sends.iter().filter(|(peer, ..)| *peer == addrs[1]);
        let (_, batch, cut, _) =
            to_b.by_ref().find(|(.., refused)| *refused).expect("a segmented send");
        let (_, bytes, call, refused) = to_b.next().expect("the batch again");
        assert_eq!((bytes, *refused), (batch, false), "nothing of it is left to loss detection");
        assert_eq!(*call, Call::Many(cut.size(batch)));
        assert!(call.size(bytes) < bytes.len(), "more than one with one call");
        assert!(to_b.all(|(_, _, call, _)| !matches!(call, Call::Cut(_))), "never tried again");
    }
}

#[test]
fn a_kernel_that_forbids_to_send_many_gets_them_one_by_one() {
    let (mut nodes, addrs) = start_where(2, 8000);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    a.udp.means.cannot_cut(&std::io::Error::from_raw_os_error(libc::EIO));
    let sends = kernel(libc::ENOSYS, |_, _, call| matches!(call, Call::Many(_)));
    stream(a, b, 300);
    assert!(a.udp.status().sending.starts_with("one datagram a call"), "{:?}", a.udp.status());
    let sends = sends.borrow();
    let mut to_b = sends.iter().filter(|(peer, ..)| *peer == addrs[1]);
    let (_, batch, many, _) = to_b.by_ref().find(|(.., refused)| *refused).expect("many");
    for datagram in batch.chunks(many.size(batch)) {
        let (_, bytes, call, refused) = to_b.next().expect("the rest of the batch");
        assert_eq!((&bytes[..], *call, *refused), (datagram, Call::Alone, false));
    }
    assert!(to_b.all(|(_, _, call, _)| *call == Call::Alone), "never tried again");
}

#[test]
fn what_a_full_socket_did_not_take_of_many_is_sent_later_and_nothing_twice() {
    let (mut nodes, addrs) = start_where(2, 8000);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    a.udp.means.cannot_cut(&std::io::Error::from_raw_os_error(libc::EIO));
    a.udp.means.cannot_send_many(&std::io::Error::from_raw_os_error(libc::ENOSYS));
    // Each third datagram at first.
    let (count, to_b) = (Cell::new(0), addrs[1]);
    let sends = kernel(libc::EAGAIN, move |peer, _, _| {
        count.set(count.get() + u32::from(peer == to_b));
        peer == to_b && count.get() % 3 == 0
    });
    stream(a, b, 300);
    let sends = sends.borrow();
    let taken = sends.iter().filter(|(peer, _, _, refused)| *peer == to_b && !refused);
    let packets: Vec<_> = taken.map(|(_, bytes, ..)| &bytes[..20]).collect();
    let mut once = packets.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), packets.len(), "a packet left twice");
    assert!(sends.iter().filter(|(.., refused)| *refused).count() > 10);
}

#[test]
fn without_cutting_and_joining_the_same_arrives() {
    let addrs = addresses(2);
    let sends = kernel(libc::EMSGSIZE, move |_, bytes, call| call.size(bytes) > 8000);
    let mut nodes: Vec<_> =
        (0..2).map(|me| Node::with(&Config { offload: false, ..config(&addrs, me, 1) })).collect();
    until(&mut nodes.iter_mut().collect::<Vec<_>>(), "links", linked);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    stream(a, b, 300);
    let sends = sends.borrow();
    assert!(sends.iter().all(|(_, _, call, _)| !matches!(call, Call::Cut(_))), "one was cut");
    let many = sends.iter().filter(|(_, bytes, call, _)| call.size(bytes) < bytes.len());
    assert!(many.count() > 0, "none left with another");
    for node in [a, b] {
        let UdpStatus { sending, receiving, .. } = node.udp.status();
        assert!(sending.starts_with("sendmmsg"), "{sending}");
        assert!(receiving.contains("of one datagram each"), "{receiving}");
    }
}

#[test]
fn what_is_taken_one_by_one_is_the_same() {
    let (mut nodes, _) = start_where(2, 8000);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    // As where recvmmsg is refused.
    b.udp.batch = Some(Box::new(Batch::new(false)));
    b.udp.doors[0].port.main.join(false).unwrap();
    stream(a, b, 300);
}

#[test]
fn a_path_that_takes_smaller_datagrams_only_gets_those_from_then_on() {
    let (mut nodes, addrs) = start(2);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    let sends = kernel(libc::EMSGSIZE, move |_, bytes, call| call.size(bytes) > DATAGRAM_MIN);
    stream(a, b, 300);
    let sends = sends.borrow();
    let to_b = sends.iter().filter(|(peer, ..)| *peer == addrs[1]);
    assert_eq!(to_b.clone().filter(|(.., refused)| *refused).count(), 1, "one lesson is enough");
    let after = to_b.skip_while(|(.., refused)| !*refused).skip(1);
    assert!(after.clone().count() > 0);
    assert!(after.into_iter().all(|(_, bytes, call, _)| call.size(bytes) <= DATAGRAM_MIN));
}

#[test]
fn what_the_first_link_takes_is_found_out_without_losing_data() {
    let addrs = addresses(2);
    let sends = kernel(libc::EMSGSIZE, move |_, bytes, call| call.size(bytes) > 1400);
    let (mut a, mut b) = (Node::start(&addrs, 0, 1), Node::start(&addrs, 1, 1));
    until(&mut [&mut a, &mut b], "links", linked);
    let found = |node: &mut Node| {
        node.udp.links_mut().all(|link| link.connection.datagram_max() + TAG_LEN > 1350)
    };
    until(&mut [&mut a, &mut b], "the size", |n| n.iter_mut().all(|node| found(node)));
    stream(&mut a, &mut b, 300);
    let sends = sends.borrow();
    let refused = sends.iter().filter(|(.., refused)| *refused);
    assert!((1..40).contains(&refused.clone().count()));
    assert!(refused.into_iter().all(|(_, _, call, _)| *call == Call::Alone), "probes are alone");
    assert!(sends.iter().any(|(_, bytes, call, _)| call.size(bytes) > 1350));
}

#[test]
fn a_full_socket_keeps_its_batch_and_delays_no_other_peer() {
    for errno in [libc::EAGAIN, libc::ENOBUFS] {
        let (mut nodes, addrs) = start(3);
        let [a, b, c] = &mut nodes[..] else { unreachable!() };
        let (from_a_at_b, from_a_at_c) = (b.link_to(0).unwrap(), c.link_to(0).unwrap());
        let full = Rc::new(Cell::new(true));
        let (is_full, to_c) = (full.clone(), addrs[2]);
        a.own.set_word(CONTROL, 0, 1);
        let sends = kernel(errno, move |peer, _, _| peer == to_c && is_full.get());
        let arrived = |node: &Node, link| node.udp.peer_word(link, CONTROL, 0) == 1;
        until(&mut [a, b, c], "the word at b", |n| arrived(n[1], from_a_at_b));
        assert!(!arrived(c, from_a_at_c));
        // Both `a` and `b` send to `c`: each keeps one batch, and packs no other before that is gone.
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for (_, bytes, ..) in sends.borrow().iter().filter(|(.., refused)| *refused) {
            if !kept.contains(bytes) {
                kept.push(bytes.clone());
            }
        }
        assert!((1..=2).contains(&kept.len()), "{} batches", kept.len());
        full.set(false);
        let before = sends.borrow().len();
        until(&mut [a, b, c], "the word at c", |n| arrived(n[2], from_a_at_c));
        let sends = sends.borrow();
        let first = sends[before..].iter().find(|(peer, ..)| *peer == to_c).unwrap();
        assert!(kept.contains(&first.1), "what was kept goes first");
    }
}
