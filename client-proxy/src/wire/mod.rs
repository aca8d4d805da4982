//! What a client and a manager say to each other.
//!
//! A connection (TCP or Unix socket) carries frames in both directions:
//!
//! ```text
//! u32 LE length of what follows │ u8 type │ fields, little-endian, strings and lists with their length in front
//! ```
//!
//! The length is checked before anything is allocated, every field before it is used, and what is left over at the
//! end of a frame makes it malformed: a peer can send any bytes and gets an error back, never a panic.
//!
//! ```text
//! client                                   manager
//!   Hello{version, cluster, client} ──────▶
//!          ◀────── Welcome{node, incarnation, view}
//!   Call{seq 1, first_incomplete 1} ──────▶
//!          ◀────── Reply{seq 1}            in any order, exactly one Reply or Refuse for a Call
//!          ◀────── Late{seq 1}             at most once before it, if the method has a deadline and it has passed
//!          ◀────── View{…}                 at every change of view or primacy, unasked
//!   Ping{token} ──────▶  ◀────── Pong{token}      either way
//!   Goodbye{Finished} ──────▶
//! ```
//!
//! # What makes a call happen exactly once
//! A call is named by `(client, seq)`. The client never uses a `seq` for two different calls, and sends a call again
//! under the same `seq`, to any manager, until it has an answer. Managers remember the answers in replicated state.
//! `first_incomplete` bounds what they have to remember: the client has the answer to (or has given up) every call
//! below it. Hence the duties of a manager:
//!  - a call whose `seq` has a remembered answer is answered from memory, not executed;
//!  - a call whose `seq` is below the greatest `first_incomplete` ordered for that client is *late*: it was answered,
//!    or given up, long ago and must not be executed. Its answer is of no interest to anybody;
//!  - a call that is already under way (the same manager or another) is not begun a second time;
//!  - `Refuse` promises that *this* copy of the call was not and will not be executed.
//!
//! # The body, and why five bytes of it are big-endian
//! Calls and replies end with the message in gRPC's own framing: a flag byte (0: not compressed), a big-endian u32
//! length, the message. The proxy therefore passes one slice of memory from an HTTP/2 DATA frame to a manager's socket
//! and back, without looking into it and without copying it. See [`Body`].

mod body;
mod decode;
mod encode;
mod io;
mod status;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;

use bytes::Bytes;

pub use body::{BODY_PREFIX, Body, BodyError};
pub use decode::{Malformed, decode, frame_length};
pub use encode::{Unencodable, encode};
pub use io::{FrameReader, FrameWriter, QueueFull, ReadError};
pub use status::{Code, Status};
pub use text::Text;

/// The version of this protocol. Both sides of a connection speak the same one; a manager answers a [`Hello`] of
/// another version with [`Goodbye`] ([`Farewell::Version`]).
pub const VERSION: u16 = 1;

/// Bounds that both sides rely on.
pub mod limits {
    /// Greatest length of a frame (type and fields), in bytes.
    pub const FRAME_BYTES_MAX: usize = 64 << 20;
    /// Greatest length of a message, in bytes. Leaves room for the other fields of a frame.
    pub const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX - (64 << 10);
    /// Most calls between the lowest that a client still wants answered and its newest. A manager keeps so many
    /// replies of a client, so that a call which is stuck never makes it drop the reply of another.
    pub const CALL_SPAN_MAX: usize = 1 << 14;
    /// Most members of a view.
    pub const MEMBERS_MAX: usize = 64;
    /// Longest name of a cluster, in bytes.
    pub const CLUSTER_BYTES_MAX: usize = 255;
    /// Longest address of a manager, in bytes.
    pub const ADDRESS_BYTES_MAX: usize = 255;
    /// Longest method path, in bytes.
    pub const PATH_BYTES_MAX: usize = 1024;
    /// Longest text for people (status message, reason), in bytes. Longer ones are cut at encoding.
    pub const TEXT_BYTES_MAX: usize = 4096;
    /// Recommended size of one chunk of a package, in bytes.
    pub const CHUNK_BYTES: usize = 256 << 10;
}

/// Names one run of a client (library or proxy): random, so that nobody has to hand it out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u128);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One run of a manager: its node and the incarnation of that node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The node's number, from 1.
    pub node: u16,
    /// The run of that node; a later run has a greater number.
    pub incarnation: u64,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.node)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}/{:x}", self.node, self.incarnation)
    }
}

/// A member of a view, with the address at which it takes clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewMember {
    /// Who.
    pub member: Member,
    /// Where clients reach it: `host:port`, or `unix:/path`.
    pub address: Text,
}

