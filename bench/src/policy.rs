//! What carries bytes, and how pollers wait: as users name them.

use clap::ValueEnum;
use quintet_transport::{PathPolicy, Wait};
use serde::{Deserialize, Serialize};

/// What carries the bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    /// Shared memory.
    #[default]
    Shm,
    /// UDP, over loopback unless --host says otherwise.
    Udp,
    /// InfiniBand or RoCE, which encrypt nothing; in a build with the cargo feature `verbs`.
    Verbs,
}

impl Provider {
    pub(crate) fn policy(self) -> PathPolicy {
        match self {
            Provider::Shm => PathPolicy::Shm,
            Provider::Udp => PathPolicy::Udp,
            Provider::Verbs => PathPolicy::Verbs,
        }
    }
}

/// How a poller waits.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Waiting {
    /// Never sleeps.
    Spin,
    /// Yields for some microseconds, then sleeps.
    #[default]
    Adaptive,
    /// Sleeps at once.
    Block,
}

impl Waiting {
    pub(crate) fn wait(self) -> Wait {
        match self {
            Waiting::Spin => Wait::Spin,
            Waiting::Adaptive => Wait::Adaptive,
            Waiting::Block => Wait::Block,
        }
    }
}
