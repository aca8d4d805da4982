//! A component and its calls, for the unit tests of this crate.

use counter::CounterFactory;
use counter::proto::{Nothing, Step, Value};
use quintet_component::Class;
use quintet_component::prost::Message;
use std::sync::Arc;

pub(crate) fn counter_class() -> Arc<Class> {
    Arc::new(Class::of(&CounterFactory::new()).unwrap())
}

fn method(name: &str) -> u32 {
    counter_class().method_named(name).unwrap().id()
}

/// Number and request of `Add`.
pub(crate) fn add(amount: i64) -> (u32, Vec<u8>) {
    (method("Add"), Step { amount }.encode_to_vec())
}

/// Number and request of `Get`.
pub(crate) fn get() -> (u32, Vec<u8>) {
    (method("Get"), Nothing {}.encode_to_vec())
}

/// Number and request of `Crash`.
pub(crate) fn crash() -> (u32, Vec<u8>) {
    (method("Crash"), Nothing {}.encode_to_vec())
}

pub(crate) fn value_of(reply: &[u8]) -> i64 {
    Value::decode(reply).unwrap().value
}
