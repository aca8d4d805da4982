//! Two pollers in two network namespaces with two cables between, of which one after the other breaks.

use std::cell::Cell;
use std::fs::File;
use std::net::SocketAddr;
use std::rc::Rc;

use super::namespaces::{Lab, enter, ip};
use super::socket::refusal;
use super::tests::{Node, config, linked, until};
use super::*;
use crate::clock;
use crate::config::{PathPolicy, PeerConfig, Timing, Wait};
use crate::event::{Event, LinkStatus, RailReason};
use crate::id::LinkId;
use crate::lane::CONTROL;
use crate::poller::Poller;
use crate::reliable::{COOKIE_LEN, Claim, Handshake, INIT_LEN, NOISE_1_LEN};

const CABLES: [&str; 2] = ["first", "second"];

/// A poller that sends numbered records and checks those that it reads.
struct Station {
    poller: Poller,
    space: File,
    link: Option<LinkId>,
    deaths: Vec<Evidence>,
    /// Rails that it was told of.
    changes: Vec<(usize, RailReason)>,
    at: u64,
    sent: u64,
    seen: u64,
    talks: bool,
}

impl Station {
    fn start(lab: &Lab, me: usize) -> Station {
        let at = |net: usize, host: usize| -> SocketAddr {
            format!("10.231.{}.{}:7400", 77 + net, host + 1).parse().unwrap()
        };
        let mut config = config(&[at(0, 0), at(0, 1)], me, 1);
        let peers = vec![PeerConfig { node: NodeId(2 - me as u16), addr: at(1, 1 - me) }];
        config.rails = vec![Rail { bind: at(1, me), interface: None, peers }];
        config.path = PathPolicy::Udp;
        config.wait = Wait::Block;
        // Patient beside other tests: a rail is given up long before a node is.
        config.timing = Timing {
            heartbeat: Duration::from_millis(15),
            suspect: Duration::from_millis(500),
            dead: Duration::from_millis(1000),
        };
        let (poller, space) = lab.inside(me, || Poller::new(config).unwrap());
        Station {
            poller,
            space,
            link: None,
            deaths: Vec::new(),
            changes: Vec::new(),
            at: 0,
            sent: 0,
            seen: 0,
            talks: false,
        }
    }

    fn turn(&mut self) {
        enter(&self.space);
        let now = clock::now();
        self.poller.poll(now);
        while let Some(event) = self.poller.poll_event() {
            match event {
                Event::Up { link, control_from, .. } => {
                    (self.link, self.at) = (Some(link), control_from);
                }
                Event::Dead { evidence, .. } => self.deaths.push(evidence),
                Event::Rail { rail, .. } => self.changes.push((rail.rail, rail.reason)),
                _ => {}
            }
        }
        if self.talks
            && self.sent < self.seen + 200
            && let Ok(mut reservation) =
                self.poller.log(CONTROL).reserve((self.sent * 7919 % 3000) as usize)
        {
            reservation.fill(self.sent as u8);
            reservation.commit();
            if self.poller.committed(CONTROL).is_some() {
                self.poller.publish(CONTROL, self.sent);
                self.sent += 1;
            }
        }
        if let Some(link) = self.link {
            while let Some(record) = self.poller.peek(link, CONTROL, self.at) {
                assert_eq!(record.index, self.seen, "in order, and once");
                assert_eq!(record.payload.len() as u64, self.seen * 7919 % 3000);
                assert!(record.payload.iter().all(|&byte| byte == self.seen as u8));
                self.at = record.end;
                self.seen += 1;
            }
            let at = self.at;
            self.poller.release(link, CONTROL, at);
            let upto = self.poller.released(link, CONTROL);
            self.poller.reclaim(CONTROL, upto);
        }
        self.poller.flush(now);
    }

    fn status(&self) -> LinkStatus {
        self.poller.links().into_iter().find(|link| Some(link.link) == self.link).unwrap()
    }

    /// Number of the rail in use.
    fn rail(&self) -> usize {
        self.status().rail.unwrap().rail
    }
}

struct Pair {
    lab: Lab,
    stations: [Station; 2],
}

