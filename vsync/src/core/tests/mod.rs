//! Scenarios of the core on a small, perfect network: what has to happen, in the order people tell it.

mod codec;
mod found;
mod net;
mod order;
mod views;
