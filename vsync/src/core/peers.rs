//! What is known about the other nodes: levels, not edges.
//!
//! **Problem.** A view change is decided from facts that arrive in any order: a link dies on one side first, a
//! report overtakes the view it is about, a process comes back before its death was noticed. Code that reacts
//! to each message as it comes misses the combination it did not think of, and waits for ever.
//!
//! So messages only update this table, each fact with the view it is about, and everything is concluded from
//! the table, whenever anything in it has changed ([`Core::steer`](super::Core)). Facts that came on a link die
//! with the link; a peer says everything again when a link comes up.

use std::collections::BTreeMap;

use quintet_transport::{Incarnation, Member, NodeId, Time};

use super::codec::{Announce, Join};
use super::view::{View, ViewId, Why};

/// One other node.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The incarnation we have a link with.
    pub(super) up: Option<Member>,
    /// What it said last about itself, on this link.
    pub(super) announce: Option<Announce>,
    /// What it asked for, on this link.
    pub(super) join: Option<Join>,
    /// Where its GROUP log begins for new readers, in which view; said on this link.
    pub(super) start: Option<(ViewId, u64)>,
    /// Its GROUP log is to be opened, from where it says for this view or a later one.
    pub(super) unopened: Option<ViewId>,
    /// Every earlier incarnation is certainly dead.
    newest: Incarnation,
    /// The latest incarnation that certainly exited.
    exited: Option<Incarnation>,
    /// The latest incarnation that was in a view and is not any more: it and those before never come back.
    barred: Option<Incarnation>,
    /// Why the last link ended.
    ended: Option<(Member, Why)>,
}

/// All other nodes.
#[derive(Debug, Default)]
pub(super) struct Peers {
    nodes: BTreeMap<NodeId, Peer>,
    /// When something of a member may last have been confirmed.
    heard: BTreeMap<Member, Time>,
}

impl Peers {
    /// The peer `member`, if we have a link with that incarnation.
    pub(super) fn linked(&self, member: Member) -> Option<&Peer> {
        self.nodes.get(&member.node).filter(|p| p.up == Some(member))
    }

    pub(super) fn linked_mut(&mut self, member: Member) -> Option<&mut Peer> {
        self.nodes.get_mut(&member.node).filter(|p| p.up == Some(member))
    }

    /// Whether we have a link with that incarnation.
    pub(super) fn is_up(&self, member: Member) -> bool {
        self.linked(member).is_some()
    }

    /// All incarnations we have a link with, in order of their nodes.
    pub(super) fn ups(&self) -> impl Iterator<Item = (Member, &Peer)> {
        self.nodes.values().filter_map(|p| p.up.map(|m| (m, p)))
    }

    /// The incarnation linked on `node`.
    pub(super) fn up_on(&self, node: NodeId) -> Option<Member> {
        self.nodes.get(&node).and_then(|p| p.up)
    }

    /// A link came up. False: it is an incarnation older than one already known.
    pub(super) fn up(&mut self, member: Member) -> bool {
        let peer = self.nodes.entry(member.node).or_default();
        if member.incarnation < peer.newest {
            return false;
        }
        peer.newest = member.incarnation;
        peer.up = Some(member);
        peer.announce = None;
        peer.join = None;
        peer.start = None;
        peer.unopened = None;
        true
    }

    /// A link ended, or its end became more certain.
    pub(super) fn dead(&mut self, member: Member, why: Why, heard: Time) {
        let latest = self.heard.entry(member).or_default();
        *latest = heard.max(*latest);
        let peer = self.nodes.entry(member.node).or_default();
        if why.certain() {
            peer.exited = peer.exited.max(Some(member.incarnation));
        }
        peer.ended = Some((member, why));
        if peer.up == Some(member) {
            peer.up = None;
            peer.announce = None;
            peer.join = None;
            peer.start = None;
        }
    }

    /// `member` is not in the view any more; with `close`, its links are closed.
    pub(super) fn departed(&mut self, member: Member, close: bool) {
        let peer = self.nodes.entry(member.node).or_default();
        peer.barred = peer.barred.max(Some(member.incarnation));
        if close && peer.up == Some(member) {
            peer.up = None;
            peer.announce = None;
            peer.start = None;
        }
        if peer.up == Some(member) || peer.up.is_none() {
            peer.join = None;
        }
    }

    /// `member` is in the view: it asks for nothing any more.
    pub(super) fn joined(&mut self, member: Member) {
        if let Some(peer) = self.linked_mut(member) {
            peer.join = None;
        }
    }

    /// Whether that incarnation was in a view and is out.
    pub(super) fn barred(&self, member: Member) -> bool {
        self.nodes.get(&member.node).is_some_and(|p| p.barred >= Some(member.incarnation))
    }

    /// Nothing of `member` was confirmed after this, as far as was said.
    pub(super) fn heard(&self, member: Member) -> Time {
        self.heard.get(&member).copied().unwrap_or_default()
    }

    /// Remembers only what concerns the members of `view`.
    pub(super) fn forget_others(&mut self, view: &View) {
        self.heard.retain(|m, _| view.contains(*m));
    }

    /// Why `member` is certainly dead, if it is, as this node knows.
    pub(super) fn certain(&self, member: Member) -> Option<Why> {
        let peer = self.nodes.get(&member.node)?;
        if peer.newest > member.incarnation {
            Some(Why::Restarted)
        } else if peer.exited >= Some(member.incarnation) {
            Some(Why::Exited)
        } else {
            None
        }
    }

    /// Why the link with `member` is not there.
    pub(super) fn ended(&self, member: Member) -> Why {
        let ended = self.nodes.get(&member.node).and_then(|p| p.ended).filter(|e| e.0 == member);
        self.certain(member).or(ended.map(|e| e.1)).unwrap_or(Why::Silent)
    }
}
