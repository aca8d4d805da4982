//! A process: one run of a node. It holds the real protocol core and stands in for everything around it.
//!
//! What the engine, the transport's poller and the failure detector do in the real system is done here in the plainest
//! way that keeps their promises, and in an order that entropy chooses wherever they promise none. A process acts
//! only in *turns*; between turns, packets and completions pile up at its door. So a pause is nothing special: turns
//! stop, the pile grows, and the next turn meets it with a clock that has gone on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use quintet_transport::{Member, Time};
use quintet_vsync::core::{Core, Why};

use crate::app::App;
use crate::canary::Plant;
use crate::check::words::WORDS;
use crate::check::{Boot, ViewInfo};
use crate::env::{Env, Event, Input, Packet};
use crate::link::{Body, Chunk, Data, Record, Side, State};
use crate::plan::{MS, US};
use crate::transfer::{Donation, Loading};
use crate::wire::{Arrived, Wire};

/// Interval of heartbeats.
pub const HEARTBEAT: u64 = 5 * MS;
/// Silence after which a peer is suspected.
pub const SUSPECT: u64 = 20 * MS;
/// Silence after which a link is dead.
pub const DEAD: u64 = 50 * MS;
/// Length of the read lease, shorter than [`DEAD`].
pub const LEASE: u64 = 40 * MS;
/// By how much a reader shortens its own lease: clocks may drift apart by 2 × 500 ppm.
pub const LEASE_MARGIN: u64 = LEASE / 500;

/// Why a process wants to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Its incarnation is out of the view.
    Evicted,
    /// It left.
    Left,
    /// Its donor was lost before the transfer was complete.
    Stranded,
}

/// One run of a node.
pub struct Process {
    /// Its number in the simulation.
    pub boot: Boot,
    /// Who it is.
    pub me: Member,
    /// The real protocol core.
    pub core: Core,
    /// The application.
    pub app: App,
    /// What waits at the door.
    pub inbox: VecDeque<Input>,
    /// It takes no turn before then.
    pub paused_until: u64,
    pub(crate) turn_at: Option<u64>,
    /// Own clock: next heartbeat, last turn, until when silence proves nothing.
    pub(crate) beat_at: u64,
    pub(crate) last_turn: u64,
    pub(crate) deaf_until: u64,
    pub(crate) beat: bool,
    /// Something happened in this turn that the core has to be driven for.
    pub(crate) active: bool,
    /// Something was left for the next turn.
    pub(crate) unfinished: bool,
    pub(crate) over: Option<Over>,
    /// Hellos sent: session → node, own control head then.
    pub(crate) hellos: BTreeMap<u64, (u16, u64)>,
    pub(crate) hello_at: BTreeMap<u16, u64>,
    /// Packets of sessions that were asked for and are not granted yet.
    pub(crate) early: Vec<Packet>,

    /// The latest link to each node.
    pub(crate) sides: BTreeMap<u16, Side>,
    /// Incarnations that are fenced here.
    pub(crate) refused: BTreeSet<Member>,

    /// Own control log.
    pub(crate) control: Vec<Rc<[u8]>>,
    /// Own group log, from `reclaimed` on.
    pub(crate) log: VecDeque<Record>,
    pub(crate) head: u64,
    pub(crate) reclaimed: u64,
    pub(crate) words: [u64; WORDS],
    /// Committed, not yet published: message, payload bytes.
    pub(crate) committed: VecDeque<(u64, u32)>,
    /// Records of others that the core knows of and may still name.
    pub(crate) held: BTreeMap<Member, VecDeque<Record>>,

    /// How far the application has taken each sender's log, in bytes.
    pub(crate) consumed: BTreeMap<Member, u64>,
    /// Own records the application has taken: end in the log, position in the order.
    pub(crate) own_done: VecDeque<(u64, u64)>,

