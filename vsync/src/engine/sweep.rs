//! The loop of a node: everything that is ready, once around, then sleep if that was nothing.
//!
//! One thread owns the transport's poller and the protocol core, so the data path has no lock, and one sweep handles
//! everything that arrived together: rows are published once for a whole batch. The order inside a sweep is the core's
//! contract (see [`core`](crate::core)): a peer's row is read *before* its log, so that an index below NEXT without a
//! record is a null and nothing else.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use quintet_transport::{GROUP, LogWriter, Member, Poller, Time, clock};

use super::control::ControlOut;
use super::deliver::{Item, OWN, Remains};
use super::follow::Follower;
use super::gauges::Gauges;
use super::links::Links;
use super::outbox::Outbox;
use super::ring::{Descriptor, Kind};
use super::shared::{Command, Shared};
use super::storing::Storing;
use super::transfer::{Donor, Learner};
use crate::config::Limits;
use crate::core::{Core, MAX_MEMBERS, Position, Rank, Record, Row, ViewId, word};
use crate::event::{MessageId, Unresolved};
use crate::status::{Counters, ViewRecord};

/// Own messages published per sweep at most, so that peers hear of the first before the last is packed.
const PUBLISH_BATCH: usize = 256;

/// Why the loop ends.
pub(crate) enum End {
    Evicted(ViewId),
    Left,
    Stopped,
    Failed(Arc<str>),
}

/// Everything the poller's thread owns.
pub(crate) struct Engine {
    pub(crate) me: Member,
    pub(crate) limits: Limits,
    pub(crate) lease_ns: u64,
    pub(crate) poller: Poller,
    pub(crate) core: Core,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) links: Links,
    pub(crate) outbox: Outbox,
    pub(crate) control: ControlOut,
    pub(crate) storing: Storing,
    pub(crate) donor: Donor,
    pub(crate) learner: Learner,
    pub(crate) counters: Counters,
    pub(crate) history: Vec<ViewRecord>,
    pub(crate) end: Option<End>,
    /// The application wants to leave; not later than this.
    pub(crate) leaving: Option<Time>,
    /// Own messages delivered here.
    pub(crate) own_delivered: u64,
    /// Own log: for asking whether something is committed, and how far it may be reused.
    pub(crate) group_log: LogWriter,
    pub(crate) own: super::links::Reader,
    pub(crate) control_reclaimed: u64,
    /// Words as last set.
    pub(crate) row: Row,
    /// Own committed records wait for the core, which takes none at the moment.
    pub(crate) held: bool,
    /// DELIVERED as peers were last woken for it, and after how much more they are again.
    pub(crate) delivered_loud: Position,
    pub(crate) delivered_step: u64,
    pub(crate) persisted: Position,
    pub(crate) lease: LeaseSeen,
    pub(crate) gauges: Option<Gauges>,
    pub(crate) follower: Option<Follower>,
}

/// Inputs of the lease when it was computed last.
pub(crate) struct LeaseSeen {
    pub(crate) ranks: u64,
    pub(crate) confirmed: [u64; MAX_MEMBERS],
}

impl Engine {
    /// Runs until the node's end, and says why that came.
    pub(crate) fn run(mut self) {
        let mut now = clock::now();
        loop {
            let busy = self.sweep(now);
            if self.end.is_some() {
                break;
            }
            now = if busy { clock::now() } else { self.park(now) };
        }
        self.finish();
    }

    fn sweep(&mut self, now: Time) -> bool {
        self.counters.sweeps += 1;
        let mut busy = self.poller.poll(now);
        busy |= self.link_events(now);
        busy |= self.read_control(now);
        busy |= self.commands(now);
        busy |= self.stored(now);
        busy |= self.members(now);
        busy |= self.own_messages();
        self.words();
        if self.deliveries() {
            busy = true;
            self.words();
        }
        busy |= self.steer_leave(now);
        if self.core.next_timeout().is_some_and(|t| t <= now) {
            self.core.handle_timeout(now);
            busy = true;
        }
        busy |= self.core_outputs(now);
        busy |= self.pump_donor();
        busy |= self.pump_learner();
        busy |= self.control.pump(&mut self.poller);
        busy |= self.give_back(!busy);
        busy |= self.outbox.flush();
        self.update_lease();
        self.shared.set_persisted_by_quorum(self.core.persisted_by_quorum());
        self.poller.flush(now);
        if let Some(follower) = &mut self.follower {
            follower.flushed();
        }
        if self.shared.take_status_wanted() {
            self.publish_status(now);
        }
        self.show_gauges(now, false);
        busy
    }

