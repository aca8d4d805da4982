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
//!
//! ## Where things are
//! `order` is the hot path. `peers` is the table of facts; `change` concludes from it what to do next; `acceptor`,
//! `value` and `install` are the three steps of a view change; `joining` brings learners in; `suspicion` and
//! `quorum` are the two pure functions everybody must agree on; `codec` is the bytes.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod acceptor;
mod change;
mod codec;
mod config;
mod event;
mod install;
mod joining;
mod order;
mod peers;
mod quorum;
mod suspicion;
#[cfg(test)]
mod tests;
mod timers;
mod value;
mod view;

use std::collections::VecDeque;
use std::sync::Arc;

use quintet_transport::{Member, NodeId, Time};

use acceptor::Acceptor;
use change::Attempt;
use codec::{Announce, Control};
use joining::Joining;
use order::Order;
use peers::Peers;
use timers::{Timer, Timers};

#[cfg(feature = "fuzz")]
pub use codec::check_control;
pub use config::{Bug, Config, Recovered};
pub use event::{BlockedReason, Delivery, Event, Malformed, Record, Row, Standing, word};
pub use quorum::quorum;
pub use view::*;

/// The protocol core of one incarnation. See the module's documentation.
#[derive(Debug)]
pub struct Core {
    config: Config,
    /// When this incarnation began: nothing an earlier one confirmed is later.
    started: Time,
    /// The time of the last call that told it.
    clock: Time,
    standing: Standing,
    leaving: bool,
    /// What the application recovered when it started.
    recovered: Position,
    /// What it holds while it stands outside.
    state: Position,
    /// The operator's word, given here: a restart need not reach what is owed, if that is no more than this.
    given_up: Option<Position>,
    /// The latest agreed view: installed by a member, adopted by others.
    decided: Value,
    current: Arc<View>,
    /// The view after it, agreed but not installed: the last deliveries or the driver are outstanding.
    installing: Option<Value>,
    order: Order,
    peers: Peers,
    /// Members of the current view we lost our link to, for the rest of the view.
    lost: Vec<Departure>,
    evidence_at: Option<Time>,
    wedged_at: Option<Time>,
    blocked: Option<BlockedReason>,
    /// Outside, with a quorum.
    met: bool,
    acceptor: Acceptor,
    attempt: Attempt,
    /// Attempts that failed since the last view.
    failures: u32,
    joining: Joining,
    timers: Timers,
    controls: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    /// What ends this incarnation, once its record is durable.
    last_words: Option<Event>,
    entropy: u64,
}

impl Core {
    /// A core that knows what `recovered` says, and nobody yet.
    pub fn new(now: Time, config: Config, recovered: Recovered) -> Core {
        assert!(config.nodes.contains(&config.me.node), "a node is one of the configured nodes");
        let Recovered { durable, state } = recovered;
        let mut order = Order::new(config.queue);
        let mut core = Core {
            started: now,
            clock: now,
            standing: Standing::Outside,
            leaving: false,
            recovered: state,
            state,
            given_up: None,
            current: Arc::new(durable.decided.view.clone()),
            decided: durable.decided,
            installing: None,
            peers: Peers::default(),
            lost: Vec::new(),
            evidence_at: None,
            wedged_at: None,
            blocked: None,
            met: false,
            acceptor: Acceptor::new(durable.promised, durable.accepted),
            attempt: Attempt::Idle,
            failures: 0,
            joining: Joining::default(),
            timers: Timers::default(),
            controls: VecDeque::new(),
            events: VecDeque::new(),
            last_words: None,
            entropy: config.entropy,
            order: Order::new(1),
            config,
        };
        order.bug_unstable = core.bug(Bug::DeliversUnstable);
        order.bug_reuse = core.bug(Bug::NullOverRecord);
        order.bug_loses = core.bug(Bug::LosesRest);
        order.bug_ahead = core.bug(Bug::CountsAhead);
        core.order = order;
        if core.bug(Bug::ForgetsPromise) {
            core.acceptor = Acceptor::new(None, None);
        }
        core.timers.set(Timer::Patience, now + core.config.settle * 2);
        core.steer(now);
        core
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
        self.wedged_at.is_some() || self.installing.is_some()
    }

