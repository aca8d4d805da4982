//! The protocol core of virtual synchrony: no sockets, threads, clocks, randomness or `unsafe`.
//!
//! A [`Core`] is driven by `handle_*` and drained by `poll_*`; between calls it does nothing. The same code
//! runs under the engine and under the simulator. Time and entropy are handed in.
//!
//! ## What a driver does
//! *Hot path*, every sweep, while [`Core::view`] is `Some` (the node is a member):
//! 1. for every opened peer, by its rank in the current view: read its row's words; **then** hand over every
//!    record of its GROUP log that is visible, in log order ([`Core::handle_record`]); **then** the row read
//!    before ([`Core::handle_row`]). That order is what makes an index below NEXT without a record a null.
//!    If `handle_record` answers `Ok(false)` (queue full), leave the record in the log and skip that peer's row.
//! 2. while its own log has a committed record: [`Core::assign`] an index, publish the record with it, hand it
//!    back ([`Core::handle_record`] with the own rank). `None` means wedged, not a member, or window full.
//! 3. [`Core::row`]: publishes nulls as needed, and returns the words to set (NEXT, RECEIVED, DELIVERED, PERSISTED).
//! 4. [`Core::poll_delivery`] until `None` (or until the application's queue is full); then [`Core::row`] again
//!    if something was delivered.
//!
//! *Control path*: hand over links coming and going, control records, timeouts; then drain
//! [`Core::poll_control`] (broadcast each on the CONTROL log to all links), [`Core::poll_store`] (make durable,
//! then [`Core::handle_stored`]), [`Core::poll_event`] (in order, acting on each before the next).
//!
//! **A view changes exactly when the driver polls [`Event::View`]**: until that call returns, ranks, rows and
//! deliveries are those of the old view; from then on, those of the new one. It is returned only after
//! `poll_delivery` has handed out the last message of the old view, so poll deliveries before events.

mod quorum;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quintet_transport::{Member, NodeId, Time};

pub use quorum::quorum;
pub use view::*;

/// Words of a row on the GROUP lane: each is written by its owner alone and only grows.
pub mod word {
    /// Next own index: every index below is a published record or a null. Absolute, never reset.
    pub const NEXT: usize = 0;
    /// [`Position`](super::Position): everything before it is received.
    pub const RECEIVED: usize = 1;
    /// [`Position`](super::Position): everything before it is delivered.
    pub const DELIVERED: usize = 2;
    /// [`Position`](super::Position): everything before it is durable, says the application.
    pub const PERSISTED: usize = 3;
    /// Words in a row.
    pub const COUNT: usize = 4;
}

/// What a core must know from the start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// This run of this node.
    pub me: Member,
    /// The configured nodes; the same list everywhere.
    pub nodes: Vec<NodeId>,
    /// How long a confirmed sign of life lets a member answer reads. Longer than a few heartbeats, shorter than
    /// people notice: removal of a member that may be alive waits it out.
    pub lease: Duration,
    /// How long to wait for another's view change before taking it over. Must exceed a lease plus a few
    /// round trips and disk writes; deaths do not wait for it.
    pub takeover: Duration,
    /// How long nodes that all stand outside wait for the rest, once a quorum of them is connected.
    pub settle: Duration,
    /// Pause between repeated requests (joins, attempts that found no quorum).
    pub retry: Duration,
    /// How long a loaded learner waits for others that are loading, to join in the same view change.
    pub batch: Duration,
    /// Most records of one sender that are not yet delivered by everybody.
    pub queue: usize,
    /// Seed of the pauses drawn after a collision of proposers.
    pub entropy: u64,
    /// Whether the node's record survives a restart. Without (memory store), a restarted node has forgotten its
    /// promises, so it does not vote before it is a member again, and the first view needs all nodes.
    pub durable: bool,
    /// A planted bug, for the simulator to find.
    #[cfg(feature = "canary")]
    pub bug: Option<Bug>,
}

impl Config {
    /// Defaults for `me` in a cluster of `nodes`.
    pub fn new(me: Member, nodes: Vec<NodeId>) -> Config {
        Config {
            me,
            nodes,
            lease: Duration::from_millis(50),
            takeover: Duration::from_millis(300),
            settle: Duration::from_millis(500),
            retry: Duration::from_millis(200),
            batch: Duration::from_millis(100),
            queue: 4096,
            entropy: 0,
            durable: true,
            #[cfg(feature = "canary")]
            bug: None,
        }
    }
}

/// Planted bugs: each is a known trap of published systems. For the simulator only.
#[cfg(feature = "canary")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A new coordinator ignores the values its predecessor got accepted, and computes its own trim.
    ForgetsAccepted,
    /// Messages are delivered when received here, not when received by all.
    DeliversUnstable,
    /// A restarted acceptor has forgotten what it promised and accepted.
    ForgetsPromise,
    /// Any half of a view may decide, with or without the tie-breaker.
    AnyHalf,
    /// Nulls are published over an index that a record is about to take.
    NullOverRecord,
    /// A member is removed without being fenced, and without waiting for its read lease.
    NoFence,
}

