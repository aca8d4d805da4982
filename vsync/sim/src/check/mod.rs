//! The invariants, always on.
//!
//! Each file watches one group of them (numbers as in the design page) from outside: it is told what every
//! process sent, installed, delivered, wrote, answered and reported, and never asks the protocol core what it thinks. Where
//! a checker needs the truth (how far did that member really receive?) it takes the owner's own row, which no
//! copy may be ahead of.
//!
//! | file | invariants |
//! |---|---|
//! | `views` | 1 self-inclusion, 2 increasing ids, 3 same id same view, 4 one decided value accepted by a quorum, 10 transitional sets |
//! | `order` | 5 integrity, 6 no duplicates, 7 delivered in its view, 11 FIFO without gaps, 13 total order |
//! | `synchrony` | 9 virtual synchrony, 14 uniformity, 17 one trim, 18 equal state at a cut |
//! | `outcome` | 8 one outcome for every send, and the one that was reported |
//! | `words` | 15 monotonic words, stable deliveries, reuse of slots; 16 fence |
//! | `durable` | 19 what was acknowledged survives |
//! | `lease` | a read under a lease is never older than a completed write |
//! | `liveness` | 21 convergence after the faults have ended |

pub mod durable;
pub mod lease;
pub mod liveness;
pub mod order;
pub mod outcome;
pub mod synchrony;
pub mod views;
pub mod words;

#[cfg(test)]
mod tests;

use quintet_transport::Member;
use quintet_vsync::core::{Origin, View};

/// A run of a node, counted over the whole simulation.
pub type Boot = usize;

/// Bits of a position below its view number.
pub const VIEW_SHIFT: u32 = 40;

/// The view a position belongs to.
pub fn view_of(position: u64) -> u64 {
    position >> VIEW_SHIFT
}

/// A position as a person reads it.
pub fn show(position: u64) -> String {
    format!("{}:{}", view_of(position), position & ((1 << VIEW_SHIFT) - 1))
}

/// A read under a lease is never older than a completed write. Not of the design page's list.
pub const READ_LEASE: u8 = 0;
/// No core refuses what a correct peer sent. Not of the design page's list.
pub const REFUSAL: u8 = 100;
/// No core panics. Not of the design page's list.
pub const PANIC: u8 = 101;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number in the design page, or one of those above.
    pub invariant: u8,
    /// What was seen.
    pub text: String,
}

impl Violation {
    /// A violation of `invariant`.
    pub fn new(invariant: u8, text: impl Into<String>) -> Violation {
        Violation { invariant, text: text.into() }
    }

    /// What did not hold, for people: the number, if the design page gave it one, and the name.
    pub fn name(&self) -> String {
        match self.invariant {
            READ_LEASE => "fresh reads under a lease".into(),
            REFUSAL => "correct peers are believed".into(),
            PANIC => "no core panics".into(),
            number => format!("{number} {}", numbered(number)),
        }
    }
}

/// The short name of an invariant of the design page.
fn numbered(invariant: u8) -> &'static str {
    match invariant {
        1 => "self-inclusion",
        2 => "view ids increase",
        3 => "same id, same view",
        4 => "primary uniqueness",
        5 => "integrity",
        6 => "no duplicates",
        7 => "delivered in its view",
        8 => "one outcome",
        9 => "virtual synchrony",
        10 => "transitional set",
        11 => "FIFO without gaps",
        13 => "total order",
        14 => "uniformity",
        15 => "words and reuse",
        16 => "fence",
        17 => "one trim",
        18 => "joiner's state",
        19 => "durability",
        21 => "liveness",
        _ => "not checked",
    }
}

/// What a checker says to an observation.
pub type Verdict = Result<(), Violation>;

/// A view as the checkers know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewInfo {
    /// Its number.
    pub id: u64,
    /// Members in rank order.
    pub members: Vec<Member>,
    /// Who of them joined with it (their state came by transfer).
    pub joined: Vec<Member>,
    /// Who was in the view before it and is not in this one.
    pub departed: Vec<Member>,
    /// It was made from states on disk: nobody of the view before was alive.
    pub founded: bool,
    /// It says of itself that what was owed between these positions was given up.
    pub given_up: Option<(u64, u64)>,
}

impl ViewInfo {
    /// A view of the core, in the checkers' words.
    pub fn of(view: &View) -> ViewInfo {
        ViewInfo {
            id: view.id.0,
            members: view.members.clone(),
            joined: view.joined.clone(),
            departed: view.departed.iter().map(|d| d.member).collect(),
            founded: view.origin != Origin::Changed,
            given_up: match view.origin {
                Origin::RecoveredBelow(short) => Some((short.longest.0, short.owed.0)),
                _ => None,
            },
        }
    }

    /// Is `member` in it?
    pub fn has(&self, member: Member) -> bool {
        self.members.contains(&member)
    }

    /// The one quorum predicate: more than half of the view's nodes, or exactly half with the lowest rank.
    pub fn quorum(&self, mut granted: impl FnMut(usize, Member) -> bool) -> bool {
        let votes = self.members.iter().enumerate().filter(|&(rank, &m)| granted(rank, m)).count();
        let total = self.members.len();
        votes * 2 > total || votes * 2 == total && total > 0 && granted(0, self.members[0])
    }
}

/// All checkers of a run.
#[derive(Debug, Default)]
pub struct Checks {
    /// 1–4 and 10.
    pub views: views::Views,
    /// 5–7, 11, 13.
    pub order: order::Order,
    /// 9, 14, 17, 18.
    pub synchrony: synchrony::Synchrony,
    /// 8.
    pub outcome: outcome::Outcomes,
    /// 15, 16.
    pub words: words::WordsCheck,
    /// 19.
    pub durable: durable::Durable,
    /// Reads.
    pub lease: lease::Lease,
    found: Option<Violation>,
}

impl Checks {
    /// Notes a verdict; the first violation ends the run.
    pub fn note(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.found.get_or_insert(violation);
        }
    }

    /// The first violation.
    pub fn found(&self) -> Option<&Violation> {
        self.found.as_ref()
    }

    /// A process's core went to a view, and reports which own messages are `resent` in it. (Its application follows:
    /// see [`synchrony::Synchrony::start`].)
    pub fn install(&mut self, boot: Boot, me: Member, view: &ViewInfo, resent: &[u64]) {
        let before = self.views.current(boot);
        self.words.install(me, &view.members);
        let verdict = self.views.install(boot, me, view);
        self.note(verdict);
        let verdict = self.synchrony.install(boot, me, before, view);
        self.note(verdict);
        let verdict = self.outcome.install(boot, me, before, view.id, resent);
        self.note(verdict);
    }

    /// A process delivered a message.
    pub fn deliver(
        &mut self,
        boot: Boot,
        me: Member,
        position: u64,
        rank: usize,
        sender: Member,
        message: u64,
    ) {
        let Some(current) = self.views.current(boot) else {
            self.note(Err(Violation::new(
                7,
                format!("{me} delivered {} outside any view", show(position)),
            )));
            return;
        };
        let Some(view) = self.views.get(current) else { return };
        let verdict = self.order.deliver(boot, me, view, position, rank, sender, message);
        self.note(verdict);
        let Some(view) = self.views.get(current) else { return };
        let verdict = self.words.deliver(me, position, view, self.views.decided(current + 1));
        self.note(verdict);
        let verdict = self.synchrony.deliver(boot, me, current);
        self.note(verdict);
        let verdict = self.outcome.deliver(boot, me, sender, message, position);
        self.note(verdict);
    }
}
