//! Links as they are shown to people.

use super::Poller;
use crate::detect::Thresholds;
use crate::event::{LinkCounters, LinkStatus, Path, Watch};
use crate::id::LinkId;
use crate::lane::LaneId;
use crate::roster::{Link, Wire};
use crate::traffic::{LaneCounters, LaneTraffic};

impl Poller {
    /// All links that are not forgotten.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.each_link().collect()
    }

    /// The same, one after the other: for who looks often, and may not allocate.
    pub fn each_link(&self) -> impl Iterator<Item = LinkStatus> + '_ {
        let status = |(id, link): (LinkId, &Link)| {
            let (rtt, counters) = match (&link.wire, &self.udp) {
                (Wire::Shm(shm), _) => {
                    (None, LinkCounters { doorbells: shm.doorbells, ..LinkCounters::default() })
                }
                (Wire::Udp(handle), Some(udp)) => (udp.rtt(*handle), udp.counters(*handle)),
                (Wire::Verbs(_, verbs), _) => {
                    (None, LinkCounters { doorbells: verbs.doorbells(), ..LinkCounters::default() })
                }
                (Wire::Udp(_), None) => (None, LinkCounters::default()),
            };
            let of_udp = match (&link.wire, &self.udp) {
                (Wire::Udp(handle), Some(udp)) => Some((*handle, udp)),
                _ => None,
            };
            LinkStatus {
                link: id,
                peer: link.member,
                path: link.path(),
                reason: link.reason.clone(),
                alive: link.alive,
                suspected: link.health.suspected(),
                rtt,
                heard: link.health.heard(),
                watch: self.watch(link),
                datagram: of_udp.and_then(|(handle, udp)| udp.datagram(handle)),
                rail: of_udp.and_then(|(handle, udp)| udp.rail(handle)),
                counters,
            }
        };
        self.roster.iter().map(status)
    }

    /// What was published in an own lane.
    pub fn lane_counters(&self, lane: LaneId) -> LaneCounters {
        self.own.lane(lane).counters()
    }

    /// What goes over one lane of a link; nothing once it is dead.
    pub fn traffic(&self, id: LinkId, lane: LaneId) -> LaneTraffic {
        let Some(link) = self.roster.get(id).filter(|link| link.alive) else {
            return LaneTraffic::default();
        };
        let own = self.own.lane(lane);
        let sent = match link.attached >> lane.0 & 1 {
            0 => LaneTraffic::default(),
            _ => LaneTraffic {
                unreleased: own.log.head().saturating_sub(self.released(id, lane)),
                ..link.begun.sent(lane, own)
            },
        };
        let retransmits = match (&link.wire, &self.udp) {
            (Wire::Udp(handle), Some(udp)) => udp.resent(*handle, lane),
            _ => 0,
        };
        let bytes_received = link.begun.received(lane, self.peer_head(id, lane));
        LaneTraffic { bytes_received, retransmits, ..sent }
    }

    /// How the silence of that link's peer is judged.
    fn watch(&self, link: &Link) -> Watch {
        let (limits, heartbeat) = match link.path() {
            Path::Shm => (&self.limits, self.beat),
            Path::Udp | Path::Verbs => (&self.limits_udp, self.config.timing.heartbeat),
        };
        let Thresholds { suspect, dead } = *limits;
        Watch { heartbeat, suspect, dead, longest: link.health.jitter() }
    }
}