    /// Rows and records of the other members.
    fn members(&mut self, now: Time) -> bool {
        let Some(view) = self.core.view() else { return false };
        let n = view.members.len();
        let mut busy = false;
        for rank in 0..n {
            busy |= self.member(now, rank);
        }
        busy
    }

    /// Row and records of one member, as far as they are visible.
    pub(crate) fn member(&mut self, now: Time, rank: usize) -> bool {
        let Some(link) = self.links.of_rank_mut(rank) else { return false };
        let (id, member) = (link.id, link.member);
        let (true, Some(reader)) = (link.alive, link.group.as_mut()) else { return false };
        let read = |w| self.poller.peer_word(id, GROUP, w);
        let mut row = Row {
            next: read(word::NEXT),
            received: Position(read(word::RECEIVED)),
            delivered: Position(read(word::DELIVERED)),
            persisted: Position(read(word::PERSISTED)),
        };
        let rank = Rank(rank as u8);
        let mut busy = false;
        let mut fault = None;
        while let Some(record) = self.poller.peek(id, GROUP, reader.at) {
            let (index, end) = (record.index, record.end);
            let record =
                Record { index, position: record.position, end, len: record.payload.len() as u32 };
            match self.core.handle_record(rank, record) {
                Ok(true) => {
                    reader.at = end;
                    busy = true;
                }
                Ok(false) => {
                    // Not taken yet: nothing at or above it may be called a null.
                    row.next = row.next.min(index);
                    break;
                }
                Err(e) => {
                    fault = Some(e);
                    break;
                }
            }
        }
        if fault.is_none() && !self.poller.intact(id) {
            // Its log is lost to us, so an index without a record is no null. The next poll tells that the link is dead.
            return busy;
        }
        if let Some(follower) = &mut self.follower {
            follower.received(row.received);
        }
        if fault.is_none() {
            fault = self.core.handle_row(rank, row).err();
        }
        if let Some(e) = fault {
            self.distrust(now, id, member, &e);
            return true;
        }
        busy
    }

    /// Own committed messages get their indices and go out.
    fn own_messages(&mut self) -> bool {
        let Some(rank) = self.core.rank() else {
            self.held = true;
            return false;
        };
        let mut published = 0;
        self.held = false;
        while published < PUBLISH_BATCH {
            if self.poller.committed(GROUP).is_none() {
                break;
            }
            let Some(index) = self.core.assign() else {
                self.held = true;
                break;
            };
            let p = self.poller.publish(GROUP, index);
            published += 1;
            if let (Some(follower), Some(view)) = (&mut self.follower, self.core.view()) {
                follower.placed(MessageId(p.position), view.place(rank, index));
            }
            let record =
                Record { index, position: p.position, end: self.poller.head(GROUP), len: p.len };
            match self.core.handle_record(rank, record) {
                Ok(true) => {}
                // `assign` looked at the own queue first.
                Ok(false) | Err(_) => {
                    debug_assert!(false, "the core refuses the record it numbered")
                }
            }
        }
        self.counters.sent += published as u64;
        published > 0
    }

    /// Nulls, and the own words where they changed.
    fn words(&mut self) {
        let row = self.core.row();
        let old = self.row;
        if row == old {
            return;
        }
        self.row = row;
        if row.next > old.next {
            self.poller.set_word(GROUP, word::NEXT, row.next);
        }
        if row.received > old.received {
            self.poller.set_word(GROUP, word::RECEIVED, row.received.0);
        }
        if row.delivered > old.delivered {
            // Nobody waits for it but a sender with a full window, so only a good part of a window is worth a wake-up.
            if row.delivered.0 >= self.delivered_loud.0 + self.delivered_step {
                self.delivered_loud = row.delivered;
                self.poller.set_word(GROUP, word::DELIVERED, row.delivered.0);
            } else {
                self.poller.set_word_quietly(GROUP, word::DELIVERED, row.delivered.0);
            }
        }
        if row.persisted > old.persisted {
            self.poller.set_word(GROUP, word::PERSISTED, row.persisted.0);
        }
    }

