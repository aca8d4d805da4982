//! The bank as a manager meets it: the shared library that cargo built, loaded through the C
//! interface.

use std::path::PathBuf;
use std::sync::Arc;

use quintet_component::{Class, Code, Context, Factory, Instance, Kind, Read, library, state_hash};

/// Where cargo puts the library of the package under test: beside the test.
fn library_path() -> PathBuf {
    std::env::current_exe().expect("a test knows its path").with_file_name("libbank.so")
}

fn bank() -> (Arc<dyn Factory>, Class) {
    let mut factories = library::open(&library_path()).expect("the bank loads");
    assert_eq!(factories.len(), 1);
    let factory = factories.remove(0);
    let class = Class::of(&*factory).expect("the bank describes itself");
    (factory, class)
}

/// Calls a method with JSON, as `quintet call` does.
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
fn it_describes_itself() {
    let (factory, class) = bank();
    assert_eq!(factory.class(), "bank.Bank");
    assert_eq!(class.short_name(), "Bank");
    let names: Vec<&str> = class.methods().iter().map(|method| method.name()).collect();
    assert_eq!(names, ["Transfer", "Balance", "Total", "Ledger", "Audit"]);
    let transfer = class.method_named("/bank.Bank/Transfer").unwrap();
    assert_eq!((transfer.id(), transfer.kind()), (0, Kind::Update));
    assert!(transfer.options().stable);
    assert_eq!(class.method_named("Balance").unwrap().options().read, Read::Local);
}

#[test]
fn it_serves_calls_written_as_json() {
    let (factory, class) = bank();
    let mut bank = factory.create().unwrap();
    let mut call = |name, json| call(&mut *bank, &class, name, json, 7);
    assert_eq!(
        call("Transfer", r#"{"from":1,"to":2,"amount":5,"reference":18446744073709551615}"#)
            .unwrap(),
        r#"{"reference":"18446744073709551615","balance":"9995","position":"7"}"#
    );
    assert_eq!(call("Balance", r#"{"account":"2"}"#).unwrap(), r#"{"amount":"10005"}"#);
    assert_eq!(call("Total", "{}").unwrap(), r#"{"amount":"10000000"}"#);
    let refused = call("Transfer", r#"{"from":1,"to":1000,"amount":5}"#).unwrap_err();
    assert_eq!(refused, "NOT_FOUND: there is no account 1000");
}

#[test]
fn a_replica_that_loads_the_state_of_another_is_equal_to_it() {
    let (factory, class) = bank();
    let (mut one, mut other) = (factory.create().unwrap(), factory.create().unwrap());
    assert_eq!(state_hash(&*one).unwrap(), state_hash(&*other).unwrap());
    for at in 1..=500 {
        let json = format!(
            r#"{{"from":{},"to":{},"amount":7,"reference":{at}}}"#,
            at % 7 + 1,
            at % 11 + 20
        );
        call(&mut *one, &class, "Transfer", &json, at).unwrap();
    }
    assert_ne!(state_hash(&*one).unwrap(), state_hash(&*other).unwrap());

    let mut saved = Vec::new();
    one.save(&mut saved).unwrap();
    other.load(&mut saved.as_slice()).unwrap();
    assert_eq!(state_hash(&*one).unwrap(), state_hash(&*other).unwrap());
    assert_eq!(
        call(&mut *other, &class, "Audit", "{}", 501),
        call(&mut *one, &class, "Audit", "{}", 501)
    );
}

#[test]
fn a_state_that_is_cut_off_fails_the_instance_and_a_good_one_heals_it() {
    let (factory, _) = bank();
    let (one, mut other) = (factory.create().unwrap(), factory.create().unwrap());
    let mut saved = Vec::new();
    one.save(&mut saved).unwrap();
    let error = other.load(&mut &saved[..saved.len() - 1]).unwrap_err();
    assert!(error.to_string().contains("ends too early"), "{error}");

    let answer = other.read(2, &Context::new(1, 0, 0), &[]).unwrap_err();
    assert_eq!(answer.code(), Code::Internal);
    assert!(other.failure().is_some());
    assert!(state_hash(&*other).is_err());

    other.load(&mut saved.as_slice()).unwrap();
    assert_eq!(other.failure(), None);
    assert_eq!(state_hash(&*one).unwrap(), state_hash(&*other).unwrap());
}

#[test]
fn linked_and_loaded_are_the_same_bank() {
    let (factory, class) = bank();
    let linked = bank::BankFactory::new();
    assert_eq!(linked.descriptor(), factory.descriptor());
    let (mut one, mut other) = (factory.create().unwrap(), linked.create().unwrap());
    for (at, json) in [
        (1, r#"{"from":1,"to":2,"amount":10000,"reference":1}"#),
        (2, r#"{"from":1,"to":2,"amount":1,"reference":2}"#),
        (3, r#"{"from":2,"to":1,"amount":3,"reference":1}"#),
    ] {
        assert_eq!(
            call(&mut *one, &class, "Transfer", json, at),
            call(&mut *other, &class, "Transfer", json, at)
        );
    }
    let ledger = call(&mut *one, &class, "Ledger", r#"{"limit":10}"#, 4).unwrap();
    assert_eq!(ledger, r#"{"entries":[{"reference":"1","times":2}],"more":false}"#);
    assert_eq!(state_hash(&*one).unwrap(), state_hash(&*other).unwrap());
}

#[test]
fn the_factory_of_a_library_that_is_opened_twice_is_the_same_class() {
    let (one, other) = (bank().0, bank().0);
    assert_eq!(one.class(), other.class());
    assert_eq!(
        state_hash(&*one.create().unwrap()).unwrap(),
        state_hash(&*other.create().unwrap()).unwrap()
    );
}
