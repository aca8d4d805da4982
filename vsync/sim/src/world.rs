//! A run: processes in their surroundings, from the first boot to the verdict.
//!
//! Phase one: everything the seed's plan has in store. Phase two: the faults end, a core of nodes is healed (all of
//! them, or a quorum while the rest stays dead), applications fall silent a little later, and the group must
//! converge within a bound of virtual time: one primary, every node of the core a member or cleanly out, every send
//! resolved, equal states.

use std::panic::{AssertUnwindSafe, catch_unwind};

use quintet_transport::{Incarnation, Member, NodeId};

use crate::canary;
use crate::check::liveness;
use crate::check::outcome::Totals;
use crate::check::{Boot, ViewInfo, Violation};
use crate::env::{Deed, Env, Event, Input, Stats};
use crate::fabric::Fates;
use crate::faults::{self, Chaos};
use crate::plan::{Fault, MS, Options, Plan};
use crate::process::Process;
use crate::trace::Trace;

/// After the heal, applications go on sending for so long.
const AFTERGLOW: u64 = 100 * MS;
/// After the heal, all must be well within this.
const PATIENCE: u64 = 8_000 * MS;
/// How often that is looked at.
const JUDGE_EVERY: u64 = 20 * MS;
/// A run that takes more events than this is running in circles. (Seven nodes that talk a lot over packets take nine
/// million.)
const MOST_EVENTS: u64 = 20_000_000;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub options: Options,
    /// What the seed drew.
    pub plan: Plan,
    /// The first violation, if any.
    pub violation: Option<Violation>,
    /// Hash of all steps.
    pub hash: u64,
    /// Views installed.
    pub views: usize,
    /// Messages committed, and deliveries over all processes.
    pub sends: u64,
    /// Deliveries over all processes.
    pub deliveries: u64,
    /// Sends acknowledged as durable.
    pub acknowledged: usize,
    /// What became of the sends.
    pub outcomes: Totals,
    /// Reads answered and refused.
    pub reads: (u64, u64),
    /// Virtual time from the heal to convergence.
    pub converged: Option<u64>,
    /// Virtual length of the run.
    pub length: u64,
    /// Counters.
    pub stats: Stats,
    /// How datagrams fared, where links carry packets.
    pub datagrams: Fates,
    /// Last lines of the trace, if kept.
    pub tail: Vec<String>,
}

/// The processes and what surrounds them.
pub struct World {
    env: Env,
    procs: Vec<Option<Box<Process>>>,
    chaos: Chaos,
    healed_at: u64,
    converged: Option<u64>,
}

impl World {
    /// The world of a seed, before its first event.
    pub fn new(options: &Options, keep_tail: bool) -> World {
        let plan = Plan::draw(options);
        let mut env = Env::new(plan.clone(), Trace::new(options.trace, keep_tail));
        env.bug = options.bug.and_then(canary::parse);
        let chaos = Chaos::new(&plan, &mut env);
        let members = (1..=plan.nodes).map(|n| Member::new(n, 0)).collect();
        env.checks.views.genesis(ViewInfo { members, ..ViewInfo::default() });
        for node in 1..=plan.nodes {
            let at = env.tapes.turn.range(0, 30 * MS);
            env.schedule(at, Event::Restart(node));
        }
        env.schedule(plan.chaos, Event::Heal);
        World { env, procs: Vec::new(), chaos, healed_at: 0, converged: None }
    }