    /// Hands messages to the application: while it keeps up, or all that is left of a view that ends.
    pub(crate) fn deliveries(&mut self) -> bool {
        let mut something = false;
        while self.outbox.is_open() || self.core.is_changing() {
            let Some(d) = self.core.poll_delivery() else { break };
            something = true;
            let source = if Some(d.rank) == self.core.rank() {
                self.own_delivered += 1;
                if let Some(follower) = &mut self.follower {
                    follower.delivered(MessageId(d.record.position));
                }
                OWN
            } else {
                match self.links.of_rank(d.rank.index()).and_then(|l| l.group.as_ref()) {
                    Some(reader) => reader.source,
                    // The core has the record from that link's log.
                    None => unreachable!("a delivery from a rank that was never read"),
                }
            };
            self.counters.delivered += 1;
            self.counters.delivered_bytes += u64::from(d.record.len);
            self.outbox.message(Descriptor {
                kind: Kind::Message,
                slot: source,
                len: d.record.len,
                at: d.at.0,
                position: d.record.position,
                end: d.record.end,
            });
        }
        something
    }

    /// Gives log space back: to peers as the application consumes, to own senders as all members have. Lazily while
    /// there is other work: nobody is woken for a few bytes.
    fn give_back(&mut self, idle: bool) -> bool {
        let step = if idle { 1 } else { (self.limits.group_log / 16) as u64 };
        let mut something = false;
        for slot in 0..self.links.len() {
            let Some(link) = self.links.slot(slot) else { continue };
            let (id, alive) = (link.id, link.alive);
            if let Some(reader) = link.group.as_mut().filter(|_| alive) {
                let consumed = reader.consumed();
                if consumed >= reader.released + step {
                    reader.released = consumed;
                    self.poller.release(id, GROUP, consumed);
                    something = true;
                }
            }
        }
        if let Some(view) = self.core.view() {
            let mut low = self.own.consumed();
            for (rank, member) in view.members.iter().enumerate() {
                if *member != self.me {
                    low = low.min(match self.links.of_rank(rank).filter(|l| l.attached) {
                        Some(link) => self.poller.released(link.id, GROUP),
                        None => 0,
                    });
                }
            }
            if low >= self.own.released + step {
                self.own.released = low;
                self.poller.reclaim(GROUP, low);
                something = true;
            }
        }
        something | self.give_back_control()
    }

    fn give_back_control(&mut self) -> bool {
        use quintet_transport::CONTROL;
        let head = self.poller.head(CONTROL);
        if head == self.control_reclaimed {
            return false;
        }
        let mut low = head;
        for link in self.links.iter().filter(|l| l.alive) {
            low = low.min(self.poller.released(link.id, CONTROL));
        }
        if low > self.control_reclaimed {
            self.control_reclaimed = low;
            self.poller.reclaim(CONTROL, low);
            return true;
        }
        false
    }

    fn park(&mut self, now: Time) -> Time {
        self.counters.parks += 1;
        let until = self.core.next_timeout();
        let head = self.poller.head(GROUP);
        let Self { poller, commands, storing, shared, group_log, persisted, held, .. } = self;
        poller.park(now, until, &mut || {
            !commands.is_empty()
                || storing.is_ready()
                || shared.persisted() != *persisted
                || (!*held && group_log.is_committed(head))
                || shared.is_status_wanted()
        })
    }

    /// The node's end: everything is closed before the application hears of it, so that it can start the next
    /// incarnation at once.
    fn finish(mut self) {
        self.shared.close();
        self.abort_donations();
        let now = clock::now();
        self.publish_status(now);
        self.show_gauges(now, true);
        let end = self.end.take().unwrap_or(End::Stopped);
        let last = match end {
            End::Evicted(view) => Some(Item::Evicted(view)),
            End::Left => Some(Item::Left),
            End::Failed(why) => Some(Item::Failed(why)),
            End::Stopped => None,
        };
        let remains = Box::new(self.remains());
        let Self { poller, outbox, storing, .. } = self;
        drop(poller);
        drop(storing);
        outbox.end(remains, last);
    }

    /// Own messages that are published and not delivered; where those begin that are not published.
    fn remains(&self) -> Remains {
        let published = self.core.undelivered().map(|r| MessageId(r.position)).collect();
        let unresolved = if self.core.departed_at_trim() {
            Unresolved { indeterminate: Vec::new(), not_delivered: published }
        } else {
            Unresolved { indeterminate: published, not_delivered: Vec::new() }
        };
        Remains { unresolved, log: self.group_log.clone(), head: self.poller.head(GROUP) }
    }
}
