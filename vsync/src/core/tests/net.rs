//! A network in memory: links are queues, disks never fail, time stands still until it is moved.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quintet_transport::{Member, NodeId, Time};

use crate::core::*;

/// One running incarnation.
pub(super) struct Proc {
    pub(super) core: Core,
    inbox: BTreeMap<Member, VecDeque<Vec<u8>>>,
    /// Published records: (record, message).
    log: Vec<(Record, u64)>,
    row: Row,
    committed: VecDeque<u64>,
    /// Per opened peer, how many of its records we have taken.
    opened: BTreeMap<Member, usize>,
    pub(super) views: Vec<Arc<View>>,
    pub(super) causes: Vec<String>,
    pub(super) delivered: Vec<(Position, u64)>,
    pub(super) events: Vec<Event>,
    /// Stopped processes do nothing; their queues fill.
    pub(super) stopped: bool,
    /// Stored records are not confirmed while this is set.
    pub(super) slow_disk: bool,
    tickets: Vec<u64>,
    /// Learners become ready by themselves.
    pub(super) load: bool,
}

/// The machines and the wires.
pub(super) struct Net {
    pub(super) now: Time,
    nodes: Vec<NodeId>,
    pub(super) procs: BTreeMap<u16, Proc>,
    disks: BTreeMap<u16, (Durable, Position)>,
    cut: BTreeSet<(u16, u16)>,
    incarnations: u64,
    sent: u64,
    /// What this node sends to that one stays on its way.
    pub(super) held: Option<(u16, u16)>,
    /// Control records of these kinds are dropped when sent by that node.
    pub(super) drop_kind: Option<(u16, u8)>,
    /// Pairs of which the first closed the link to the second: the other side learns it, then they meet again.
    fenced: Vec<(u16, Member)>,
}

pub(super) const PREPARE: u8 = 4;
pub(super) const ACCEPT: u8 = 6;
pub(super) const ACCEPTED: u8 = 7;

impl Net {
    pub(super) fn new(n: u16) -> Net {
        Net {
            now: Time::from_millis(1000),
            nodes: (1..=n).map(NodeId).collect(),
            procs: BTreeMap::new(),
            disks: BTreeMap::new(),
            cut: BTreeSet::new(),
            incarnations: 0,
            sent: 0,
            held: None,
            drop_kind: None,
            fenced: Vec::new(),
        }
    }

    /// A cluster of `n` in its first view.
    pub(super) fn founded(n: u16) -> Net {
        let mut net = Net::new(n);
        (1..=n).for_each(|node| net.start(node));
        net.run();
        assert_eq!(net.view(1).members.len(), n as usize, "founded by all");
        net
    }

    pub(super) fn start(&mut self, node: u16) {
        self.incarnations += 1;
        let me = Member::new(node, self.incarnations);
        let fresh = || (Durable::configured(&self.nodes), Position::ZERO);
        let (durable, state) = self.disks.get(&node).cloned().unwrap_or_else(fresh);
        // The store sees bytes, not values.
        let durable = Durable::decode(&durable.encode()).unwrap();
        let mut config = Config::new(me, self.nodes.clone());
        config.entropy = u64::from(node);
        let core = Core::new(self.now, config, Recovered { durable, state });
        let proc = Proc {
            core,
            inbox: BTreeMap::new(),
            log: Vec::new(),
            row: Row::default(),
            committed: VecDeque::new(),
            opened: BTreeMap::new(),
            views: Vec::new(),
            causes: Vec::new(),
            delivered: Vec::new(),
            events: Vec::new(),
            stopped: false,
            slow_disk: false,
            tickets: Vec::new(),
            load: true,
        };
        self.procs.insert(node, proc);
        let others: Vec<u16> = self.procs.keys().copied().filter(|n| *n != node).collect();
        others.into_iter().for_each(|other| self.link(node, other));
    }

    pub(super) fn me(&self, node: u16) -> Member {
        self.procs[&node].core.me()
    }

    pub(super) fn view(&self, node: u16) -> Arc<View> {
        self.procs[&node].views.last().expect("a view").clone()
    }

    pub(super) fn members(&self, node: u16) -> Vec<u16> {
        self.view(node).members.iter().map(|m| m.node.0).collect()
    }

    pub(super) fn state(&mut self, node: u16, state: Position) {
        let nodes = self.nodes.clone();
        self.disks.entry(node).or_insert_with(|| (Durable::configured(&nodes), Position::ZERO)).1 =
            state;
    }

    fn linked(&self, a: u16, b: u16) -> bool {
        self.procs.contains_key(&a)
            && self.procs.contains_key(&b)
            && self.procs[&a].inbox.contains_key(&self.me(b))
    }

