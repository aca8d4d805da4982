//! Waiting without losing a wake-up and without burning a core.

mod doorbell;

pub use doorbell::Waker;

pub(crate) use doorbell::Bell;
