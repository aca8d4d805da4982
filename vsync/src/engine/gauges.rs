//! The node's figures on a board that others can read when the node does not answer.
//!
//! They are copied there a few times a second by the poller, between two turns, so that counting costs the message path
//! nothing. `engine.at_ns` says when: a reader that sees it stand still knows that the poller does.

use std::sync::Arc;
use std::time::Duration;

use quintet_transport::stats::{Board, Cell, Text};
use quintet_transport::{
    BULK, CONTROL, GROUP, LaneCounters, LaneId, LaneTraffic, LinkStatus, NodeId, Poller,
    PollerCounters, Time, UdpStatus,
};

use super::sweep::Engine;
use crate::status::Counters;

/// At most this often: an idle poller, which wakes for its heartbeats, is not woken for it.
const EVERY: Duration = Duration::from_millis(50);

/// Where the figures go.
pub(crate) struct Gauges {
    engine: Vec<Cell>,
    lanes: [Vec<Cell>; LANES.len()],
    links: Vec<OfLink>,
    texts: Vec<Text>,
    next: Time,
}

/// Where the figures of one peer's link go.
struct OfLink {
    peer: NodeId,
    cells: Vec<Cell>,
    lanes: [Vec<Cell>; LANES.len()],
    texts: Vec<Text>,
}

/// The lanes of a node, as they are called here.
const LANES: [(LaneId, &str); 3] = [(CONTROL, "control"), (GROUP, "group"), (BULK, "bulk")];

/// Names of the cells that a node with these peers fills, for [`Board::with_texts`].
pub fn stat_names(peers: impl IntoIterator<Item = NodeId>) -> Vec<String> {
    let engine = engine(&Figures::default()).map(|(name, _)| format!("engine.{name}"));
    let own = LANES.iter().flat_map(|(_, lane)| {
        of_lane(&LaneCounters::default()).map(|(name, _)| format!("lane.{lane}.{name}"))
    });
    let links = peers.into_iter().flat_map(|peer| {
        let of_lanes = LANES.iter().flat_map(move |(_, lane)| {
            traffic(&LaneTraffic::default())
                .map(|(name, _)| of_link(peer, &format!("{lane}.{name}")))
        });
        link(None).map(|(name, _)| of_link(peer, name)).into_iter().chain(of_lanes)
    });
    engine.into_iter().chain(own).chain(links).collect()
}

/// Names of the texts beside them.
pub fn stat_texts(peers: impl IntoIterator<Item = NodeId>) -> Vec<String> {
    let links = peers.into_iter().flat_map(|peer| TEXTS.map(|name| of_link(peer, name)));
    OWN_TEXTS.map(str::to_owned).into_iter().chain(links).collect()
}

/// What is said of the node itself: how it waits, and by which calls packets pass the kernel.
const OWN_TEXTS: [&str; 4] = ["engine.waiting", "udp.sending", "udp.receiving", "udp.filter"];

fn tell(texts: &[Text], poller: &Poller) {
    let none = UdpStatus::default();
    let udp = poller.udp().unwrap_or(&none);
    let words = [&*poller.parking(), &udp.sending, &udp.receiving, &udp.filter];
    texts.iter().zip(words).for_each(|(text, words)| text.set(words));
}

/// What is said of a link in words.
const TEXTS: [&str; 4] = ["state", "path", "reason", "rail_reason"];

fn words(status: Option<&LinkStatus>) -> [&str; TEXTS.len()] {
    let Some(link) = status else { return ["none", "", "", ""] };
    let state = match (link.alive, link.suspected) {
        (false, _) => "dead",
        (true, true) => "suspected",
        (true, false) => "up",
    };
    [state, link.path.as_str(), &link.reason, link.rail.map_or("", |rail| rail.reason.as_str())]
}