/// What a client wants of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Calls: the client takes part in exactly-once bookkeeping.
    Calls,
    /// Packages of components, by digest; no client session is opened.
    Packages,
}

/// First frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`VERSION`] of the client.
    pub version: u16,
    /// The cluster the client means to talk to; a manager of another one answers [`Farewell::Cluster`].
    pub cluster: Text,
    /// The client's id, the same on all of its connections.
    pub client: ClientId,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// First frame of a manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Who answers.
    pub member: Member,
    /// The view it is in.
    pub view: View,
}

/// A membership view as a manager sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The view's number; grows with every view, 0 before a node has ever been in one.
    pub id: u64,
    /// The manager that says so is a live member of this view and takes calls. False in one that is blocked (no
    /// quorum), is still joining, or was removed.
    pub primary: bool,
    /// Everybody in the view, in rank order; at most [`limits::MEMBERS_MAX`].
    pub members: Vec<ViewMember>,
}

/// A call of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Number of the call, from 1, unique in the client.
    pub seq: u64,
    /// The lowest `seq` whose answer the client has not got and still wants.
    pub first_incomplete: u64,
    /// Time the client will still wait, in milliseconds; 0 means without bound. Relative, as clocks differ.
    pub deadline_ms: u32,
    /// The reply must reflect every position up to this one (the greatest one that the client has been answered from):
    /// a session reads its own writes, whichever manager answers.
    pub min_position: u64,
    /// The method, in gRPC's form: `/package.Service/Method`.
    pub path: Text,
    /// The request message.
    pub body: Body,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Of which call.
    pub seq: u64,
    /// The outcome.
    pub status: Status,
    /// Position of the total order that the answer reflects.
    pub position: u64,
    /// The response message; empty unless the status is [`Code::Ok`].
    pub body: Body,
}

/// Why a manager did not take a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is not in a primary view (blocked, or removed): ask another.
    NotPrimary,
    /// It is not ready yet: ask another.
    Starting,
    /// It has too much to do: ask again later.
    Overloaded,
    /// It is about to stop: ask another.
    Draining,
    /// No deployed class has the method: final.
    UnknownMethod,
    /// Its deadline, or its method's, passed before it was ordered or read.
    Expired,
}

/// A call that was not taken. This copy of it was not executed and will not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// Of which call.
    pub seq: u64,
    /// Why.
    pub reason: Reason,
    /// The same for people.
    pub message: Text,
}

/// The deadline of a call's method has passed, and the call goes on: its [`Reply`] or [`Refuse`] still follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// Which call.
    pub seq: u64,
    /// The same for people.
    pub message: Text,
}

/// Why a side ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Farewell {
    /// Client: this run of the client is over, all that is remembered for it may go.
    Finished,
    /// Client: only this connection ends, the client lives on.
    Leaving,
    /// Manager: it is stopping.
    Draining,
    /// Manager: it was removed from the group and is no longer the incarnation it said it was.
    Removed,
    /// Manager: it does not speak the version of the Hello.
    Version,
    /// Manager: it belongs to another cluster.
    Cluster,
    /// Manager: it has as many clients as it can take.
    Full,
    /// Either: the other side sent something malformed or out of place.
    Protocol,
    /// Manager: the client does not read what is sent to it, or gives no sign of life.
    Silent,
}

/// Last frame of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Why.
    pub reason: Farewell,
    /// The same for people.
    pub message: Text,
}

/// SHA-256 of a package.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One piece of a package; pieces come in order, the last one ends at `total`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Of which package.
    pub digest: Digest,
    /// Length of the whole, in bytes.
    pub total: u64,
    /// Where this piece begins.
    pub offset: u64,
    /// The piece.
    pub bytes: Bytes,
}

/// Everything that can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Client: first frame.
    Hello(Hello),
    /// Manager: first frame.
    Welcome(Welcome),
    /// Manager: its view or its primacy changed.
    View(View),
    /// Client: a call.
    Call(Call),
    /// Manager: the answer to a call.
    Reply(Reply),
    /// Manager: a call it did not take.
    Refuse(Refuse),
    /// Manager: a call that takes longer than its method allows.
    Late(Late),
    /// Either: the end.
    Goodbye(Goodbye),
    /// Either: are you there? Answered at once by a Pong with the same token.
    Ping(u64),
    /// Either: yes.
    Pong(u64),
    /// Client (or manager as a client of another): send this package.
    Fetch(Digest),
    /// Manager: a piece of a package.
    Package(Package),
    /// Manager: it does not have that package.
    NoPackage(Digest),
}