/// What a node finds when it starts.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Its durable record; [`Durable::configured`] if it has none.
    pub durable: Durable,
    /// The position up to which the application recovered its state (everything before it is applied).
    pub state: Position,
}

/// A member's words on the GROUP lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// See [`word::NEXT`].
    pub next: u64,
    /// See [`word::RECEIVED`].
    pub received: Position,
    /// See [`word::DELIVERED`].
    pub delivered: Position,
    /// See [`word::PERSISTED`].
    pub persisted: Position,
}

/// A published record of a GROUP log: where it is, not what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The sender's index, stamped into the record when it was published.
    pub index: u64,
    /// Byte position in the sender's log.
    pub position: u64,
    /// Byte position of the end: where the next record may begin.
    pub end: u64,
    /// Payload bytes.
    pub len: u32,
}

/// A message whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the total order.
    pub at: Position,
    /// Its sender's rank in the current view.
    pub rank: Rank,
    /// Its record.
    pub record: Record,
}

/// What happened to this node's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A view was installed; this node is a member of it. Close links to `view.departed` and refuse those
    /// incarnations (but leave alone who merely [left](Why::Left): it goes by itself).
    View {
        /// The view.
        view: Arc<View>,
        /// What made it.
        cause: Cause,
        /// When this node first knew that the view before had to change.
        evidence_at: Option<Time>,
        /// When this node wedged the view before.
        wedged_at: Option<Time>,
    },
    /// The group cannot go on as far as this node can see. Comes again when who is missing changes.
    Blocked(BlockedReason),
    /// It can again.
    Resumed,
    /// Others went on without this incarnation, in this view or a later one. It is over: nothing more is
    /// delivered, reads must not be answered; the node has to come back as a new incarnation.
    Evicted(ViewId),
    /// The node left, as it asked. It may go.
    Left,
    /// This node is to send its state to `learner`: snapshot, then everything delivered after it, until a
    /// view joins the learner.
    Donate {
        /// Who asks.
        learner: Member,
    },
    /// This node is a learner and `donor` will send the state (BULK lane).
    Load {
        /// Who sends.
        donor: Member,
    },
    /// Close every link to this member, also one that is just coming up, then answer with
    /// [`Core::handle_heard`]: nothing it sends may be confirmed any more. Do not refuse it for good.
    Fence(Member),
    /// Begin to read `peer`'s GROUP log at this byte.
    Open {
        /// Whose.
        peer: Member,
        /// From where.
        log_position: u64,
    },
    /// Begin to send the own GROUP lane to `peer`, log from this byte, with the current words.
    Attach {
        /// To whom.
        peer: Member,
        /// From where.
        log_position: u64,
    },
}

/// Why the group cannot go on, as far as this node can see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockedReason {
    /// The last agreed view it knows of.
    pub view: ViewId,
    /// Whether this node is a member of it (else it waits outside).
    pub member: bool,
    /// Nodes of that view it is connected with, itself included if it is one of them.
    pub present: Vec<NodeId>,
    /// Nodes of that view that are missing.
    pub missing: Vec<NodeId>,
    /// Nodes that are connected but have lost their records and may not vote.
    pub forgetful: Vec<NodeId>,
}

impl fmt::Display for BlockedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ");
        let n = self.present.len() + self.missing.len() + self.forgetful.len();
        write!(f, "no quorum of view {}: {} of {n} nodes present", self.view, self.present.len())?;
        if !self.present.is_empty() {
            write!(f, " ({})", list(&self.present))?;
        }
        if !self.missing.is_empty() {
            write!(f, "; missing {}", list(&self.missing))?;
        }
        if !self.forgetful.is_empty() {
            write!(f, "; restarted without their records {}", list(&self.forgetful))?;
        }
        Ok(())
    }
}

/// A control record or a row that no correct peer would send. The link it came on cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Where this incarnation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not in the group.
    Outside,
    /// Receiving state from a donor.
    Learner,
    /// In the current view.
    Member,
    /// Over: evicted or left.
    Gone,
}

/// The protocol core of one incarnation. See the module's documentation.
#[derive(Debug)]
pub struct Core {
    config: Config,
    current: Arc<View>,
    standing: Standing,
}

impl Core {
    /// A core that knows what `recovered` says, and nobody yet.
    pub fn new(now: Time, config: Config, recovered: Recovered) -> Core {
        let _ = now;
        Core {
            config,
            current: Arc::new(recovered.durable.decided.view),
            standing: Standing::Outside,
        }
    }

    // --- getters ---

    /// This incarnation.
    pub fn me(&self) -> Member {
        self.config.me
    }

    /// Where this incarnation stands.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The installed view, while this node is a member of it.
    pub fn view(&self) -> Option<&Arc<View>> {
        (self.standing == Standing::Member).then_some(&self.current)
    }

    /// The latest agreed view this node knows of, as a member or not.
    pub fn known_view(&self) -> &Arc<View> {
        &self.current
    }

    /// The own rank in the installed view.
    pub fn rank(&self) -> Option<Rank> {
        self.view().and_then(|v| v.rank_of(self.me()))
    }