fn of_lane(c: &LaneCounters) -> [(&'static str, u64); 4] {
    [
        ("bytes", c.bytes),
        ("records", c.records),
        ("words", c.words),
        ("credit_stalls", c.credit_stalls),
    ]
}

fn traffic(t: &LaneTraffic) -> [(&'static str, u64); 6] {
    [
        ("bytes_sent", t.bytes_sent),
        ("bytes_received", t.bytes_received),
        ("records", t.records),
        ("words", t.words),
        ("retransmits", t.retransmits),
        ("unreleased", t.unreleased),
    ]
}

fn of_link(peer: NodeId, name: &str) -> String {
    format!("link.{peer}.{name}")
}

/// What is known of the node itself.
#[derive(Default)]
struct Figures {
    at: Time,
    incarnation: u64,
    view: u64,
    members: u64,
    counters: Counters,
    poller: PollerCounters,
}

fn engine(f: &Figures) -> [(&'static str, u64); 20] {
    let (c, p) = (&f.counters, &f.poller);
    [
        ("at_ns", f.at.as_nanos()),
        ("incarnation", f.incarnation),
        ("view", f.view),
        ("members", f.members),
        ("sent", c.sent),
        ("delivered", c.delivered),
        ("delivered_bytes", c.delivered_bytes),
        ("nulls", c.nulls),
        ("views", c.views),
        ("queue_full", c.queue_full),
        ("sweeps", c.sweeps),
        ("control", c.control),
        ("stored", c.stored),
        ("bulk_bytes", c.bulk_bytes),
        ("parks", p.parks),
        ("yields", p.yields),
        ("rescues", p.rescues),
        ("stalls", p.stalls),
        ("pardons", p.pardons),
        ("idle_turns", c.parks),
    ]
}

/// The link to one peer; all zero without one.
fn link(status: Option<&LinkStatus>) -> [(&'static str, u64); 14] {
    let get = |figure: fn(&LinkStatus) -> u64| status.map_or(0, figure);
    [
        ("incarnation", get(|l| l.peer.incarnation.0)),
        ("heard_ns", get(|l| l.heard.as_nanos())),
        ("rtt_ns", get(|l| l.rtt.map_or(0, |rtt| rtt.as_nanos() as u64))),
        ("packets_sent", get(|l| l.counters.packets_sent)),
        ("packets_received", get(|l| l.counters.packets_received)),
        ("bytes_sent", get(|l| l.counters.bytes_sent)),
        ("bytes_received", get(|l| l.counters.bytes_received)),
        ("retransmits", get(|l| l.counters.retransmits)),
        ("marked", get(|l| l.counters.marked)),
        ("congestion", get(|l| l.counters.congestion)),
        ("failovers", get(|l| l.counters.failovers)),
        // Counted from 1; 0 where there is none.
        ("rail", get(|l| l.rail.map_or(0, |rail| rail.rail as u64 + 1))),
        ("datagram", get(|l| l.datagram.unwrap_or(0) as u64)),
        ("doorbells", get(|l| l.counters.doorbells)),
    ]
}

impl Gauges {
    /// The cells of a node with these peers; `None` if the board was not made with [`stat_names`] and [`stat_texts`] of
    /// them.
    pub(crate) fn find(
        board: &Arc<Board>,
        peers: impl IntoIterator<Item = NodeId>,
    ) -> Option<Gauges> {
        let cells = |prefix: &str, names: &[(&str, u64)]| -> Option<Vec<Cell>> {
            names.iter().map(|(name, _)| board.cell(&format!("{prefix}.{name}"))).collect()
        };
        // A lane without cells is none that the board was made for.
        let lanes = |prefix: &str, names: &[(&str, u64)]| {
            let found = LANES.map(|(_, lane)| cells(&format!("{prefix}.{lane}"), names));
            found.iter().all(Option::is_some).then(|| found.map(Option::unwrap_or_default))
        };
        let links = peers.into_iter().map(|peer| {
            let prefix = format!("link.{peer}");
            let texts = TEXTS.iter().map(|name| board.text(&of_link(peer, name)));
            Some(OfLink {
                peer,
                cells: cells(&prefix, &link(None))?,
                lanes: lanes(&prefix, &traffic(&LaneTraffic::default()))?,
                texts: texts.collect::<Option<_>>()?,
            })
        });
        Some(Gauges {
            engine: cells("engine", &engine(&Figures::default()))?,
            lanes: lanes("lane", &of_lane(&LaneCounters::default()))?,
            links: links.collect::<Option<_>>()?,
            texts: OWN_TEXTS.iter().map(|name| board.text(name)).collect::<Option<_>>()?,
            next: Time::ZERO,
        })
    }

    fn show(&self, figures: &Figures, poller: Option<&Poller>) {
        put(&self.engine, &engine(figures));
        poller.into_iter().for_each(|poller| tell(&self.texts, poller));
        for (cells, (lane, _)) in self.lanes.iter().zip(LANES) {
            let counters = poller.map(|poller| poller.lane_counters(lane)).unwrap_or_default();
            put(cells, &of_lane(&counters));
        }
        for of_link in &self.links {
            let of_peer = || {
                let links = poller.into_iter().flat_map(Poller::each_link);
                links.filter(|l| l.peer.node == of_link.peer)
            };
            let shown = of_peer().find(|l| l.alive).or_else(|| of_peer().last());
            put(&of_link.cells, &link(shown.as_ref()));
            for (cells, (lane, _)) in of_link.lanes.iter().zip(LANES) {
                let shown = poller.zip(shown.as_ref());
                let traffic = shown.map(|(poller, link)| poller.traffic(link.link, lane));
                put(cells, &self::traffic(&traffic.unwrap_or_default()));
            }
            let words = words(shown.as_ref());
            of_link.texts.iter().zip(words).for_each(|(text, words)| text.set(words));
        }
    }
}

fn put(cells: &[Cell], figures: &[(&str, u64)]) {
    cells.iter().zip(figures).for_each(|(cell, (_, value))| cell.set(*value));
}

impl Engine {
    /// Copies the figures, if it is time to, or this is the last time.
    pub(crate) fn show_gauges(&mut self, now: Time, last: bool) {
        let Some(gauges) = self.gauges.as_mut().filter(|gauges| last || now >= gauges.next) else {
            return;
        };
        gauges.next = now + EVERY;
        let view = self.core.view();
        let figures = Figures {
            at: now,
            incarnation: self.me.incarnation.0,
            view: view.map_or(0, |view| view.id.0),
            members: view.map_or(0, |view| view.members.len() as u64),
            counters: self.figures(),
            poller: self.poller.counters(),
        };
        if let Some(gauges) = &self.gauges {
            gauges.show(&figures, Some(&self.poller));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quintet_transport::{Authority, Member, limits::NODES_MAX};
    use std::os::fd::AsRawFd as _;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn every_name_has_its_cell_and_its_figure() {
        let peers = [NodeId(2), NodeId(7)];
        let (names, texts) = (stat_names(peers), stat_texts(peers));
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), names.len(), "no name twice");
        let board = Board::with_texts(names, texts).unwrap();
        let gauges = Gauges::find(&board, peers).unwrap();
        let counters = Counters { sent: 11, delivered: 12, ..Counters::default() };
        let figures = Figures { at: Time::from_millis(5), view: 3, counters, ..Figures::default() };
        gauges.show(&figures, None);
        let value = |name: &str| board.cell(name).unwrap().load(Relaxed);
        assert_eq!((value("engine.sent"), value("engine.delivered")), (11, 12));
        assert_eq!((value("engine.at_ns"), value("engine.view")), (5_000_000, 3));
        assert_eq!((value("link.n7.rtt_ns"), value("link.n2.group.bytes_sent")), (0, 0));
        let bytes = std::fs::read(format!("/proc/self/fd/{}", board.fd().as_raw_fd())).unwrap();
        let shown = quintet_transport::stats::read(&bytes).unwrap();
        assert!(shown.texts.contains(&("link.n7.state", "none".to_owned())), "{:?}", shown.texts);
    }

    #[test]
    fn the_largest_cluster_fits() {
        let peers = || (1..NODES_MAX as u16).map(NodeId);
        let board = Board::with_texts(stat_names(peers()), stat_texts(peers())).unwrap();
        assert!(Gauges::find(&board, peers()).is_some());
    }

    #[test]
    fn how_packets_pass_the_kernel_is_told() {
        let (me, bind) = (Member::new(1, 1), "127.0.0.1:0".parse().unwrap());
        let mut config = quintet_transport::Config::new("gauges", me, bind);
        let authority = Authority::new("gauges", [1; 32]).unwrap();
        config.identity = Some(Arc::new(authority.admit(me.node, [2; 32])));
        (config.offload, config.io_uring) = (false, false);
        let poller = Poller::new(config).unwrap();
        let board = Board::with_texts(stat_names([]), stat_texts([])).unwrap();
        Gauges::find(&board, []).unwrap().show(&Figures::default(), Some(&poller));
        let bytes = std::fs::read(format!("/proc/self/fd/{}", board.fd().as_raw_fd())).unwrap();
        let shown = quintet_transport::stats::read(&bytes).unwrap();
        for (name, says) in [
            ("engine.waiting", "ppoll (io_uring is switched off"),
            ("udp.sending", "sendmmsg, up to 60 datagrams a call: UDP_SEGMENT is refused"),
            ("udp.receiving", "UDP_GRO is refused (switched off by the configuration)"),
            ("udp.filter", "on"),
        ] {
            let text = shown.texts.iter().find(|(known, _)| *known == name).map(|(_, text)| text);
            assert!(text.is_some_and(|text| text.contains(says)), "{name}: {text:?}");
        }
    }

    #[test]
    fn a_board_for_other_peers_is_not_taken() {
        let peers = || [NodeId(2)];
        assert!(Gauges::find(&Board::new(stat_names(peers())).unwrap(), peers()).is_none());
        let board = Board::with_texts(stat_names(peers()), stat_texts(peers())).unwrap();
        assert!(Gauges::find(&board, [NodeId(2)]).is_some());
        assert!(Gauges::find(&board, [NodeId(3)]).is_none());
    }
}
