//! Entropy as tapes: one finite stream of numbers per concern.
//!
//! The naive simulator has one generator. Then removing one fault shifts every later draw, the run becomes a
//! different run, and shrinking is blind. Here each concern (packet delays, crashes, the workload, …) reads from
//! a tape of its own, derived from the seed and the concern's name, so that a concern which is silenced leaves
//! the others' draws as they were.
//!
//! A tape is *finite*: past its end every draw is 0, and every method maps 0 to the harmless choice (smallest
//! delay, no fault, first item). So cutting a tape short is a shrinking step: from there on the run is calm.

/// What a draw is for. Each has its own tape; the number is part of the seed, so never reorder, only append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Concern {
    /// Shape of the run: number of nodes, fault classes and their strengths.
    Plan = 1,
    /// Time a packet travels.
    Delay,
    /// Loss of packets (shows as delay).
    Loss,
    /// Splitting of packets into independently travelling parts.
    Reorder,
    /// When a node takes its next turn, and in which order it looks at things.
    Turn,
    /// What the application sends, reads and reports.
    Work,
    /// How long the disk takes, and what of it survives a crash.
    Store,
    /// Crashes and restarts.
    Crash,
    /// Crashes aimed at a view change.
    Aimed,
    /// Pauses.
    Pause,
    /// Clogged directions.
    Clog,
    /// Partitions of all kinds.
    Partition,
    /// Wrong suspicions.
    Suspicion,
    /// Clock rates and steps.
    Clock,
    /// Slow receivers.
    Slow,
    /// Crash of everything.
    Total,
    /// Leave and rejoin.
    Leave,
    /// State transfer.
    Transfer,
    /// Entropy handed to the protocol core.
    Core,
    /// Crashes of a view's members one after the other.
    Erode,
    /// Power failures.
    Power,
    /// Loss, repetition, reordering and damage of datagrams.
    Datagram,
}

/// A finite stream of pseudo-random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Tape {
    state: u64,
    left: u64,
}

/// Mixes one number: the finaliser of SplitMix64.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Tape {
    /// The tape of `concern` under `seed`; `index` tells several tapes of one concern apart.
    pub fn new(seed: u64, concern: Concern, index: u64, length: u64) -> Self {
        let state = mix(
            mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ mix((concern as u64) << 32 | index)
        );
        Tape { state, left: length }
    }

    /// The next number, or 0 past the end.
    pub fn draw(&mut self) -> u64 {
        if self.left == 0 {
            return 0;
        }
        self.left -= 1;
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// In `0..n`; 0 past the end.
    pub fn below(&mut self, n: u64) -> u64 {
        if n <= 1 { 0 } else { ((u128::from(self.draw()) * u128::from(n)) >> 64) as u64 }
    }

    /// In `low..=high`; `low` past the end.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `per_million` of a million draws; false past the end.
    pub fn chance(&mut self, per_million: u64) -> bool {
        per_million > 0 && self.below(1_000_000) >= 1_000_000 - per_million.min(1_000_000)
    }

    /// In `low..=high` with a long tail: most draws lie near `low`, every magnitude up to `high` occurs.
    pub fn tail(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).max(1);
        let bits = 64 - span.leading_zeros() as u64;
        let magnitude = self.range(0, bits);
        let limit = if magnitude >= 63 { span } else { span.min(1 << magnitude) };
        low + self.below(limit)
    }

    /// An item; the first past the end.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.below(items.len() as u64) as usize) }
    }

    /// Shuffles; past the end the order stays.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let back = self.below(i as u64 + 1) as usize;
            items.swap(i, i - back);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tapes_of_different_concerns_do_not_disturb_each_other() {
        let mut alone = Tape::new(7, Concern::Delay, 0, u64::MAX);
        let expected: Vec<u64> = (0..8).map(|_| alone.draw()).collect();
        let mut other = Tape::new(7, Concern::Crash, 0, u64::MAX);
        let mut again = Tape::new(7, Concern::Delay, 0, u64::MAX);
        let drawn: Vec<u64> = (0..8)
            .map(|_| {
                other.draw();
                again.draw()
            })
            .collect();
        assert_eq!(expected, drawn);
    }

    #[test]
    fn past_its_end_a_tape_is_harmless() {
        let mut tape = Tape::new(7, Concern::Delay, 0, 0);
        let mut items = [1, 2, 3];
        tape.shuffle(&mut items);
        assert_eq!(items, [1, 2, 3]);
        assert!(!tape.chance(1_000_000 - 1));
        assert_eq!((tape.range(5, 9), tape.tail(5, 9000), tape.below(4)), (5, 5, 0));
    }

    #[test]
    fn every_magnitude_of_a_tail_occurs() {
        let mut tape = Tape::new(1, Concern::Delay, 0, u64::MAX);
        let draws: Vec<u64> = (0..10_000).map(|_| tape.tail(10, 1_000_010)).collect();
        assert!(draws.iter().all(|&d| (10..=1_000_010).contains(&d)));
        assert!(draws.iter().filter(|&&d| d < 100).count() > 1000);
        assert!(draws.iter().filter(|&&d| d > 100_000).count() > 500);
    }
}