impl Pair {
    fn new() -> Option<Pair> {
        let lab = Lab::with(&CABLES)?;
        let stations = [0, 1].map(|me| Station::start(&lab, me));
        Some(Pair { lab, stations })
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&[Station; 2]) -> bool) {
        let start = clock::now();
        while !done(&self.stations) {
            self.stations.iter_mut().for_each(Station::turn);
            assert!(clock::now().since(start) < Duration::from_secs(40), "{what}: not within 40 s");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn meet(&mut self) {
        self.until("links", |s| s.iter().all(|s| s.link.is_some()));
    }

    /// Records go both ways, while nobody dies.
    fn talk(&mut self, records: u64) {
        self.stations.iter_mut().for_each(|station| station.talks = true);
        let goals = self.stations.each_ref().map(|station| station.seen + records);
        self.until("records", |s| s[0].seen >= goals[0] && s[1].seen >= goals[1]);
        self.stations.iter_mut().for_each(|station| station.talks = false);
        self.alive();
    }

    fn alive(&self) {
        assert!(self.stations.iter().all(|station| station.deaths.is_empty()));
    }

    fn take(&mut self, what: &str, rails: [usize; 2]) {
        self.until(what, |s| [s[0].rail(), s[1].rail()] == rails);
        self.alive();
    }

    fn cable(&self, cable: usize, state: &str) {
        let (space, name) = (&self.lab.names[0], CABLES[cable]);
        assert!(ip(&format!("-n {space} link set {name} {state}")));
    }

    /// What `from` sends by a cable is lost, or not any more; the other direction carries. Frames to a wrong hardware
    /// address are ignored at the other end.
    fn one_way(&self, from: usize, cable: usize, cut: bool) {
        let (space, name) = (&self.lab.names[from], CABLES[cable]);
        let to = format!("10.231.{}.{} dev {name}", 77 + cable, 2 - from);
        let wrong = format!("neigh replace {to} lladdr 02:00:00:00:77:77 nud permanent");
        let cure = format!("neigh del {to}");
        assert!(ip(&format!("-n {space} {}", if cut { wrong } else { cure })));
    }
}

#[test]
fn a_link_outlives_the_cable_that_it_goes_by_and_returns_to_it() {
    let Some(mut pair) = Pair::new() else { return };
    pair.meet();
    pair.talk(200);
    pair.take("the first", [0, 0]);
    pair.cable(0, "down");
    pair.talk(500);
    pair.take("the other cable", [1, 1]);
    for station in &pair.stations {
        let status = station.status();
        let rail = status.rail.unwrap();
        assert_eq!((rail.of, rail.reason), (2, RailReason::Failover));
        assert_eq!(station.changes.last(), Some(&(1, RailReason::Failover)));
        assert!(rail.to.to_string().starts_with("10.231.78."), "{rail:?}");
        assert!(status.counters.failovers > 0 && status.datagram >= Some(1200), "{status:?}");
    }
    pair.until("the first is known to be broken", |s| {
        s.iter().all(|s| s.status().rail.unwrap().silent == 1)
    });
    let returned = (0..4).any(|_| {
        pair.cable(0, "up");
        pair.take("the first again", [0, 0]);
        let returns = |s: &Station| s.changes.last() == Some(&(0, RailReason::Return));
        if pair.stations.iter().all(returns) {
            return true;
        }
        // Where processors are short the other one may carry nothing for a moment, and is left for that.
        pair.cable(0, "down");
        pair.take("the other again", [1, 1]);
        false
    });
    assert!(returned, "{:?}", pair.stations.each_ref().map(|s| s.changes.clone()));
    pair.talk(200);
    // With both of them goes the link.
    pair.cable(0, "down");
    pair.cable(1, "down");
    pair.until("death", |s| s.iter().all(|s| !s.deaths.is_empty()));
}

#[test]
fn each_direction_finds_its_own_rail_and_idle_links_do_too() {
    let Some(mut pair) = Pair::new() else { return };
    pair.meet();
    pair.talk(50);
    // Nobody has anything to say.
    pair.one_way(0, 0, true);
    pair.take("the direction that is cut", [1, 0]);
    pair.talk(200);
    // Crosswise: each direction has one rail, and not the same.
    pair.one_way(1, 1, true);
    pair.talk(200);
    pair.take("nothing else", [1, 0]);
    pair.one_way(0, 0, false);
    pair.one_way(1, 1, false);
    pair.take("the first again", [0, 0]);
    // Under load.
    pair.stations.iter_mut().for_each(|station| station.talks = true);
    pair.one_way(1, 0, true);
    pair.talk(500);
    pair.take("the direction that is cut", [0, 1]);
}

#[test]
fn nodes_meet_by_the_cable_that_works() {
    for (broken, cable) in CABLES.iter().enumerate() {
        let Some(lab) = Lab::with(&CABLES) else { return };
        let space = &lab.names[0];
        assert!(ip(&format!("-n {space} link set {cable} down")));
        let stations = [0, 1].map(|me| Station::start(&lab, me));
        let mut pair = Pair { lab, stations };
        pair.meet();
        pair.talk(100);
        pair.take("the cable that works", [1 - broken; 2]);
    }
}

#[test]
fn nodes_meet_when_each_direction_has_another_cable() {
    let Some(mut pair) = Pair::new() else { return };
    pair.one_way(0, 0, true);
    pair.one_way(1, 1, true);
    pair.meet();
    pair.talk(100);
    pair.take("what works", [1, 0]);
}

#[test]
fn a_poller_that_never_sleeps_says_whether_adapters_are_polled() {
    let addrs = super::tests::addresses(2);
    let said = |wait, path| {
        let mut config = config(&addrs, 0, 1);
        (config.wait, config.path) = (wait, path);
        Poller::new(config).unwrap().parking().into_owned()
    };
    let spins = said(Wait::Spin, PathPolicy::Udp);
    assert!(spins.contains("never sleeps") && spins.contains("polled"), "{spins}");
    let sleeps = said(Wait::Block, PathPolicy::Udp);
    assert!(!sleeps.contains("polled"), "{sleeps}");
}

#[test]
fn strangers_are_answered_by_no_more_than_three_times_what_they_sent_over_four_rails_too() {
    let addrs = super::tests::addresses(8);
    let start = |me: usize| {
        let mut config = config(&addrs[..2], me, 1);
        let rail = |n: usize| {
            let peers =
                vec![PeerConfig { node: NodeId(2 - me as u16), addr: addrs[2 * n + 1 - me] }];
            Rail { bind: addrs[2 * n + me], interface: None, peers }
        };
        config.rails = (1..4).map(rail).collect();
        Node::with(&config)
    };
    let (mut a, mut b) = (start(0), start(1));
    until(&mut [&mut a, &mut b], "links", linked);
    let links = (a.link_to(1), b.link_to(0));
    let (sent, places) = (Rc::new(Cell::new(0)), addrs.clone());
    let told = sent.clone();
    refusal::set(move |peer, bytes, _| {
        assert!(places.contains(&peer), "only configured addresses hear of it");
        if bytes[1] == FLAG_HANDSHAKE {
            told.set(told.get() + bytes.len());
        }
        None
    });
    let cluster = super::tests::identity("test", 0).cluster().tag();
    let claim = |from, to| Claim { cluster, from: Member::new(from, 99), to: NodeId(to) };
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut forged, began) = (0, clock::now());
    until(&mut [&mut a, &mut b], "a while", |_| {
        let mut packet = [0; INIT_LEN];
        Handshake::Knock(claim(1, 2)).emit(0, &mut packet);
        stranger.send_to(&packet, addrs[1]).unwrap();
        let (cookie, noise) = ([forged as u8; COOKIE_LEN], [9; NOISE_1_LEN]);
        Handshake::Init { claim: claim(2, 1), cookie, noise }.emit(77, &mut packet);
        stranger.send_to(&packet, addrs[0]).unwrap();
        forged += 2 * INIT_LEN;
        clock::now().since(began) > Duration::from_millis(150)
    });
    let provoked = sent.get();
    assert!(provoked > 0 && provoked <= 3 * forged, "{provoked} bytes for {forged}");
    assert_eq!((a.link_to(1), b.link_to(0)), links);
    println!("{provoked} bytes for {forged} forged ones");
}