    /// Runs to the verdict.
    pub fn run(mut self, options: &Options) -> Report {
        while self.env.checks.found().is_none() && self.converged.is_none() {
            let Some(event) = self.env.advance() else { break };
            self.handle(event);
            if self.env.stats.events > MOST_EVENTS {
                let text = "running in circles: too many events".to_string();
                self.env.checks.note(Err(Violation::new(21, text + &self.waiting())));
            }
        }
        let checks = &self.env.checks;
        Report {
            options: options.clone(),
            plan: self.env.plan.clone(),
            violation: checks.found().cloned(),
            hash: self.env.trace.hash(),
            views: checks.views.count() - 1,
            sends: checks.order.sends(),
            deliveries: checks.order.deliveries(),
            acknowledged: checks.durable.count(),
            outcomes: checks.outcome.totals(),
            reads: checks.lease.totals(),
            converged: self.converged.map(|t| t - self.healed_at),
            length: self.env.now,
            stats: self.env.stats.clone(),
            datagrams: self.env.fabric.fates(),
            tail: self.env.trace.tail().map(str::to_owned).collect(),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Turn(boot) => self.turn(boot),
            Event::Packet(packet) => {
                let from = packet.from.node.0;
                let bare = packet.body.is_bare();
                match self.env.fabric.arrive(from, packet.to, self.env.now, bare) {
                    crate::fabric::Fate::Gone => {}
                    crate::fabric::Fate::At(at) if at > self.env.now => {
                        self.env.schedule(at, Event::Packet(packet));
                    }
                    crate::fabric::Fate::At(_) => {
                        if let Some(boot) = self.env.seat(packet.to).boot {
                            self.input(boot, Input::Packet(*packet));
                        }
                    }
                }
            }
            Event::Input(boot, input) => self.input(boot, *input),
            Event::Restart(node) => self.start(node),
            Event::Fault(fault) => {
                for deed in self.chaos.act(fault, &mut self.env) {
                    self.deed(deed);
                }
            }
            Event::Deed(deed) if !self.env.healed => self.deed(deed),
            Event::Deed(_) => {}
            Event::Heal => self.heal(),
            Event::Retire => self.retire(),
            Event::Judge => self.judge(),
        }
    }

    /// Puts something before a process's door and sees to it that the process looks.
    fn input(&mut self, boot: Boot, input: Input) {
        if let Some(process) = self.procs.get_mut(boot).and_then(Option::as_mut) {
            process.inbox.push_back(input);
            process.look(&mut self.env);
        }
    }

    fn turn(&mut self, boot: Boot) {
        let Some(mut process) = self.procs.get_mut(boot).and_then(Option::take) else { return };
        let env = &mut self.env;
        // A panic in the core is a finding like any other: it must name its seed and not end the hunt.
        let outcome = catch_unwind(AssertUnwindSafe(|| process.turn(env)));
        if let Err(panic) = outcome {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default();
            let text = format!("{}: {text} ({})", process.me, crate::panics::last());
            self.env.checks.note(Err(Violation::new(crate::check::PANIC, text)));
            return;
        }
        let node = process.me.node.0;
        let doomed = self.env.doomed.take() == Some(boot);
        if doomed || process.is_over() {
            let again = if doomed {
                self.env.tapes.crash.tail(5 * MS, 300 * MS)
            } else {
                self.env.tapes.turn.range(MS, 20 * MS)
            };
            self.procs[boot] = Some(process);
            self.stop(node, doomed, again);
        } else {
            self.procs[boot] = Some(process);
        }
    }

    /// A node's process starts, as a new incarnation.
    fn start(&mut self, node: u16) {
        let now = self.env.now;
        let seat = self.env.seat(node);
        if seat.boot.is_some() || seat.retired {
            return;
        }
        seat.incarnation += 1;
        let me = Member { node: NodeId(node), incarnation: Incarnation(seat.incarnation) };
        let boot = self.procs.len();
        seat.boot = Some(boot);
        self.env.stats.boots += 1;
        self.env.trace.step(now, [1, u64::from(node), 0, 0], format_args!("{me} starts"));
        let mut process = Box::new(Process::start(boot, me, &mut self.env));
        let state = process.app.applied();
        let text = format_args!(
            "{me} has state {} and {} messages",
            crate::check::show(state),
            process.app.state().0
        );
        self.env.trace.step(now, [1, state, 0, 0], text);
        process.look(&mut self.env);
        self.procs.push(Some(process));
    }

