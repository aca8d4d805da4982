//! `include/quintet_component.h` tells the truth: a C compiler builds `examples/tally` with it,
//! without a warning, and what it built is a component like any other.

mod compiled;

use std::path::Path;
use std::sync::Arc;

use compiled::{cc, descriptor_of};
use quintet_component::{Class, Code, Context, Factory, Instance, library, state_hash};

fn tally(directory: &Path) -> (Arc<dyn Factory>, Class) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/tally");
    let bytes = descriptor_of(&example.join("tally.proto"));
    let initializer: String = bytes.iter().map(|byte| format!("{byte},")).collect();
    std::fs::write(directory.join("tally.descriptor.inc"), initializer).unwrap();
    let path = cc(directory, &example.join("tally.c"));
    let factory = library::open(&path).expect("the component loads").remove(0);
    let class = Class::of(&*factory).expect("it describes itself");
    (factory, class)
}

fn call(
    instance: &mut dyn Instance,
    class: &Class,
    name: &str,
    json: &str,
    at: u64,
) -> Result<String, String> {
    let method = class.method_named(name).expect("the method exists");
    method.call_json(instance, &Context::new(at, 0, 1), json).map_err(|status| status.to_string())
}

#[test]
fn a_component_in_c_serves_updates_and_reads() {
    let directory = tempfile::tempdir().unwrap();
    let (factory, class) = tally(directory.path());
    assert_eq!(factory.class(), "tally.Tally");
    let mut tally = factory.create().unwrap();
    for votes in 1..=300 {
        let reply = call(&mut *tally, &class, "Count", r#"{"choice":3}"#, votes).unwrap();
        assert_eq!(reply, format!(r#"{{"votes":"{votes}"}}"#));
    }
    assert_eq!(
        call(&mut *tally, &class, "Ask", r#"{"choice":3}"#, 301).unwrap(),
        r#"{"votes":"300"}"#
    );
    assert_eq!(
        call(&mut *tally, &class, "Ask", r#"{"choice":0}"#, 301).unwrap(),
        r#"{"votes":"0"}"#
    );
    assert_eq!(
        call(&mut *tally, &class, "Count", r#"{"choice":16}"#, 302).unwrap_err(),
        "OUT_OF_RANGE: there are 16 choices, from 0"
    );
    let malformed = tally.update(0, &Context::new(303, 0, 1), b"\x08").unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
}

#[test]
fn its_random_numbers_are_those_of_the_context() {
    let directory = tempfile::tempdir().unwrap();
    let (factory, class) = tally(directory.path());
    let mut tally = factory.create().unwrap();
    for position in [1, 2, 3, 1 << 40, u64::MAX] {
        let drawn = Context::new(position, 0, 1).random() % 16;
        let reply = call(&mut *tally, &class, "Draw", "{}", position).unwrap();
        assert_eq!(reply, format!(r#"{{"choice":"{drawn}"}}"#));
    }
}

#[test]
fn its_state_is_saved_loaded_and_compared() {
    let directory = tempfile::tempdir().unwrap();
    let (factory, class) = tally(directory.path());
    let (mut one, mut other) = (factory.create().unwrap(), factory.create().unwrap());
    for (at, choice) in [(1, 15), (2, 0), (3, 15)] {
        call(&mut *one, &class, "Count", &format!(r#"{{"choice":{choice}}}"#), at).unwrap();
    }
    let mut saved = Vec::new();
    one.save(&mut saved).unwrap();
    other.load(&mut saved.as_slice()).unwrap();
    assert_eq!(state_hash(&*one).unwrap(), state_hash(&*other).unwrap());

    let error = other.load(&mut &b"not a tally"[..]).unwrap_err();
    assert!(error.to_string().contains("these bytes are not a saved tally"), "{error}");
    assert!(other.failure().is_some(), "an instance that was not loaded answers nothing");
}
