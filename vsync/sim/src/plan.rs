//! What one seed does: a swarm plan.
//!
//! If every run used every fault at a middling rate, all runs would look alike, and a fault that needs calm
//! around it (or another fault at full strength) would never be met. So each seed draws its own subset of
//! fault classes, and its own strength for each.

use std::fmt;

use crate::entropy::{Concern, Tape};

/// Milliseconds in nanoseconds.
pub const MS: u64 = 1_000_000;
/// Microseconds in nanoseconds.
pub const US: u64 = 1_000;

/// A class of faults; the unit that a seed picks and that shrinking removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fault {
    /// Packets take long now and then.
    Delay,
    /// One direction of a link stands still for a while.
    Clog,
    /// Log bytes and words of one flush travel apart.
    Reorder,
    /// Packets are lost and repeated later.
    Loss,
    /// Nodes crash and restart.
    Crash,
    /// A node crashes in the middle of a view change, having sent to some peers only.
    Aimed,
    /// Nodes stop, their backlog grows, they go on.
    Pause,
    /// The nodes fall into two halves.
    Partition,
    /// Single links are cut.
    Partial,
    /// Single directions are cut.
    OneWay,
    /// A living peer is declared dead.
    Suspicion,
    /// Clocks run at different rates.
    Drift,
    /// A clock leaps forward (voids the read lease, so reads are not judged in such a run).
    Step,
    /// Nodes that take turns rarely and in small bites.
    Slow,
    /// All nodes crash within a moment.
    Total,
    /// Disks are slow, and a crash loses what was not synced.
    Writes,
    /// Nodes leave and come back.
    Leave,
    /// The view is eaten up: its members crash one after the other, the one of rank 0 last.
    Erode,
    /// The power fails: all nodes crash, and journals lose some of what was thought to be on disk. (Voids durability:
    /// see [`Durable::forgive`](crate::check::durable::Durable::forgive) for what must still hold.)
    Power,
    /// Datagrams arrive more than once. (Acts where links carry packets.)
    Duplicate,
    /// Bits of datagrams flip. (Acts where links carry packets.)
    Corrupt,
}

impl Fault {
    /// Every class; what was added later stands at the end.
    pub const ALL: [Fault; 21] = [
        Fault::Delay,
        Fault::Clog,
        Fault::Reorder,
        Fault::Loss,
        Fault::Crash,
        Fault::Aimed,
        Fault::Pause,
        Fault::Partition,
        Fault::Partial,
        Fault::OneWay,
        Fault::Suspicion,
        Fault::Drift,
        Fault::Step,
        Fault::Slow,
        Fault::Total,
        Fault::Writes,
        Fault::Leave,
        Fault::Erode,
        Fault::Power,
        Fault::Duplicate,
        Fault::Corrupt,
    ];
    /// The classes of the first days. What was added later is drawn from a tape of its own, so that the other draws of
    /// a seed stay what they were.
    const FIRST: usize = 18;

    /// The name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Delay => "delay",
            Fault::Clog => "clog",
            Fault::Reorder => "reorder",
            Fault::Loss => "loss",
            Fault::Crash => "crash",
            Fault::Aimed => "aimed",
            Fault::Pause => "pause",
            Fault::Partition => "partition",
            Fault::Partial => "partial",
            Fault::OneWay => "oneway",
            Fault::Suspicion => "suspicion",
            Fault::Drift => "drift",
            Fault::Step => "step",
            Fault::Slow => "slow",
            Fault::Total => "total",
            Fault::Writes => "writes",
            Fault::Leave => "leave",
            Fault::Erode => "erode",
            Fault::Power => "power",
            Fault::Duplicate => "duplicate",
            Fault::Corrupt => "corrupt",
        }
    }

    /// The class of that name.
    pub fn parse(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|f| f.name() == name)
    }

    /// How often, of 100 seeds, this class is drawn.
    fn share(self) -> u64 {
        match self {
            Fault::Delay | Fault::Crash => 55,
            Fault::Reorder | Fault::Loss | Fault::Pause | Fault::Writes => 40,
            Fault::Step | Fault::Power => 8,
            Fault::Total | Fault::Leave | Fault::Erode => 25,
            _ => 30,
        }
    }
}

/// A set of fault classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub u32);

impl Faults {
    /// Is `fault` in the set?
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u8) != 0
    }

    /// The set with `fault`.
    #[must_use]
    pub fn with(self, fault: Fault) -> Faults {
        Faults(self.0 | 1 << fault as u8)
    }

    /// The set without `others`.
    #[must_use]
    pub fn minus(self, others: Faults) -> Faults {
        Faults(self.0 & !others.0)
    }

    /// The classes in the set.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |&f| self.has(f))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Fault::name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

/// What links between nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// A model of the lanes' promises.
    Model,
    /// The real reliable UDP core, and datagrams.
    Packets,
}

impl Links {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Links::Model => "model",
            Links::Packets => "packets",
        }
    }
}

/// What to run: a seed, and what to leave out of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed; everything follows from it.
    pub seed: u64,
    /// A planted bug to switch on.
    pub bug: Option<&'static str>,
    /// Fault classes to leave out, though the seed drew them.
    pub without: Faults,
    /// Length of the faulty phase, if not the seed's own.
    pub chaos_ms: Option<u64>,
    /// Length of every fault tape, if not endless.
    pub tape: Option<u64>,
    /// What links are, if not the seed's own.
    pub links: Option<Links>,
    /// Print the trace.
    pub trace: bool,
}

impl Options {
    /// Seed `seed` as it is.
    pub fn seed(seed: u64) -> Self {
        Options {
            seed,
            bug: None,
            without: Faults::default(),
            chaos_ms: None,
            tape: None,
            links: None,
            trace: false,
        }
    }

