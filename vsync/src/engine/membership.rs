//! Links, control records, and what the core decides about them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use quintet_transport::{CONTROL, Event as LinkEvent, Evidence, GROUP, LinkId, Member, Time};

use super::control::{self, Incoming};
use super::deliver::{Item, Source};
use super::links::{Link, Reader};
use super::shared::Command;
use super::sweep::{End, Engine};
use crate::core::{Event, Malformed, View, Why};
use crate::event::{MessageId, ViewChange};
use crate::status::{HISTORY, ViewRecord};

/// How long a member that wants to leave waits for its last messages to be delivered.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

fn why(evidence: Evidence) -> Why {
    match evidence {
        Evidence::ProcessExited => Why::Exited,
        Evidence::Restarted => Why::Restarted,
        Evidence::PortUnreachable => Why::Unreachable,
        Evidence::HeartbeatMissed => Why::Silent,
        _ => Why::Closed,
    }
}

impl Engine {
    /// Links that came and went.
    pub(crate) fn link_events(&mut self, now: Time) -> bool {
        let mut something = false;
        while let Some(event) = self.poller.poll_event() {
            something = true;
            match event {
                LinkEvent::Up { link, peer, path, control_from } => {
                    tracing::info!(me = %self.me.node, %peer, %path, "link up");
                    self.links.insert(Link::new(link, peer, control_from));
                    self.core.handle_up(now, peer);
                }
                LinkEvent::Dead { link, evidence, heard, .. } => {
                    let Some(member) = self.links.by_id(link).map(|l| l.member) else { continue };
                    tracing::info!(me = %self.me.node, peer = %member, %evidence, "link dead");
                    // What it had sent before it died counts.
                    self.last_words(now, link, member);
                    self.link_gone(now, link, member, why(evidence), heard);
                }
                LinkEvent::Refused { node } => self.core.handle_refused(now, node),
                LinkEvent::Rail { link, rail } => {
                    if let Some(member) = self.links.by_id(link).map(|l| l.member) {
                        self.outbox.item(Item::Rail(member.node, rail));
                    }
                }
                LinkEvent::Path { link, path, reason } => {
                    if let Some(member) = self.links.by_id(link).map(|l| l.member) {
                        self.outbox.item(Item::Path(member.node, path, reason));
                    }
                }
                LinkEvent::Suspected { .. } | LinkEvent::Trusted { .. } => {}
            }
        }
        something
    }

    fn last_words(&mut self, now: Time, link: LinkId, member: Member) {
        self.control_of(now, link);
        let rank = self.core.view().and_then(|v| v.rank_of(member));
        if let Some(rank) = rank
            && self.links.of_rank(rank.index()).is_some_and(|l| l.id == link)
        {
            self.member(now, rank.index());
        }
    }

    fn link_gone(&mut self, now: Time, link: LinkId, member: Member, why: Why, heard: Time) {
        let Some(l) = self.links.by_id(link) else { return };
        if !l.alive {
            return;
        }
        l.alive = false;
        self.donor_link_gone(link, member);
        self.learner_link_gone(link);
        self.core.handle_dead(now, member, why, heard);
        if !self.core.view().is_some_and(|v| v.contains(member)) {
            self.forget(link);
        }
    }

    /// A peer that breaks the protocol is treated as dead.
    pub(crate) fn distrust(&mut self, now: Time, link: LinkId, member: Member, e: &Malformed) {
        tracing::warn!(me = %self.me.node, peer = %member, error = %e, "closed the link");
        let heard = self.poller.heard(link);
        self.poller.close(link);
        self.link_gone(now, link, member, Why::Closed, heard);
    }

    /// Lets go of a dead link. The application keeps its memory until it has passed what points into it.
    fn forget(&mut self, link: LinkId) {
        self.close_bulk(link);
        if let Some(l) = self.links.remove(link) {
            if let Some(reader) = l.group {
                self.outbox.item(Item::Source { slot: reader.source, source: None });
                self.links.free_source(reader.source);
            }
            self.poller.forget(link);
        }
    }

    /// Control records of all links.
    pub(crate) fn read_control(&mut self, now: Time) -> bool {
        let mut something = false;
        for slot in 0..self.links.len() {
            if let Some(id) = self.links.slot(slot).filter(|l| l.alive).map(|l| l.id) {
                something |= self.control_of(now, id);
            }
        }
        something
    }