    /// Why the group cannot go on, if so.
    pub fn blocked(&self) -> Option<&BlockedReason> {
        self.blocked.as_ref()
    }

    /// Whether the view is wedged: a change is under way, nothing is sent or delivered until the next view.
    pub fn wedged(&self) -> bool {
        self.wedged_at.is_some()
    }

    /// Whether a read may be answered from local state: a quorum of the view, this node included, is in it with
    /// this node and its link was confirmed recently. `fresh(member)` says whether that member has confirmed
    /// to have heard from us no longer than a lease ago (`confirmed(link) + lease > now`). Ask *after* the read.
    pub fn lease_valid(&self, fresh: impl Fn(Member) -> bool) -> bool {
        let ranks = self.lease_ranks();
        if self.bug(Bug::ReadsOnWaking) {
            return ranks != 0;
        }
        let fresh = suspicion::ranks(ranks)
            .filter(|r| self.current.members[*r] == self.me() || fresh(self.current.members[*r]))
            .fold(0, |mask, r| mask | 1 << r);
        ranks != 0 && self.current.quorum(fresh)
    }

    /// Ranks of the current view whose confirmations count for the read lease (the own one included); 0 when no
    /// read may be answered. The mask changes only in control calls; a driver may publish it to readers and ask
    /// [`View::quorum`] with it.
    ///
    /// A member that promised to end its view answers no read until the next one: it cannot know how far others
    /// have gone on. A peer counts if it said on its present link that it is in our view and has not lost us.
    pub fn lease_ranks(&self) -> u64 {
        if self.standing != Standing::Member
            || self.leaving
            || self.wedged_at.is_some()
            || self.installing.is_some()
        {
            return 0;
        }
        let me = self.me();
        let counts = |m: Member| {
            m == me
                || self.peers.linked(m).and_then(|p| p.announce.as_ref()).is_some_and(|a| {
                    let with_us =
                        a.standing == Standing::Member && a.decided.view.id == self.current.id;
                    with_us
                        && !a.lost.iter().chain(&self.lost).any(|d| d.member == me || d.member == m)
                })
        };
        self.current
            .members
            .iter()
            .enumerate()
            .fold(0, |mask, (r, m)| mask | u64::from(counts(*m)) << r)
    }

    /// Everything before this is durable at a quorum of the installed view's members.
    pub fn persisted_by_quorum(&self) -> Position {
        self.order.persisted_by_quorum()
    }

    /// Everything before this is delivered here.
    pub fn delivered(&self) -> Position {
        self.order.delivered()
    }

    /// Own records, in order, that were published and are not delivered here; also when this incarnation is over.
    pub fn undelivered(&self) -> impl Iterator<Item = &Record> {
        self.order.undelivered()
    }

    /// This incarnation is over and delivered its last view to the trim, like everybody: what is
    /// [`undelivered`](Self::undelivered) no member will ever deliver.
    pub fn departed_at_trim(&self) -> bool {
        // A view that it was in, or that came after one it might have been in, could deliver more.
        let last = &self.decided.view;
        self.standing == Standing::Gone
            && !last.contains(self.me())
            && self.order.ended().is_some_and(|view| view.next() == last.id)
    }

    // --- hot path ---

    /// A member's words, read *before* the records handed over since. Old and equal values do nothing.
    pub fn handle_row(&mut self, rank: Rank, row: Row) -> Result<(), Malformed> {
        self.order.handle_row(rank, row)
    }

    /// The next record of a member's GROUP log, or the own record just published. `Ok(false)`: the queue is
    /// full, come again with the same record.
    pub fn handle_record(&mut self, rank: Rank, record: Record) -> Result<bool, Malformed> {
        self.order.handle_record(rank, record)
    }

    /// Takes the next own index for a committed record, which must be published now. `None`: not now.
    pub fn assign(&mut self) -> Option<u64> {
        if self.standing == Standing::Member { self.order.assign() } else { None }
    }

