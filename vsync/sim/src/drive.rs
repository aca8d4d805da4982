//! Driving the core: what the engine does, with every freedom it has.
//!
//! The order in which peers are looked at, how much is read in one sweep, whether a death is noticed before or after
//! the last words of the dead: the contract leaves all that open, so entropy decides it here. What the contract
//! demands (a row is handed over after the records that were visible when it was read; deliveries are polled before
//! events; events are acted on one by one) is kept, because a finding that needs it broken is no finding.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use quintet_transport::{Member, NodeId, Time};
use quintet_vsync::core::{self, Core, Durable, Position, Rank, Recovered, Row, Standing, Why};

use crate::app::App;
use crate::canary::Plant;
use crate::check::words::WORDS;
use crate::check::{Boot, REFUSAL, ViewInfo, Violation};
use crate::env::{Env, Event, Input};
use crate::link::{Record, State};
use crate::plan::{Fault, MS, US};
use crate::process::{LEASE, Process, Upcall};
use crate::trace::control_kind;
use crate::wire::HEADER;

impl Process {
    /// A new run of a node, from what its disk holds.
    pub fn start(boot: Boot, me: Member, env: &mut Env) -> Process {
        let node = me.node.0;
        let nodes: Vec<NodeId> = (1..=env.plan.nodes).map(NodeId).collect();
        let now = env.local(node);
        let entropy = env.tapes.core.draw();
        let app = App::recover(&env.seats[usize::from(node) - 1].journal, &env.checks.order);
        let durable =
            env.seat(node).disk.durable.clone().unwrap_or_else(|| Durable::configured(&nodes));
        note_accept(me.node, &durable, env);
        let mut config = core::Config::new(me, nodes);
        config.lease = Duration::from_nanos(LEASE);
        config.entropy = entropy;
        // Shorter than in life, in the same proportions: what is waited for must fit into a run.
        config.takeover = Duration::from_nanos(200 * MS);
        config.settle = Duration::from_nanos(80 * MS);
        config.retry = Duration::from_nanos(50 * MS);
        config.batch = Duration::from_nanos(10 * MS);
        if let Some(Plant::Order(bug)) = env.bug {
            config.bug = Some(bug);
        }
        let recovered = Recovered { durable, state: Position(app.applied()) };
        let mut process = Process {
            boot,
            me,
            core: Core::new(now, config, recovered),
            app,
            inbox: Default::default(),
            paused_until: 0,
            turn_at: None,
            beat_at: 0,
            last_turn: now.as_nanos(),
            deaf_until: 0,
            beat: false,
            active: true,
            unfinished: false,
            over: None,
            hellos: Default::default(),
            hello_at: Default::default(),
            early: Vec::new(),
            sides: Default::default(),
            refused: Default::default(),
            control: Vec::new(),
            log: Default::default(),
            head: 0,
            reclaimed: 0,
            words: [0; WORDS],
            committed: Default::default(),
            held: Default::default(),
            consumed: Default::default(),
            own_done: Default::default(),
            members: Vec::new(),
            view: 0,
            queue: Default::default(),
            loading: None,
            donations: Vec::new(),
            blocked: false,
            leaving: false,
            send_at: 0,
        };
        process.core.report_persisted(Position(process.app.persisted()));
        process
    }

    /// The process ends: by a crash, which loses what was not synced, or in good order.
    pub fn end(&mut self, crash: bool, env: &mut Env) {
        if crash {
            env.checks.outcome.crash(self.boot);
        } else {
            self.report(env);
        }
        let tape = &mut env.tapes.crash;
        let (arrived, journal) = if crash {
            let journal = match self.app.syncing {
                // A replaced journal appears whole or not at all.
                Some(upto) if self.app.stale => (tape.below(2) == 0).then_some(upto),
                Some(upto) => Some(tape.range(self.app.synced as u64, upto as u64) as usize),
                None => None,
            };
            (tape.below(1 << 20), journal)
        } else {
            (u64::MAX, (!self.app.stale).then_some(self.app.history().len()))
        };
        let seat = env.seat(self.me.node.0);
        seat.disk.crash(arrived);
        if let Some(upto) = journal {
            self.app.sync(&mut seat.journal, upto);
        }
    }

