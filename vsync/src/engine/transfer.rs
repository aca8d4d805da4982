//! Both sides of a state transfer, as the poller sees them. See [`bulk`](super::bulk).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use quintet_transport::{BULK, LinkId, Member};

use super::bulk::{self, Transfer, Waiting};
use super::control::BulkBegins;
use super::deliver::{Item, Source};
use super::links::Reader;
use super::ring::{Descriptor, Kind};
use super::sweep::{End, Engine};
use crate::core::{Standing, ViewId};
use crate::donation::BulkWriter;
use crate::event::Donation;

/// The donor's side.
#[derive(Default)]
pub(crate) struct Donor {
    waiting: Waiting,
    active: Option<Active>,
    sequence: u64,
    reclaimed: u64,
}

struct Active {
    learner: Member,
    link: LinkId,
    transfer: Arc<Transfer>,
    alive: bool,
}

/// The learner's side.
#[derive(Default)]
pub(crate) struct Learner {
    /// The donor's link while its state is coming.
    link: Option<LinkId>,
    complete: bool,
    /// End of the last record with state in it.
    last_chunk: u64,
}

impl Engine {
    // ---- donor ----

    /// The core wants this node to send its state.
    pub(crate) fn donate(&mut self, learner: Member) {
        self.donor.waiting.push(learner);
        self.start_donation();
    }

    fn start_donation(&mut self) {
        while self.donor.active.is_none() {
            let Some(learner) = self.donor.waiting.pop() else { return };
            let Some(link) = self.links.live(learner).map(|l| l.id) else { continue };
            let from = self.poller.head(BULK);
            self.poller.attach(link, BULK, from);
            self.control.bulk_begins(BulkBegins { to: learner, from });
            let transfer = Arc::new(Transfer::default());
            let writer = BulkWriter {
                transfer: transfer.clone(),
                log: self.poller.log(BULK),
                shared: self.shared.clone(),
                learner,
                piece: self.limits.bulk_log / 8 - bulk::HEADER - 64,
                patience: self.limits.transfer_patience,
                finished: false,
            };
            self.donor.active = Some(Active { learner, link, transfer, alive: true });
            tracing::info!(me = %self.me.node, %learner, "sending state");
            self.outbox.item(Item::Donate(Box::new(Donation { learner, writer })));
        }
    }

    /// A link is gone: whoever wrote to it or waited for it need not.
    pub(crate) fn donor_link_gone(&mut self, link: LinkId, member: Member) {
        self.donor.waiting.remove(member);
        if let Some(active) = self.donor.active.as_mut().filter(|a| a.link == link) {
            active.alive = false;
            active.transfer.abort();
        }
    }

    /// Publishes what the writer wrote, frees what the learner consumed. True if anything moved.
    pub(crate) fn pump_donor(&mut self) -> bool {
        let Some(active) = &self.donor.active else { return false };
        let mut something = false;
        while let Some(committed) = self.poller.committed(BULK) {
            self.poller.publish(BULK, self.donor.sequence);
            self.donor.sequence += 1;
            self.counters.bulk_bytes += committed.len as u64;
            something = true;
        }
        let head = self.poller.head(BULK);
        let released = if active.alive { self.poller.released(active.link, BULK) } else { head };
        if released > self.donor.reclaimed {
            self.donor.reclaimed = released;
            self.poller.reclaim(BULK, released);
            active.transfer.progressed();
            something = true;
        }
        if active.transfer.is_writer_gone() && released == head {
            if active.alive {
                self.poller.detach(active.link, BULK);
            }
            tracing::info!(me = %self.me.node, learner = %active.learner, "state sent");
            self.donor.active = None;
            self.start_donation();
            something = true;
        }
        something
    }

    /// Nobody will read any more: writers end.
    pub(crate) fn abort_donations(&mut self) {
        if let Some(active) = &self.donor.active {
            active.transfer.abort();
        }
    }

    // ---- learner ----