    /// A node's process ends, by a crash or by itself; it starts again after `down`.
    fn stop(&mut self, node: u16, crash: bool, down: u64) {
        let Some(boot) = self.env.seat(node).boot.take() else { return };
        let Some(mut process) = self.procs[boot].take() else { return };
        let env = &mut self.env;
        env.trace.step(
            env.now,
            [2, u64::from(node), u64::from(crash), 0],
            format_args!("{} ends", process.me),
        );
        process.end(crash, env);
        // Those on the same machine, or with a kernel that answers for it, see the end at once and for certain.
        for other in self.procs.iter().flatten() {
            let Some(session) = other.session_with(boot) else { continue };
            let (a, b) = (node, other.me.node.0);
            let seen =
                env.tapes.crash.chance(env.plan.certain) && !env.fabric.is_cut(a, b, env.now);
            let after = env.tapes.crash.tail(50_000, 5 * MS);
            if seen {
                env.schedule(
                    env.now + after,
                    Event::Input(other.boot, Box::new(Input::Gone(session))),
                );
            }
        }
        env.schedule(env.now + down, Event::Restart(node));
    }

    fn deed(&mut self, deed: Deed) {
        match deed {
            Deed::Crash(node, down) => self.stop(node, true, down),
            Deed::Power(node, down, lost) => {
                self.stop(node, true, down);
                let journal = &mut self.env.seat(node).journal.entries;
                journal.truncate(journal.len().saturating_sub(lost));
            }
            Deed::Pause(node, span) => {
                let until = self.env.now + span;
                if let Some(process) = self.process(node) {
                    process.paused_until = process.paused_until.max(until);
                }
            }
            Deed::Leave(node) => {
                if let (Some(boot), Some(input)) =
                    (self.env.seat(node).boot, faults::input(deed, None))
                {
                    self.input(boot, input);
                }
            }
            Deed::Doubt(node, other) => {
                let Some(boot) = self.env.seat(node).boot else { return };
                let peer = self.env.seat(other).boot;
                let session = peer.and_then(|p| self.process(node).and_then(|x| x.session_with(p)));
                if let Some(input) = faults::input(deed, session) {
                    self.input(boot, input);
                }
            }
        }
    }

    fn process(&mut self, node: u16) -> Option<&mut Process> {
        let boot = self.env.seat(node).boot?;
        self.procs[boot].as_deref_mut()
    }

    /// Phase two begins.
    fn heal(&mut self) {
        let now = self.env.now;
        self.healed_at = now;
        self.env.healed = true;
        self.env.fabric.heal();
        self.env.trace.step(now, [3, 0, 0, 0], format_args!("== the faults end"));
        for node in 1..=self.env.plan.nodes {
            self.env.seat(node).slow_until = 0;
            if self.env.seat(node).boot.is_none() {
                let at = now + self.env.tapes.turn.range(0, 50 * MS);
                self.env.schedule(at, Event::Restart(node));
            }
            if let Some(boot) = self.env.seat(node).boot
                && let Some(process) = &mut self.procs[boot]
            {
                process.wake(&mut self.env);
            }
        }
        if self.env.plan.core_only {
            let at = now + self.env.tapes.crash.tail(0, AFTERGLOW / 2);
            self.env.schedule(at, Event::Retire);
        }
        self.env.schedule(now + AFTERGLOW, Event::Judge);
    }

    /// The nodes outside the core crash and stay away. While a view is being changed nobody outside can tell which
    /// nodes will be needed (a proposal on its way may name any), so it is done in a quiet moment or not at all.
    fn retire(&mut self) {
        let now = self.env.now;
        let latest = self.env.checks.views.latest_decided().map_or(0, |v| v.id);
        let here = |p: &Process| p.view == latest && !p.core.wedged();
        if self.procs.iter().flatten().any(|p| p.core.wedged())
            || !self.procs.iter().flatten().any(|p| here(p))
        {
            if now < self.healed_at + AFTERGLOW / 2 {
                self.env.schedule(now + MS, Event::Retire);
            }
            return;
        }
        let stay = self.choose_core();
        for node in 1..=self.env.plan.nodes {
            if !stay.contains(&node) {
                self.env.seat(node).retired = true;
                self.stop(node, true, 0);
            }
        }
    }

