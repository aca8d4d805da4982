//! The delivery thread: takes what the group delivers, in order, and carries it on.
//!
//! It works in batches: everything that is there is journalled in memory and handed to the
//! executors; when nothing more is there, or the batch is large, the journal is written once and the
//! position reported as kept. It blocks only on the disk and on a full queue of an instance; both
//! push back on senders, neither delays heartbeats or view changes.

use super::loader::Unavailable;
use super::snapshots::Snapshots;
use super::{End, Machine, Shared};
use crate::admin::types::{self, EventKind, NodeState};
use crate::journal::{self, Entry, Journal};
use crate::replica::{IDLE_ROUNDS, Message};
use crate::transfer::{Donor, LearnError, Learned, Learner};
use quintet_transport::{Time, clock};
use quintet_vsync::{Deliveries, Event, Group, Position, ViewChange, ViewId};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The journal is written at the latest when so much waits.
const BATCH_BYTES: usize = 256 << 10;
/// How long to wait for an event before looking after the sessions.
const IDLE: Duration = Duration::from_secs(1);

pub(super) struct Delivery {
    shared: Arc<Shared>,
    group: Group,
    machine: Machine,
    journal: Journal,
    snapshots: Snapshots,
    donors: Vec<Donor>,
    learner: Option<Learner>,
    /// Where the state of the group is received. What the node had stays beside it until it is a member.
    received: Option<PathBuf>,
    /// Why the state on disk could not be used, until the group's has been received.
    unusable: Option<String>,
    member: bool,
    reported: u64,
    /// The round of the sessions that runs, and since when it has been ours to end.
    round: (u64, Time),
    scratch: Vec<u8>,
}

impl Delivery {
    pub(super) fn new(
        shared: Arc<Shared>,
        group: Group,
        machine: Machine,
        journal: Journal,
        unusable: Option<String>,
    ) -> Delivery {
        Delivery {
            shared,
            group,
            machine,
            journal,
            snapshots: Snapshots::default(),
            donors: Vec::new(),
            learner: None,
            received: None,
            unusable,
            member: false,
            reported: 0,
            round: (0, clock::now()),
            scratch: Vec::new(),
        }
    }