    fn control_of(&mut self, now: Time, id: LinkId) -> bool {
        let Some(link) = self.links.by_id(id) else { return false };
        let (member, before) = (link.member, link.control_at);
        let mut at = before;
        while let Some(record) = self.poller.peek(id, CONTROL, at) {
            at = record.end;
            self.counters.control += 1;
            let result = match control::parse(record.payload) {
                Some(Incoming::Core(body)) => self.core.handle_control(now, member, body),
                Some(Incoming::BulkBegins(b)) => {
                    self.bulk_begins(id, b);
                    Ok(())
                }
                None => Err(Malformed("a control record of an unknown kind")),
            };
            if let Err(e) = result {
                self.distrust(now, id, member, &e);
                return true;
            }
        }
        if at == before {
            return false;
        }
        if let Some(link) = self.links.by_id(id) {
            link.control_at = at;
        }
        self.poller.release(id, CONTROL, at);
        true
    }

    /// What the application asked for.
    pub(crate) fn commands(&mut self, now: Time) -> bool {
        let mut something = false;
        let persisted = self.shared.persisted();
        if persisted != self.persisted {
            self.persisted = persisted;
            self.core.report_persisted(persisted);
            something = true;
        }
        while let Ok(command) = self.commands.try_recv() {
            something = true;
            match command {
                Command::Ready(state) => self.core.ready(now, state),
                Command::Leave => {
                    self.shared.refuse_sends();
                    self.leaving.get_or_insert(now + LEAVE_PATIENCE);
                }
                Command::Recover(owed) => {
                    let done = self.core.recover(now, owed);
                    tracing::warn!(me = %self.me.node, %owed, done, "told to give up what is owed");
                }
                Command::Stop => self.end = Some(End::Stopped),
                // Just to wake this thread: `pump_donor` looks.
                Command::TransferOver => {}
            }
        }
        something
    }

    /// Asks the core to leave once what was committed before the wish is delivered here: then every survivor has it.
    pub(crate) fn steer_leave(&mut self, now: Time) -> bool {
        let Some(deadline) = self.leaving else { return false };
        let member = self.core.rank().is_some();
        let settled =
            self.poller.committed(GROUP).is_none() && self.own_delivered == self.counters.sent;
        if member && !settled && now < deadline {
            return false;
        }
        self.leaving = None;
        self.core.leave(now);
        true
    }

    /// Records that became durable.
    pub(crate) fn stored(&mut self, now: Time) -> bool {
        let mut something = false;
        while let Some(done) = self.storing.done() {
            something = true;
            match done {
                Ok(ticket) => {
                    self.counters.stored += 1;
                    self.core.handle_stored(now, ticket);
                }
                Err(e) => {
                    tracing::error!(me = %self.me.node, error = %e, "stopping: the record cannot be written");
                    self.end = Some(End::Failed(e.to_string().into()));
                }
            }
        }
        something
    }

    /// Everything the core wants done outside the data path.
    pub(crate) fn core_outputs(&mut self, now: Time) -> bool {
        let mut something = false;
        loop {
            let mut turn = false;
            while let Some(record) = self.core.poll_control() {
                self.control.core(&record);
                turn = true;
            }
            while self.storing.has_room() {
                let Some((ticket, durable)) = self.core.poll_store() else { break };
                self.storing.save(ticket, durable.encode());
                turn = true;
            }
            // The last messages of a view come before the event that ends it.
            turn |= self.deliveries();
            if self.end.is_none()
                && let Some(event) = self.core.poll_event()
            {
                self.core_event(now, event);
                turn = true;
            }
            if !turn {
                break;
            }
            something = true;
        }
        if self.control.is_overfull() {
            self.close_slowest_reader(now);
        }
        something
    }

    fn core_event(&mut self, now: Time, event: Event) {
        match event {
            Event::View { view, cause, evidence_at, wedged_at } => {
                tracing::info!(me = %self.me.node, %view, "installed");
                let resent = self.core.undelivered().map(|r| MessageId(r.position)).collect();
                let change =
                    ViewChange { view, cause, evidence_at, wedged_at, installed_at: now, resent };
                self.install(change);
                self.publish_status(now);
            }
            Event::Blocked(reason) => {
                tracing::warn!(me = %self.me.node, %reason, "blocked");
                self.outbox.item(Item::Blocked(reason));
                self.publish_status(now);
            }
            Event::Resumed => {
                self.outbox.item(Item::Resumed);
                self.publish_status(now);
            }
            Event::Evicted(view) => self.end = Some(End::Evicted(view)),
            Event::Left => self.end = Some(End::Left),
            Event::Donate { learner } => self.donate(learner),
            Event::Load { donor } => {
                tracing::info!(me = %self.me.node, %donor, "waiting for state")
            }
            Event::Fence(member) => self.fence(now, member),
            Event::Open { peer, log_position } => self.open(peer, log_position),
            Event::Attach { peer, log_position } => {
                if let Some(link) = self.links.live(peer) {
                    link.attached = true;
                    let id = link.id;
                    self.poller.attach(id, GROUP, log_position);
                }
            }
        }
    }

