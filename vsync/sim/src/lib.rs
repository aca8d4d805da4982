//! Deterministic simulator of the protocol cores.
