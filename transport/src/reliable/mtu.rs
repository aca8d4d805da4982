//! How large a datagram the path carries: searched for by packets of padding, as RFC 8899 has it.
//!
//! The naive way is to believe the first link. Behind it there may be a smaller one, which drops what is too large without
//! a word, and a link that carries heartbeats but no data is worse than none. Routers may fragment instead, which is slow,
//! or their complaints may be filtered, or forged. So nobody is asked:
//!
//! - A connection begins with [`BASE`], which every path carries, and probes the largest size that the first link takes,
//!   as soon as the peer has answered once. In a cluster that is nearly always it: one round trip, and it is known.
//! - If not, the interval is halved until it is small. A size that did not arrive [`TRIES`] times is too large. A lost
//!   probe is no sign of congestion and carries nothing that is missed.
//! - If [`BLACK_HOLE`] larger packets are lost, and none that was as large as any of them arrives meanwhile, the path has
//!   changed: back to the base, and search again. Where there may be a better size than the one found the search is begun
//!   anew from time to time.

use std::time::Duration;

use super::wire::TAG_LEN;
use crate::time::Time;

/// Bytes before the tag of a datagram that every path carries.
pub(crate) const BASE: usize = 1200 - TAG_LEN;
/// Probes of one size before it counts as too large.
const TRIES: u8 = 3;
/// Larger packets lost in a row before the path counts as changed.
const BLACK_HOLE: u32 = 8;
/// The search ends when what is known is this exact.
const STEP: usize = 32;
/// How long a search's end is believed.
const RAISE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Probe {
    number: u64,
    size: usize,
}

/// The search, of one direction of a connection. Sizes are of packets before their tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathMtu {
    /// Largest size that the first link takes.
    max: usize,
    /// Largest size known to arrive.
    current: usize,
    /// Smallest size known not to arrive.
    ceiling: usize,
    probe: Option<Probe>,
    tries: u8,
    /// When to probe next.
    next: Time,
    /// Packets larger than the base lost since one arrived that was as large as the smallest of them.
    lost: u32,
    smallest_lost: usize,
}

impl PathMtu {
    pub(crate) fn new(max: usize) -> Self {
        PathMtu {
            max,
            current: max.min(BASE),
            ceiling: max + 1,
            probe: None,
            tries: 0,
            next: Time::ZERO,
            lost: 0,
            smallest_lost: usize::MAX,
        }
    }

    /// Largest packet that may carry data.
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// The size to probe now, if any.
    pub(crate) fn wanted(&mut self, now: Time) -> Option<usize> {
        if self.current == self.max || self.probe.is_some() || now < self.next {
            return None;
        }
        if self.ceiling > self.max {
            return Some(self.max);
        }
        if self.ceiling - self.current <= STEP {
            self.rest(now);
            return None;
        }
        Some(self.current + (self.ceiling - self.current) / 2)
    }

    /// What is known is believed for a while.
    fn rest(&mut self, now: Time) {
        self.ceiling = self.max + 1;
        self.tries = 0;
        self.next = now + RAISE;
    }

    pub(crate) fn on_sent(&mut self, number: u64, size: usize) {
        self.probe = Some(Probe { number, size });
    }

    /// Whether that packet is a probe that nothing is known of yet.
    pub(crate) fn is_probe(&self, number: u64) -> bool {
        self.probe.is_some_and(|probe| probe.number == number)
    }

    /// The probe was not even taken by the first link.
    pub(crate) fn on_refused(&mut self) {
        self.tries = TRIES;
    }

    /// A packet was acked. Returns whether a larger size than so far is known to arrive.
    pub(crate) fn on_acked(&mut self, number: u64, size: usize) -> bool {
        if size >= self.smallest_lost {
            self.forgive();
        }
        let Some(probe) = self.probe.take_if(|probe| probe.number == number) else { return false };
        self.tries = 0;
        let larger = probe.size > self.current;
        self.current = self.current.max(probe.size);
        larger
    }

    /// A packet was lost. Returns whether the path has changed: only the base is known to arrive.
    pub(crate) fn on_lost(&mut self, number: u64, size: usize) -> bool {
        if let Some(probe) = self.probe.take_if(|probe| probe.number == number) {
            self.tries += 1;
            if self.tries >= TRIES {
                self.tries = 0;
                self.ceiling = self.ceiling.min(probe.size);
            }
            return false;
        }
        if size <= BASE || self.current <= BASE {
            return false;
        }
        self.lost += 1;
        self.smallest_lost = self.smallest_lost.min(size);
        if self.lost < BLACK_HOLE {
            return false;
        }
        self.forgive();
        self.current = self.max.min(BASE);
        self.ceiling = self.max + 1;
        self.tries = 0;
        true
    }

    /// The first link does not take what it took before.
    pub(crate) fn shrink(&mut self, now: Time) {
        self.current = self.max.min(BASE);
        self.forgive();
        self.rest(now);
    }

    fn forgive(&mut self) {
        self.lost = 0;
        self.smallest_lost = usize::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes until nothing is wanted over a path that carries `carries`; the sizes tried.
    fn search(mtu: &mut PathMtu, now: Time, carries: usize) -> Vec<usize> {
        let mut tried = Vec::new();
        while let Some(size) = mtu.wanted(now) {
            let number = tried.len() as u64;
            mtu.on_sent(number, size);
            assert_eq!(mtu.wanted(now), None, "one at a time");
            if size <= carries {
                mtu.on_acked(number, size);
            } else {
                mtu.on_lost(number, size);
            }
            tried.push(size);
        }
        tried
    }

    #[test]
    fn what_the_first_link_takes_is_tried_first() {
        let mut mtu = PathMtu::new(8956);
        assert_eq!(mtu.current(), BASE);
        assert_eq!(search(&mut mtu, Time::ZERO, 8956), [8956]);
        assert_eq!(mtu.current(), 8956);
        assert_eq!(PathMtu::new(600).wanted(Time::ZERO), None, "nothing larger to find");
    }

    #[test]
    fn a_smaller_link_behind_the_first_is_found_out() {
        let mut mtu = PathMtu::new(8956);
        let tried = search(&mut mtu, Time::ZERO, 1456);
        assert_eq!(tried[..3], [8956; 3], "a lost probe may be bad luck");
        assert!((1456 - STEP..=1456).contains(&mtu.current()), "{}", mtu.current());
        assert!(tried.len() < 30);
        // It is believed for a while, then looked at again.
        let later = Time::ZERO + RAISE;
        assert_eq!(search(&mut mtu, later.saturating_sub(Duration::from_nanos(1)), 8956), []);
        search(&mut mtu, later, 8956);
        assert_eq!(mtu.current(), 8956);
    }

    #[test]
    fn a_black_hole_is_noticed_and_a_little_loss_is_none() {
        let mut mtu = PathMtu::new(8956);
        search(&mut mtu, Time::ZERO, 8956);
        for number in 100..200 {
            assert!(!mtu.on_lost(number, 8956));
            if number % 5 == 0 {
                mtu.on_acked(number, 8956);
            }
        }
        // Small packets that arrive prove nothing of large ones.
        let changed = (200..220).filter(|&number| {
            mtu.on_acked(1000 + number, 1400);
            mtu.on_lost(number, 8956)
        });
        assert_eq!(changed.count(), 1);
        assert_eq!(mtu.current(), BASE);
        search(&mut mtu, Time::ZERO, 1456);
        assert!(mtu.current() > 1400);
    }
}
