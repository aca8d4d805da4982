//! Calling a Quintet cluster from outside it, and going on when a manager dies.
//!
//! - [`wire`]: the frames that clients and managers exchange, and a codec for tokio streams.
//! - [`session`]: the failover state machine, without sockets or clocks.
//!
//! The binary of this package, `quintet-proxy`, lets unmodified gRPC clients do the same.

#![forbid(unsafe_code)]

pub mod session;
pub mod wire;
