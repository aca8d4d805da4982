//! The network between this host and its peers: does anything answer, and do large datagrams come through?
//!
//! A daemon answers no stranger, so the peer's kernel is asked, as tracepath(8) asks it: datagrams that must not be
//! fragmented go to a port where nobody listens, and a kernel says so to each that arrives ("port unreachable"). Sizes
//! grow until one is not answered. A router that says "too big" only costs speed; where large datagrams vanish without a
//! word while small ones arrive there is a *black hole*: links come up and then stand still. Where not even the smallest is
//! answered, a firewall forbids such answers as a rule, and nothing is known.
//!
//! A kernel answers a burst of six such datagrams and then one a second (icmp(7), `icmp_ratelimit`). So what is not
//! answered is sent again after more than a second, and nothing is called a hole before a smaller datagram that came
//! after it has been answered again.

use super::{Check, Judgement, fine, problem, system, unknown, warning};
use crate::config::{Config, PathChoice};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

const AREA: &str = "peers";
/// Where nobody listens, by convention: the first port of traceroute(8).
const CLOSED: u16 = 33434;
/// Payloads tried, besides the largest that the first link takes.
const SIZES: [usize; 3] = [512, 1252, 1472];
/// The largest payload of UDP over IPv4.
const PAYLOAD_MAX: usize = 65_507;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(400);
/// Between two attempts: a kernel that answered too often answers again after a second.
const PAUSE: Duration = Duration::from_millis(1200);
const TRIES: usize = 3;

/// What was seen.
pub(super) struct Facts {
    peers: Option<Vec<Peer>>,
}

struct Peer {
    node: u16,
    /// Which of its addresses, from 1; `None` if it has but one.
    rail: Option<usize>,
    at: SocketAddr,
    seen: Result<Seen, io::ErrorKind>,
}

/// What became of the datagrams to one peer.
#[derive(Clone, Debug)]
struct Seen {
    /// Payload that the first link takes.
    first_link: usize,
    /// In growing order, until one was not answered.
    probes: Vec<(usize, Fate)>,
    /// After a silence the largest that had arrived was answered again: it was no lack of answers.
    confirmed: bool,
    /// The transport's port said that nobody receives there.
    refused: bool,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// It arrived.
    Answered,
    /// A router, or the own kernel, says that it is too large.
    TooBig,
    /// Nothing was heard of it.
    Silent,
    /// There is no way to that host.
    Unreachable,
}

impl Facts {
    pub(super) fn look(config: Option<&Config>) -> Facts {
        let peers =
            config.filter(|config| config.transport.path != PathChoice::Shm).map(|config| {
                let own = &config.own().transport;
                let peers = config.nodes.iter().filter(|node| node.id != config.node);
                let ways = peers.flat_map(|peer| {
                    let several = peer.transport.iter().len() > 1;
                    let ways = own.iter().zip(peer.transport.iter()).enumerate();
                    ways.map(move |(n, (from, to))| (peer.id, several.then_some(n + 1), *from, *to))
                });
                // At the same time: whoever does not answer is waited for.
                thread::scope(|scope| {
                    let asked: Vec<_> = ways
                        .map(|(node, rail, from, at)| {
                            scope.spawn(move || Peer {
                                node,
                                rail,
                                at,
                                seen: look_at(from.ip(), at),
                            })
                        })
                        .collect();
                    asked.into_iter().filter_map(|peer| peer.join().ok()).collect()
                })
            });
        Facts { peers }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why_path = "where large datagrams vanish, links fall back to small ones, each time after an outage; one that is split is lost with any of its parts";
        let why_port = "a peer is linked when its daemon receives";
        let Some(peers) = &self.peers else {
            let nobody = unknown("no configuration with UDP was named: -c FILE");
            return vec![Check::new(AREA, "path MTU", why_path, nobody)];
        };
        let both = |peer: &Peer| {
            let (node, seen) = (peer.node, &peer.seen);
            let by = peer.rail.map_or_else(String::new, |n| format!(" in network {n}"));
            let names =
                [format!("path MTU to node {node}{by}"), format!("port of node {node}{by}")];
            let [of_path, of_port] = names;
            [
                Check::new(AREA, of_path, why_path, path(peer.at, seen)),
                Check::new(AREA, of_port, why_port, port(peer.at, seen)),
            ]
        };
        peers.iter().flat_map(both).collect()
    }
}

fn look_at(from: IpAddr, at: SocketAddr) -> Result<Seen, io::ErrorKind> {
    see(from, at).map_err(|error| error.kind())
}

fn see(from: IpAddr, at: SocketAddr) -> io::Result<Seen> {
    let socket = connect(from, SocketAddr::new(at.ip(), CLOSED))?;
    system::never_fragment(&socket)?;
    let headers = if at.is_ipv4() { 28 } else { 48 };
    let first_link = system::mtu(&socket)?.saturating_sub(headers).min(PAYLOAD_MAX);
    let smaller = SIZES.into_iter().filter(|size| *size < first_link);
    let mut probes = Vec::new();
    for size in smaller.chain([first_link]) {
        let fate = probe(&socket, size);
        probes.push((size, fate));
        if fate != Fate::Answered {
            break;
        }
    }
    let confirmed = match probes[..] {
        [.., (arrived, Fate::Answered), (_, Fate::Silent)] => {
            thread::sleep(PAUSE);
            probe(&socket, arrived) == Fate::Answered
        }
        _ => false,
    };
    let refused = probe(&connect(from, at)?, 1) == Fate::Answered;
    Ok(Seen { first_link, probes, confirmed, refused })
}

