//! Who is talking: nodes, their runs, and links between them.
//!
//! A *node* is a configured place; an *incarnation* is one run of the process there. Nothing is ever
//! addressed to a node alone once a link is up: a restarted node is a stranger that happens to live at
//! the same address, and everything that was decided about its predecessor (fences, views, acks) must
//! not rub off on it.

use std::fmt;

/// A configured node of the cluster, numbered from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

/// One run of a node: unique, and greater for a later run of the same node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// One run of one node: the unit of membership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Where it runs.
    pub node: NodeId,
    /// Which run it is.
    pub incarnation: Incarnation,
}

impl Member {
    /// The run `incarnation` of node `node`.
    pub const fn new(node: u16, incarnation: u64) -> Member {
        Member { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }
}

/// A link to one incarnation of one peer. Never reused: a new link, even to the same incarnation, has
/// another id, and calls with an id whose link is forgotten do nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    pub(crate) slot: u16,
    pub(crate) generation: u32,
}

impl LinkId {
    /// A link id from its parts: for simulators and tests that stand in for a [`Poller`](crate::Poller).
    pub const fn from_parts(slot: u16, generation: u32) -> LinkId {
        LinkId { slot, generation }
    }

    /// Dense small index of the link's slot; distinct among links that are not forgotten.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.incarnation)
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link{}.{}", self.slot, self.generation)
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
