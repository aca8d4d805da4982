//! A node: start, ask, leave, stop.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::Config;
use crate::core::Position;
use crate::deliveries::Deliveries;
use crate::engine;
use crate::engine::shared::{Command, Shared};
use crate::error::Error;
use crate::group::Group;
use crate::status::{State, Status};
use quintet_transport::Member;

/// One incarnation of a node: its poller thread and everything behind it.
///
/// Dropping it stops the thread at once, which the others see as a death; [`Self::leave`] is the clean way. After
/// [`Event::Evicted`](crate::Event::Evicted) drop it and start another in the same process: that is a new incarnation.
///
/// Fork is safe at any time for a child that goes on to exec or `_exit`. One that lives on has neither the node's
/// thread nor its memory: it must not use or drop this, and should close what it inherited, since the node cannot be
/// started anew while a child holds its sockets (`quintet_transport::Poller` says more).
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) me: Member,
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts the node: reads its record, opens its transport, and begins to look for its group.
    pub fn start(config: Config) -> Result<(Node, Group, Deliveries), Error> {
        engine::start(config)
    }

    /// This node and incarnation.
    pub fn me(&self) -> Member {
        self.me
    }

    /// Asks for a clean hand-over: nothing new is taken, everything committed before is delivered (waiting at most 10 s for
    /// that), then a view without this node is agreed. [`Event::Left`](crate::Event::Left) says that it is done.
    pub fn leave(&self) {
        self.shared.command(Command::Leave);
    }

    /// The last resort of an operator, when whatever held the state that was acknowledged is gone for good: gives it up,
    /// up to `owed`, so that the group is restarted from the longest state of the nodes present. The new view's cause
    /// names what was lost ([`Origin::RecoveredBelow`](crate::Origin::RecoveredBelow)). False, and nothing is
    /// done, unless this node is blocked for want of that state and of no more
    /// ([`BlockedReason::owed`](crate::BlockedReason::owed)).
    pub fn recover(&self, owed: Position) -> bool {
        let lacks = match &self.status().state {
            State::Blocked(reason) => reason.owed.is_some_and(|short| short.owed <= owed),
            _ => false,
        };
        if lacks {
            self.shared.command(Command::Recover(owed));
        }
        lacks
    }

    /// Stops the node and waits for its thread.
    pub fn stop(mut self) {
        self.halt();
    }

    /// The latest snapshot of the status.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status()
    }

    fn halt(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.command(Command::Stop);
            if thread.join().is_err() {
                tracing::error!(me = %self.me.node, "the poller thread panicked");
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.halt();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("me", &self.me).finish_non_exhaustive()
    }
}
