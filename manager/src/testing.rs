//! A daemon without a group, a component and its calls, for the unit tests of this crate.

use crate::config::Config;
use crate::packages::{Linked, Packages};
use crate::runtime::Shared;
use quintet_component::Class;
use quintet_component::prost::Message;
use specimen::SpecimenFactory;
use specimen::proto::{Nothing, Step, Value};
use std::path::Path;
use std::sync::{Arc, LazyLock};

static TOKIO: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// What the parts of a daemon share, with this `[limits]` table; no incarnation runs.
pub(crate) fn shared(dir: &Path, limits: &str) -> Arc<Shared> {
    shared_with(dir, limits, linked())
}

/// What is linked into it.
pub(crate) fn linked() -> Linked {
    Linked::default().with("specimen", Arc::new(SpecimenFactory::new()))
}

/// As [`shared`], of a daemon with these linked components.
pub(crate) fn shared_with(dir: &Path, limits: &str, linked: Linked) -> Arc<Shared> {
    let text = format!(
        r#"node = 1
        cluster = "test"
        data_dir = "{dir}"
        bind = "127.0.0.1:1"
        nodes = [{{ id = 1, transport = "127.0.0.1:1", client = "127.0.0.1:1" }}]
        client = {{ listen = "127.0.0.1:1" }}
        admin = {{ socket = "{dir}/admin.sock" }}
        limits = {{ {limits} }}"#,
        dir = dir.display()
    );
    let packages = Packages::open(dir.join("packages"), linked).unwrap();
    Shared::new(Config::parse(&text).unwrap(), packages, TOKIO.handle().clone()).unwrap()
}

pub(crate) fn specimen_class() -> Arc<Class> {
    Arc::new(Class::of(&SpecimenFactory::new()).unwrap())
}

fn method(name: &str) -> u32 {
    specimen_class().method_named(name).unwrap().id()
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