    /// Something other than a packet was at the door.
    pub(crate) fn complete(&mut self, input: Input, env: &mut Env) {
        let now = env.local(self.me.node.0);
        match input {
            Input::Packet(_) => {}
            Input::Stored(ticket) => {
                let record = env.seat(self.me.node.0).disk.synced(ticket).cloned();
                if let Some(durable) = record {
                    note_accept(self.me.node, &durable, env);
                }
                self.core.handle_stored(now, ticket);
            }
            Input::Synced(upto) => self.synced(upto, env),
            Input::Gone(session) => self.kill_session(session, Why::Exited, env),
            Input::Doubt(session) => self.kill_session(session, Why::Silent, env),
            Input::CheckRead { floor, applied } => self.answer(floor, applied, env),
            Input::Leave => {
                if !self.leaving && self.core.standing() == Standing::Member {
                    self.leaving = true;
                    self.core.leave(now);
                }
            }
            Input::Recover(owed) => {
                if self.core.recover(now, owed) {
                    env.stats.recovered += 1;
                    self.note(env, 51, self.me, format_args!("is to recover without {owed}"));
                }
            }
        }
    }

    fn kill_session(&mut self, session: u64, why: Why, env: &mut Env) {
        let node = self.sides.iter().find(|(_, s)| s.session == session).map(|(&n, _)| n);
        if let Some(node) = node {
            self.kill(node, why, env);
        }
    }

    /// A link came up.
    pub(crate) fn up(&mut self, peer: Member, env: &mut Env) {
        let now = env.local(self.me.node.0);
        self.note(env, 20, peer, format_args!("link up to {peer}"));
        self.core.handle_up(now, peer);
    }

    /// A link died.
    pub(crate) fn down(&mut self, peer: Member, why: Why, heard: u64, env: &mut Env) {
        let now = env.local(self.me.node.0);
        self.note(env, 21, peer, format_args!("link to {peer} is dead: {why}"));
        self.core.handle_dead(now, peer, why, Time::from_nanos(heard));
        self.lost_link(peer);
    }

    /// A node has fenced this incarnation.
    pub(crate) fn refused_by(&mut self, by: Member, env: &mut Env) {
        let now = env.local(self.me.node.0);
        self.note(env, 22, by, format_args!("refused by {by}"));
        self.core.handle_refused(now, by.node);
    }

    /// Hands over a peer's visible control records.
    pub(crate) fn hear(&mut self, node: u16, env: &mut Env) {
        let now = env.local(self.me.node.0);
        let Some(side) = self.sides.get_mut(&node) else { return };
        if side.state != State::Up {
            return;
        }
        let peer = side.peer;
        let records: Vec<Rc<[u8]>> = side.control.ready.drain(..).collect();
        for bytes in records {
            if let Err(malformed) = self.core.handle_control(now, peer, &bytes) {
                let text = format!("{} takes a control record of {peer} for {malformed}", self.me);
                env.checks.note(Err(Violation::new(REFUSAL, text)));
            }
        }
    }

    /// Looks at everything there is, and does everything the core wants.
    pub(crate) fn drive(&mut self, env: &mut Env) {
        let mut nodes: Vec<u16> = self.sides.keys().copied().collect();
        env.tapes.turn.shuffle(&mut nodes);
        let control_first = env.tapes.turn.below(2) == 0;
        if control_first {
            nodes.iter().for_each(|&node| self.hear(node, env));
        }
        self.sweep(&nodes, env);
        self.drain(env);
        if !control_first {
            nodes.iter().for_each(|&node| self.hear(node, env));
        }
        let now = env.local(self.me.node.0);
        if self.core.next_timeout().is_some_and(|t| t <= now) {
            self.core.handle_timeout(now);
        }
        self.drain(env);
        self.publish(env);
        self.drain(env);
        self.reclaim(env);
    }

    /// The hot path's reading half: rows and records of the members.
    fn sweep(&mut self, nodes: &[u16], env: &mut Env) {
        for &node in nodes {
            let Some(side) = self.sides.get_mut(&node) else { continue };
            let Some(rank) = self.members.iter().position(|&m| m == side.peer) else { continue };
            let (peer, row) = (side.peer, side.words);
            let Some(group) = &mut side.group else { continue };
            if side.state != State::Up {
                continue;
            }
            if env.tapes.turn.below(16) == 15 {
                self.unfinished = true;
                continue;
            }
            let rank = Rank(rank as u8);
            let mut whole = true;
            while let Some(&record) = group.ready.front() {
                match self.core.handle_record(rank, to_core(record)) {
                    Ok(true) => {
                        group.ready.pop_front();
                        self.held.entry(peer).or_default().push_back(record);
                    }
                    Ok(false) => {
                        whole = false;
                        break;
                    }
                    Err(malformed) => {
                        let text =
                            format!("{} takes {record:?} of {peer} for {malformed}", self.me);
                        env.checks.note(Err(Violation::new(REFUSAL, text)));
                        return;
                    }
                }
            }
            if whole {
                let verdict = env.checks.words.copy(self.me, peer, row);
                env.checks.note(verdict);
                let [next, received, delivered, persisted] = row;
                let row = Row {
                    next,
                    received: Position(received),
                    delivered: Position(delivered),
                    persisted: Position(persisted),
                };
                if let Err(malformed) = self.core.handle_row(rank, row) {
                    let text = format!("{} takes the row of {peer} for {malformed}", self.me);
                    env.checks.note(Err(Violation::new(REFUSAL, text)));
                }
            }
        }
    }