    /// Publishes nulls up to where others are, and returns the own words. To be called when no committed record
    /// is left to assign, or none can be.
    pub fn row(&mut self) -> Row {
        self.order.row()
    }

    /// The next message in the total order, once every member has received everything up to it.
    pub fn poll_delivery(&mut self) -> Option<Delivery> {
        if self.standing == Standing::Member { self.order.poll_delivery() } else { None }
    }

    /// The application made everything before `position` durable.
    pub fn report_persisted(&mut self, position: Position) {
        self.order.report_persisted(position);
    }

    // --- control path ---

    /// A link to this incarnation came up, and it begins with the record it gets next.
    pub fn handle_up(&mut self, now: Time, peer: Member) {
        self.clock = now;
        if self.standing == Standing::Gone || peer.node == self.me().node {
            return;
        }
        if let Some(old) = self.peers.up_on(peer.node) {
            let why = if old == peer { Why::Closed } else { Why::Restarted };
            self.link_lost(now, old, why, now);
        }
        if self.peers.up(peer) {
            self.restate();
        }
        self.steer(now);
    }

    /// The link to this incarnation is gone. `heard`: when something of it was last confirmed at most.
    pub fn handle_dead(&mut self, now: Time, peer: Member, why: Why, heard: Time) {
        self.clock = now;
        if self.standing == Standing::Gone {
            return;
        }
        self.link_lost(now, peer, why, heard);
        self.steer(now);
    }

    /// The answer to [`Event::Fence`]: links to `peer` are closed, nothing of it was confirmed after `at`
    /// ([`Time::ZERO`] if there was none). Each `Fence` must be answered, or the view change waits for ever.
    pub fn handle_heard(&mut self, now: Time, peer: Member, at: Time) {
        self.clock = now;
        self.fenced(now, peer, at);
        self.steer(now);
    }

    /// A node refused this incarnation: it was removed from the group.
    pub fn handle_refused(&mut self, now: Time, by: NodeId) {
        let _ = by;
        self.clock = now;
        self.evict(self.current.id.next());
    }

    /// A control record from `from`, in the order of its log.
    pub fn handle_control(
        &mut self,
        now: Time,
        from: Member,
        bytes: &[u8],
    ) -> Result<(), Malformed> {
        self.clock = now;
        let control = Control::decode(bytes)?;
        if self.standing == Standing::Gone || !self.peers.is_up(from) {
            return Ok(());
        }
        match control {
            Control::Announce(announce) => self.on_announce(from, announce)?,
            Control::Join(join) => self.on_join(from, join),
            Control::Donate { learner, donor } => self.on_donate(learner, donor),
            Control::Prepare { view, ballot } => self.on_prepare(now, from, view, ballot)?,
            Control::Promise(promise) => self.on_promise(from, promise)?,
            Control::Accept { view, ballot, value } => {
                self.on_accept(now, from, view, ballot, value)?
            }
            Control::Accepted { view, ballot } => self.on_accepted(from, view, ballot),
            Control::Nack { view, ballot, promised } => self.on_nack(now, view, ballot, promised),
            Control::Decide { value } => self.learn(value)?,
            Control::Start { view, log_position } => self.on_start(from, view, log_position),
        }
        self.steer(now);
        Ok(())
    }

    /// The record with this ticket, and all before it, are durable.
    pub fn handle_stored(&mut self, now: Time, ticket: u64) {
        self.clock = now;
        self.on_stored(ticket);
        if !self.acceptor.unstored() {
            self.events.extend(self.last_words.take());
        }
        self.steer(now);
    }

    /// It is [`next_timeout`](Core::next_timeout) or later.
    pub fn handle_timeout(&mut self, now: Time) {
        self.clock = now;
        if self.standing != Standing::Gone {
            self.on_timeout(now);
            self.steer(now);
        }
    }

