//! Datagrams are lost, doubled, put off, damaged and late as they arrive, from a seed ([`FaultPolicy`]).

use std::collections::VecDeque;

use crate::faults::FaultPolicy;
use crate::time::Time;

/// Datagrams that are late at one time. More are lost, as a router's would be.
const LATE_MAX: usize = 1 << 14;

/// A policy at work.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    policy: FaultPolicy,
    state: u64,
    held: Vec<u8>,
    late: VecDeque<(Time, Vec<u8>)>,
}

impl Faults {
    /// From now on. What was late has arrived.
    pub(crate) fn set(&mut self, policy: FaultPolicy) {
        self.policy = policy;
        self.state = policy.seed;
        self.late.iter_mut().for_each(|(due, _)| *due = Time::ZERO);
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
    pub(crate) fn pass(
        &mut self,
        now: Time,
        datagram: &mut [u8],
        mut deliver: impl FnMut(&mut [u8]),
    ) {
        if self.policy == FaultPolicy::default() {
            return deliver(datagram);
        }
        if self.policy.cut || self.chance(self.policy.drop) {
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
        let due = now + self.policy.delay;
        let late = &mut self.late;
        let mut arrive = |datagram: &mut [u8]| {
            if self.policy.delay.is_zero() {
                deliver(datagram);
            } else if late.len() < LATE_MAX {
                late.push_back((due, datagram.to_vec()));
            }
        };
        arrive(datagram);
        if let Some(mut copy) = copy {
            arrive(&mut copy);
        }
        if !self.held.is_empty() {
            arrive(&mut std::mem::take(&mut self.held));
        }
    }

    /// The next late datagram whose time has come.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Vec<u8>> {
        if self.policy.cut {
            self.late.clear();
        }
        let due = self.late.front().is_some_and(|(due, _)| *due <= now);
        if due { self.late.pop_front().map(|(_, datagram)| datagram) } else { None }
    }

    /// When the next late datagram arrives.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.late.front().map(|(due, _)| *due)
    }
}
