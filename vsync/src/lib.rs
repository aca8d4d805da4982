//! Virtual synchrony: agreed views and totally ordered, stable multicast.
//!
//! A [`Node`] joins the group of its cluster. From then on its application gets the same sequence of [`Event`]s as every
//! other member: messages in one total order, and between them the [views](ViewChange) that say who is there. A message
//! is delivered when every member of the view has it and everything before it, so whatever one member acted upon, all
//! survivors will.
//!
//! ```no_run
//! use std::time::Duration;
//! use quintet_transport::NodeId;
//! use quintet_vsync::{Config, Event, Node};
//!
//! let mut config = Config::new("demo", NodeId(1), "127.0.0.1:7001".parse()?, vec![]);
//! config.path = quintet_transport::PathPolicy::Shm;
//! let (_node, group, mut deliveries) = Node::start(config)?;
//! group.send(b"hello")?;
//! while let Some(event) = deliveries.next(Duration::from_secs(1)) {
//!     match event {
//!         Event::View(change) => println!("{}", change.view),
//!         Event::Message(message) => println!("{} from {}: {:?}", message.at, message.sender, message.bytes),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Outcome of every send.** A sender's messages keep their order, so their outcomes come in the order of this table.
//!
//! | Outcome       | What it means                                        | How the sender learns of it |
//! |---------------|------------------------------------------------------|-----------------------------|
//! | delivered     | every member that goes on delivers it, once          | [`Event::Message`] with `own` and its id |
//! | re-sent       | it goes on in the next view, same id; no outcome yet | [`ViewChange::resent`] |
//! | indeterminate | published, and this node's end hides what became of it | [`Unresolved::indeterminate`] after the last event |
//! | not delivered | no member delivers it, ever                          | [`Unresolved::not_delivered`] after the last event |
//!
//! The protocol itself is the sans-IO [`core`]: no sockets, threads or clocks. `engine` drives it over
//! [`quintet_transport`] with one thread per node, and `store` keeps what must outlive the process.

mod config;
pub mod core;
mod deliveries;
mod donation;
mod engine;
mod error;
mod event;
mod group;
mod node;
mod passages;
mod status;
mod store;

pub use config::{Config, Limits, MAX_MESSAGE};
pub use core::{BlockedReason, Cause, Departure, Origin, Position, Shortfall, View, ViewId, Why};
pub use deliveries::Deliveries;
pub use donation::BulkWriter;
pub use engine::{stat_names, stat_texts};
pub use error::{Error, SendError, StoreError, TransferError};
pub use event::{Donation, Event, Message, MessageId, Unresolved, ViewChange};
pub use group::{Group, Reservation};
pub use node::Node;
pub use passages::{Passage, Passages};
pub use quintet_transport::{Member, NodeId, PathPolicy, PeerConfig, Rail, Timing, Wait};
pub use status::{Counters, HISTORY, State, Status, ViewRecord};