    /// The one command that runs exactly this.
    pub fn command(&self) -> String {
        let mut text = format!("cargo run -p quintet-sim --release -- --seed {}", self.seed);
        if let Some(bug) = self.bug {
            text += &format!(" --bug {bug}");
        }
        if self.without != Faults::default() {
            text += &format!(" --without {}", self.without);
        }
        if let Some(ms) = self.chaos_ms {
            text += &format!(" --chaos-ms {ms}");
        }
        if let Some(tape) = self.tape {
            text += &format!(" --tape {tape}");
        }
        if let Some(links) = self.links {
            text += &format!(" --links {}", links.name());
        }
        text
    }
}

/// The drawn shape of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes configured.
    pub nodes: u16,
    /// Fault classes in use.
    pub faults: Faults,
    /// Strength of each class, 1 (rare, short) to 3 (often, long); 0 if unused.
    strength: [u8; Fault::ALL.len()],
    /// Length of the faulty phase.
    pub chaos: u64,
    /// Mean pause between two sends of a node.
    pub send_every: u64,
    /// Most bytes of a payload.
    pub payload: u64,
    /// Bytes of a node's group log.
    pub log_bytes: u64,
    /// Probability (of a million) that a crash is seen at once and for certain by a given peer.
    pub certain: u64,
    /// In the second phase only a quorum of the nodes is healed; the others stay dead.
    pub core_only: bool,
    /// Upper bound of a fair packet's delay.
    pub fair_delay: u64,
    /// Turns that only beat do not drive the core, so that a lost wake-up shows.
    pub strict: bool,
    /// Links carry the packets of the real reliable UDP core.
    pub packets: bool,
    /// Length of the fault tapes.
    pub tape: u64,
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(options: &Options) -> Plan {
        let mut tape = Tape::new(options.seed, Concern::Plan, 0, u64::MAX);
        let nodes = match tape.below(100) {
            0..50 => 3,
            50..68 => 4,
            68..88 => 5,
            88..95 => 2,
            _ => 7,
        };
        let mut faults = Faults::default();
        let mut strength = [0; Fault::ALL.len()];
        let mut later = Tape::new(options.seed, Concern::Plan, 1, u64::MAX);
        for (at, fault) in Fault::ALL.into_iter().enumerate() {
            let tape = if at < Fault::FIRST { &mut tape } else { &mut later };
            let drawn = tape.below(100) < fault.share();
            let force = 1 + tape.below(3) as u8;
            if drawn {
                faults = faults.with(fault);
                strength[fault as usize] = force;
            }
        }
        // One seed in eight concentrates on few classes: what a calm surrounding brings out.
        let keep = tape.below(8);
        let favourite = *tape.pick(&Fault::ALL[..=Fault::FIRST]).unwrap_or(&Fault::Crash);
        if keep == 0 {
            faults = Faults::default().with(favourite).with(Fault::Delay);
            strength[favourite as usize] = 3;
            strength[Fault::Delay as usize] = strength[Fault::Delay as usize].max(1);
        }
        let chaos = tape.range(300, 1500) * MS;
        let plan = Plan {
            seed: options.seed,
            nodes,
            faults: faults.minus(options.without),
            strength,
            chaos,
            send_every: *tape.pick(&[300 * US, MS, 3 * MS, 10 * MS]).unwrap_or(&MS),
            payload: *tape.pick(&[64, 400, 2000]).unwrap_or(&64),
            log_bytes: *tape.pick(&[16 << 10, 64 << 10, 1 << 20]).unwrap_or(&(1 << 20)),
            certain: *tape.pick(&[0, 300_000, 900_000, 1_000_000]).unwrap_or(&0),
            core_only: tape.below(4) == 0,
            fair_delay: *tape.pick(&[20 * US, 100 * US, 500 * US]).unwrap_or(&(100 * US)),
            strict: tape.below(2) == 0,
            packets: options.links.map_or(later.below(4) == 0, |links| links == Links::Packets),
            tape: options.tape.unwrap_or(u64::MAX),
        };
        Plan { chaos: options.chaos_ms.map_or(plan.chaos, |ms| ms * MS), ..plan }
    }

    /// 0 if the class is unused, else 1 to 3.
    pub fn strength(&self, fault: Fault) -> u64 {
        if self.faults.has(fault) { u64::from(self.strength[fault as usize]) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_a_class_out_changes_nothing_else() {
        let full = Plan::draw(&Options::seed(3));
        let without = Faults::default().with(Fault::Crash);
        let less = Plan::draw(&Options { without, ..Options::seed(3) });
        assert_eq!(less.faults, full.faults.minus(without));
        assert_eq!(
            (less.nodes, less.chaos, less.send_every),
            (full.nodes, full.chaos, full.send_every)
        );
    }

    #[test]
    fn every_class_and_every_size_is_drawn_within_300_seeds() {
        let plans: Vec<Plan> = (0..300).map(|s| Plan::draw(&Options::seed(s))).collect();
        for fault in Fault::ALL {
            assert!(plans.iter().any(|p| p.faults.has(fault)), "{}", fault.name());
        }
        for nodes in [2, 3, 4, 5, 7] {
            assert!(plans.iter().any(|p| p.nodes == nodes), "{nodes}");
        }
        let packets = plans.iter().filter(|p| p.packets).count();
        assert!((50..100).contains(&packets), "{packets}");
    }

    #[test]
    fn names_parse_back() {
        for fault in Fault::ALL {
            assert_eq!(Fault::parse(fault.name()), Some(fault));
        }
    }
}