    /// The nodes that go on in phase two: a majority of the configured nodes that also holds a quorum of the
    /// highest view anybody may know of (else the group may block, and rightly).
    fn choose_core(&mut self) -> Vec<u16> {
        let latest = self.env.checks.views.latest_decided().map_or(0, |v| v.id);
        // A newcomer whose donor has not finished does not have the state yet, and ends if the donor does.
        let has = |p: &&Process| p.view == latest && p.loading.is_none();
        let procs = self.procs.iter().flatten().map(|p| &**p);
        let holders: Vec<u16> = procs.filter(has).map(|p| p.me.node.0).collect();
        let nodes: Vec<u16> = (1..=self.env.plan.nodes).collect();
        let mut leave = nodes.clone();
        self.env.tapes.crash.shuffle(&mut leave);
        let mut stay = nodes;
        for node in leave {
            let mut fewer = stay.clone();
            fewer.retain(|&n| n != node);
            if fewer.len() * 2 <= usize::from(self.env.plan.nodes) {
                break;
            }
            if liveness::may_go_on(&self.env, &fewer, &holders) && self.env.tapes.crash.below(3) > 0
            {
                stay = fewer;
            }
        }
        self.env.trace.step(
            self.env.now,
            [4, stay.len() as u64, 0, 0],
            format_args!("== core {stay:?}"),
        );
        stay
    }

    /// After a power failure, nobody may have what is owed: the operator gives it up when all nodes are back and say so.
    fn operate(&mut self) {
        if !self.env.plan.faults.has(Fault::Power) {
            return;
        }
        let owed = |p: &Process| Some(p.core.blocked()?.owed?.owed);
        let procs: Vec<&Process> = self.procs.iter().flatten().map(|p| &**p).collect();
        let running = self.env.seats.iter().filter(|s| !s.retired).count();
        if procs.len() < running || procs.iter().any(|p| owed(p).is_none()) {
            return;
        }
        let most = procs.iter().filter_map(|p| owed(p)).max();
        if let (Some(process), Some(owed)) = (procs.first(), most) {
            self.input(process.boot, Input::Recover(owed));
        }
    }

    fn judge(&mut self) {
        let now = self.env.now;
        self.operate();
        if !self.env.quiet {
            self.env.quiet = true;
            self.env.trace.step(now, [5, 0, 0, 0], format_args!("== applications fall silent"));
        }
        let procs: Vec<&Process> = self.procs.iter().flatten().map(|p| &**p).collect();
        match liveness::converged(&self.env, &procs) {
            Ok(()) => {
                let verdict = liveness::states_hold(&mut self.env, &procs);
                self.env.checks.note(verdict);
                self.converged = Some(now);
            }
            Err(why) if now > self.healed_at + PATIENCE => {
                let text = format!("{why}{}", self.waiting());
                self.env.checks.note(Err(Violation::new(21, text)));
            }
            Err(_) => self.env.schedule(now + JUDGE_EVERY, Event::Judge),
        }
    }

    /// Who waits for what.
    fn waiting(&self) -> String {
        let mut text = String::new();
        for seat in &self.env.seats {
            text += "\n    ";
            match seat.boot.and_then(|b| self.procs[b].as_deref()) {
                Some(process) => text += &process.describe(&self.env),
                None => {
                    text += &format!(
                        "n{} is down{}",
                        seat.node,
                        if seat.retired { " for good" } else { "" }
                    )
                }
            }
        }
        text
    }
}

/// Counts how often `fault` acted, for the summary: classes without appointments act as long as they are in use.
pub fn acted(report: &Report, fault: Fault) -> u64 {
    let ambient = matches!(
        fault,
        Fault::Delay | Fault::Reorder | Fault::Loss | Fault::Drift | Fault::Writes | Fault::Aimed
    );
    match fault {
        Fault::Duplicate => report.datagrams.repeated,
        Fault::Corrupt => report.datagrams.damaged,
        _ => match report.stats.faults.get(&fault) {
            Some(&count) => count,
            None => u64::from(ambient && report.plan.faults.has(fault)),
        },
    }
}