    /// Members of the view the core is in, in rank order; empty outside.
    pub(crate) members: Vec<Member>,
    pub(crate) view: u64,
    /// What the engine has handed to the application's queue.
    pub(crate) queue: VecDeque<Upcall>,
    /// The transfer to this learner, until its donor has finished.
    pub(crate) loading: Option<Loading>,
    pub(crate) donations: Vec<Donation>,
    pub(crate) blocked: bool,
    pub(crate) leaving: bool,
    /// True time of the next send.
    pub(crate) send_at: u64,
}

/// What the engine hands to the application, in order.
#[derive(Clone, Debug)]
pub enum Upcall {
    /// A view was installed.
    View(ViewInfo),
    /// A message.
    Message {
        /// Where in the order.
        position: u64,
        /// Which.
        message: u64,
        /// Whose.
        sender: Member,
        /// Where its record ends in the sender's log.
        end: u64,
    },
    /// Send the state to this learner.
    Donate(Member),
}

impl Process {
    /// Is it to be ended?
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Its live session with that process.
    pub fn session_with(&self, boot: Boot) -> Option<u64> {
        self.sides.values().find(|s| s.peer_boot == boot && s.state == State::Up).map(|s| s.session)
    }

    /// Ends a pause early.
    pub fn wake(&mut self, env: &mut Env) {
        self.paused_until = 0;
        self.turn_by(env.now, env);
    }

    /// Something is at the door: a turn follows soon.
    pub fn look(&mut self, env: &mut Env) {
        let slow = env.seats[usize::from(self.me.node.0) - 1].slow_until > env.now;
        let delay =
            if slow { env.tapes.turn.range(MS, 12 * MS) } else { env.tapes.turn.tail(US, 60 * US) };
        self.turn_by(env.now + delay, env);
    }

    /// A turn no later than at true time `at`.
    pub(crate) fn turn_by(&mut self, at: u64, env: &mut Env) {
        let at = at.max(self.paused_until).max(env.now + 1);
        if self.turn_at.is_none_or(|t| t > at) {
            self.turn_at = Some(at);
            env.schedule(at, Event::Turn(self.boot));
        }
    }

    /// One turn of the loop.
    pub fn turn(&mut self, env: &mut Env) {
        if self.turn_at != Some(env.now) {
            // An appointment that was moved: another event has taken its place.
            return;
        }
        if self.paused_until > env.now {
            self.turn_at = None;
            let until = self.paused_until;
            self.turn_by(until, env);
            return;
        }
        self.turn_at = None;
        let now = env.local(self.me.node.0).as_nanos();
        // A node that wakes may be asked before it has looked at anything.
        self.read(env);
        self.take_inputs(env);
        self.detect(now, env);
        // Heartbeats make turns often enough to hide a lost wake-up: something that is due, and that no event, time-out
        // or record of its own calls for. So in some runs a turn that only beats does not drive the core.
        let timeout = self.core.next_timeout().is_some_and(|t| t.as_nanos() <= now);
        let sends = !env.quiet && env.now >= self.send_at;
        let unfinished = std::mem::take(&mut self.unfinished);
        if std::mem::take(&mut self.active) || timeout || sends || unfinished || !env.plan.strict {
            self.drive(env);
            self.work(env);
            self.drive(env);
        }
        self.donate(env);
        self.flush(env);
        self.read(env);
        self.last_turn = now;
        self.appoint(env);
    }

    /// Makes the next appointments: heartbeat, core timer, next send.
    fn appoint(&mut self, env: &mut Env) {
        let clock = env.seats[usize::from(self.me.node.0) - 1].clock;
        let mut next = self.beat_at;
        if let Some(timeout) = self.core.next_timeout() {
            next = next.min(timeout.as_nanos());
        }
        for wire in self.sides.values().filter_map(|side| side.wire.as_ref()) {
            next = wire.next_timeout().map_or(next, |timeout| next.min(timeout.as_nanos()));
        }
        let mut at = clock.when(next);
        if !self.members.is_empty() && !env.quiet {
            at = at.min(self.send_at);
        }
        if !self.inbox.is_empty() || self.unfinished {
            return self.look(env);
        }
        self.turn_by(at, env);
    }