    /// The hot path's writing half: own records and the own row.
    fn publish(&mut self, env: &mut Env) {
        let Some(rank) = self.core.rank() else { return };
        while let Some(&(message, len)) = self.committed.front() {
            let size = HEADER + u64::from(len).next_multiple_of(8);
            if self.head + size - self.reclaimed > env.plan.log_bytes {
                break;
            }
            let Some(index) = self.core.assign() else { break };
            self.committed.pop_front();
            env.checks.outcome.publish(self.boot, message);
            let record = Record { index, position: self.head, end: self.head + size, len, message };
            self.head += size;
            self.log.push_back(record);
            match self.core.handle_record(rank, to_core(record)) {
                Ok(true) => {}
                other => {
                    let text = format!("{}: own record with an assigned index: {other:?}", self.me);
                    env.checks.note(Err(Violation::new(REFUSAL, text)));
                    return;
                }
            }
        }
        self.set_words(env);
    }

    fn set_words(&mut self, env: &mut Env) {
        if self.core.rank().is_none() {
            return;
        }
        let row = self.core.row();
        self.words = [row.next, row.received.0, row.delivered.0, row.persisted.0];
        let verdict = env.checks.words.publish(self.me, self.words);
        env.checks.note(verdict);
    }

    /// Deliveries, records to store and to send, events: until the core has nothing more.
    fn drain(&mut self, env: &mut Env) {
        // A slow application takes few deliveries at a time; the rest waits in the core, and so does the next view.
        let slow = env.seats[usize::from(self.me.node.0) - 1].slow_until > env.now;
        let mut appetite = if slow { env.tapes.turn.range(1, 4) } else { u64::MAX };
        loop {
            let mut more = false;
            while appetite > 0
                && let Some(delivery) = self.core.poll_delivery()
            {
                appetite -= 1;
                more = true;
                if !self.delivered(delivery, env) {
                    return;
                }
            }
            if more {
                self.set_words(env);
            }
            while let Some(bytes) = self.core.poll_control() {
                more = true;
                self.broadcast(bytes, env);
            }
            while let Some((ticket, durable)) = self.core.poll_store() {
                more = true;
                self.store(ticket, durable, env);
            }
            if let Some(event) = self.core.poll_event() {
                more = true;
                self.event(event, env);
            }
            if !more || env.checks.found().is_some() {
                self.unfinished |= appetite == 0;
                return;
            }
        }
    }

    fn delivered(&mut self, delivery: core::Delivery, env: &mut Env) -> bool {
        let (rank, record, position) = (delivery.rank.index(), delivery.record, delivery.at.0);
        let Some(&sender) = self.members.get(rank) else {
            env.checks.note(Err(Violation::new(
                5,
                format!("{} delivers from rank {rank}, which is none", self.me),
            )));
            return false;
        };
        let found = if sender == self.me {
            let at = self.log.partition_point(|r| r.position < record.position);
            self.log.get(at).copied()
        } else {
            let held = self.held.entry(sender).or_default();
            let at = held.partition_point(|r| r.position < record.position);
            held.drain(..at);
            held.pop_front()
        };
        let Some(found) = found.filter(|r| to_core(*r) == record) else {
            let text = format!(
                "{} delivers {record:?} of {sender}, which it does not hold: {found:?}",
                self.me
            );
            env.checks.note(Err(Violation::new(5, text)));
            return false;
        };
        env.trace.step(
            env.now,
            [30, self.boot as u64, position, found.message],
            format_args!("{} delivers {} = m{} of {sender}", self.me, delivery.at, found.message),
        );
        env.checks.deliver(self.boot, self.me, position, rank, sender, found.message);
        self.queue.push_back(Upcall::Message {
            position,
            message: found.message,
            sender,
            end: found.end,
        });
        true
    }

