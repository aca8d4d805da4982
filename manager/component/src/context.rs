//! What a component knows about the call it is in, and the only sources of time and randomness it
//! may use.
//!
//! Replicas stay equal because they apply the same updates in the same order and each update is a
//! *function* of state, request and context. A component that asks the operating system for the
//! time or for random bytes breaks that: two replicas get two answers. So the platform hands in one
//! time with each ordered message, and the context makes random numbers from the message's position
//! in the order: the same on every replica, and again the same when the journal is replayed after a
//! crash.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
//! generators", OOPSLA 2014). It is fast and its numbers are well spread, but whoever knows the
//! position knows them: they are for spreading and sampling, never for keys or tokens.

use std::time::{Duration, SystemTime};

/// The call a component is in: where it stands in the order, when it was ordered, and who called.
#[derive(Clone, Debug)]
pub struct Context {
    position: u64,
    time_ns: u64,
    client: u128,
    generator: u64,
}

impl Context {
    /// A context as the platform makes it: the message's position in the total order, its ordered
    /// time in nanoseconds since the Unix epoch, and the client's id (0 when the platform itself
    /// calls).
    pub fn new(position: u64, time_ns: u64, client: u128) -> Context {
        // The position alone would give neighbouring seeds; one round of mixing parts them.
        Context::with_seed(position, time_ns, client, mix(position ^ 0x5155_494e_5445_5401))
    }

    pub(crate) fn with_seed(position: u64, time_ns: u64, client: u128, seed: u64) -> Context {
        Context { position, time_ns, client, generator: seed }
    }

    /// Where the random numbers go on from.
    #[cfg(feature = "host")]
    pub(crate) fn seed(&self) -> u64 {
        self.generator
    }

    /// The position of this update in the total order; for a read, the position of the last update
    /// that the answering replica had applied. Greater for every later update, also across views
    /// and restarts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The ordered time in nanoseconds since the Unix epoch: the same on every replica.
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// The ordered time, the same on every replica.
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.time_ns)
    }

    /// Who called: the id of the client, or 0 for the platform itself.
    pub fn client(&self) -> u128 {
        self.client
    }

    /// The next random number of this call, uniform over all of `u64`; the same on every replica.
    pub fn random(&mut self) -> u64 {
        self.generator = self.generator.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.generator)
    }

    /// A random number below `bound`, uniform; 0 if `bound` is 0 or 1.
    pub fn random_below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        // Lemire's method: the high half of a product is uniform once the few biased low halves are
        // thrown away.
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.random()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Fills `bytes` with random bytes, the same on every replica.
    pub fn fill_random(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.random().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

/// The output function of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(position: u64) -> Vec<u64> {
        let mut context = Context::new(position, 5, 6);
        (0..4).map(|_| context.random()).collect()
    }

    #[test]
    fn the_same_position_draws_the_same_numbers_and_others_do_not() {
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        assert_ne!(draws(7)[0], draws(7)[1]);
        // Part of the promise: a replica of another build draws the same numbers.
        assert_eq!(draws(1)[0], 0x4577_4a86_8637_4731);
    }

    #[test]
    fn a_bounded_draw_stays_below_and_reaches_everything() {
        let mut context = Context::new(1, 0, 0);
        let mut seen = [0u32; 6];
        for _ in 0..600 {
            seen[context.random_below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|&times| times > 50), "{seen:?}");
        assert_eq!(context.random_below(0), 0);
        assert_eq!(context.random_below(1), 0);
    }

    #[test]
    fn bytes_are_the_numbers_in_little_endian() {
        let (mut one, mut other) = (Context::new(3, 0, 0), Context::new(3, 0, 0));
        let mut bytes = [0u8; 11];
        one.fill_random(&mut bytes);
        let (a, b) = (other.random().to_le_bytes(), other.random().to_le_bytes());
        assert_eq!(bytes[..8], a);
        assert_eq!(bytes[8..], b[..3]);
    }

    #[test]
    fn time_counts_from_the_epoch() {
        let context = Context::new(1, 1_500_000_000, 9);
        assert_eq!(context.time(), SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        assert_eq!((context.position(), context.client()), (1, 9));
    }
}
