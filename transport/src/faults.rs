//! A bad network on demand, for tests and measurements only (cargo feature `faults`).
//!
//! Every provider is spoiled where news enters it, so that a policy at one end is a one-way fault. Each does what its
//! kind of network can do. Datagrams are lost, doubled, overtaken, damaged and late (`udp::faults`). Shared memory and
//! remote writes are reliable: a peer's words, logs and signs of life can only be seen late, or no more; that is
//! decided here. Without the feature a [`Gate`] is nothing, and open.

#[cfg(feature = "faults")]
pub use on_demand::FaultPolicy;
#[cfg(feature = "faults")]
pub(crate) use on_demand::Gate;

/// Stands between the news that a link has and who looks at it.
#[cfg(not(feature = "faults"))]
pub(crate) struct Gate;

#[cfg(not(feature = "faults"))]
impl Gate {
    /// Of a network that is as it is.
    pub(crate) fn open() -> Gate {
        Gate
    }

    /// There is news: whether it may be seen now.
    #[inline]
    pub(crate) fn passes(&mut self) -> bool {
        true
    }

    /// Whether there is news that will be seen later.
    #[cfg(feature = "verbs")]
    pub(crate) fn holds(&self) -> bool {
        false
    }

    /// Whether nothing comes through.
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        false
    }
}

#[cfg(feature = "faults")]
mod on_demand {
    use std::time::Duration;

    use crate::clock;
    use crate::time::Time;

    /// How bad the network is; chances in thousandths. What is not said to be of datagrams is of every path.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FaultPolicy {
        /// Datagrams that vanish.
        pub drop: u32,
        /// Datagrams that arrive twice.
        pub duplicate: u32,
        /// Datagrams that arrive after the next one.
        pub reorder: u32,
        /// Datagrams with a flipped bit.
        pub corrupt: u32,
        /// Datagrams arrive so much later; words and logs in shared memory or by remote writes are looked at so long
        /// after the first news of them.
        pub delay: Duration,
        /// Nothing of any peer arrives. That a process on this host has died, or closed its socket, is known all the same.
        pub cut: bool,
        /// Same seed, same faults.
        pub seed: u64,
    }

    /// Stands between the news that a link has and who looks at it.
    pub(crate) struct Gate {
        delay: Duration,
        cut: bool,
        /// When the news that is there may be seen.
        due: Option<Time>,
    }

    impl Gate {
        /// Of a network that is as it is.
        pub(crate) fn open() -> Gate {
            Gate { delay: Duration::ZERO, cut: false, due: None }
        }

        /// From now on. What was held back is seen at once, unless nothing is.
        pub(crate) fn set(&mut self, policy: &FaultPolicy) {
            *self = Gate { delay: policy.delay, cut: policy.cut, due: None };
        }

        /// There is news: whether it may be seen now.
        pub(crate) fn passes(&mut self) -> bool {
            if self.cut || self.delay.is_zero() {
                return !self.cut;
            }
            let now = clock::now();
            let passes = now >= *self.due.get_or_insert(now + self.delay);
            if passes {
                self.due = None;
            }
            passes
        }

        /// Whether there is news that will be seen later.
        #[cfg(feature = "verbs")]
        pub(crate) fn holds(&self) -> bool {
            self.due.is_some()
        }

        /// Whether nothing comes through.
        pub(crate) fn is_cut(&self) -> bool {
            self.cut
        }
    }
}
