//! Errors a person or a program can meet at the public API.

use std::path::PathBuf;

use crate::MAX_MESSAGE;

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting contradicts another one or is out of range.
    #[error("configuration: {0}")]
    Config(String),
    /// The transport could not start (address in use, shared memory, ...).
    #[error("transport: {0}")]
    Transport(#[from] quintet_transport::Error),
    /// The acceptor record of this node cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread could not be started.
    #[error("cannot start the {what} thread: {source}")]
    Thread {
        /// Which one.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// No entropy from the system.
    #[error("the system gave no entropy: {0}")]
    Entropy(String),
}

/// Why the durable record of a node cannot be read or written.
///
/// The record holds what this node promised and accepted in view changes. A node that forgot a promise can help two
/// histories into the world, so nothing here is ever repaired by guessing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused an operation on the file.
    #[error("{}: cannot {what}: {source}. The node keeps its view-change promises there and does not run without them: \
             check that the directory exists, is writable for this user and has space", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is there, but none of its records is whole.
    #[error("{}: {detail}. It holds what this node promised in view changes; starting without it could let two groups \
             go on at once. Restore the file, or remove the node's whole data directory and let it join again as a new \
             node while a quorum of the others is running", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file belongs to another node.
    #[error("{}: written by node n{found}, but this is n{expected}: two nodes must not share a data directory", path.display())]
    WrongNode {
        /// Which file.
        path: PathBuf,
        /// The node in the file.
        found: u16,
        /// The node that is starting.
        expected: u16,
    },
    /// Another process has the file open.
    #[error("{}: in use by another process: is this node already running?", path.display())]
    Busy {
        /// Which file.
        path: PathBuf,
    },
    /// A newer program wrote the file.
    #[error("{}: format {found} is newer than this program understands ({known}): was the program downgraded?", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
}

/// Why [`Group::reserve`](crate::Group::reserve) gave no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The own log is full: some member has not yet consumed what was sent. Try again later.
    #[error("the log of this node is full: a member has not consumed earlier messages yet")]
    Full,
    /// Longer than [`MAX_MESSAGE`] or than a quarter of the log.
    #[error("a message may have at most {limit} bytes here (and never more than {max})", max = MAX_MESSAGE)]
    TooLarge {
        /// The limit that holds for this group.
        limit: usize,
    },
    /// The node was evicted, has left or was stopped; nothing more can be sent by this incarnation.
    #[error("this incarnation of the node is over")]
    Closed,
}

/// Why a state transfer ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The learner's link died, or this node is no longer a member.
    #[error("the learner is gone")]
    Aborted,
    /// The learner consumed nothing for the whole waiting time.
    #[error("the learner has consumed nothing for {0:?}")]
    Stalled(std::time::Duration),
}

impl From<TransferError> for std::io::Error {
    fn from(e: TransferError) -> Self {
        let kind = match e {
            TransferError::Aborted => std::io::ErrorKind::ConnectionAborted,
            TransferError::Stalled(_) => std::io::ErrorKind::TimedOut,
        };
        Self::new(kind, e)
    }
}
