//! A flood of forged packets against a node with a link: what it does to that link. A short one always (that the link
//! lives on is the test); the real one measures, on two processors that nobody else uses:
//!
//! ```sh
//! QUINTET_MEASURE=1 cargo test --release -p quintet-transport --lib udp::flood -- --nocapture
//! ```

use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::socket::refusal;
use super::tests::{addresses, config, identity};
use super::*;
use crate::clock;
use crate::config::{PathPolicy, Wait};
use crate::event::Event;
use crate::id::LinkId;
use crate::lane::CONTROL;
use crate::poller::Poller;
use crate::reliable::{COOKIE_LEN, Claim, Handshake, INIT_LEN, NOISE_1_LEN};

/// Forged packets a second.
const RATE: u64 = 100_000;
/// With and without a flood alternate so often.
const TURNS: u32 = 5;

fn long() -> bool {
    std::env::var_os("QUINTET_MEASURE").is_some()
}

/// Round trips of a word until `length` is over, sorted.
fn round_trips(
    poller: &mut Poller,
    link: LinkId,
    from: &mut u64,
    length: Duration,
) -> Vec<Duration> {
    let (begin, mut times) = (clock::now(), Vec::new());
    while clock::now().since(begin) < length || times.len() < 20 {
        *from += 1;
        let start = clock::now();
        poller.set_word(CONTROL, 0, *from);
        poller.flush(start);
        while poller.peer_word(link, CONTROL, 0) < *from {
            let now = clock::now();
            assert!(now.since(start) < Duration::from_secs(20), "no answer: {:?}", poller.links());
            if !poller.poll(now) {
                poller.park(now, None, &mut || false);
            }
            poller.flush(clock::now());
        }
        times.push(clock::now().since(start));
        assert!(poller.links()[0].alive, "the flood ended the link");
    }
    times.sort();
    times
}

/// Answers every word, until told to stop.
fn echo(mut poller: Poller, link: LinkId, stop: Arc<AtomicBool>) -> JoinHandle<Poller> {
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let now = clock::now();
            let progress = poller.poll(now);
            poller.set_word(CONTROL, 0, poller.peer_word(link, CONTROL, 0));
            poller.flush(clock::now());
            if !progress {
                poller.park(now, None, &mut || false);
            }
        }
        poller
    })
}

/// Sends one packet after the other at [`RATE`].
fn flood(
    to: SocketAddr,
    packet: Vec<u8>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (begin, mut count) = (clock::now(), 0u64);
        while !stop.load(Ordering::Relaxed) {
            let due = clock::now().since(begin).as_nanos() as u64 * RATE / 1_000_000_000;
            while count < due {
                // A buffer that is full drops: that is what a flood does.
                let _ = socket.send_to(&packet, to);
                count += 1;
            }
            sent.store(count, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(50));
        }
    })
}

fn up(pollers: &mut [Poller; 2]) -> [LinkId; 2] {
    let (mut links, start) = ([None; 2], clock::now());
    while links.contains(&None) {
        for (poller, link) in pollers.iter_mut().zip(&mut links) {
            poller.poll(clock::now());
            while let Some(event) = poller.poll_event() {
                if let Event::Up { link: id, .. } = event {
                    *link = Some(id);
                }
            }
            poller.flush(clock::now());
        }
        assert!(clock::now().since(start) < Duration::from_secs(20), "no link");
    }
    links.map(|link| link.unwrap())
}

#[test]
fn an_established_link_lives_through_a_flood() {
    let length = Duration::from_millis(if long() { 5000 } else { 100 });
    let addrs = addresses(2);
    let mut pollers = [0, 1].map(|me| {
        let mut config = config(&addrs, me, 1);
        config.path = PathPolicy::Udp;
        config.wait = Wait::Block;
        config.timing.suspect = Duration::from_secs(2);
        config.timing.dead = Duration::from_secs(6);
        Poller::new(config).unwrap()
    });
    let seen = Rc::new(Cell::new(0));
    let (first, notes) = (addrs[0], seen.clone());
    refusal::set(move |peer, bytes, _| {
        if let Ok(header) = Header::parse(bytes)
            && peer == first
            && header.flags & FLAG_HANDSHAKE == 0
        {
            notes.set(header.connection);
        }
        None
    });
    let [asking, answering] = up(&mut pollers);
    // As one knows it who sees its packets.
    let of_link = seen.get();
    assert_ne!(of_link, 0, "nothing was sent over the link");
    let [mut poller, other] = pollers;
    let stop = Arc::new(AtomicBool::new(false));
    let answers = echo(other, answering, stop.clone());
    let mut value = 0;
    round_trips(&mut poller, asking, &mut value, length / 10);

    let cluster = identity("test", 0).cluster().tag();
    let claim = Claim { cluster, from: Member::new(2, 1), to: NodeId(1) };
    let mut hello = vec![0; INIT_LEN];
    Handshake::Init { claim, cookie: [7; COOKIE_LEN], noise: [9; NOISE_1_LEN] }
        .emit(77, &mut hello);
    let data = |connection, len| {
        let mut packet = vec![0; len];
        Header { flags: 0, connection, number: 5 }.emit(&mut packet);
        packet
    };
    let bystander = UdpSocket::bind("127.0.0.1:0").unwrap();
    let elsewhere = bystander.local_addr().unwrap();
    for (what, packet, to) in [
        // What the flooder itself takes away from the others on these processors: the floor of what follows.
        ("to a socket that nobody reads, 100 B", data(77, 100), elsewhere),
        ("packets of no link, 100 B", data(77, 100), addrs[0]),
        ("packets of no link, 1400 B", data(77, 1400), addrs[0]),
        // Past the filter, and as far as the keys.
        ("packets of the link itself, 100 B", data(of_link, 100), addrs[0]),
        ("to a socket that nobody reads, 8 KiB", data(77, 8192), elsewhere),
        ("packets of the link itself, 8 KiB", data(of_link, 8192), addrs[0]),
        ("hellos in the peer's name", hello, addrs[0]),
    ] {
        let (mut calm, mut flooded, mut rate) = (Vec::new(), Vec::new(), 0.0);
        // In turns: what else the machine does falls on both.
        for _ in 0..TURNS {
            calm.extend(round_trips(&mut poller, asking, &mut value, length / TURNS));
            let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let begin = clock::now();
            let flooding = flood(to, packet.clone(), over.clone(), sent.clone());
            flooded.extend(round_trips(&mut poller, asking, &mut value, length / TURNS));
            over.store(true, Ordering::Relaxed);
            flooding.join().unwrap();
            rate += sent.load(Ordering::Relaxed) as f64 / clock::now().since(begin).as_secs_f64();
        }
        [&mut calm, &mut flooded].into_iter().for_each(|times| times.sort());
        let at = |times: &[Duration], q: f64| times[((times.len() - 1) as f64 * q) as usize];
        println!(
            "{what}, {:.0}/s: round trip p50 {:?} → {:?}, p99 {:?} → {:?} ({:.2}×)",
            rate / f64::from(TURNS),
            at(&calm, 0.5),
            at(&flooded, 0.5),
            at(&calm, 0.99),
            at(&flooded, 0.99),
            at(&flooded, 0.99).as_secs_f64() / at(&calm, 0.99).as_secs_f64()
        );
    }
    stop.store(true, Ordering::Relaxed);
    poller.waker().wake();
    value += 1;
    poller.set_word(CONTROL, 0, value);
    poller.flush(clock::now());
    let other = answers.join().unwrap();
    assert_eq!(
        (poller.links()[0].link, other.links()[0].link),
        (asking, answering),
        "the same link"
    );
}