    fn link(&mut self, a: u16, b: u16) {
        if self.cut.contains(&(a.min(b), a.max(b))) || self.linked(a, b) {
            return;
        }
        for (x, y) in [(a, b), (b, a)] {
            let (peer, now) = (self.me(y), self.now);
            if self.procs[&x].core.standing() == Standing::Gone {
                return;
            }
            let proc = self.procs.get_mut(&x).unwrap();
            proc.inbox.insert(peer, VecDeque::new());
            proc.core.handle_up(now, peer);
        }
    }

    /// Ends a link on both sides; what was under way is lost.
    fn unlink(&mut self, a: u16, b: u16, why: Why) {
        for (x, y) in [(a, b), (b, a)] {
            let (peer, now) = (self.me(y), self.now);
            let proc = self.procs.get_mut(&x).unwrap();
            if proc.inbox.remove(&peer).is_some() {
                proc.opened.remove(&peer);
                proc.core.handle_dead(now, peer, why, now);
            }
        }
    }

    pub(super) fn cut(&mut self, a: u16, b: u16) {
        self.cut.insert((a.min(b), a.max(b)));
        self.unlink(a, b, Why::Silent);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        let nodes: Vec<u16> = self.procs.keys().copied().collect();
        for &a in &nodes {
            for &b in nodes.iter().filter(|b| **b > a) {
                self.link(a, b);
            }
        }
    }

    /// The process is gone; what is durable stays. Others learn it as `why`.
    pub(super) fn kill(&mut self, node: u16, why: Why) {
        let others: Vec<u16> = self.procs.keys().copied().filter(|n| *n != node).collect();
        let me = self.me(node);
        self.procs.remove(&node);
        for other in others {
            let (now, proc) = (self.now, self.procs.get_mut(&other).unwrap());
            if proc.inbox.remove(&me).is_some() {
                proc.opened.remove(&me);
                proc.core.handle_dead(now, me, why, now);
            }
        }
    }

    pub(super) fn send(&mut self, node: u16) -> u64 {
        self.sent += 1;
        self.procs.get_mut(&node).unwrap().committed.push_back(self.sent);
        self.sent
    }

    /// Lets everything that can happen without time passing happen.
    pub(super) fn calm(&mut self) {
        for _ in 0..10_000 {
            let nodes: Vec<u16> = self.procs.keys().copied().collect();
            let mut busy = false;
            for node in nodes {
                busy |= self.turn(node);
            }
            if !busy && self.fenced.is_empty() {
                return;
            }
            for (by, member) in std::mem::take(&mut self.fenced) {
                let (by_member, now) = (self.me(by), self.now);
                let other = member.node.0;
                let Some(proc) = self.procs.get_mut(&other).filter(|p| p.core.me() == member)
                else {
                    continue;
                };
                if proc.inbox.remove(&by_member).is_some() {
                    proc.opened.remove(&by_member);
                    proc.core.handle_dead(now, by_member, Why::Closed, now);
                }
                self.link(by, other);
            }
        }
        panic!("the group does not come to rest");
    }