    /// A peer says where its state for somebody begins.
    pub(crate) fn bulk_begins(&mut self, from: LinkId, b: BulkBegins) {
        if b.to != self.me || self.core.standing() == Standing::Member {
            return;
        }
        if self.learner.link.is_some() {
            // Part of another donor's state has reached the application: only a new start makes it whole.
            self.end = Some(End::Evicted(self.known_view()));
            return;
        }
        let Some(link) = self.links.by_id(from).filter(|l| l.alive) else { return };
        let member = link.member;
        self.poller.open(from, BULK, b.from);
        let Some(bytes) = self.poller.peer_bytes(from, BULK) else { return };
        let source = self.links.new_source();
        let consumed = Arc::new(AtomicU64::new(b.from));
        if let Some(link) = self.links.by_id(from) {
            link.bulk =
                Some(Reader { source, at: b.from, released: b.from, consumed: consumed.clone() });
        }
        let wake_every = (self.limits.bulk_log / 16) as u64;
        let source_item = Item::Source {
            slot: source,
            source: Some(Box::new(Source { member, own: false, bytes, consumed, wake_every })),
        };
        // Nothing but this state may reach the application before it is whole.
        self.outbox.close_gate();
        self.outbox.past_gate(source_item);
        self.learner = Learner { link: Some(from), complete: false, last_chunk: 0 };
        tracing::info!(me = %self.me.node, donor = %member, "receiving state");
    }

    /// The donor's link died: without the end of its state this incarnation cannot join.
    pub(crate) fn learner_link_gone(&mut self, link: LinkId) {
        if self.learner.link == Some(link) && !self.learner.complete {
            tracing::warn!(me = %self.me.node, "the donor is gone before its state was complete; starting over");
            self.end = Some(End::Evicted(self.known_view()));
        }
    }

    /// Hands transfer bytes to the application, and gives back what it consumed. True if anything moved.
    pub(crate) fn pump_learner(&mut self) -> bool {
        let Some(id) = self.learner.link else { return false };
        let Some(reader) = self.links.by_id(id).and_then(|l| l.bulk.as_mut()) else { return false };
        let mut something = false;
        while !self.learner.complete && self.outbox.has_room() {
            let Some(record) = self.poller.peek(id, BULK, reader.at) else { break };
            something = true;
            reader.at = record.end;
            let Some((kind, _)) = record.payload.split_first_chunk::<{ bulk::HEADER }>() else {
                continue;
            };
            match u64::from_le_bytes(*kind) {
                bulk::DATA => {
                    self.learner.last_chunk = record.end;
                    self.outbox.past_gate(Item::Descriptor(Descriptor {
                        kind: Kind::Chunk,
                        slot: reader.source,
                        len: record.payload.len() as u32,
                        at: 0,
                        position: record.position,
                        end: record.end,
                    }));
                }
                bulk::FINISH => {
                    self.learner.complete = true;
                    self.outbox.open_gate();
                }
                bulk::ABORT => {
                    tracing::warn!(me = %self.me.node, "the donor gave up; starting over");
                    self.end = Some(End::Evicted(self.core.known_view().id));
                    break;
                }
                // A newer donor may say more than this program understands.
                _ => {}
            }
        }
        let mut consumed = reader.consumed();
        let over = self.learner.complete && consumed >= self.learner.last_chunk;
        if over {
            // The end mark is consumed here, not by the application.
            consumed = reader.at;
        }
        if consumed > reader.released {
            reader.released = consumed;
            self.poller.release(id, BULK, consumed);
            something = true;
        }
        if over {
            self.learner.link = None;
            // The donor goes on to serve others from the same log.
            self.poller.shut(id, BULK);
            self.close_bulk(id);
        }
        something
    }

    /// The application lets go of a link's bulk memory.
    pub(crate) fn close_bulk(&mut self, link: LinkId) {
        if let Some(reader) = self.links.by_id(link).and_then(|l| l.bulk.take()) {
            self.outbox.item(Item::Source { slot: reader.source, source: None });
            self.links.free_source(reader.source);
        }
    }

    pub(crate) fn known_view(&self) -> ViewId {
        self.core.known_view().id
    }
}
