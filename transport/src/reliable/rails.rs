//! Rails: several ways to one peer, of which packets take one at a time.
//!
//! Two adapters and two switches are to keep a link alive when one of them dies. The naive way is a time-out: nothing heard,
//! so on to the other. But silence does not tell which direction is broken, nor whether the other way is any better, nor
//! whether the peer lives. So silence is only a reason to ask:
//!
//! - When the rail in use is in doubt (the peer is silent, or does not confirm what was sent, or the network says that there
//!   is no way) a challenge leaves over every rail at once. The peer answers each over all of *its* rails. So an answer says
//!   that this direction of the rail that was asked carries; each side chooses for what it sends itself.
//! - If the rail in use answers, or confirms anything meanwhile, all is well. If another one does, and this one had the time to and did not, packets take
//!   the other. They keep their numbers, so what was under way is sent again, and nothing arrives twice.
//! - Rails are configured in order of preference. A better one than that in use is asked often, and taken when it has
//!   answered for a while without a gap; if it breaks down again soon, that while doubles.
//! - Spare rails are asked now and then, for a spare that is broken must be known before it is needed.
//!
//! Asking proves the peer alive, too: with one rail left in each direction silence ends long before a verdict.
//!
//! No clock, no randomness: both are handed in.

use std::time::Duration;

use crate::event::RailReason;
use crate::time::Time;

/// Rails between two nodes.
pub const RAILS_MAX: usize = 4;

/// Distance of two rounds of questions.
const ASK_APART: Duration = Duration::from_millis(5);
/// What the rail in use has at least, to answer before another is taken.
const GRACE: Duration = Duration::from_millis(5);
/// How long after the first answer of another rail at least: both may have been asked of a peer that slept.
const MARGIN: Duration = Duration::from_millis(2);
/// How long is asked on without a fresh reason.
const DOUBT_LIFE: Duration = Duration::from_millis(30);
/// A number that was not answered is good for this long.
const TOKEN_LIFE: Duration = Duration::from_secs(1);
/// Probe time-outs in a row that cast doubt.
const PROBES: u32 = 3;
/// How often spare rails are asked while the best is in use.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The same while a better one is to come back.
const RETURN_EVERY: Duration = Duration::from_millis(100);
/// An answer that takes longer is a gap.
const ANSWER_WITHIN: Duration = Duration::from_millis(50);
/// Questions in a row without an answer, after which a spare rail is called silent.
const MISSES: u8 = 3;
/// How long a better rail has to answer without a gap at first, and at most.
const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// How the rail in use is doing.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// For how long nothing was heard of the peer.
    pub silent: Duration,
    /// Age of the latest packet by this rail that the peer has confirmed.
    pub unconfirmed: Duration,
    /// Probe time-outs in a row.
    pub probes: u32,
    /// Round-trip estimate.
    pub round_trip: Duration,
    /// The peer has asked just now.
    pub asked: bool,
}

/// Packets take another rail from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RailChange {
    /// The one before.
    pub from: usize,
    /// The one from now on.
    pub to: usize,
    /// Why.
    pub reason: RailReason,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rail {
    token: u64,
    /// When the number was made that is not answered yet.
    asked: Option<Time>,
    /// Since when every question was answered.
    since: Option<Time>,
    misses: u8,
}

/// The rail in use may carry nothing.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Time,
    /// When the latest packet was packed that was known then to have arrived by it.
    carried: Option<Time>,
    /// Other rails that answered, and when the first did.
    answered: u8,
    first: Time,
}

/// The choice of a rail, of one direction of a link.
#[derive(Clone, Debug)]
pub struct Rails {
    count: usize,
    current: usize,
    reason: RailReason,
    heartbeat: Duration,
    rails: [Rail; RAILS_MAX],
    doubt: Option<Doubt>,
    /// When all were asked last.
    asked: Time,
    next_check: Time,
    /// Rails to be asked now, as a bit set.
    due: u8,
    round_trip: Duration,
    patience: Duration,
    /// When the rail in use was taken again.
    returned: Option<Time>,
}