    /// Takes in what waits at the door: all of it, or in a slow phase only some.
    fn take_inputs(&mut self, env: &mut Env) {
        let slow = env.seats[usize::from(self.me.node.0) - 1].slow_until > env.now;
        let limit = if slow { env.tapes.turn.range(1, 6) } else { u64::MAX };
        for _ in 0..limit.min(self.inbox.len() as u64) {
            let Some(input) = self.inbox.pop_front() else { break };
            match input {
                Input::Packet(packet) => {
                    self.active |= match &packet.body {
                        Body::Data(data) => !data.is_bare(),
                        // It says itself what it brought.
                        Body::Datagram(_) => false,
                        _ => true,
                    };
                    self.packet(packet, env);
                }
                other => {
                    self.active = true;
                    self.complete(other, env);
                }
            }
        }
    }

    fn packet(&mut self, packet: Packet, env: &mut Env) {
        let now = env.local(self.me.node.0);
        let from = packet.from.node.0;
        if self.refused.contains(&packet.from) {
            if !matches!(packet.body, Body::Refused | Body::Reset) {
                self.post(packet.from, packet.session, Body::Refused, env);
            }
            return;
        }
        let known = self.sides.get(&from).is_some_and(|s| s.session == packet.session);
        match packet.body {
            Body::Datagram(ref bytes) if known => self.datagram(from, bytes, now, env),
            // The other side has come up before this one: it will say it again.
            Body::Datagram(_) if self.hellos.contains_key(&packet.session) => {}
            Body::Datagram(_) => self.reset(packet.from, packet.session, 2, env),
            Body::Hello { member, control_from } => {
                if let Some(old) = self.sides.get(&from) {
                    if old.session >= packet.session {
                        return;
                    }
                    let old_peer = old.peer;
                    if old_peer.incarnation > member.incarnation {
                        return;
                    }
                    // The peer has given up the old link, or is a new run of its node.
                    self.kill(from, replaced(old_peer, member), env);
                }
                let head = self.control.len() as u64;
                self.come_up(&packet, head, member, control_from, env);
                self.post(
                    member,
                    packet.session,
                    Body::Welcome { member: self.me, control_from: head },
                    env,
                );
                self.up(member, env);
            }
            Body::Welcome { member, control_from } => {
                let Some(hello) = self.hello_of(packet.session) else { return };
                if let Some(old) = self.sides.get(&from) {
                    let old_peer = old.peer;
                    if old_peer.incarnation > member.incarnation || old.session >= packet.session {
                        return;
                    }
                    self.kill(from, replaced(old_peer, member), env);
                }
                self.come_up(&packet, hello, member, control_from, env);
                self.up(member, env);
                // What overtook the welcome.
                let (now, later) = std::mem::take(&mut self.early)
                    .into_iter()
                    .partition(|p| p.session == packet.session);
                self.early = later;
                let early: Vec<Packet> = now;
                early.into_iter().for_each(|p| self.packet(p, env));
            }
            Body::Refused => {
                if known || self.hello_of(packet.session).is_some() {
                    self.refused_by(packet.from, env);
                }
            }
            Body::Reset => {
                if known {
                    self.kill(from, Why::Closed, env);
                }
            }
            Body::Data(data) => {
                if !known && self.hellos.contains_key(&packet.session) {
                    self.early.push(Packet { body: Body::Data(data), ..packet });
                    return;
                }
                if !known {
                    return self.reset(packet.from, packet.session, 2, env);
                }
                if let Some(side) = self.sides.get_mut(&from) {
                    let alive = side.state == State::Up;
                    self.active |= data.released > side.released;
                    side.arrive(*data, now.as_nanos());
                    if !alive {
                        self.reset(packet.from, packet.session, 4, env);
                    }
                }
            }
        }
    }