fn connect(from: IpAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends a datagram and waits for what the network says of it.
fn probe(socket: &UdpSocket, size: usize) -> Fate {
    let bytes = vec![0; size];
    for attempt in 0..TRIES {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        let said = match socket.send(&bytes) {
            Ok(_) => socket.recv(&mut [0; 1]).map(drop),
            Err(error) => Err(error),
        };
        match said.map_err(|error| (error.kind(), error.raw_os_error())) {
            Err((io::ErrorKind::ConnectionRefused, _)) => return Fate::Answered,
            Err((_, Some(libc::EMSGSIZE))) => return Fate::TooBig,
            Err((_, Some(libc::EHOSTUNREACH | libc::ENETUNREACH))) => return Fate::Unreachable,
            // Somebody listens there after all, and answered: it arrived.
            Ok(()) => return Fate::Answered,
            Err(_) => {}
        }
    }
    Fate::Silent
}

fn path(at: SocketAddr, seen: &Result<Seen, io::ErrorKind>) -> Judgement {
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return unknown(format!("{at} could not be asked ({error})")),
    };
    let arrived = seen.probes.iter().rev().find(|(_, fate)| *fate == Fate::Answered);
    let arrived = arrived.map(|(size, _)| *size);
    let (size, fate) = *seen.probes.last().unwrap_or(&(0, Fate::Silent));
    match (fate, arrived) {
        (Fate::Unreachable, _) => problem(
            format!("no way to {}", at.ip()),
            "see `ip route get`, and whether the host is there at all",
        ),
        (Fate::Answered, _) => fine(format!(
            "datagrams of {} bytes arrive whole, as large as the first link takes",
            seen.first_link
        )),
        (_, None) => unknown(format!(
            "{} answers no datagram, not even a small one: it is down, or a firewall forbids \"port unreachable\"",
            at.ip()
        )),
        (Fate::TooBig, Some(arrived)) => warning(
            format!(
                "{size} bytes are too many for a router on the way, {arrived} are not: they will be split"
            ),
            format!(
                "give all links to {} the same MTU, or the route the smaller one: ip route change … mtu …",
                at.ip()
            ),
        ),
        (Fate::Silent, Some(arrived)) if !seen.confirmed => unknown(format!(
            "{} answered {arrived} bytes and then nothing at all: it answers strangers too rarely to tell",
            at.ip()
        )),
        (Fate::Silent, Some(arrived)) => problem(
            format!("a black hole: {arrived} bytes arrive, {size} vanish without a word"),
            format!(
                "lower the MTU of the interface to {} (ip link set … mtu …), give switches and peers the same MTU, and let ICMP \"fragmentation needed\" pass",
                at.ip()
            ),
        ),
    }
}

fn port(at: SocketAddr, seen: &Result<Seen, io::ErrorKind>) -> Judgement {
    match seen {
        Err(error) => unknown(format!("{at} could not be asked ({error})")),
        Ok(seen) if seen.refused => warning(
            format!("nobody receives at {at}"),
            "start quintetd there, or correct nodes.transport",
        ),
        Ok(seen) if seen.probes.iter().any(|(_, fate)| *fate == Fate::Answered) => fine(format!(
            "{at} does not refuse, though its host refuses elsewhere: somebody receives there, or a firewall swallows it"
        )),
        Ok(_) => unknown(format!("{at} says nothing, as the rest of its host")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, *};
    use super::*;

    fn seen(fates: &[Fate]) -> Result<Seen, io::ErrorKind> {
        let sizes = [512, 1252, 1472, 8972];
        let probes = sizes.into_iter().zip(fates.iter().copied()).collect();
        std::result::Result::Ok(Seen { first_link: 8972, probes, confirmed: true, refused: false })
    }

    fn judged(fates: &[Fate]) -> (Verdict, String) {
        let (verdict, found, _) = path("192.0.2.1:7".parse().unwrap(), &seen(fates));
        (verdict, found)
    }

    #[test]
    fn silence_after_answers_is_a_black_hole_and_silence_alone_tells_nothing() {
        use Fate::*;
        assert_eq!(judged(&[Answered; 4]).0, Ok);
        let (verdict, found) = judged(&[Answered, Answered, Answered, Silent]);
        assert_eq!(verdict, Problem);
        assert!(found.contains("1472 bytes arrive, 8972 vanish"), "{found}");
        assert_eq!(judged(&[Answered, Answered, TooBig]).0, Warning);
        assert_eq!(judged(&[Silent]).0, Unknown);
        assert_eq!(judged(&[Unreachable]).0, Problem);
        let at = "192.0.2.1:7".parse().unwrap();
        let rare = seen(&[Answered, Silent]).map(|seen| Seen { confirmed: false, ..seen });
        assert_eq!(path(at, &rare).0, Unknown);
        assert_eq!(path(at, &Err(io::ErrorKind::PermissionDenied)).0, Unknown);
    }

    #[test]
    fn a_closed_port_is_told_from_one_that_says_nothing() {
        let at = "192.0.2.1:7".parse().unwrap();
        let closed = seen(&[Fate::Answered]).map(|seen| Seen { refused: true, ..seen });
        assert_eq!(port(at, &closed).0, Warning);
        assert_eq!(port(at, &seen(&[Fate::Answered])).0, Ok);
        assert_eq!(port(at, &seen(&[Fate::Silent])).0, Unknown);
    }

    #[test]
    fn loopback_carries_the_largest_datagram_and_tells_open_ports_from_closed_ones() {
        let open = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = open.local_addr().unwrap();
        let found = see(at.ip(), at).unwrap();
        assert!(found.probes.iter().all(|(_, fate)| *fate == Fate::Answered), "{found:?}");
        assert_eq!(found.probes.last().unwrap().0, found.first_link);
        assert!(!found.refused);
        drop(open);
        assert!(see(at.ip(), at).unwrap().refused);
    }
}
