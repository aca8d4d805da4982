//! What a component author depends on: traits, the C interface, code generation.
