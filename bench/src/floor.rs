//! What the machine can do at all: the least code that moves the same bytes between two processes.
//!
//! A ratio to a floor says what the transport costs, whichever machine it is measured on; an absolute figure says
//! mostly how fast that machine is. So each floor runs in the same run as what is compared with it, on the same
//! cores, timed by the same loop. The floors give no reliability, no failure detection, no second peer.

pub(crate) mod copy_stream;
pub(crate) mod gso_stream;
mod memory;
pub(crate) mod sealing;
pub(crate) mod shm_pingpong;
pub(crate) mod udp_pingpong;

use crate::policy::{Provider, Waiting};

/// How the two sides of a raw exchange wait for each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub(crate) enum Wait {
    /// They look again and again.
    Look,
    /// They sleep in the kernel.
    Sleep,
}

/// What carries raw bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Medium {
    /// Shared memory.
    Memory,
    /// Plain datagrams.
    Datagrams,
}

impl TryFrom<Provider> for Medium {
    type Error = &'static str;

    fn try_from(provider: Provider) -> Result<Medium, &'static str> {
        match provider {
            Provider::Shm => Ok(Medium::Memory),
            Provider::Udp => Ok(Medium::Datagrams),
            Provider::Verbs => {
                Err("what moves bytes over adapters with the least code is perftest: \
                                    --compare perftest")
            }
        }
    }
}

/// Name of the raw round trip among a report's latencies.
pub(crate) fn name(medium: Medium, wait: Wait) -> &'static str {
    match (medium, wait) {
        (Medium::Memory, Wait::Look) => "raw_spinning_rtt",
        (Medium::Memory, Wait::Sleep) => "raw_futex_rtt",
        (Medium::Datagrams, Wait::Look) => "raw_busy_poll_rtt",
        (Medium::Datagrams, Wait::Sleep) => "raw_blocking_rtt",
    }
}

/// The floor that a wait policy is held against.
pub(crate) fn counterpart(wait: Waiting) -> Wait {
    if wait == Waiting::Spin { Wait::Look } else { Wait::Sleep }
}

/// Looks at every cache line of a message, as one who needs it would.
pub(crate) fn touch(message: &[u8]) {
    let sum = message.iter().step_by(64).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    // It need not begin where a cache line does.
    std::hint::black_box(sum.wrapping_add(message.last().copied().unwrap_or(0)));
}
