//! Deterministic simulator of the protocol cores.
//!
//! The real sans-IO virtual-synchrony core runs on every node of a small cluster, in one seed of four over the real
//! reliable UDP core of the transport; everything around them (network, failure detector, disk, clock, application) is
//! a model in one process and one thread, in virtual time, driven by one seed. The same seed gives the same run, step
//! by step: a failure is a number that anybody can replay.
//!
//! ```text
//!   plan     what this seed does: nodes, fault classes and their strength      entropy  tapes, one per concern
//!   world    the loop: phase one (faults), phase two (heal, converge)           env      heap of events, time, disks
//!   fabric   the network's mood     link   the transport's promises, per side   faults   who strikes when
//!                                   wire   the same over the real packet core
//!   process  a node's run: turns    drive  the engine: words and records        events   the engine: views, links, ends
//!   work     what the application does                                          outcome  what became of own messages
//!   transfer state for learners     store  the protocol's disk                  app      a list and its journal
//!   check/   the invariants         canary/ planted bugs                        run      many seeds, shrinking
//!   panics   of a core, as findings trace   every step, for people and the hash
//! ```
//!
//! Run it with `cargo run --release -p quintet-sim -- run --seeds 0..300`.

pub mod app;
pub mod canary;
pub mod check;
pub mod drive;
pub mod entropy;
pub mod env;
pub mod events;
pub mod fabric;
pub mod faults;
pub mod link;
pub mod outcome;
pub mod panics;
pub mod plan;
pub mod process;
pub mod run;
pub mod store;
pub mod trace;
pub mod transfer;
pub mod wire;
pub mod work;
pub mod world;
