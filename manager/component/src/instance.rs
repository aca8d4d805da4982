//! The pair of traits through which the manager sees every component, however it is hosted.
//!
//! A [`Factory`] makes instances of one class; an [`Instance`] is one replica of a live component.
//! Both speak bytes: method number, request, reply. So the manager is compiled once, and a
//! component linked into it, one in a shared library and one written in C look the same. Authors
//! rarely meet these traits: generated code implements them (see [`crate::Linked`]).

use std::fmt;
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use crate::{Context, Status};

/// Most bytes in a reply. A longer one is [`crate::Code::ResourceExhausted`] to the caller.
pub const REPLY_MAX: usize = 64 << 20;

/// What can be saved and loaded: the whole replicated state of a component.
///
/// The platform saves for state transfer to a joining replica, for snapshots, and to compare
/// replicas by [`state_hash`]. So `save` must be *deterministic*: equal states give equal bytes.
/// Iterate ordered maps (`BTreeMap`), not hashed ones.
pub trait State {
    /// Writes the whole state.
    fn save(&self, out: &mut dyn Write) -> io::Result<()>;

    /// Replaces the whole state by one that [`State::save`] wrote, perhaps in an earlier release of
    /// the component. Reads up to the end of `from`. After an error the instance is thrown away.
    fn load(&mut self, from: &mut dyn Read) -> io::Result<()>;
}

/// Makes instances of one class.
pub trait Factory: Send + Sync {
    /// The full name of the class: that of its service, `bank.Bank`.
    fn class(&self) -> &str;

    /// The serialized `google.protobuf.FileDescriptorSet` that holds the service and all it
    /// imports; see [`crate::Class`].
    fn descriptor(&self) -> &[u8];

    /// A new instance in its initial state, the same on every node.
    fn create(&self) -> Result<Box<dyn Instance>, Error>;
}

/// One replica of a live component.
///
/// The caller is an executor of the manager: one update at a time, in the total order; reads run
/// between updates, concurrently with each other. `method` is [`crate::Method::id`].
pub trait Instance: Send + Sync {
    /// Applies an update. What it does and returns depends on state, request and context alone.
    fn update(&mut self, method: u32, context: &Context, request: &[u8])
    -> Result<Vec<u8>, Status>;

    /// Answers a read from the state as it is.
    fn read(&self, method: u32, context: &Context, request: &[u8]) -> Result<Vec<u8>, Status>;

    /// Writes the whole state, deterministically; see [`State::save`]. An error if the instance has
    /// failed.
    fn save(&self, out: &mut dyn Write) -> io::Result<()>;

    /// Replaces the whole state; see [`State::load`].
    fn load(&mut self, from: &mut dyn Read) -> io::Result<()>;

    /// Why this instance has failed, if it has: its code panicked inside an update or a load and
    /// left the state half changed. A failed instance answers every call with
    /// [`crate::Code::Internal`] and this reason; replicas fail at the same update, because they
    /// are equal until then.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// Why a component could not be loaded, described or created. The text says what happened, what it
/// means and what to do.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// As it displays: a build script's `unwrap` shows the text with its line breaks.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Error {
        Error(text.into())
    }
}

/// The hash of an instance's state: SHA-256 of what it saves. Replicas with equal hashes are equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateHash(pub [u8; 32]);

impl fmt::Display for StateHash {
    /// Sixteen hexadecimal digits, enough for a person to compare; `{:#}` gives all sixty-four.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if f.alternate() { 32 } else { 8 };
        self.0[..shown].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({self:#})")
    }
}

/// Hashes the state of an instance without keeping a copy of it.
pub fn state_hash(instance: &dyn Instance) -> io::Result<StateHash> {
    let mut hasher = StateHasher::new();
    instance.save(&mut hasher)?;
    Ok(hasher.finish())
}

/// Hashes a state while it is written somewhere anyway, a snapshot for example: the incremental
/// [`state_hash`].
#[derive(Clone, Default)]
pub struct StateHasher(Sha256);

impl StateHasher {
    /// A hasher that has seen nothing.
    pub fn new() -> StateHasher {
        StateHasher(Sha256::new())
    }

    /// The hash of all that was written.
    pub fn finish(self) -> StateHash {
        StateHash(self.0.finalize().into())
    }
}

impl Write for StateHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
