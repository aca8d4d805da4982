//! Reliable, direct placement over datagrams: the sans-IO half of the UDP provider.
//!
//! A [`Connection`] is one link's protocol state. It holds no socket, asks no clock, starts no thread, allocates
//! nothing after [`Connection::new`], and contains no `unsafe`; a simulator runs the very same code as the
//! driver in `udp/`. It knows no cryptography: its packets are sealed and opened outside. It is driven by `handle_*`, told what to publish by commands, and drained by
//! [`Connection::poll_transmit`]; [`Connection::next_timeout`] says when it wants to be asked again.
//!
//! It carries *lanes*: one log and some words each, written by one side and read by the other.
//!
//! - The naive way is a send queue of operations with sequence numbers. It needs memory for what is not yet
//!   acked, delays small news behind large transfers, and re-sends values that nobody wants any more.
//! - Here there is no queue. Log bytes stay where their writer put them (immutable until every reader has
//!   released them), so a lost range is simply read again ([`Source::log`]). A word has one recorded value and the log
//!   position at which it was set; whatever packet is packed next carries the newest recording. It is never re-read
//!   from live memory: a newer counter could then appear before the payload it counts.
//! - The receiver puts log bytes straight to their final place ([`Sink::place`]) in any order, and shows them
//!   as a growing prefix; a word shows when the prefix has reached its recorded position.
//!
//! Acks, round-trip estimate, loss detection and congestion control follow RFC 9002 (QUIC) and RFC 8985 (RACK),
//! with a cluster's constants: see [`Rtt`] and [`Congestion`].

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod congestion;
mod connection;
mod delay;
mod handshake;
mod mtu;
mod note;
mod pack;
mod planted;
mod rails;
mod ranges;
mod receive;
mod recv_lane;
mod rtt;
mod send_lane;
mod sent;
mod timer;
mod wire;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod zeros;

pub use congestion::{Congestion, PRIORITY_RESERVE, Rank};
pub use connection::{
    Aside, CloseReason, Connection, Counters, Received, Rejected, Settings, Tail, Transmit,
};
pub use handshake::{
    COOKIE_AT, COOKIE_LEN, Claim, GREETING_MAX, Greeting, Handshake, Hello, INIT_LEN, LaneShape,
    LaneTable, NOISE_1_LEN, NOISE_AT,
};
pub use note::Note;
#[cfg(feature = "canary")]
pub use planted::Bug;
pub use rails::{RAILS_MAX, RailChange, Rails, Signs};
pub use rtt::{RTO_MAX, RTO_MIN, Rtt};
pub use wire::{
    AckFrame, AckRanges, CONNECTION_MARK_AT, FLAG_HANDSHAKE, FLAG_KEY_PHASE, FLAG_QUIET, Frame,
    Frames, HEADER_LEN, Header, PacketView, TAG_LEN, VERSION, WireError, WordEntries, WordEntry,
    check_frames,
};

/// Where a connection reads what it sends.
pub trait Source {
    /// Copies published log bytes from `position` on into `out`. Only asked for bytes that are published and
    /// not yet released by this reader.
    fn log(&self, lane: u8, position: u64, out: &mut [u8]);
    /// Whether such bytes, which are the last of a packet, may be left out of it: they are sealed from where they are, so
    /// the packet ends with [`Transmit::tail`].
    fn seals_in_place(&self, lane: u8, position: u64, len: usize) -> bool {
        let _ = (lane, position, len);
        false
    }
    /// The recorded value of a word, and the end of the lane's published log when it was set.
    fn word(&self, lane: u8, index: u16) -> (u64, u64);
}

/// Where a connection puts what it receives.
pub trait Sink {
    /// Copies log bytes to their place in the lane's ring. Only called inside the window, never for bytes
    /// below the visible prefix.
    fn place(&mut self, lane: u8, position: u64, bytes: &[u8]);
}
