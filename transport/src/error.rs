//! What can go wrong at start, in words a person can act on.

use std::io;
use std::net::SocketAddr;

use crate::id::NodeId;
use crate::report::VerbsReport;

/// Why a [`Poller`](crate::Poller) could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
    /// Another process of this cluster has this node's id on this host.
    #[error(
        "node {node} of cluster {cluster:?} already runs on this host (the name {name} is taken): \
         stop that quintetd first, or give this one another node id"
    )]
    AlreadyRunning {
        /// The cluster.
        cluster: String,
        /// The node.
        node: NodeId,
        /// The abstract Unix socket name.
        name: String,
    },
    /// The UDP address cannot be bound.
    #[error("cannot receive UDP on {addr}: {source}; {hint}")]
    Bind {
        /// The configured address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
        /// What usually helps.
        hint: &'static str,
    },
    /// Memory for the lanes could not be had.
    #[error(
        "cannot allocate {bytes} bytes of shared memory for the lanes: {source}; free memory, raise the memory limit of the service, or make the logs smaller"
    )]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The configuration says verbs, and they cannot be used.
    #[error("path = verbs, which cannot be used here:\n{0}")]
    Verbs(VerbsReport),
    /// Another system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { what, source }
    }
}