impl Rails {
    /// So many rails, of which `first` is in use.
    pub fn new(count: usize, first: usize, heartbeat: Duration, now: Time) -> Rails {
        assert!((1..=RAILS_MAX).contains(&count) && first < count, "a rail is in use");
        Rails {
            count,
            current: first,
            reason: RailReason::First,
            heartbeat,
            rails: [Rail::default(); RAILS_MAX],
            doubt: None,
            asked: Time::ZERO,
            next_check: now + CHECK_EVERY,
            due: 0,
            round_trip: Duration::ZERO,
            patience: PATIENCE,
            returned: None,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The rail in use.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Why it is that one.
    pub fn reason(&self) -> RailReason {
        self.reason
    }

    /// Whether a spare rail has not answered for several questions.
    pub fn is_silent(&self, rail: usize) -> bool {
        rail != self.current && self.rails[rail].misses >= MISSES
    }

    /// When [`Rails::look`] and what follows it want to be called at the latest.
    pub fn next_timeout(&self) -> Option<Time> {
        let ask = self.doubt.map(|_| self.asked + ASK_APART);
        let decide = self.doubt.filter(|doubt| doubt.answered != 0).map(|d| self.decision(&d));
        let at_once = (self.due != 0).then_some(Time::ZERO);
        [ask, decide, at_once].into_iter().flatten().min()
    }

    /// Judges the rail in use, and whether it is time to ask others.
    pub fn look(&mut self, now: Time, signs: Signs) {
        if self.count < 2 {
            return;
        }
        self.round_trip = signs.round_trip;
        let (beat, slack) = (self.heartbeat, signs.round_trip * 2);
        // Heartbeats are confirmed by the next one of the peer, hence within two.
        let doubtful = signs.silent >= beat * 3 / 2
            || signs.unconfirmed >= beat * 5 / 2 + slack
            || signs.asked && signs.unconfirmed >= beat * 2 + slack
            || signs.probes >= PROBES;
        // Its packets are confirmed again, though the answer may still wait behind them.
        let carried = now.saturating_sub(signs.unconfirmed);
        self.doubt.take_if(|doubt| *doubt.carried.get_or_insert(carried) < carried);
        match self.doubt {
            Some(doubt) if !doubtful && now.since(doubt.since) >= DOUBT_LIFE => self.doubt = None,
            None if !doubtful => {}
            _ => self.alarm(now),
        }
        if now >= self.next_check {
            self.check(now);
        }
    }

    /// Something says that the rail in use carries nothing: all are asked.
    pub fn alarm(&mut self, now: Time) {
        if self.count < 2 {
            return;
        }
        self.doubt.get_or_insert(Doubt { since: now, carried: None, answered: 0, first: now });
        if now.since(self.asked) >= ASK_APART {
            self.asked = now;
            self.due = ((1u16 << self.count) - 1) as u8;
        }
    }

    /// Asks all but the rail in use; what was not answered since the last time is a gap.
    fn check(&mut self, now: Time) {
        let within = ANSWER_WITHIN.max(self.round_trip * 2);
        let often = RETURN_EVERY.max(within * 2);
        self.next_check = now + if self.current > 0 { often } else { CHECK_EVERY };
        for (index, rail) in self.rails[..self.count].iter_mut().enumerate() {
            if index == self.current {
                continue;
            }
            if rail.asked.take_if(|asked| now.since(*asked) >= within).is_some() {
                rail.misses = rail.misses.saturating_add(1);
                rail.since = None;
            }
            self.due |= 1 << index;
        }
    }

    /// The next rail to send a challenge over, and the number in it. `random` makes one that nobody can guess.
    pub fn poll_challenge(
        &mut self,
        now: Time,
        random: impl FnOnce() -> u64,
    ) -> Option<(usize, u64)> {
        if self.due == 0 {
            return None;
        }
        let index = self.due.trailing_zeros() as usize;
        self.due &= self.due - 1;
        let rail = &mut self.rails[index];
        // The same number again while it is not answered: over a long way the answer to the first comes after the next.
        if rail.asked.is_none_or(|asked| now.since(asked) >= TOKEN_LIFE) {
            rail.token = random();
            rail.asked = Some(now);
        }
        Some((index, rail.token))
    }

    /// The peer says that number.
    pub fn on_response(&mut self, now: Time, token: u64) {
        let asked = |rail: &Rail| rail.asked.is_some() && rail.token == token;
        let Some(index) = self.rails[..self.count].iter().position(asked) else { return };
        let rail = &mut self.rails[index];
        rail.asked = None;
        rail.misses = 0;
        rail.since.get_or_insert(now);
        if index == self.current {
            self.doubt = None;
        } else if let Some(doubt) = &mut self.doubt {
            if doubt.answered == 0 {
                doubt.first = now;
            }
            doubt.answered |= 1 << index;
        }
    }

    /// Whether packets take another rail from now on. Ask after all that has arrived was taken in.
    pub fn poll_change(&mut self, now: Time) -> Option<RailChange> {
        let better = |rails: &Rails| {
            let ready = |rail: &Rail| rail.since.is_some_and(|s| now.since(s) >= rails.patience);
            rails.rails[..rails.current].iter().position(ready)
        };
        let (to, reason) = match self.doubt {
            Some(doubt) if doubt.answered != 0 && now >= self.decision(&doubt) => {
                (doubt.answered.trailing_zeros() as usize, RailReason::Failover)
            }
            Some(_) => return None,
            None => (better(self)?, RailReason::Return),
        };
        let from = std::mem::replace(&mut self.current, to);
        if reason == RailReason::Failover {
            self.rails[from].since = None;
            let again = self.returned.is_some_and(|at| now.since(at) < PATIENCE_MAX);
            self.patience = if again { (self.patience * 2).min(PATIENCE_MAX) } else { PATIENCE };
        }
        self.returned = (reason == RailReason::Return).then_some(now);
        self.reason = reason;
        self.doubt = None;
        self.next_check = now;
        Some(RailChange { from, to, reason })
    }

    fn decision(&self, doubt: &Doubt) -> Time {
        (doubt.since + GRACE.max(self.round_trip * 2)).max(doubt.first + MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(15);

    fn ms(n: u64) -> Time {
        Time::from_millis(10_000 + n)
    }

    fn signs(silent: u64, unconfirmed: u64) -> Signs {
        Signs {
            silent: Duration::from_millis(silent),
            unconfirmed: Duration::from_millis(unconfirmed),
            probes: 0,
            round_trip: Duration::from_micros(100),
            asked: false,
        }
    }

    /// Asks what is due; numbers are those of the rails, and some more.
    fn asked(rails: &mut Rails, now: Time) -> Vec<(usize, u64)> {
        let mut all = Vec::new();
        let mut next = now.as_nanos();
        while let Some(asked) = rails.poll_challenge(now, || {
            next += 1;
            next
        }) {
            all.push(asked);
        }
        all
    }

    fn fail_over(rails: &mut Rails, at: u64, to: usize) {
        rails.alarm(ms(at));
        let token = asked(rails, ms(at)).into_iter().find(|(rail, _)| *rail == to).unwrap().1;
        rails.on_response(ms(at), token);
        let change = rails.poll_change(ms(at + 5)).expect("another rail answered");
        assert_eq!((change.to, change.reason), (to, RailReason::Failover));
    }

    #[test]
    fn what_is_well_asks_nobody_and_one_rail_is_never_left() {
        let mut rails = Rails::new(2, 0, BEAT, ms(0));
        rails.look(ms(1), signs(15, 30));
        assert_eq!((asked(&mut rails, ms(1)).len(), rails.next_timeout()), (0, None));
        let mut alone = Rails::new(1, 0, BEAT, ms(0));
        alone.alarm(ms(1));
        alone.look(ms(5000), signs(5000, 5000));
        assert_eq!((asked(&mut alone, ms(5000)).len(), alone.next_timeout()), (0, None));
    }

    #[test]
    fn each_sign_of_trouble_casts_doubt() {
        let troubled = [
            signs(23, 0),
            signs(0, 38),
            Signs { asked: true, ..signs(0, 31) },
            Signs { probes: 3, ..signs(0, 0) },
        ];
        for trouble in troubled {
            let mut rails = Rails::new(3, 0, BEAT, ms(0));
            rails.look(ms(1), trouble);
            assert_eq!(asked(&mut rails, ms(1)).len(), 3, "{trouble:?}");
        }
        let mut rails = Rails::new(3, 0, BEAT, ms(0));
        rails.look(ms(1), Signs { asked: true, ..signs(0, 29) });
        assert_eq!(asked(&mut rails, ms(1)), []);
    }

    #[test]
    fn another_rail_is_taken_only_if_it_answers_and_this_one_does_not() {
        let mut rails = Rails::new(3, 0, BEAT, ms(0));
        rails.alarm(ms(1));
        let tokens = asked(&mut rails, ms(1));
        assert_eq!(rails.poll_change(ms(50)), None, "nobody answered");
        rails.on_response(ms(2), tokens[2].1 + 77);
        assert_eq!(rails.poll_change(ms(50)), None, "a number that nobody was told");
        rails.on_response(ms(2), tokens[2].1);
        assert_eq!(rails.poll_change(ms(5)), None, "the rail in use has some time to answer");
        assert_eq!(rails.next_timeout(), Some(ms(6)));
        let mut answered = rails.clone();
        answered.on_response(ms(3), tokens[0].1);
        assert_eq!(answered.poll_change(ms(90)), None, "the rail in use answered");
        rails.on_response(ms(3), tokens[1].1);
        let change = RailChange { from: 0, to: 1, reason: RailReason::Failover };
        assert_eq!(rails.poll_change(ms(6)), Some(change), "the best that answered");
    }

    #[test]
    fn a_peer_that_slept_has_time_to_answer_for_the_rail_in_use_as_well() {
        let mut rails = Rails::new(2, 0, BEAT, ms(0));
        rails.alarm(ms(1));
        let tokens = asked(&mut rails, ms(1));
        rails.on_response(ms(20), tokens[1].1);
        assert_eq!(rails.poll_change(ms(20)), None);
        assert!(rails.poll_change(ms(22)).is_some());
    }

    #[test]
    fn what_is_confirmed_meanwhile_is_as_good_as_an_answer() {
        let mut rails = Rails::new(2, 0, BEAT, ms(0));
        rails.look(ms(100), signs(0, 40));
        let tokens = asked(&mut rails, ms(100));
        rails.look(ms(101), signs(0, 41));
        rails.on_response(ms(101), tokens[1].1);
        let mut confirmed = rails.clone();
        // Packed five milliseconds before the question, and confirmed after it.
        confirmed.look(ms(106), signs(0, 11));
        assert_eq!(confirmed.poll_change(ms(106)), None);
        rails.look(ms(106), signs(0, 46));
        assert!(rails.poll_change(ms(106)).is_some());
    }

    #[test]
    fn a_number_is_said_again_until_it_is_answered_or_old() {
        let mut rails = Rails::new(2, 0, BEAT, ms(0));
        rails.alarm(ms(1));
        let first = asked(&mut rails, ms(1));
        rails.alarm(ms(2));
        assert_eq!(asked(&mut rails, ms(2)), [], "not so soon");
        rails.alarm(ms(6));
        assert_eq!(asked(&mut rails, ms(6)), first);
        rails.alarm(ms(1002));
        assert_ne!(asked(&mut rails, ms(1002)), first);
    }

    #[test]
    fn doubt_ends_by_itself() {
        let mut rails = Rails::new(2, 0, BEAT, ms(0));
        rails.alarm(ms(1));
        asked(&mut rails, ms(1));
        rails.look(ms(20), signs(0, 0));
        assert_eq!(asked(&mut rails, ms(20)).len(), 2);
        rails.look(ms(40), signs(0, 0));
        assert_eq!((asked(&mut rails, ms(40)).len(), rails.next_timeout()), (0, None));
    }

    /// Looks every ten milliseconds, with answers of the better rail; when packets return to it.
    fn returns(rails: &mut Rails, from: u64, answers: impl Fn(u64) -> bool) -> u64 {
        for at in (from..from + 200_000).step_by(10) {
            rails.look(ms(at), signs(0, 0));
            for (rail, token) in asked(rails, ms(at)) {
                if rail > 0 || answers(at) {
                    rails.on_response(ms(at), token);
                }
            }
            if let Some(change) = rails.poll_change(ms(at)) {
                assert_eq!((change.to, change.reason), (0, RailReason::Return));
                return at;
            }
        }
        panic!("never");
    }

    #[test]
    fn a_better_rail_is_taken_again_after_a_while_without_a_gap() {
        let mut rails = Rails::new(2, 0, BEAT, ms(0));
        fail_over(&mut rails, 10, 1);
        let back = returns(&mut rails, 20, |at| at > 5000 && !(5500..5800).contains(&at));
        assert!((6800..7100).contains(&back), "{back}");
        // It breaks again soon: the while doubles, until it held for long.
        fail_over(&mut rails, back + 100, 1);
        let again = returns(&mut rails, back + 110, |_| true);
        assert!((back + 2100..back + 2300).contains(&again), "{back} {again}");
        fail_over(&mut rails, again + 100, 1);
        let third = returns(&mut rails, again + 110, |_| true);
        assert!((again + 4100..again + 4300).contains(&third), "{again} {third}");
        fail_over(&mut rails, third + 70_000, 1);
        let last = returns(&mut rails, third + 70_010, |_| true);
        assert!(last < third + 71_300, "{third} {last}");
    }

    #[test]
    fn a_spare_rail_that_does_not_answer_is_told() {
        let mut rails = Rails::new(2, 0, BEAT, ms(0));
        let mut questions = 0;
        for at in (0..10_000).step_by(10) {
            rails.look(ms(at), signs(0, 0));
            questions += asked(&mut rails, ms(at)).len();
        }
        assert!(rails.is_silent(1) && questions <= 10, "{questions}");
        rails.look(ms(10_000), signs(0, 0));
        let (_, token) = asked(&mut rails, ms(10_000))[0];
        rails.on_response(ms(10_000), token);
        assert!(!rails.is_silent(1));
    }
}
