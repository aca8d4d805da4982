//! One component under both hosts: what is promised of instances must not depend on where they
//! live.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use quintet_component::prost::Message;
use quintet_component::{Class, Code, Context, Factory, Instance, library, state_hash};
use specimen::proto::{Dice, Rolled, Step, Value};

const ADD: u32 = 0;
const GET: u32 = 1;
const ROLL: u32 = 2;
const CRASH: u32 = 3;
const CRASH_IN_READ: u32 = 4;

/// `target/<profile>/examples/libspecimen_library.so`, which cargo builds with this test.
fn library_path() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    profile.join("examples/libspecimen_library.so")
}

fn loaded() -> Vec<Arc<dyn Factory>> {
    let path = library_path();
    assert!(path.exists(), "{} is missing: cargo build -p specimen --examples", path.display());
    library::open(&path).expect("the library loads")
}

/// The specimen, linked and loaded.
fn hosts() -> [Arc<dyn Factory>; 2] {
    let specimen = loaded().into_iter().find(|factory| factory.class() == "specimen.Specimen");
    [Arc::new(specimen::SpecimenFactory::new()), specimen.expect("the library has the specimen")]
}

fn at(position: u64) -> Context {
    Context::new(position, 1_700_000_000_000_000_000, 0x0102)
}

fn add(instance: &mut dyn Instance, amount: i64) -> i64 {
    let reply = instance.update(ADD, &at(1), &Step { amount }.encode_to_vec()).expect("it adds");
    Value::decode(&*reply).expect("a value").value
}

fn get(instance: &dyn Instance) -> i64 {
    let reply = instance.read(GET, &at(1), &[]).expect("it reads");
    Value::decode(&*reply).expect("a value").value
}

#[test]
fn one_library_exports_several_classes() {
    let factories = loaded();
    let classes: Vec<&str> = factories.iter().map(|factory| factory.class()).collect();
    assert_eq!(classes, ["specimen.Specimen", "gauge.Gauge"]);
    for factory in &factories {
        assert_eq!(Class::of(&**factory).unwrap().name(), factory.class());
    }
    let mut gauge = factories[1].create().unwrap();
    let refused = gauge
        .update(0, &at(1), &specimen::gauge::Level { percent: 101 }.encode_to_vec())
        .unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::OutOfRange, "101 % is more than full"));
}

#[test]
fn updates_and_reads_reach_the_component() {
    for factory in hosts() {
        let mut specimen = factory.create().unwrap();
        assert_eq!(add(&mut *specimen, 5), 5);
        assert_eq!(add(&mut *specimen, -7), -2);
        assert_eq!(get(&*specimen), -2);
    }
}

#[test]
fn time_randomness_and_client_are_those_of_the_context() {
    let roll = |factory: &dyn Factory, position| {
        let mut specimen = factory.create().unwrap();
        let reply = specimen
            .update(ROLL, &at(position), &Dice { sides: 1_000_000 }.encode_to_vec())
            .unwrap();
        Rolled::decode(&*reply).unwrap()
    };
    let [linked, library] = hosts();
    for position in [1, 2, u64::MAX] {
        let rolled = roll(&*linked, position);
        assert_eq!(rolled, roll(&*library, position));
        assert_eq!(rolled.position, position);
        assert_eq!(rolled.time_ns, 1_700_000_000_000_000_000);
        assert_eq!(rolled.client, 0x0102u128.to_be_bytes());
    }
    assert_ne!(roll(&*linked, 1).value, roll(&*linked, 2).value);
}

#[test]
fn a_panic_in_an_update_fails_the_instance_and_nothing_else() {
    for factory in hosts() {
        let (mut crashed, mut other) = (factory.create().unwrap(), factory.create().unwrap());
        add(&mut *crashed, 5);
        assert_eq!(crashed.failure(), None);

        let first = crashed.update(CRASH, &at(2), &[]).unwrap_err();
        assert_eq!(first.code(), Code::Internal);
        assert!(
            first.message().contains("specimen.Specimen has failed: Crash panicked"),
            "{first}"
        );
        assert!(first.message().contains("asked to crash"), "{first}");

        // Whatever it is asked for, it answers the same, and shows no half changed state.
        assert_eq!(crashed.update(ADD, &at(3), &[]).unwrap_err(), first);
        assert_eq!(crashed.read(GET, &at(3), &[]).unwrap_err(), first);
        assert_eq!(state_hash(&*crashed).unwrap_err().to_string(), first.message());
        assert_eq!(crashed.failure().as_deref(), Some(first.message()));

        assert_eq!(add(&mut *other, 1), 1);
    }
}

#[test]
fn hosts_agree_on_how_an_instance_failed() {
    let failures = hosts().map(|factory| {
        let mut specimen = factory.create().unwrap();
        specimen.update(CRASH, &at(2), &[]).unwrap_err()
    });
    assert_eq!(failures[0], failures[1]);
}

#[test]
fn a_panic_in_a_read_fails_that_call_alone() {
    for factory in hosts() {
        let mut specimen = factory.create().unwrap();
        add(&mut *specimen, 5);
        let failed = specimen.read(CRASH_IN_READ, &at(2), &[]).unwrap_err();
        assert_eq!(failed.code(), Code::Internal);
        assert!(failed.message().contains("asked to crash in a read"), "{failed}");
        assert_eq!(specimen.failure(), None);
        assert_eq!(get(&*specimen), 5);
    }
}

#[test]
fn a_request_that_is_not_the_methods_is_refused() {
    for factory in hosts() {
        let mut specimen = factory.create().unwrap();
        let refused = specimen.update(ADD, &at(1), b"\xff\xff\xff").unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("specimen.Step"), "{refused}");
        for refused in [
            specimen.update(99, &at(1), &[]).unwrap_err(),
            specimen.update(GET, &at(1), &[]).unwrap_err(),
            specimen.read(ADD, &at(1), &[]).unwrap_err(),
        ] {
            assert_eq!(refused.code(), Code::Unimplemented);
        }
        assert_eq!(specimen.failure(), None);
    }
}

#[test]
fn reads_run_beside_each_other() {
    for factory in hosts() {
        let mut specimen = factory.create().unwrap();
        add(&mut *specimen, 42);
        let specimen = &*specimen;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| assert_eq!(get(specimen), 42)));
            }
        });
    }
}

/// Takes some bytes and then fails, or panics.
struct Full {
    panics: bool,
}

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        assert!(!self.panics, "the writer panicked");
        Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_stops_a_save_is_told_to_the_host() {
    for factory in hosts() {
        let specimen = factory.create().unwrap();
        let error = specimen.save(&mut Full { panics: false }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let error = specimen.save(&mut Full { panics: true }).unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        assert!(specimen.save(&mut Vec::new()).is_ok());
    }
}

#[test]
fn a_state_comes_back_byte_by_byte() {
    /// Gives one byte at a time, as a socket may.
    struct Slow<'a>(&'a [u8]);
    impl io::Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = into.len().min(1);
            self.0.read(&mut into[..most])
        }
    }
    for factory in hosts() {
        let (mut one, mut other) = (factory.create().unwrap(), factory.create().unwrap());
        add(&mut *one, i64::MIN + 3);
        let mut saved = Vec::new();
        one.save(&mut saved).unwrap();
        other.load(&mut Slow(&saved)).unwrap();
        assert_eq!(get(&*other), i64::MIN + 3);
    }
}
