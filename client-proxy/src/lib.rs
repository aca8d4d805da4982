//! Calling a Quintet cluster from outside it, and going on when a manager dies.
//!
//! - [`wire`]: the frames that clients and managers exchange, and a codec for tokio streams.
//! - [`Client`]: calls with exactly-once semantics across failover.
//! - [`proxy`]: the gRPC front door.
//! - [`session`]: the failover state machine, without sockets or clocks.
//!
//! The binary of this package, `quintet-proxy`, lets unmodified gRPC clients do the same.

#![forbid(unsafe_code)]

pub mod client;
pub mod proxy;
pub mod session;
pub mod wire;

pub use client::{Client, ClientConfig, ConnectError, FetchError, fetch};
