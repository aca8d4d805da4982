//! Soft evidence of death: silence, measured fairly.
//!
//! The naive detector compares "now" with "last heard" and kills whoever exceeds the limit. It kills the
//! innocent: a process that was itself stopped for a second wakes, finds every peer's stamp a second old,
//! and declares all of them dead. Silence only counts while *we* listened. So a gap in our own loop
//! (later than we meant to be by more than [`STALL_SLACK`]) is taken off every peer's silence, and a
//! verdict is only spoken in a turn in which we have looked.
//!
//! A peer may be late for reasons that are not its own, too. How late it has been lately ([`Health::jitter`]), and what
//! is known of its host, earn it a pardon ([`Health::pardon`]): a bounded time beyond the limit, granted in steps, so that
//! a verdict follows soon after the reason has gone.
//!
//! Suspicion is revocable; death is not. No clock in here: time is handed in.

use std::time::Duration;

use crate::time::Time;

/// Lateness of our own loop beyond which it counts as a stall.
pub(crate) const STALL_SLACK: Duration = Duration::from_millis(4);

/// A pardon is granted in steps of this part of the limit.
const PARDON_STEPS: u32 = 8;
/// What a peer's lateness is forgotten in, about.
const JITTER_MEMORY: Duration = Duration::from_secs(8);

/// How long a peer may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) suspect: Duration,
    pub(crate) dead: Duration,
}

/// What silence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Suspected,
    Trusted,
    Dead,
}

/// Notices that our own loop stood still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StallGuard {
    /// When the next turn is due at the latest.
    due: Time,
}

impl StallGuard {
    pub(crate) fn new(now: Time) -> StallGuard {
        StallGuard { due: now }
    }

    /// We are about to sleep on purpose, until `deadline` at most.
    pub(crate) fn sleeping(&mut self, deadline: Time) {
        self.due = self.due.max(deadline);
    }

    /// A turn begins. The result is how long we stood still, if we did.
    pub(crate) fn tick(&mut self, now: Time) -> Option<Duration> {
        let due = std::mem::replace(&mut self.due, now);
        (now > due + STALL_SLACK).then(|| now.since(due))
    }
}

/// The health of one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health {
    heard: Time,
    /// Since when silence counts: `heard`, moved forward by own stalls and pardons.
    base: Time,
    suspected: bool,
    /// What this silence was pardoned already.
    pardoned: Duration,
    /// Longest silence lately, slowly forgotten.
    jitter: Duration,
}

impl Health {
    pub(crate) fn new(now: Time) -> Health {
        Health {
            heard: now,
            base: now,
            suspected: false,
            pardoned: Duration::ZERO,
            jitter: Duration::ZERO,
        }
    }

    /// A sign of life, at `at`.
    pub(crate) fn hear(&mut self, at: Time) {
        if at <= self.heard {
            return;
        }
        let silence = at.since(self.base) + self.pardoned;
        let forgotten =
            self.jitter.mul_f64((silence.as_secs_f64() / JITTER_MEMORY.as_secs_f64()).min(1.0));
        self.jitter = silence.max(self.jitter - forgotten);
        self.heard = at;
        self.base = self.base.max(at);
        self.pardoned = Duration::ZERO;
    }

    /// The longest that the peer was silent lately, own stalls not counted.
    pub(crate) fn jitter(&self) -> Duration {
        self.jitter
    }

    /// Puts off a verdict of death by a step, if `patience` beyond the limit is not used up.
    pub(crate) fn pardon(&mut self, patience: Duration, limits: &Thresholds) -> bool {
        let step = limits.dead / PARDON_STEPS;
        if self.pardoned + step > patience {
            return false;
        }
        self.pardoned += step;
        self.base += step;
        true
    }

    pub(crate) fn heard(&self) -> Time {
        self.heard
    }

    pub(crate) fn suspected(&self) -> bool {
        self.suspected
    }

    /// We stood still for `stall`, until `now`: that was not the peer's silence.
    pub(crate) fn excuse(&mut self, stall: Duration, now: Time) {
        self.base = (self.base + stall).min(now.max(self.base));
    }

