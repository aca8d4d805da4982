//! A bad network on demand: datagrams are lost, doubled, put off and damaged as they arrive, from a seed.
//!
//! For tests and measurements only (cargo feature `faults`). It sits where datagrams enter the driver, so that a
//! policy on one side is a one-way fault, and both directions can differ.

/// How bad the network is; chances in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPolicy {
    /// Datagrams that vanish; 1000 cuts this direction.
    pub drop: u32,
    /// Datagrams that arrive twice.
    pub duplicate: u32,
    /// Datagrams that arrive after the next one.
    pub reorder: u32,
    /// Datagrams with a flipped bit.
    pub corrupt: u32,
    /// Same seed, same faults.
    pub seed: u64,
}

/// A policy at work.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    policy: FaultPolicy,
    state: u64,
    held: Vec<u8>,
}

impl Faults {
    pub(crate) fn new(policy: FaultPolicy) -> Self {
        Faults { policy, state: policy.seed, held: Vec::new() }
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.random() % 1000 < u64::from(thousandths)
    }

    fn random(&mut self) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    /// Hands on what this network makes of `datagram`; who gets it may change it.
    pub(crate) fn pass(&mut self, datagram: &mut [u8], mut deliver: impl FnMut(&mut [u8])) {
        if self.policy == FaultPolicy::default() {
            return deliver(datagram);
        }
        if self.chance(self.policy.drop) {
            return;
        }
        if self.held.is_empty() && self.chance(self.policy.reorder) {
            self.held.extend_from_slice(datagram);
            return;
        }
        let copy = self.chance(self.policy.duplicate).then(|| datagram.to_vec());
        if self.chance(self.policy.corrupt) && !datagram.is_empty() {
            let bit = self.random() as usize % (datagram.len() * 8);
            datagram[bit / 8] ^= 1 << (bit % 8);
        }
        deliver(datagram);
        if let Some(mut copy) = copy {
            deliver(&mut copy);
        }
        if !self.held.is_empty() {
            deliver(&mut std::mem::take(&mut self.held));
        }
    }
}
