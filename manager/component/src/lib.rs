//! What a component author depends on: traits, code generation, and the hosts' interface.
//!
//! A component is a service written as if there were one of it. The author describes it in a
//! `.proto` with Quintet's options (`quintet/options.proto`), implements the generated trait, and
//! says how its state is saved and loaded. The platform replicates it, orders its updates, makes
//! each call exactly once, and moves its state to nodes that join.
//!
//! # A component from end to end
//! ```proto
//! service Greeter {
//!   rpc Greet(Name) returns (Greeting) {
//!     option (quintet.method) = { kind: UPDATE order: TOTAL stable: true call: EXACTLY_ONCE };
//!   }
//!   rpc Count(CountRequest) returns (Greeted) {
//!     option (quintet.method) = { kind: READ read: LOCAL };
//!   }
//! }
//! ```
//! The build script is one line, `quintet_component::build::compile(&["greeter.proto"])`, and needs
//! no protoc. Then, with `crate-type = ["cdylib"]`:
//! ```
//! use std::collections::BTreeSet;
//! use std::io::{self, Read, Write};
//!
//! use quintet_component::{Class, Context, Factory, State, Status, state_hash};
//!
//! mod greeter {
//!     # #[cfg(any())]
//!     quintet_component::include_proto!("greeter"); // what the build script generated
//!     # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/greeter.rs"));
//! }
//! use greeter::{CountRequest, Greeted, Greeting, Name};
//!
//! /// Ordered, so that equal states are saved as equal bytes.
//! #[derive(Default)]
//! struct Greeter {
//!     greeted: BTreeSet<String>,
//! }
//!
//! impl greeter::Greeter for Greeter {
//!     // An update: `&mut self`. Every replica applies it, in the same order.
//!     fn greet(&mut self, _: &mut Context, who: Name) -> Result<Greeting, Status> {
//!         if who.name.is_empty() {
//!             return Err(Status::invalid_argument("nobody is there"));
//!         }
//!         let text = format!("Hello, {}!", who.name);
//!         self.greeted.insert(who.name);
//!         Ok(Greeting { text })
//!     }
//!
//!     // A read: `&self`. One replica answers it, beside other reads.
//!     fn count(&self, _: &Context, _: CountRequest) -> Result<Greeted, Status> {
//!         Ok(Greeted { people: self.greeted.len() as u64 })
//!     }
//! }
//!
//! impl State for Greeter {
//!     fn save(&self, out: &mut dyn Write) -> io::Result<()> {
//!         self.greeted.iter().try_for_each(|name| writeln!(out, "{name}"))
//!     }
//!
//!     fn load(&mut self, from: &mut dyn Read) -> io::Result<()> {
//!         self.greeted = io::read_to_string(from)?.lines().map(str::to_owned).collect();
//!         Ok(())
//!     }
//! }
//!
//! quintet_component::export!(greeter::GreeterFactory<Greeter>);
//!
//! // What the platform does with it, in small: two replicas, the same updates, equal states.
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let factory = greeter::GreeterFactory::<Greeter>::new();
//! let class = Class::of(&factory)?;
//! let greet = class.method_named("Greet").ok_or("no such method")?;
//! let (mut one, mut other) = (factory.create()?, factory.create()?);
//! let request = greet.json_to_request(r#"{"name": "Ada"}"#)?;
//! for replica in [&mut one, &mut other] {
//!     let reply = replica.update(greet.id(), &Context::new(1, 0, 0), &request)?;
//!     assert_eq!(greet.reply_to_json(&reply)?, r#"{"text":"Hello, Ada!"}"#);
//! }
//! assert_eq!(state_hash(&*one)?, state_hash(&*other)?);
//! # Ok(())
//! # }
//! ```
//!
//! # What an update must be
//! A function of state, request and [`Context`]: replicas stay equal because each computes the same.
//! So no clock but [`Context::time`], no randomness but [`Context::random`], no order of a
//! `HashMap`, no address of anything, no file, no network. [`state_hash`] is how the platform finds
//! out that one was not.
//!
//! # Hosts
//! A [`Factory`] can be *linked* into a program ([`Linked`]) or come from a shared *library*
//! ([`export!`], [`library::open`] with feature `host`). The library's interface is C
//! ([`abi`], `include/quintet_component.h`), so a component may be written in C as well:
//! `examples/tally`.
//!
//! # Features
//! - `build`: code generation, for build scripts.
//! - `host`: loading libraries, for managers.

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