    /// Judges, after having looked for signs of life.
    pub(crate) fn judge(&mut self, now: Time, limits: &Thresholds) -> Option<Verdict> {
        let silence = now.since(self.base);
        if silence >= limits.dead {
            return Some(Verdict::Dead);
        }
        let suspected = silence >= limits.suspect;
        if suspected == self.suspected {
            return None;
        }
        self.suspected = suspected;
        Some(if suspected { Verdict::Suspected } else { Verdict::Trusted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Thresholds =
        Thresholds { suspect: Duration::from_millis(25), dead: Duration::from_millis(100) };

    fn ms(n: u64) -> Time {
        Time::from_millis(1000 + n)
    }

    #[test]
    fn silence_suspects_then_kills_and_a_word_trusts() {
        let mut h = Health::new(ms(0));
        assert_eq!(h.judge(ms(24), &LIMITS), None);
        assert_eq!(h.judge(ms(25), &LIMITS), Some(Verdict::Suspected));
        assert_eq!(h.judge(ms(30), &LIMITS), None);
        h.hear(ms(31));
        assert_eq!(h.judge(ms(31), &LIMITS), Some(Verdict::Trusted));
        assert_eq!(h.judge(ms(130), &LIMITS), Some(Verdict::Suspected));
        assert_eq!(h.judge(ms(131), &LIMITS), Some(Verdict::Dead));
    }

    #[test]
    fn an_own_stall_kills_nobody() {
        let mut guard = StallGuard::new(ms(0));
        let mut h = Health::new(ms(0));
        assert_eq!(guard.tick(ms(1)), None);
        // Stopped for five seconds.
        let stall = guard.tick(ms(5001)).expect("a stall");
        assert_eq!(stall, Duration::from_secs(5));
        h.excuse(stall, ms(5001));
        assert_eq!(h.judge(ms(5001), &LIMITS), None);
        assert_eq!(h.heard(), ms(0), "the truth about when it was heard stays");
        // What it was silent before the stall still counts, and what follows does.
        assert_eq!(h.judge(ms(5099), &LIMITS), Some(Verdict::Suspected));
        assert_eq!(h.judge(ms(5100), &LIMITS), Some(Verdict::Dead));
    }

    #[test]
    fn sleeping_on_purpose_is_no_stall() {
        let mut guard = StallGuard::new(ms(0));
        guard.sleeping(ms(50));
        assert_eq!(guard.tick(ms(51)), None);
        guard.sleeping(ms(60));
        assert_eq!(guard.tick(ms(55)), None, "woken early");
        guard.sleeping(ms(70));
        assert_eq!(guard.tick(ms(90)), Some(Duration::from_millis(20)), "overslept");
    }

    #[test]
    fn a_pardon_is_bounded_and_ends_with_a_word() {
        let mut h = Health::new(ms(0));
        let patience = Duration::from_millis(30);
        assert_eq!(h.judge(ms(100), &LIMITS), Some(Verdict::Dead));
        assert!(h.pardon(patience, &LIMITS));
        assert_eq!(h.judge(ms(112), &LIMITS), Some(Verdict::Suspected));
        assert_eq!(h.judge(ms(113), &LIMITS), Some(Verdict::Dead), "12.5 ms later");
        assert!(h.pardon(patience, &LIMITS));
        assert!(!h.pardon(patience, &LIMITS), "37.5 ms would be more than 30");
        h.hear(ms(120));
        assert_eq!(h.judge(ms(219), &LIMITS), None);
        assert_eq!(h.judge(ms(220), &LIMITS), Some(Verdict::Dead));
        assert!(h.pardon(patience, &LIMITS), "a new silence, a new patience");
    }

    #[test]
    fn lateness_is_remembered_for_a_while() {
        let mut h = Health::new(ms(0));
        h.hear(ms(10));
        h.hear(ms(10));
        assert_eq!(h.jitter(), Duration::from_millis(10));
        h.hear(ms(90));
        assert_eq!(h.jitter(), Duration::from_millis(80));
        // Our own stall is not the peer's lateness.
        h.excuse(Duration::from_secs(1), ms(1190));
        h.hear(ms(1195));
        assert!(h.jitter() <= Duration::from_millis(105), "{:?}", h.jitter());
        (0..4000).for_each(|n| h.hear(ms(1200 + 10 * n)));
        assert!(h.jitter() < Duration::from_millis(15), "{:?}", h.jitter());
        let mut pardoned = Health::new(ms(0));
        assert!(pardoned.pardon(LIMITS.dead, &LIMITS));
        pardoned.hear(ms(105));
        assert_eq!(pardoned.jitter(), Duration::from_millis(105), "a pardon does not hide it");
    }

    #[test]
    fn an_excuse_never_reaches_into_the_future() {
        let mut h = Health::new(ms(0));
        h.hear(ms(40));
        h.excuse(Duration::from_secs(9), ms(41));
        assert_eq!(h.judge(ms(65), &LIMITS), None);
        assert_eq!(h.judge(ms(66), &LIMITS), Some(Verdict::Suspected));
    }
}
