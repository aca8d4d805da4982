//! When and how each fault class acts.
//!
//! Every class has its own tape and its own next appointment on the heap, so a class that is left out takes its
//! draws and its events with it and leaves the others' appointments where they were. Classes that live
//! inside other parts (delay, loss and reordering in `fabric`, crashes aimed at view changes in `drive`, slow and lossy
//! disks in `process`, drift in `env`) have no appointment.

use crate::entropy::{Concern, Tape};
use crate::env::{Deed, Env, Event, Input};
use crate::plan::{Fault, MS, Plan};

/// One fault class's schedule.
#[derive(Debug)]
struct Appointment {
    fault: Fault,
    tape: Tape,
    every: u64,
}

/// The schedules of all classes in use.
#[derive(Debug)]
pub struct Chaos {
    list: Vec<Appointment>,
}

impl Chaos {
    /// The schedules of a plan, with the first appointments made.
    pub fn new(plan: &Plan, env: &mut Env) -> Chaos {
        let concern = |fault| match fault {
            Fault::Clog => Some((Concern::Clog, 0, 60)),
            Fault::Crash => Some((Concern::Crash, 0, 250)),
            Fault::Pause => Some((Concern::Pause, 0, 150)),
            Fault::Partition => Some((Concern::Partition, 0, 300)),
            Fault::Partial => Some((Concern::Partition, 1, 200)),
            Fault::OneWay => Some((Concern::Partition, 2, 200)),
            Fault::Suspicion => Some((Concern::Suspicion, 0, 150)),
            Fault::Step => Some((Concern::Clock, 1, 250)),
            Fault::Slow => Some((Concern::Slow, 0, 150)),
            Fault::Total => Some((Concern::Total, 0, 700)),
            Fault::Leave => Some((Concern::Leave, 0, 300)),
            Fault::Erode => Some((Concern::Erode, 0, 600)),
            Fault::Power => Some((Concern::Power, 0, 600)),
            _ => None,
        };
        let mut list = Vec::new();
        for fault in plan.faults.iter() {
            let Some((concern, index, every_ms)) = concern(fault) else { continue };
            let mut tape = Tape::new(plan.seed, concern, index, plan.tape);
            let every = every_ms * MS / plan.strength(fault).max(1);
            let first = tape.range(1, every * 2);
            list.push(Appointment { fault, tape, every });
            env.schedule(first, Event::Fault(fault));
        }
        Chaos { list }
    }

    /// `fault` acts now; the next appointment is made.
    pub fn act(&mut self, fault: Fault, env: &mut Env) -> Vec<Deed> {
        if env.healed {
            return Vec::new();
        }
        let Some(entry) = self.list.iter_mut().find(|a| a.fault == fault) else {
            return Vec::new();
        };
        let tape = &mut entry.tape;
        let next = env.now + tape.range(entry.every / 4, entry.every * 2);
        env.schedule(next, Event::Fault(fault));
        let nodes = env.plan.nodes;
        let one = tape.range(1, u64::from(nodes)) as u16;
        let other = {
            let pick = tape.range(1, u64::from(nodes) - 1) as u16;
            if pick >= one { pick + 1 } else { pick }
        };
        // A node and its peer are drawn for every class, so that each takes the same number of draws.
        let now = env.now;
        match fault {
            Fault::Clog => {
                let until = now + tape.tail(MS, 150 * MS);
                env.fabric.block(one, other, until, true);
                env.acted(fault, format_args!("n{one} → n{other} for {} ms", (until - now) / MS));
            }
            Fault::Crash => {
                let down = tape.tail(5 * MS, 500 * MS);
                env.acted(fault, format_args!("n{one} for {} ms", down / MS));
                return vec![Deed::Crash(one, down)];
            }
            Fault::Pause => {
                let span = tape.tail(2 * MS, 400 * MS);
                env.acted(fault, format_args!("n{one} for {} ms", span / MS));
                return vec![Deed::Pause(one, span)];
            }
            Fault::Partition => {
                let until = now + tape.tail(10 * MS, 500 * MS);
                let side = tape.range(1, (1 << nodes) - 2);
                for a in 1..=nodes {
                    for b in 1..=nodes {
                        if (side >> (a - 1) ^ side >> (b - 1)) & 1 == 1 {
                            env.fabric.block(a, b, until, false);
                        }
                    }
                }
                env.acted(fault, format_args!("side {side:b} for {} ms", (until - now) / MS));
            }
            Fault::Partial => {
                let until = now + tape.tail(10 * MS, 500 * MS);
                env.fabric.block(one, other, until, false);
                env.fabric.block(other, one, until, false);
                env.acted(fault, format_args!("n{one} – n{other} for {} ms", (until - now) / MS));
            }
            Fault::OneWay => {
                let until = now + tape.tail(10 * MS, 500 * MS);
                env.fabric.block(one, other, until, false);
                env.acted(fault, format_args!("n{one} → n{other} for {} ms", (until - now) / MS));
            }
            Fault::Suspicion => {
                env.acted(fault, format_args!("n{one} takes n{other} for dead"));
                return vec![Deed::Doubt(one, other)];
            }
            Fault::Step => {
                let by = tape.tail(MS, 2000 * MS);
                env.seat(one).clock.step(by);
                env.acted(fault, format_args!("n{one} by {} ms", by / MS));
            }
            Fault::Slow => {
                let until = now + tape.tail(5 * MS, 200 * MS);
                env.seat(one).slow_until = until;
                env.acted(fault, format_args!("n{one} for {} ms", (until - now) / MS));
            }
            Fault::Total => {
                env.acted(fault, format_args!("all nodes"));
                return (1..=nodes).map(|n| Deed::Crash(n, tape.tail(5 * MS, 300 * MS))).collect();
            }
            Fault::Erode => {
                let Some(view) = env.checks.views.latest() else { return Vec::new() };
                let victims: Vec<u16> = view.members.iter().rev().map(|m| m.node.0).collect();
                env.acted(fault, format_args!("{victims:?}"));
                let (mut at, every) = (now, tape.tail(MS, 60 * MS));
                for node in victims {
                    let down = tape.tail(50 * MS, 600 * MS);
                    env.schedule(at, Event::Deed(Deed::Crash(node, down)));
                    at += tape.range(every / 2, every * 2);
                }
            }
            Fault::Power => {
                env.acted(fault, format_args!("all nodes"));
                let mut off = |n| {
                    let lost = if tape.below(3) == 0 { 0 } else { tape.tail(1, 2000) as usize };
                    Deed::Power(n, tape.tail(5 * MS, 300 * MS), lost)
                };
                return (1..=nodes).map(&mut off).collect();
            }
            Fault::Leave => {
                env.acted(fault, format_args!("n{one}"));
                return vec![Deed::Leave(one)];
            }
            _ => {}
        }
        Vec::new()
    }
}

/// The input that a deed is, for those that are one.
pub fn input(deed: Deed, session: Option<u64>) -> Option<Input> {
    match deed {
        Deed::Leave(_) => Some(Input::Leave),
        Deed::Doubt(..) => session.map(Input::Doubt),
        Deed::Crash(..) | Deed::Power(..) | Deed::Pause(..) => None,
    }
}