    /// When to call [`handle_timeout`](Core::handle_timeout).
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The node wishes to leave the group. [`Event::Left`] comes when it may go. Reads are not answered any more.
    pub fn leave(&mut self, now: Time) {
        self.clock = now;
        if self.standing == Standing::Gone || self.leaving {
            return;
        }
        self.leaving = true;
        if self.standing == Standing::Member {
            self.announce();
            self.steer(now);
        } else {
            self.go(Event::Left);
        }
    }

    /// This learner has loaded what its donor sent up to `state`, and follows.
    pub fn ready(&mut self, now: Time, state: Position) {
        self.clock = now;
        if self.standing == Standing::Learner {
            self.state = state;
            self.joining.ready = true;
            self.steer(now);
        }
    }

    /// The operator gives up what was acknowledged and is not here, up to `owed`: the group is restarted from the longest
    /// state of those present, and the new view says so ([`Origin::RecoveredBelow`]). The last resort, when whatever held
    /// the state is gone for good. False, and nothing happens, unless this node is [`blocked`](Core::blocked) for
    /// want of that state and of no more than `owed`.
    pub fn recover(&mut self, now: Time, owed: Position) -> bool {
        self.clock = now;
        let short = self.blocked.as_ref().and_then(|b| b.owed);
        if short.is_none_or(|short| short.owed > owed) {
            return false;
        }
        if self.given_up < Some(owed) {
            self.given_up = Some(owed);
            // Whoever proposes has to know.
            self.announce();
            self.steer(now);
        }
        true
    }

    // --- what it wants done ---

    /// The next control record to broadcast.
    pub fn poll_control(&mut self) -> Option<Vec<u8>> {
        self.controls.pop_front()
    }

    /// The next record to make durable, replacing the one before. May skip states nobody relies on.
    pub fn poll_store(&mut self) -> Option<(u64, Durable)> {
        let ticket = self.acceptor.store_due()?;
        let decided = self.decided.clone();
        let Acceptor { promised, accepted, .. } = &self.acceptor;
        Some((ticket, Durable { decided, promised: *promised, accepted: accepted.clone() }))
    }

    /// The next thing that happened. [`Event::View`] switches the core to the new view.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.complete_install();
        }
        self.events.pop_front()
    }

    // --- shared by the parts ---

    fn bug(&self, bug: Bug) -> bool {
        #[cfg(feature = "canary")]
        return self.config.bug == Some(bug);
        #[cfg(not(feature = "canary"))]
        {
            let _ = bug;
            false
        }
    }

    fn broadcast(&mut self, control: &Control) {
        self.controls.push_back(control.encode());
    }

    /// The latest agreed value this node knows, installed or about to be.
    fn latest(&self) -> &Value {
        self.installing.as_ref().unwrap_or(&self.decided)
    }

    /// Says where this node stands.
    fn announce(&mut self) {
        let pending = self.installing.is_some();
        let announce = Announce {
            standing: self.standing,
            leaving: self.leaving,
            votes: self.votes(),
            decided: self.latest().clone(),
            lost: if pending { Vec::new() } else { self.lost.clone() },
            state: self.state,
            given_up: self.given_up,
        };
        self.broadcast(&Control::Announce(announce));
    }

    /// Says everything again that a peer with a new link may have missed.
    fn restate(&mut self) {
        self.announce();
        self.restate_join();
        self.restate_attempt();
        self.restate_vote();
    }

    /// A pause up to `most`, drawn from the entropy handed in (splitmix64).
    fn jitter(&mut self, most: std::time::Duration) -> std::time::Duration {
        self.entropy = self.entropy.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.entropy;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        most.mul_f64((z >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// This incarnation is over.
    fn go(&mut self, last: Event) {
        if self.standing == Standing::Gone {
            return;
        }
        self.standing = Standing::Gone;
        self.installing = None;
        self.attempt = Attempt::Idle;
        self.timers.clear();
        self.announce();
        // Who ends with a view that is not recorded yet, ends when it is.
        if self.acceptor.unstored() {
            self.last_words = Some(last);
        } else {
            self.events.push_back(last);
        }
    }

    fn evict(&mut self, view: ViewId) {
        self.go(if self.leaving { Event::Left } else { Event::Evicted(view) });
    }
}
