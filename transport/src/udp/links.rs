//! What the owner does with links: lends lanes to them, reads their replicas, ends them.

use super::*;

impl Udp {
    // ---- links: own side ----

    /// Counts the peer among the readers of an own lane, from byte `from` on.
    pub(crate) fn attach(&mut self, link: UdpLink, lane: LaneId, from: u64, own: &Own) {
        if let Some(link) = self.get_mut(link) {
            link.attach(lane.0, from, own);
        }
    }

    pub(crate) fn detach(&mut self, link: UdpLink, lane: LaneId) {
        if let Some(link) = self.get_mut(link) {
            link.connection.detach(lane.0);
        }
    }

    /// Below this no CONTROL bytes may be reclaimed: a link that is not up yet has promised them.
    pub(crate) fn control_floor(&self) -> u64 {
        let opening = self.slots.iter().filter_map(|slot| slot.link.as_deref());
        let opening = opening.filter(|link| link.phase == Phase::Opening);
        opening
            .map(|link| link.connection.released(crate::lane::CONTROL.0))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// How far that reader has released an own log.
    pub(crate) fn released(&self, link: UdpLink, lane: LaneId) -> u64 {
        self.get(link).map_or(0, |link| link.connection.released(lane.0))
    }

    /// Lost pieces of that lane that were sent again.
    pub(crate) fn resent(&self, link: UdpLink, lane: LaneId) -> u64 {
        self.get(link).map_or(0, |link| link.connection.resent(lane.0))
    }

    // ---- links: replicas ----

    /// Begins to read a lane of the peer at byte `from`, which begins a record.
    pub(crate) fn open(&mut self, link: UdpLink, lane: LaneId, from: u64) -> Result<(), Error> {
        let bytes =
            self.table.as_slice().get(lane.index()).map_or(0, |shape| shape.log_bytes as usize);
        match self.get_mut(link) {
            Some(link) if !link.is_dead() => {
                link.open(lane.0, from).map_err(|source| Error::Memory { bytes, source })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn peer_word(&self, link: UdpLink, lane: LaneId, word: usize) -> u64 {
        self.get(link).map_or(0, |link| link.connection.word(lane.0, word))
    }

    /// End of the peer's log as far as whole records are visible.
    pub(crate) fn peer_head(&self, link: UdpLink, lane: LaneId) -> u64 {
        self.get(link).map_or(0, |link| link.replicas().head(lane.index()))
    }

    pub(crate) fn peek(
        &self,
        link: UdpLink,
        lane: LaneId,
        at: u64,
    ) -> Result<Option<Record<'_>>, Malformed> {
        self.get(link).map_or(Ok(None), |link| link.replicas().peek(lane.index(), at))
    }

    pub(crate) fn release(&mut self, link: UdpLink, lane: LaneId, upto: u64) {
        if let Some(link) = self.get_mut(link) {
            link.release(lane.0, upto);
        }
    }

    pub(crate) fn peer_bytes(&self, link: UdpLink, lane: LaneId) -> Option<LogBytes> {
        self.get(link)?.replicas().bytes(lane.index())
    }

    // ---- links: lanes of another path ----

    /// Lanes that another path has carried go by that link from here on.
    pub(crate) fn borrow(&mut self, link: UdpLink, lent: Lent) {
        if let Some(link) = self.get_mut(link) {
            link.borrow(lent);
        }
    }

    /// The other path takes them back.
    pub(crate) fn give_back(&mut self, link: UdpLink) -> Lent {
        self.get_mut(link).map(Link::give_back).unwrap_or_default()
    }

    /// Reads a lane of the peer no more.
    pub(crate) fn shut(&mut self, link: UdpLink, lane: LaneId) {
        if let Some(link) = self.get_mut(link) {
            link.shut(lane.0);
        }
    }

    /// Whether the peer is among the readers of an own lane.
    pub(crate) fn is_attached(&self, link: UdpLink, lane: LaneId) -> bool {
        self.get(link).is_some_and(|link| link.connection.is_attached(lane.0))
    }

    // ---- links: life ----

    /// Last sign of life.
    pub(crate) fn heard(&self, link: UdpLink) -> Time {
        self.get(link).map_or(Time::ZERO, |link| link.connection.heard())
    }

    /// The latest own instant of which the peer has confirmed to have heard from us at or after it.
    pub(crate) fn confirmed(&self, link: UdpLink) -> Time {
        self.get(link).map_or(Time::ZERO, |link| link.connection.confirmed())
    }

    pub(crate) fn rtt(&self, link: UdpLink) -> Option<Duration> {
        self.get(link).map(|link| link.connection.rtt().smoothed())
    }

    /// Largest datagram that the path is known to carry.
    pub(crate) fn datagram(&self, link: UdpLink) -> Option<usize> {
        self.get(link).map(|link| link.connection.datagram_max() + TAG_LEN)
    }

    pub(crate) fn counters(&self, link: UdpLink) -> LinkCounters {
        self.get(link).map(Link::counters).unwrap_or_default()
    }

    /// Fences the peer, or declares it dead. No event follows; the peer is told with the next flush.
    pub(crate) fn close(&mut self, link: UdpLink) {
        if let Some(link) = self.get_mut(link)
            && !link.is_dead()
        {
            link.kill(CloseReason::Fenced);
            let peer = link.peer;
            self.peers[peer].redial();
        }
    }

    /// The queue pair beside a link failed: the peer is asked whether it lives, for `patience`.
    pub(crate) fn question(&mut self, link: UdpLink, patience: Duration, now: Time) {
        if let Some(link) = self.get_mut(link) {
            link.question(Evidence::PathBroken, patience, now);
        }
    }

    /// Drops a link and its replicas.
    pub(crate) fn forget(&mut self, link: UdpLink) {
        if self.get(link).is_some() {
            self.slots[usize::from(link.slot)].link = None;
        }
    }

    /// Whether links to that node shall be made over UDP. Nobody is wanted at first.
    pub(crate) fn want(&mut self, node: NodeId, wanted: bool) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == node)
            && std::mem::replace(&mut peer.wanted, wanted)
            && !wanted
        {
            peer.drop_handshakes();
        }
    }

    /// Never link to this incarnation, or an earlier one of its node; tell it so.
    pub(crate) fn refuse(&mut self, member: Member) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == member.node) {
            peer.refused = peer.refused.max(Some(member.incarnation));
        }
    }
}
