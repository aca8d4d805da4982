//! What adapters suffer in tests, and traffic that must not notice.

use std::process::Command;
use std::time::Duration;

use quintet_transport::*;

use crate::harness::*;

/// Two nodes whose patience outlasts what the tests do to them.
pub(crate) fn patient(paths: [PathPolicy; 2]) -> Vec<Config> {
    let mut configs = configs(2, PathPolicy::Verbs);
    for (config, path) in configs.iter_mut().zip(paths) {
        config.path = path;
        config.timing.suspect = Duration::from_secs(8);
        config.timing.dead = Duration::from_secs(15);
    }
    configs
}

pub(crate) fn sh(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().expect("sh");
    assert!(status.success(), "{script}");
}

/// The cable's second end goes down while this lives.
pub(crate) struct Down;

impl Down {
    pub(crate) fn now() -> Down {
        sh("ip link set eth-b down");
        Down
    }
}

impl Drop for Down {
    /// With the interface the kernel has dropped what was said about it.
    fn drop(&mut self) {
        sh("ip link set eth-b up
            ip neighbour replace 10.77.0.1 lladdr 02:00:00:00:00:0a dev eth-b nud permanent
            ip route replace local 10.77.0.2 dev eth-b table 12
            ip route replace 10.77.0.1 dev eth-b src 10.77.0.2 table 13");
    }
}

/// Both send records and words, and read those of the other: in order, each once, and no word before its record.
pub(crate) struct Traffic {
    links: [LinkId; 2],
    lane: LaneId,
    pub(crate) sent: [u64; 2],
    pub(crate) got: [u64; 2],
    at: [u64; 2],
}

impl Traffic {
    pub(crate) fn on(lane: LaneId, nodes: &mut [Node]) -> Traffic {
        let links = [nodes[0].link(2), nodes[1].link(1)];
        let at = [1, 0].map(|other: usize| nodes[other].poller.head(lane));
        for (i, node) in nodes.iter_mut().enumerate() {
            node.poller.attach(links[i], lane, at[1 - i]);
            node.poller.open(links[i], lane, at[i]);
        }
        Traffic { links, lane, sent: [0; 2], got: [0; 2], at }
    }

    /// The same where so much was sent before.
    pub(crate) fn from(lane: LaneId, nodes: &mut [Node], sent: [u64; 2]) -> Traffic {
        Traffic { sent, got: [sent[1], sent[0]], ..Traffic::on(lane, nodes) }
    }

    pub(crate) fn go_on(&mut self, nodes: &mut [Node], sends: bool) {
        for (i, node) in nodes.iter_mut().enumerate() {
            let (link, lane) = (self.links[i], self.lane);
            let said = node.poller.peer_word(link, lane, 0);
            while let Some(record) = node.poller.peek(link, lane, self.at[i]) {
                assert_eq!(record.index, self.got[i] + 1);
                assert_eq!(record.payload, record.index.to_le_bytes());
                self.got[i] = record.index;
                self.at[i] = record.end;
            }
            assert!(node.poller.intact(link) && self.got[i] >= said);
            node.poller.release(link, lane, self.at[i]);
            let released = node.poller.released(link, lane);
            node.poller.reclaim(lane, released);
            let next = self.sent[i] + 1;
            if sends && node.send(lane, next, &next.to_le_bytes()) {
                self.sent[i] = next;
                node.poller.set_word(lane, 0, next);
            }
        }
    }

    pub(crate) fn all_arrived(&self, nodes: &[Node]) -> bool {
        let said = |i: usize| nodes[i].poller.peer_word(self.links[i], self.lane, 0);
        (0..2).all(|i| self.got[i] == self.sent[1 - i] && said(i) == self.sent[1 - i])
    }
}

pub(crate) fn no_link_died(nodes: &[Node]) -> bool {
    let died = |event: &Event| matches!(event, Event::Dead { .. });
    !nodes.iter().any(|node| node.events.iter().any(died))
}