    /// Runs until the incarnation is over.
    pub(super) fn run(mut self, mut deliveries: Deliveries) -> End {
        loop {
            let mut handled = deliveries.try_next().map(|event| self.handle(event));
            if handled.is_none() {
                if let Err(end) = self.idle() {
                    return end;
                }
                handled = deliveries.next(IDLE).map(|event| self.handle(event));
            }
            let outcome = match handled {
                Some(outcome) => outcome,
                None if deliveries.is_finished() => Err(End::Stopped),
                None => Ok(()),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    fn handle(&mut self, event: Event<'_>) -> Result<(), End> {
        match event {
            Event::Message(message) => {
                let entry = Entry::Message { at: message.at.0, bytes: message.bytes };
                self.journal.append(&entry);
                self.donate(&entry);
                self.machine.apply(message.at.0, message.bytes);
                if !message.intact() {
                    // This process slept until the group went on without it, and the sender reuses the memory: what
                    // was copied may be anything. It dies with this incarnation, before it reaches the disk.
                    return Err(End::Evicted(message.at.view()));
                }
                self.shared.counters.messages.fetch_add(1, Ordering::Relaxed);
                self.check_machine()?;
                if self.journal.waiting() >= BATCH_BYTES { self.flush() } else { Ok(()) }
            }
            Event::View(change) => self.installed(&change),
            Event::Donate(donation) => {
                let limit = self.shared.config.limits.transfer_tail_bytes;
                let events = self.shared.events.clone();
                self.donors.push(Donor::start(donation, self.machine.cut(), limit, events));
                Ok(())
            }
            Event::Chunk(bytes) => self.learn(bytes),
            Event::Blocked(reason) => {
                let state = if self.member { NodeState::Blocked } else { NodeState::Outside };
                let mut reason = reason.to_string();
                if let Some(why) = &self.unusable {
                    // What is missed may well lie on this disk.
                    reason = format!(
                        "{reason}; this node keeps state that it cannot rebuild ({why}): put right what is missing and \
                         start it again"
                    );
                }
                self.shared.events.note(EventKind::Blocked, format!("{reason}: nothing is served"));
                self.shared.stand(state, Some(reason));
                Ok(())
            }
            Event::Resumed => {
                let state = if self.member { NodeState::Member } else { NodeState::Outside };
                self.shared.events.note(EventKind::Resumed, "a quorum is there again");
                self.shared.stand(state, None);
                Ok(())
            }
            Event::Rail { peer, rail } => {
                let what = format!(
                    "packets to node {} go by network {} of {}, {}: {}",
                    peer.0,
                    rail.rail + 1,
                    rail.of,
                    rail.to,
                    rail.reason
                );
                self.shared.events.note(EventKind::Link, what);
                Ok(())
            }
            Event::Path { peer, path, reason } => {
                let what = format!("the link to node {} goes by {path}: {reason}", peer.0);
                self.shared.events.note(EventKind::Link, what);
                Ok(())
            }
            Event::Evicted(view) => {
                let _ = self.flush();
                Err(End::Evicted(view))
            }
            Event::Left => {
                let _ = self.flush();
                Err(End::Left)
            }
            Event::Failed(why) => Err(End::Failed(why.to_string())),
            other => {
                tracing::warn!("an event that this manager does not know: {other:?}");
                Ok(())
            }
        }
    }

    /// Nothing more is there at the moment.
    fn idle(&mut self) -> Result<(), End> {
        self.flush()?;
        self.look_after_sessions();
        if self.received.is_some() {
            return Ok(());
        }
        let turned = self.snapshots.turn(&self.shared, &self.machine, &mut self.journal);
        turned.map_err(|e| End::Failed(e.to_string()))
    }

    /// Writes the journal and reports how far everything is kept.
    fn flush(&mut self) -> Result<(), End> {
        let upto = self.journal.flush().map_err(|e| End::Failed(e.to_string()))?;
        // What is received is kept only when the node is a member with it.
        if upto > self.reported && self.received.is_none() {
            self.reported = upto;
            self.shared.delivered.store(self.machine.upto(), Ordering::Release);
            self.group.report_persisted(Position(upto));
        }
        Ok(())
    }

    /// Passes an entry on to learners that are loading.
    fn donate(&mut self, entry: &Entry<'_>) {
        if !self.donors.is_empty() {
            self.scratch.clear();
            entry.encode(&mut self.scratch);
            self.donors.iter_mut().for_each(|donor| donor.tail(&self.scratch));
        }
    }

    fn installed(&mut self, change: &ViewChange) -> Result<(), End> {
        let view = &change.view;
        if let Some(why) = &self.unusable {
            return Err(End::Failed(format!(
                "the group would start without its state, for this node cannot rebuild what it keeps ({why}). Nothing \
                 was changed in {}: put right what is missing and start it again, or remove that directory \
                 to give that state up",
                self.journal.dir().display()
            )));
        }
        let at = Position::new(view.id, 0).0;
        let nodes: Vec<u16> = view.members.iter().map(|m| m.node.0).collect();
        let entry = Entry::View { at, view: view.id.0, members: nodes.clone() };
        let (joined, members) = (&view.joined, &view.members);
        // A transfer that ends with this view must not carry it: its learner sees it itself.
        self.donors.retain_mut(|donor| !donor.installed(view.id, joined, members));
        self.donate(&entry);
        self.journal.append(&entry);
        self.machine.install(at, view.id.0, nodes);
        self.check_machine()?;
        self.learner = None;
        if self.received.take().is_some() {
            // The donor is done: the engine held this view back until then.
            let adopted = self.journal.adopt(&self.shared.config.data_dir);
            adopted.map_err(|e| End::Failed(e.to_string()))?;
            self.snapshots = Snapshots::default();
        }
        self.flush()?;
        // Before anybody is told that this node serves.
        self.machine.publish();
        let shown = shown(change);
        self.shared.standing.send_modify(|standing| {
            standing.state = NodeState::Member;
            standing.reason = None;
            standing.view = Some(shown.view.clone());
        });
        let members: Vec<String> = view.members.iter().map(|m| m.node.to_string()).collect();
        let took = shown.took_us.map_or_else(String::new, |us| {
            format!(", {:.1} ms after the evidence", us as f64 / 1000.0)
        });
        let text = format!("view {} ({}): {}{took}", view.id.0, members.join(" "), change.cause);
        self.shared.events.view(text, shown);
        if !self.member {
            self.member = true;
            self.machine.go_live();
        }
        Ok(())
    }

    /// The next bytes from the donor.
    fn learn(&mut self, bytes: &[u8]) -> Result<(), End> {
        let failed = |why: String| End::Failed(why);
        let dir = match &self.received {
            Some(dir) => dir.clone(),
            None => {
                self.shared.events.note(EventKind::Transfer, "receiving state");
                self.shared.stand(NodeState::Learner, Some("receiving state".into()));
                let dir = journal::receive(&self.shared.config.data_dir);
                dir.map_err(|e| failed(e.to_string()))?
            }
        };
        self.received = Some(dir.clone());
        let mut learner = self.learner.take().unwrap_or_default();
        learner.push(bytes);
        loop {
            match learner.next(&dir) {
                Ok(None) => break,
                Ok(Some(Learned::Snapshot(snapshot, file))) => {
                    self.machine.load(snapshot).map_err(|why| {
                        let what = format!("the state that was received cannot be loaded: {why}");
                        match why {
                            Unavailable::Disk(_) => {
                                End::Failed(format!("{what}, then start it again"))
                            }
                            Unavailable::Otherwise(_) => End::Learn(what),
                        }
                    })?;
                    self.unusable = None;
                    let upto = self.machine.upto();
                    file.finish(upto).map_err(|e| failed(e.to_string()))?;
                    self.journal.move_to(&dir, upto).map_err(|e| failed(e.to_string()))?;
                    self.shared.counters.transfers_received.fetch_add(1, Ordering::Relaxed);
                    let what = format!("state received, up to {}", Position(upto));
                    self.shared.events.note(EventKind::Transfer, what);
                    let why = "has the state; waits for a quorum of the members to agree on a view with this node";
                    self.shared.stand(NodeState::Learner, Some(why.into()));
                    self.group.ready(Position(upto));
                }
                Ok(Some(Learned::Tail(encoded))) => self.replay(&encoded)?,
                Err(LearnError::Malformed(why)) => {
                    return Err(End::Learn(format!("what the donor sends: {why}")));
                }
                // The own disk: another incarnation would fare no better.
                Err(why) => return Err(failed(why.to_string())),
            }
        }
        self.learner = Some(learner);
        Ok(())
    }

    /// An entry of the donor's tail.
    fn replay(&mut self, encoded: &[u8]) -> Result<(), End> {
        let decoded = Entry::decode(encoded);
        let Ok(Some((entry, _))) = decoded else {
            return Err(End::Learn("a damaged entry in the donor's tail".into()));
        };
        self.journal.append(&entry);
        match entry {
            Entry::Message { at, bytes } => self.machine.apply(at, bytes),
            Entry::View { at, view, members } => self.machine.install(at, view, members),
        }
        self.check_machine()
    }

    fn check_machine(&self) -> Result<(), End> {
        match self.machine.problem() {
            Some(why) => Err(End::Learn(why.to_owned())),
            None => Ok(()),
        }
    }

    /// The coordinator ends the round of the sessions that has run for long enough under its eyes.
    fn look_after_sessions(&mut self) {
        let (shared, replica, now) = (&self.shared, self.machine.replica(), clock::now());
        let round = replica.sessions().round();
        let coordinator = replica.view().1.first() == Some(&shared.config.node);
        if !self.member || !coordinator || self.round.0 != round {
            self.round = (round, now);
            return;
        }
        let idle = Duration::from_secs(shared.config.limits.session_idle_s);
        if now.since(self.round.1) < idle / IDLE_ROUNDS as u32 {
            return;
        }
        // Ordered when it comes back; if that takes long, it is proposed again, and counts once.
        if shared.try_send(&Message::Round { round }).is_ok() {
            self.round.1 = now;
        }
    }
}

/// A view change as the admin API shows it.
fn shown(change: &ViewChange) -> types::ViewChange {
    let member =
        |m: &quintet_vsync::Member| types::Member { node: m.node.0, incarnation: m.incarnation.0 };
    let view = &change.view;
    let evidence_ns = change.evidence_at.map(|t| t.as_nanos());
    let installed_ns = change.installed_at.as_nanos();
    let ViewId(id) = view.id;
    types::ViewChange {
        view: types::View { id, members: view.members.iter().map(member).collect() },
        joined: view.joined.iter().map(member).collect(),
        departed: view.departed.iter().map(|d| member(&d.member)).collect(),
        cause: change.cause.to_string(),
        evidence_ns,
        wedged_ns: change.wedged_at.map(|t| t.as_nanos()),
        installed_ns,
        took_us: evidence_ns.map(|ns| installed_ns.saturating_sub(ns) / 1000),
    }
}