    /// The view is about to end: its deliveries should be drained even if the application does not keep up, because
    /// the next view comes after the last of them.
    pub fn is_changing(&self) -> bool {
        false
    }

    /// Why the group cannot go on, if so.
    pub fn blocked(&self) -> Option<&BlockedReason> {
        None
    }

    /// Whether a read may be answered from local state: a quorum of the view, this node included, is in it with
    /// this node and its link was confirmed recently. `fresh(member)` says whether that member has confirmed
    /// to have heard from us no longer than a lease ago (`confirmed(link) + lease > now`). Ask *after* the read.
    pub fn lease_valid(&self, fresh: impl Fn(Member) -> bool) -> bool {
        self.view().is_some_and(|v| {
            v.quorum(
                v.members.iter().enumerate().fold(0, |m, (r, x)| m | u64::from(fresh(*x)) << r),
            )
        })
    }

    /// Ranks of the current view whose confirmations count for the read lease (the own one included); 0 when no
    /// read may be answered. The mask changes only in control calls; a driver may publish it to readers and ask
    /// [`View::quorum`] with it.
    pub fn lease_ranks(&self) -> u64 {
        0
    }

    /// Everything before this is durable at a quorum of the installed view's members.
    pub fn persisted_by_quorum(&self) -> Position {
        Position::ZERO
    }

    // --- hot path ---

    /// A member's words, read *before* the records handed over since. Old and equal values do nothing.
    pub fn handle_row(&mut self, rank: Rank, row: Row) -> Result<(), Malformed> {
        let _ = (rank, row);
        Ok(())
    }

    /// The next record of a member's GROUP log, or the own record just published. `Ok(false)`: the queue is
    /// full, come again with the same record.
    pub fn handle_record(&mut self, rank: Rank, record: Record) -> Result<bool, Malformed> {
        let _ = (rank, record);
        Ok(true)
    }

    /// Takes the next own index for a committed record, which must be published now. `None`: not now.
    pub fn assign(&mut self) -> Option<u64> {
        None
    }

    /// Publishes nulls up to where others are, and returns the own words. To be called when no committed record
    /// is left to assign, or none can be.
    pub fn row(&mut self) -> Row {
        Row::default()
    }

    /// The next message in the total order, once every member has received everything up to it.
    pub fn poll_delivery(&mut self) -> Option<Delivery> {
        None
    }

    // --- control path ---

    /// A link to this incarnation came up, and it begins with the record it gets next.
    pub fn handle_up(&mut self, now: Time, peer: Member) {
        let _ = (now, peer);
    }

    /// The link to this incarnation is gone. `heard`: when something of it was last confirmed at most.
    pub fn handle_dead(&mut self, now: Time, peer: Member, why: Why, heard: Time) {
        let _ = (now, peer, why, heard);
    }

    /// The answer to [`Event::Fence`]: links to `peer` are closed, nothing of it was confirmed after `at`
    /// ([`Time::ZERO`] if there was none). Each `Fence` must be answered, or the view change waits for ever.
    pub fn handle_heard(&mut self, now: Time, peer: Member, at: Time) {
        let _ = (now, peer, at);
    }

    /// A node refused this incarnation: it was removed from the group.
    pub fn handle_refused(&mut self, now: Time, by: NodeId) {
        let _ = (now, by);
    }

    /// A control record from `from`, in the order of its log.
    pub fn handle_control(
        &mut self,
        now: Time,
        from: Member,
        bytes: &[u8],
    ) -> Result<(), Malformed> {
        let _ = (now, from, bytes);
        Ok(())
    }

    /// The record with this ticket, and all before it, are durable.
    pub fn handle_stored(&mut self, now: Time, ticket: u64) {
        let _ = (now, ticket);
    }

    /// It is [`next_timeout`](Core::next_timeout) or later.
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
    }

    /// When to call [`handle_timeout`](Core::handle_timeout).
    pub fn next_timeout(&self) -> Option<Time> {
        None
    }

    /// The node wishes to leave the group. [`Event::Left`] comes when it may go. Reads are not answered any more.
    pub fn leave(&mut self, now: Time) {
        let _ = now;
    }

    /// This learner has loaded what its donor sent up to `state`, and follows.
    pub fn ready(&mut self, now: Time, state: Position) {
        let _ = (now, state);
    }

    /// The application made everything before `position` durable.
    pub fn report_persisted(&mut self, position: Position) {
        let _ = position;
    }

    // --- what it wants done ---

    /// The next control record to broadcast.
    pub fn poll_control(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// The next record to make durable, replacing the one before. May skip states nobody relies on.
    pub fn poll_store(&mut self) -> Option<(u64, Durable)> {
        None
    }

    /// The next thing that happened. [`Event::View`] switches the core to the new view.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
}

impl Durable {
    /// Bytes for the store.
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The record written by [`encode`](Durable::encode).
    pub fn decode(bytes: &[u8]) -> Result<Durable, Malformed> {
        let _ = bytes;
        Err(Malformed("not a record"))
    }
}
