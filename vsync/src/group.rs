//! The sending side of a node: reserve, write in place, commit. Any number of threads, no lock, no allocation.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use quintet_transport::{LogWriter, ReserveError, Time};

use crate::core::Position;
use crate::engine::shared::{Command, Shared};
use crate::error::SendError;
use crate::event::MessageId;
use crate::status::Status;

/// A handle on the group for every thread that sends, reads under the lease or asks.
#[derive(Clone)]
pub struct Group {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: LogWriter,
}

impl Group {
    /// Room for a message of `len` bytes in the own log, which is the memory the network reads. Never blocks.
    ///
    /// A node that is not yet a member may reserve and commit too: its messages go out in its first view.
    /// Keep the time between this and [`Reservation::commit`] short: it holds back later messages of this node (never
    /// those of others).
    pub fn reserve(&self, len: usize) -> Result<Reservation<'_>, SendError> {
        if self.shared.is_closed() {
            return Err(SendError::Closed);
        }
        let limit = self.shared.max_message;
        if len > limit {
            return Err(SendError::TooLarge { limit });
        }
        match self.log.reserve(len) {
            Ok(inner) => Ok(Reservation { inner }),
            Err(ReserveError::Full) => {
                self.shared.note_full();
                Err(SendError::Full)
            }
            Err(ReserveError::TooLarge) => Err(SendError::TooLarge { limit }),
        }
    }

    /// Reserve, copy, commit.
    pub fn send(&self, bytes: &[u8]) -> Result<MessageId, SendError> {
        let mut slot = self.reserve(bytes.len())?;
        slot.copy_from_slice(bytes);
        Ok(slot.commit())
    }

    /// Longest message this group takes.
    pub fn max_message(&self) -> usize {
        self.shared.max_message
    }

    /// Does this node hold the read lease at `now`? While it does, no group has gone on without it.
    ///
    /// Ask **after** the read with a clock read after it ([`quintet_transport::clock::now`]): a node that slept
    /// between the check and the read would answer from the past.
    pub fn lease_valid(&self, now: Time) -> bool {
        now.as_nanos() < self.shared.lease_until()
    }

    /// At a learner: the application has loaded the donor's snapshot and has applied everything up to `state`.
    pub fn ready(&self, state: Position) {
        self.shared.command(Command::Ready(state));
    }

    /// The application has made everything up to `position` durable. Cheap; call it as often as you like.
    pub fn report_persisted(&self, position: Position) {
        self.shared.report_persisted(position);
    }

    /// Everything up to here has been reported durable by a quorum of the view.
    pub fn persisted_by_quorum(&self) -> Position {
        self.shared.persisted_by_quorum()
    }

    /// Calls `wake` from the poller whenever [`Self::persisted_by_quorum`] has grown. It must return at once (unpark a
    /// thread, write an eventfd, notify a task); a later registration replaces an earlier one.
    pub fn on_persisted(&self, wake: impl Fn(Position) + Send + Sync + 'static) {
        self.shared.on_persisted(Box::new(wake));
    }

    /// The latest snapshot of the node's status.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

/// Room for one message in the own log. Dropping it without [`Self::commit`] takes the message back.
pub struct Reservation<'a> {
    inner: quintet_transport::Reservation<'a>,
}

impl Reservation<'_> {
    /// The id the message will have; known before it is committed.
    pub fn id(&self) -> MessageId {
        MessageId(self.inner.position())
    }

    /// Hands the message to the group. It will be delivered exactly once to every member, this one among them, unless
    /// this incarnation leaves the group first: then [`Deliveries::unresolved`](crate::Deliveries::unresolved) tells.
    pub fn commit(self) -> MessageId {
        MessageId(self.inner.commit())
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.inner
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.inner
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("len", &self.len()).finish()
    }
}