    /// This process's side of the session that `packet` belongs to.
    fn come_up(&mut self, packet: &Packet, head: u64, peer: Member, from: u64, env: &Env) {
        let now = env.local(self.me.node.0);
        let mut side =
            Side::new(packet.session, peer, packet.from_boot, head, from, now.as_nanos());
        if env.plan.packets {
            let nodes = (self.me.node.0, peer.node.0);
            let mut wire = Wire::new(packet.session, nodes, from, env.plan.log_bytes, now);
            if let Some(Plant::Packets(bug)) = env.bug {
                wire.plant(bug);
            }
            side.wire = Some(Box::new(wire));
        }
        self.sides.insert(peer.node.0, side);
    }

    /// A datagram of the live or latest session with `from`.
    fn datagram(&mut self, from: u16, bytes: &[u8], now: Time, env: &mut Env) {
        let Some(side) = self.sides.get_mut(&from) else { return };
        let Some(wire) = &mut side.wire else { return };
        match wire.arrive(bytes, now) {
            Arrived::Nothing => {}
            Arrived::Visible(data) => {
                self.active |= !data.is_bare() || data.released > side.released;
                let heard = wire.heard();
                side.arrive(*data, heard);
            }
            Arrived::Closed => self.kill(from, Why::Closed, env),
        }
    }

    /// Sends something outside the logs.
    fn post(&mut self, to: Member, session: u64, body: Body, env: &mut Env) {
        env.send(Packet { from: self.me, from_boot: self.boot, to: to.node.0, session, body });
    }

    /// The sender does not know yet that this link is over: once in a while it is told.
    fn reset(&mut self, to: Member, session: u64, once_in: u64, env: &mut Env) {
        if env.tapes.turn.below(once_in) == 0 {
            self.post(to, session, Body::Reset, env);
        }
    }

    /// Own control head at the hello of that session, if this process sent it.
    fn hello_of(&self, session: u64) -> Option<u64> {
        self.hellos.get(&session).map(|h| h.1)
    }

    /// The link to a node is over on this side.
    pub(crate) fn kill(&mut self, node: u16, why: Why, env: &mut Env) {
        self.active = true;
        let Some(side) = self.sides.get_mut(&node) else { return };
        if side.state == State::Dead {
            return;
        }
        let (peer, heard) = (side.peer, side.heard);
        // What has become visible may or may not be read before the end of the link is noticed.
        if env.tapes.turn.below(2) == 0 {
            self.hear(node, env);
        }
        if let Some(side) = self.sides.get_mut(&node) {
            side.die();
        }
        self.down(peer, why, heard, env);
    }

    /// The failure detector: heartbeats out, silence judged. Own stalls are discounted.
    fn detect(&mut self, now: u64, env: &mut Env) {
        let stall = now.saturating_sub(self.last_turn);
        if stall > 3 * HEARTBEAT {
            // Nobody could be heard while this process did not listen.
            self.deaf_until = now + HEARTBEAT * 2;
        }
        let mut dead = Vec::new();
        for (&node, side) in &mut self.sides {
            if side.state != State::Up {
                continue;
            }
            let silence = now.saturating_sub(side.heard);
            side.suspected = silence > SUSPECT;
            if silence > DEAD && now >= self.deaf_until {
                dead.push(node);
            }
        }
        for node in dead {
            self.kill(node, Why::Silent, env);
        }
        if now < self.beat_at {
            return;
        }
        self.beat_at = now + HEARTBEAT;
        self.beat = true;
        for node in 1..self.me.node.0 {
            let idle = self.sides.get(&node).is_none_or(|s| s.state == State::Dead);
            if idle && now >= self.hello_at.get(&node).copied().unwrap_or(0) {
                self.hello_at.insert(node, now + 4 * HEARTBEAT);
                let session = env.session();
                let head = self.control.len() as u64;
                self.hellos.insert(session, (node, head));
                let to = Member::new(node, 0);
                self.post(to, session, Body::Hello { member: self.me, control_from: head }, env);
            }
        }
    }

