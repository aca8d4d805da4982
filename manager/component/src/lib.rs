//! What a component author depends on: traits, the C interface, code generation.

mod class;
mod context;
mod instance;
mod json;
mod options;
mod status;

pub use class::{Class, METHODS_MAX, Method};
pub use context::Context;
pub use instance::{Error, Factory, Instance, State, StateHash, StateHasher, state_hash};
pub use options::{Call, Collate, Kind, MethodOptions, OPTIONS_PROTO, Order, Orphan, Read};
pub use prost;
pub use status::{Code, Status};