    fn broadcast(&mut self, bytes: Vec<u8>, env: &mut Env) {
        let (kind, size) = control_kind(&bytes);
        let sum =
            bytes.iter().fold(0u64, |sum, &b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
        env.trace.step(
            env.now,
            [31, self.boot as u64, sum, 0],
            format_args!("{} says {kind}, {size} bytes", self.me),
        );
        self.control.push(bytes.into());
        self.maybe_doom(env);
    }

    fn store(&mut self, ticket: u64, durable: Durable, env: &mut Env) {
        let low = if env.healed { 0 } else { env.plan.strength(Fault::Writes) };
        let delay = match low {
            0 => env.tapes.store.range(50 * US, 500 * US),
            1 => env.tapes.store.tail(50 * US, 5 * MS),
            2 => env.tapes.store.tail(100 * US, 20 * MS),
            _ => env.tapes.store.tail(500 * US, 60 * MS),
        };
        env.trace.step(
            env.now,
            [
                32,
                self.boot as u64,
                ticket,
                digest((&durable.decided, &durable.promised, &durable.accepted)),
            ],
            format_args!(
                "{} stores #{ticket}: decided {}, promised {}, accepted {}",
                self.me,
                durable.decided.view.id,
                durable.promised.map_or("-".into(), |b| b.to_string()),
                durable.accepted.as_ref().map_or("-".into(), |(b, v)| format!("{b} {}", v.view)),
            ),
        );
        // The disk takes one write after the other.
        let seat = env.seat(self.me.node.0);
        let at = seat.disk.write(ticket, durable);
        let at = at.max(env.now) + delay;
        env.seat(self.me.node.0).disk.busy_until = at;
        env.schedule(at, Event::Input(self.boot, Box::new(Input::Stored(ticket))));
        self.maybe_doom(env);
    }

    /// A crash aimed at a view change: something of it was said or stored in this turn, and the turn's sends reach
    /// some peers only.
    fn maybe_doom(&mut self, env: &mut Env) {
        let strength = env.plan.strength(Fault::Aimed);
        if strength > 0
            && !env.healed
            && !self.members.is_empty()
            && env.tapes.aimed.chance(strength * 15_000)
        {
            env.acted(Fault::Aimed, format_args!("{} dies in the middle of this", self.me));
            env.doomed = Some(self.boot);
        }
    }

    /// Slots that every reader has released may be reused.
    fn reclaim(&mut self, env: &mut Env) {
        let mut limit = self.own_done.back().map_or(0, |d| d.0);
        for &member in self.members.iter().filter(|&&m| m != self.me) {
            let released = self
                .sides
                .get(&member.node.0)
                .filter(|s| s.peer == member)
                .map_or(0, |s| s.released);
            limit = limit.min(released);
        }
        while let Some(&(end, position)) = self.own_done.front() {
            if end > limit {
                break;
            }
            if let Some(then) = env.checks.views.get(crate::check::view_of(position)) {
                let verdict = env.checks.words.reuse(self.me, position, then, &self.members);
                env.checks.note(verdict);
            }
            self.own_done.pop_front();
            self.reclaimed = end;
            while self.log.front().is_some_and(|r| r.end <= end) {
                self.log.pop_front();
            }
        }
    }

    pub(crate) fn note(
        &self,
        env: &mut Env,
        kind: u64,
        about: Member,
        text: std::fmt::Arguments<'_>,
    ) {
        let about = u64::from(about.node.0) << 32 | about.incarnation.0;
        env.trace.step(
            env.now,
            [kind, self.boot as u64, about, 0],
            format_args!("{} {text}", self.me),
        );
    }

    /// One line about this process, for a stuck run.
    pub fn describe(&self, env: &Env) -> String {
        let links: Vec<String> = self
            .sides
            .values()
            .map(|s| {
                let state = if s.state == State::Up { "up" } else { "dead" };
                format!("{} {state}{}", s.peer, if s.group.is_some() { "+group" } else { "" })
            })
            .collect();
        let words: Vec<String> = self.words[1..].iter().map(|&w| crate::check::show(w)).collect();
        format!(
            "{}: {:?} in view {} (knows {}){}{}, {} sends open, applied {}, next {}, rows {}; links [{}]; core timer {:?}{}{}",
            self.me,
            self.core.standing(),
            self.view,
            self.core.known_view(),
            if self.blocked { ", blocked" } else { "" },
            if self.paused_until > env.now { ", paused" } else { "" },
            env.checks.outcome.open(self.boot),
            crate::check::show(self.app.applied()),
            self.words[0],
            words.join(" "),
            links.join(", "),
            self.core
                .next_timeout()
                .map(|t| t.as_nanos() as i64 - env.local(self.me.node.0).as_nanos() as i64),
            self.loading.as_ref().map_or(String::new(), |l| format!("; loading from {}", l.donor)),
            self.core.blocked().map_or(String::new(), |b| format!("; {b}")),
        )
    }
}

fn to_core(record: Record) -> core::Record {
    core::Record {
        index: record.index,
        position: record.position,
        end: record.end,
        len: record.len,
    }
}

/// A number for a value: the hasher has fixed keys, so it is the same in every run.
fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Tells the checkers what a node's disk says it has accepted.
fn note_accept(node: NodeId, durable: &Durable, env: &mut Env) {
    if let Some((ballot, value)) = &durable.accepted {
        let verdict = env.checks.views.accepted(
            node,
            digest(ballot),
            digest(value),
            ViewInfo::of(&value.view),
        );
        env.checks.note(verdict);
    }
}