    /// Lets time pass until nothing is waited for any more, or ten seconds.
    pub(super) fn run(&mut self) {
        self.pass(Duration::from_secs(10));
    }

    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..100_000 {
            self.calm();
            let next = |p: &Proc| if p.stopped { None } else { p.core.next_timeout() };
            let Some(at) = self.procs.values().filter_map(next).min().filter(|at| *at <= end)
            else {
                self.now = end;
                return;
            };
            self.now = at.max(self.now);
            for proc in self.procs.values_mut().filter(|p| !p.stopped) {
                if proc.core.next_timeout().is_some_and(|at| at <= self.now) {
                    proc.core.handle_timeout(self.now);
                }
            }
        }
        panic!("timers without end");
    }

    fn turn(&mut self, node: u16) -> bool {
        let mut proc = self.procs.remove(&node).unwrap();
        let busy = !proc.stopped && self.turn_of(node, &mut proc);
        self.procs.insert(node, proc);
        busy
    }

    fn turn_of(&mut self, node: u16, proc: &mut Proc) -> bool {
        let mut busy = false;
        let me = proc.core.me();
        // Control.
        let peers: Vec<Member> = proc.inbox.keys().copied().collect();
        for peer in peers {
            if self.held == Some((peer.node.0, node)) {
                continue;
            }
            while let Some(bytes) = proc.inbox.get_mut(&peer).and_then(VecDeque::pop_front) {
                proc.core.handle_control(self.now, peer, &bytes).expect("peers are correct");
                busy = true;
            }
        }
        busy |= self.sweep(proc);
        while let Some((ticket, durable)) = proc.core.poll_store() {
            busy = true;
            if proc.slow_disk {
                proc.tickets.push(ticket);
            } else {
                let state = self.disks.get(&node).map_or(Position::ZERO, |d| d.1);
                self.disks.insert(node, (durable, state));
                proc.core.handle_stored(self.now, ticket);
            }
        }
        while let Some(event) = proc.core.poll_event() {
            busy = true;
            self.act(proc, &event);
            proc.events.push(event);
            self.sweep(proc);
        }
        while let Some(bytes) = proc.core.poll_control() {
            busy = true;
            if self.drop_kind == Some((node, bytes[1])) {
                continue;
            }
            for other in self.procs.values_mut() {
                if let Some(inbox) = other.inbox.get_mut(&me) {
                    inbox.push_back(bytes.clone());
                }
            }
        }
        busy
    }

    fn sweep(&mut self, proc: &mut Proc) -> bool {
        let Some(view) = proc.core.view().cloned() else { return false };
        let own = proc.core.rank().unwrap();
        let mut busy = false;
        for (r, member) in view.members.iter().enumerate() {
            let Some(taken) = proc.opened.get_mut(member) else { continue };
            let Some(other) = self.procs.get(&member.node.0).filter(|p| p.core.me() == *member)
            else {
                continue;
            };
            let row = other.row;
            while let Some((record, _)) = other.log.get(*taken) {
                assert!(
                    proc.core.handle_record(Rank(r as u8), *record).unwrap(),
                    "windows keep queues from filling"
                );
                *taken += 1;
                busy = true;
            }
            proc.core.handle_row(Rank(r as u8), row).unwrap();
        }
        while !proc.committed.is_empty() {
            let Some(index) = proc.core.assign() else { break };
            let at = proc.log.len() as u64 * 64;
            let record = Record { index, position: at, end: at + 64, len: 8 };
            proc.log.push((record, proc.committed.pop_front().unwrap()));
            assert!(proc.core.handle_record(own, record).unwrap());
            busy = true;
        }
        let mut row = proc.core.row();
        while let Some(d) = proc.core.poll_delivery() {
            let sender = view.members[d.rank.index()];
            let log =
                if sender == proc.core.me() { &proc.log } else { &self.procs[&sender.node.0].log };
            proc.delivered.push((d.at, log[d.record.position as usize / 64].1));
            busy = true;
        }
        row.delivered = proc.core.row().delivered;
        busy |= row != proc.row;
        proc.row = row;
        busy
    }

    fn act(&mut self, proc: &mut Proc, event: &Event) {
        let me = proc.core.me();
        match event {
            Event::View { view, cause, .. } => {
                assert!(view.contains(me), "self-inclusion");
                assert!(proc.views.last().is_none_or(|v| v.id < view.id), "view numbers grow");
                proc.views.push(view.clone());
                proc.causes.push(cause.to_string());
            }
            Event::Open { peer, log_position } => {
                proc.opened.insert(*peer, *log_position as usize / 64);
            }
            Event::Fence(member) => {
                proc.inbox.remove(member);
                proc.opened.remove(member);
                self.fenced.push((me.node.0, *member));
                proc.core.handle_heard(self.now, *member, self.now);
            }
            Event::Load { .. } if proc.load => proc.core.ready(self.now, Position::ZERO),
            _ => {}
        }
    }

    /// Confirms what a slow disk has kept to itself.
    pub(super) fn disk_again(&mut self, node: u16) {
        let now = self.now;
        let proc = self.procs.get_mut(&node).unwrap();
        proc.slow_disk = false;
        for ticket in std::mem::take(&mut proc.tickets) {
            proc.core.handle_stored(now, ticket);
        }
    }

    /// Everybody who is a member delivered the same, as far as they were in the same views.
    pub(super) fn assert_agreement(&self) {
        let mut by_position: BTreeMap<Position, u64> = BTreeMap::new();
        let mut views: BTreeMap<ViewId, Arc<View>> = BTreeMap::new();
        for proc in self.procs.values() {
            for (at, message) in &proc.delivered {
                assert_eq!(
                    *by_position.entry(*at).or_insert(*message),
                    *message,
                    "one message at {at}"
                );
            }
            assert!(proc.delivered.is_sorted_by(|a, b| a.0 < b.0), "in order");
            for view in &proc.views {
                assert_eq!(
                    views.entry(view.id).or_insert_with(|| view.clone()),
                    view,
                    "one view per number"
                );
            }
        }
    }

    /// The messages `node` delivered.
    pub(super) fn messages(&self, node: u16) -> Vec<u64> {
        self.procs[&node].delivered.iter().map(|d| d.1).collect()
    }

    /// Whether `node`'s last event of that kind of interest says it is over.
    pub(super) fn evicted(&self, node: u16) -> bool {
        self.procs[&node].events.iter().any(|e| matches!(e, Event::Evicted(_)))
    }
}
