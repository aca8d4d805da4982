//! What a component author depends on: traits, the C interface, code generation.

pub mod abi;
#[cfg(feature = "build")]
pub mod build;
mod class;
mod context;
mod export;
mod instance;
mod json;
#[cfg(feature = "host")]
pub mod library;
mod linked;
mod options;
mod status;

pub use class::{Class, METHODS_MAX, Method};
pub use context::Context;
pub use export::Exported;
pub use instance::{
    Error, Factory, Instance, REPLY_MAX, State, StateHash, StateHasher, state_hash,
};
#[doc(hidden)]
pub use linked::dispatch;
pub use linked::{Linked, Service, instance};
pub use options::{Call, Collate, Kind, MethodOptions, OPTIONS_PROTO, Order, Orphan, Read};
pub use prost;
pub use prost_reflect;
pub use prost_types;
pub use status::{Code, Status};
