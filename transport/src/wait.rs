//! Waiting without losing a wake-up and without burning a core.
//!
//! - `doorbell`: the protocol between who sleeps and who has news.
//! - `adaptive`: whether to spin, yield or park, decided from how that went lately.
//! - `sleep`: one system call that waits for everything at once: io_uring, or ppoll where that is refused.
//! - `source`: what can end a sleep.

#[cfg(not(loom))]
mod adaptive;
mod doorbell;
#[cfg(not(loom))]
mod patience;
#[cfg(not(loom))]
mod ring;
#[cfg(not(loom))]
mod sleep;
#[cfg(not(loom))]
mod source;

pub use doorbell::Waker;

#[cfg(not(loom))]
pub(crate) use adaptive::{Adaptive, Step};
pub(crate) use doorbell::{Bell, arm, before_looking, disarm, must_ring};
#[cfg(not(loom))]
pub(crate) use patience::patiently;
#[cfg(not(loom))]
pub(crate) use sleep::Sleep;
#[cfg(not(loom))]
pub use sleep::probe_io_uring;
#[cfg(not(loom))]
pub(crate) use source::{Class, Token, Woken};
