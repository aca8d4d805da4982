//! Virtual synchrony: agreed views and totally ordered, stable multicast.

pub mod core;
