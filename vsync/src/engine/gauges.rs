//! The node's figures on a board that others can read when the node does not answer.
//!
//! They are copied there a few times a second by the poller, between two turns, so that counting costs the message path
//! nothing. `engine.at_ns` says when: a reader that sees it stand still knows that the poller does.

use std::sync::Arc;
use std::time::Duration;

use quintet_transport::stats::{Board, Cell};
use quintet_transport::{LinkStatus, NodeId, Path, PollerCounters, Time};

use super::sweep::Engine;
use crate::status::Counters;

/// At most this often: an idle poller, which wakes for its heartbeats, is not woken for it.
const EVERY: Duration = Duration::from_millis(50);

/// Where the figures go.
pub(crate) struct Gauges {
    engine: Vec<Cell>,
    links: Vec<(NodeId, Vec<Cell>)>,
    next: Time,
}

/// Names of the cells that a node with these peers fills, for [`Board::new`].
pub fn stat_names(peers: impl IntoIterator<Item = NodeId>) -> Vec<String> {
    let engine = engine(&Figures::default()).map(|(name, _)| format!("engine.{name}"));
    let links = peers.into_iter().flat_map(|peer| link(None).map(|(name, _)| of_link(peer, name)));
    engine.into_iter().chain(links).collect()
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
        ("idle", c.parks),
    ]
}

/// The link to one peer; all zero without one.
fn link(status: Option<&LinkStatus>) -> [(&'static str, u64); 16] {
    let get = |figure: fn(&LinkStatus) -> u64| status.map_or(0, figure);
    [
        // 1 up, 2 suspected, 3 dead.
        ("state", get(|l| if !l.alive { 3 } else { 1 + u64::from(l.suspected) })),
        // 1 shared memory, 2 UDP, 3 verbs.
        (
            "path",
            get(|l| match l.path {
                Path::Shm => 1,
                Path::Udp => 2,
                Path::Verbs => 3,
            }),
        ),
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
    /// The cells of a node with these peers; `None` if the board was not made with [`stat_names`] of them.
    pub(crate) fn find(
        board: &Arc<Board>,
        peers: impl IntoIterator<Item = NodeId>,
    ) -> Option<Gauges> {
        let cells = |names: Vec<String>| -> Option<Vec<Cell>> {
            names.iter().map(|name| board.cell(name)).collect()
        };
        let links = peers.into_iter().map(|peer| {
            let names = link(None).map(|(name, _)| of_link(peer, name));
            Some((peer, cells(names.into())?))
        });
        Some(Gauges {
            engine: cells(stat_names([]))?,
            links: links.collect::<Option<_>>()?,
            next: Time::ZERO,
        })
    }

    fn show<L: Iterator<Item = LinkStatus>>(&self, figures: &Figures, links: impl Fn() -> L) {
        put(&self.engine, &engine(figures));
        for (peer, cells) in &self.links {
            let of_peer = || links().filter(|l| l.peer.node == *peer);
            let shown = of_peer().find(|l| l.alive).or_else(|| of_peer().last());
            put(cells, &link(shown.as_ref()));
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
            gauges.show(&figures, || self.poller.each_link());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn every_name_has_its_cell_and_its_figure() {
        let peers = [NodeId(2), NodeId(7)];
        let names = stat_names(peers);
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), names.len(), "no name twice");
        let board = Board::new(names).unwrap();
        let gauges = Gauges::find(&board, peers).unwrap();
        let counters = Counters { sent: 11, delivered: 12, ..Counters::default() };
        let figures = Figures { at: Time::from_millis(5), view: 3, counters, ..Figures::default() };
        gauges.show(&figures, std::iter::empty);
        let value = |name: &str| board.cell(name).unwrap().load(Relaxed);
        assert_eq!((value("engine.sent"), value("engine.delivered")), (11, 12));
        assert_eq!((value("engine.at_ns"), value("engine.view")), (5_000_000, 3));
        assert_eq!(value("link.n7.state"), 0);
    }

    #[test]
    fn a_board_for_other_peers_is_not_taken() {
        let board = Board::new(stat_names([NodeId(2)])).unwrap();
        assert!(Gauges::find(&board, [NodeId(2)]).is_some());
        assert!(Gauges::find(&board, [NodeId(3)]).is_none());
    }
}