    /// Packs what each peer has not been sent, and sends it: in one packet, or in parts that travel apart.
    fn flush(&mut self, env: &mut Env) {
        let now = env.local(self.me.node.0);
        let beat = std::mem::take(&mut self.beat);
        let doomed = env.doomed == Some(self.boot);
        let nodes: Vec<u16> = self.sides.keys().copied().collect();
        for node in nodes {
            // Who dies in the middle of a flush has sent to some peers only.
            if doomed && env.tapes.aimed.below(2) == 0 {
                continue;
            }
            if let Some(side) = self.sides.get_mut(&node) {
                side.detach_below(self.reclaimed);
            }
            let packed = self.pack(node, now.as_nanos(), beat);
            if env.plan.packets {
                self.transmit(node, packed.map(|p| p.2), now, env);
                continue;
            }
            let Some((to, session, data)) = packed else { continue };
            let parts = if env.fabric.splits() { split(data) } else { vec![data] };
            for part in parts {
                self.post(to, session, Body::Data(Box::new(part)), env);
            }
        }
    }

    /// Publishes a flush on the connection to `node`, and sends the datagrams that are due there.
    fn transmit(&mut self, node: u16, data: Option<Data>, now: Time, env: &mut Env) {
        let Some(side) = self.sides.get_mut(&node) else { return };
        let (to, session) = (side.peer, side.session);
        let Some(wire) = &mut side.wire else { return };
        if let Some(data) = data {
            wire.publish(data);
        }
        if side.state == State::Up {
            wire.release(self.consumed.get(&to).copied().unwrap_or(0));
        }
        for bytes in wire.poll(now) {
            self.post(to, session, Body::Datagram(bytes), env);
        }
    }

    fn pack(&mut self, node: u16, now: u64, beat: bool) -> Option<(Member, u64, Data)> {
        let side = self.sides.get_mut(&node)?;
        let released = self.consumed.get(&side.peer).copied().unwrap_or(0);
        if side.state != State::Up {
            return None;
        }
        let mut data = Data { sent_at: now, echo: side.peer_clock, released, ..Data::default() };
        let mut full = beat;
        let head = self.control.len() as u64;
        if side.control_sent < head {
            data.control =
                Some((side.control_sent, self.control[side.control_sent as usize..].to_vec()));
            side.control_sent = head;
            full = true;
        }
        if let Some(sent) = side.group_sent {
            if sent < self.head {
                let first = self.log.partition_point(|r| r.position < sent);
                data.group = Some((sent, self.head, self.log.range(first..).copied().collect()));
                side.group_sent = Some(self.head);
                full = true;
            }
            for word in 0..WORDS {
                if self.words[word] != side.words_sent[word] {
                    data.words[word] = Some((self.words[word], self.head));
                    side.words_sent[word] = self.words[word];
                    full = true;
                }
            }
        }
        let bulk: Vec<Chunk> = side.bulk_out.drain(..).collect();
        if !bulk.is_empty() {
            data.bulk = Some((side.bulk_sent, bulk.clone()));
            side.bulk_sent += bulk.len() as u64;
            full = true;
        }
        full.then_some((side.peer, side.session, data))
    }
}

/// Why a link ends when `new` shows up in the place of `old`.
fn replaced(old: Member, new: Member) -> Why {
    if old == new { Why::Closed } else { Why::Restarted }
}

/// A flush in parts: each log and each word by itself.
fn split(data: Data) -> Vec<Data> {
    let bare =
        Data { sent_at: data.sent_at, echo: data.echo, released: data.released, ..Data::default() };
    let mut parts = Vec::new();
    if data.control.is_some() {
        parts.push(Data { control: data.control, ..bare.clone() });
    }
    if data.group.is_some() {
        parts.push(Data { group: data.group, ..bare.clone() });
    }
    for (word, value) in data.words.into_iter().enumerate() {
        if value.is_some() {
            let mut part = bare.clone();
            part.words[word] = value;
            parts.push(part);
        }
    }
    if data.bulk.is_some() {
        parts.push(Data { bulk: data.bulk, ..bare.clone() });
    }
    if parts.is_empty() {
        parts.push(bare);
    }
    parts
}