    fn install(&mut self, change: ViewChange) {
        let view = change.view.clone();
        for departure in &view.departed {
            // Who left goes by itself; closing first would look like a death to it.
            if departure.why == Why::Left {
                continue;
            }
            for slot in 0..self.links.len() {
                if let Some(link) =
                    self.links.slot(slot).filter(|l| l.alive && l.member == departure.member)
                {
                    link.alive = false;
                    let id = link.id;
                    self.poller.close(id);
                    self.donor_link_gone(id, departure.member);
                }
            }
            self.poller.refuse(departure.member);
        }
        self.counters.views += 1;
        probe::probe!(quintet, view, view.id.0, view.members.len());
        self.remember(&change);
        self.outbox.item(Item::View(Arc::new(change)));
        // Their messages are behind the application's back of this view: the memory may go.
        let gone: Vec<LinkId> = self
            .links
            .iter()
            .filter(|l| !l.alive && !view.contains(l.member))
            .map(|l| l.id)
            .collect();
        for link in gone {
            self.forget(link);
        }
        self.links.set_view(&view);
    }

    fn remember(&mut self, change: &ViewChange) {
        let span = |from: Option<Time>, to: Option<Time>| Some(to?.since(from?));
        let (evidence, wedge) = (change.evidence_at, change.wedged_at);
        let installed = Some(change.installed_at);
        let View { id, members, joined, departed, .. } = &*change.view;
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push(ViewRecord {
            id: *id,
            members: members.clone(),
            joined: joined.clone(),
            departed: departed.clone(),
            cause: change.cause.clone(),
            installed_at: change.installed_at,
            evidence_to_wedge: span(evidence, wedge),
            wedge_to_install: span(wedge, installed),
            evidence_to_install: span(evidence, installed),
        });
    }

    /// From now on nothing is confirmed to `member`; the core waits out the lease it may hold.
    fn fence(&mut self, now: Time, member: Member) {
        let mut heard = Time::ZERO;
        for slot in 0..self.links.len() {
            let Some(link) = self.links.slot(slot).filter(|l| l.member == member) else { continue };
            let (id, alive) = (link.id, link.alive);
            heard = heard.max(self.poller.heard(id));
            if alive {
                link.alive = false;
                self.poller.close(id);
                self.donor_link_gone(id, member);
                self.learner_link_gone(id);
            }
        }
        self.core.handle_heard(now, member, heard);
    }

    /// Begins to read a co-member's messages.
    fn open(&mut self, peer: Member, from: u64) {
        let Some(rank) = self.core.view().and_then(|v| v.rank_of(peer)) else { return };
        let Some(id) = self.links.live(peer).map(|l| l.id) else { return };
        self.poller.open(id, GROUP, from);
        let Some(bytes) = self.poller.peer_bytes(id, GROUP) else { return };
        let source = self.links.new_source();
        let consumed = Arc::new(AtomicU64::new(from));
        let wake_every = (self.limits.group_log / 8) as u64;
        let item =
            Source { member: peer, own: false, bytes, consumed: consumed.clone(), wake_every };
        self.outbox.item(Item::Source { slot: source, source: Some(Box::new(item)) });
        if let Some(link) = self.links.by_id(id) {
            link.group = Some(Reader { source, at: from, released: from, consumed });
        }
        self.links.set_rank(rank, id);
    }

    fn close_slowest_reader(&mut self, now: Time) {
        let slowest = self
            .links
            .iter()
            .filter(|l| l.alive)
            .min_by_key(|l| self.poller.released(l.id, CONTROL));
        if let Some((id, member)) = slowest.map(|l| (l.id, l.member)) {
            self.distrust(now, id, member, &Malformed("it does not read its control log"));
        }
    }
}
