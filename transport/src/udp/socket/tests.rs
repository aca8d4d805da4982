//! Sockets over loopback.

use super::*;

fn port(addr: &str) -> Port {
    Port::bind(addr.parse().unwrap(), None).unwrap()
}

fn wait_for(batch: &mut Batch, socket: &Socket) -> Vec<Vec<u8>> {
    for _ in 0..10_000 {
        let (count, _) = batch.receive(socket, false);
        if count > 0 {
            return (0..count)
                .flat_map(|i| batch.datagrams(i).map(|bytes| bytes.to_vec()).collect::<Vec<_>>())
                .collect();
        }
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
    panic!("nothing arrived");
}

#[test]
fn the_kernel_sorts_heartbeats_from_the_rest() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let port = port(addr);
        let quiet = port.quiet.as_ref().expect("this kernel sorts");
        let to = port.main.local().unwrap();
        assert_eq!(quiet.local().unwrap(), to);
        let sender = Socket::connect(&to.ip().into(), to).unwrap();
        let mut batch = Batch::new(true);
        for _ in 0..20 {
            sender.send(&[1, FLAG_QUIET, 7], None).unwrap();
            sender.send(&[1, 0, 9], None).unwrap();
            assert_eq!(wait_for(&mut batch, &port.main), [[1, 0, 9]]);
            assert_eq!(wait_for(&mut batch, quiet), [[1, FLAG_QUIET, 7]]);
        }
    }
}

#[test]
fn marks_of_congestion_are_seen_and_what_is_sent_can_be_marked() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let port = port(addr);
        let to = port.main.local().unwrap();
        let sender = Socket::connect(&to.ip().into(), to).unwrap();
        let mut batch = Batch::new(true);
        for (ecn, marked) in [(None, false), (Some(CE), true), (Some(ECT_0), false)] {
            if let Some(ecn) = ecn {
                sender.mark(to, ecn).unwrap();
            }
            sender.send(&[1, 0, 9], None).unwrap();
            assert_eq!(wait_for(&mut batch, &port.main), [[1, 0, 9]]);
            assert_eq!(batch.congested(0), marked, "{addr} {ecn:?}");
        }
        let (level, name) = match to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        let fresh = Socket::connect(&to.ip().into(), to).unwrap();
        assert_eq!(fresh.get_option(level, name).unwrap(), ECT_0);
    }
}

#[test]
fn many_datagrams_go_in_one_call() {
    let port = port("127.0.0.1:0");
    let to = port.main.local().unwrap();
    let sender = Socket::connect(&to.ip().into(), to).unwrap();
    let bytes: Vec<u8> = (0..1050u32).map(|i| if i % 100 == 1 { 0 } else { i as u8 }).collect();
    sender.send(&bytes, Some(100)).unwrap();
    let mut batch = Batch::new(true);
    let mut datagrams = Vec::new();
    while datagrams.len() < 11 {
        datagrams.extend(wait_for(&mut batch, &port.main));
    }
    assert_eq!(datagrams.concat(), bytes);
    assert_eq!(datagrams[10].len(), 50);
}

#[test]
fn an_occupied_port_is_named() {
    let first = port("127.0.0.1:0");
    let addr = first.main.local().unwrap();
    let error = Port::bind(addr, None).unwrap_err().to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("another process"), "{error}");
}

#[test]
fn a_closed_port_is_reported_to_its_socket_only() {
    let gone = port("127.0.0.1:0").main.local().unwrap();
    let port = port("127.0.0.1:0");
    let to_gone = Socket::connect(&gone.ip().into(), gone).unwrap();
    let to_port = Socket::connect(&gone.ip().into(), port.main.local().unwrap()).unwrap();
    to_gone.send(&[0; 40], None).unwrap();
    to_port.send(&[0; 40], None).unwrap();
    assert!(to_gone.take_refusal());
    assert!(!to_gone.take_refusal());
    assert!(!to_port.take_refusal());
    assert!(to_port.datagram_max() >= 1200);
}

/// The thread's effective user; the rest of the process keeps its own.
fn become_user(id: libc::uid_t) {
    // SAFETY: no pointers; the bare system call changes this thread only.
    let changed = unsafe { libc::syscall(libc::SYS_setresuid, -1, id as libc::c_int, -1) };
    assert_eq!(changed, 0);
}

#[test]
fn adapters_are_polled_where_that_is_allowed_and_nothing_changes_where_it_is_not() {
    let port = port("127.0.0.1:0");
    let to = port.main.local().unwrap();
    let sender = Socket::connect(&to.ip().into(), to).unwrap();
    let mut batch = Batch::new(true);
    let mut arrives = || {
        sender.send(&[1, 0, 9], None).unwrap();
        assert_eq!(wait_for(&mut batch, &port.main), [[1, 0, 9]]);
    };
    let set = || port.main.get_option(libc::SOL_SOCKET, libc::SO_BUSY_POLL).unwrap();
    let before = set();
    // SAFETY: no pointers.
    let root = unsafe { libc::geteuid() } == 0;
    if root {
        become_user(65_534);
    }
    // Kernels differ in whom they allow it.
    match port.main.poll_adapter() {
        Ok(()) => assert_eq!(set(), BUSY_POLL_US),
        Err(refused) => {
            assert_eq!((refused.kind(), set()), (io::ErrorKind::PermissionDenied, before));
        }
    }
    arrives();
    if !root {
        return;
    }
    become_user(0);
    port.main.poll_adapter().unwrap();
    assert_eq!(set(), BUSY_POLL_US);
    arrives();
    assert!(!port.main.has_adapter(), "loopback is none");
}
