//! Machines driven by hand: whatever brings the messages, the state is the same.

use super::*;
use crate::executor::Job;
use crate::journal::{Entry, Journal, recover};
use crate::package::{Digest, Package};
use crate::packages::Linked;
use crate::replica::{Call, Deploy, Message};
use crate::testing::{add, crash, linked};
use crate::transfer::stream;
use crossbeam_channel::unbounded;
use proptest::prelude::*;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

static PACKAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut package = Package::linked("specimen").unwrap();
    let descriptor = linked().descriptor("specimen").unwrap();
    package.manifest.descriptor = Some(descriptor.to_string());
    package.to_bytes()
});

fn digest() -> Digest {
    Digest::of(&PACKAGE)
}

/// A daemon that holds the package.
fn shared(dir: &Path) -> Arc<Shared> {
    let shared = crate::testing::shared(dir, "");
    shared.packages.store(&digest(), &PACKAGE).unwrap();
    shared
}

/// Stands in for the group: the ordered entries of a run, the deployment first.
fn ordered(steps: &[Vec<u8>]) -> Vec<(u64, Vec<u8>)> {
    let classes = vec!["specimen.Specimen"];
    let deploy = Deploy { digest: digest(), source: 1, name: "specimen", version: "1", classes };
    let begin = [
        Message::Deploy(deploy).encode(1),
        Message::Loaded { digest: digest(), node: 1, problem: "" }.encode(1),
        Message::Renew { client: 9 }.encode(1),
    ];
    (1 << 40..).step_by(2).zip(begin.into_iter().chain(steps.iter().cloned())).collect()
}

fn begun(shared: &Arc<Shared>) -> Machine {
    let mut machine = Machine::new(shared.clone());
    machine.install(1 << 40, 1, vec![1]);
    machine
}

fn hashes(machine: &Machine) -> Vec<(u32, Result<[u8; 32], String>)> {
    let (tx, rx) = unbounded();
    machine.each(|executor| executor.send(Job::Hash(tx.clone())));
    drop(tx);
    let mut all: Vec<_> = rx.iter().collect();
    all.sort_by_key(|(id, _)| *id);
    all
}

fn call(seq: u64, first_incomplete: u64, (method, body): &(u32, Vec<u8>)) -> Vec<u8> {
    let (client, instance, method) = (9, 1, *method);
    Message::Call(Call { client, seq, first_incomplete, instance, method, body }).encode(seq)
}

fn snapshot(machine: &Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.cut().write(&mut bytes).unwrap();
    bytes
}

fn any_step() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (1u64..30, 0u64..20, -9i64..9).prop_map(|(seq, first, n)| call(seq, first, &add(n))),
        1 => (1u64..30).prop_map(|seq| call(seq, 0, &crash())),
        1 => Just(vec![1, 99]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Live, through a snapshot, and from the journal with a snapshot in the middle: one state.
    #[test]
    fn however_a_state_was_reached_it_is_the_same(
        steps in prop::collection::vec(any_step(), 1..60),
        cut_at: prop::sample::Index, rotate_at: prop::sample::Index,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path());
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let order = ordered(&steps);
        let (cut_at, rotate_at) = (cut_at.index(order.len()), rotate_at.index(order.len()));

        let mut live = begun(&shared);
        let mut learner: Option<Machine> = None;
        let empty = recover(&data, &mut (), |(), _, _| Ok(()), |(), _| {}).unwrap();
        let mut journal = Journal::open(&data, crate::config::Sync::Os, &empty).unwrap();
        journal.append(&Entry::View { at: 1 << 40, view: 1, members: vec![1] });
        for (i, (at, bytes)) in order.iter().enumerate() {
            if i == cut_at {
                let mut joined = Machine::new(shared.clone());
                joined.load(stream::read_snapshot(&snapshot(&live)).unwrap()).unwrap();
                learner = Some(joined);
            }
            if i == rotate_at {
                let position = journal.rotate().unwrap();
                let mut file = crate::journal::SnapshotFile::create(&data, "own").unwrap();
                std::io::Write::write_all(&mut file, &snapshot(&live)).unwrap();
                file.finish(position).unwrap();
                journal.prune(position).unwrap();
            }
            journal.append(&Entry::Message { at: *at, bytes });
            live.apply(*at, bytes);
            if let Some(learner) = &mut learner {
                learner.apply(*at, bytes);
            }
        }
        journal.flush().unwrap();
        let mut back = Machine::new(shared.clone());
        let load = |machine: &mut Machine, bytes: &[u8], _| {
            let snapshot = stream::read_snapshot(bytes).map_err(|e| e.to_string())?;
            machine.load(snapshot).map_err(|e| e.to_string())
        };
        let recovered = recover(&data, &mut back, load, |machine, entry| match entry {
            Entry::Message { at, bytes } => machine.apply(at, bytes),
            Entry::View { at, view, members } => machine.install(at, view, members),
        }).unwrap();
        prop_assert_eq!(recovered.upto, live.upto());
        let expected = hashes(&live);
        prop_assert_eq!(expected.len(), 1);
        for other in [&learner.unwrap(), &back] {
            prop_assert_eq!(other.replica(), live.replica());
            prop_assert_eq!(hashes(other), expected.clone());
        }
    }
}

#[test]
fn a_state_whose_package_nobody_has_is_a_problem_not_a_guess() {
    let dir = tempfile::tempdir().unwrap();
    let shared = shared(dir.path());
    let mut machine = begun(&shared);
    let digest = Digest([6; 32]);
    let classes = vec!["other.Class"];
    let deploy = Deploy { digest, source: 1, name: "other", version: "1", classes };
    machine.apply(1 << 40, &Message::Deploy(deploy).encode(1));
    machine.apply((1 << 40) + 1, &Message::Loaded { digest, node: 1, problem: "" }.encode(1));
    assert!(machine.problem().unwrap().contains("other.Class"), "{:?}", machine.problem());
}

#[test]
fn a_method_is_found_as_a_person_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let shared = shared(dir.path());
    let mut machine = begun(&shared);
    for (at, bytes) in ordered(&[]) {
        machine.apply(at, &bytes);
    }
    let directory = shared.directory.load();
    for (class, method) in [("specimen", "Add"), ("Specimen", "add"), ("specimen.Specimen", "ADD")]
    {
        let (route, found) = directory.find(class, method).unwrap();
        assert!(route.update && found.path() == "/specimen.Specimen/Add");
    }
    let error = directory.find("specimen", "Sub").err().unwrap();
    assert!(error.contains("Add") && error.contains("Get"), "{error}");
    assert!(directory.find("bank", "Add").err().unwrap().contains("specimen.Specimen"));
}

/// A specimen that can be created so many times.
struct Scarce(std::sync::atomic::AtomicUsize, specimen::SpecimenFactory);

impl quintet_component::Factory for Scarce {
    fn class(&self) -> &str {
        self.1.class()
    }

    fn descriptor(&self) -> &[u8] {
        self.1.descriptor()
    }

    fn create(&self) -> Result<Box<dyn quintet_component::Instance>, quintet_component::Error> {
        let left =
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        left.map_err(|_| quintet_component::Error::new("nothing is left to make it of"))?;
        self.1.create()
    }
}

#[test]
fn an_instance_that_cannot_be_created_here_alone_ends_the_incarnation_not_the_agreement() {
    let dir = tempfile::tempdir().unwrap();
    let scarce: Arc<dyn quintet_component::Factory> =
        Arc::new(Scarce(1.into(), specimen::SpecimenFactory::new()));
    let linked = Linked([("specimen", scarce)].into());
    let shared = crate::testing::shared_with(dir.path(), "", linked);
    shared.packages.store(&digest(), &PACKAGE).unwrap();
    let offered = &shared.packages.load(&digest()).unwrap()[0];
    assert_eq!(offered.try_out(), Ok(()));
    let why = offered.try_out().unwrap_err();
    assert!(why.contains("specimen.Specimen") && why.contains("nothing is left"), "{why}");
    let mut machine = begun(&shared);
    for (at, bytes) in ordered(&[]) {
        machine.apply(at, &bytes);
    }
    assert!(machine.problem().unwrap().contains("nothing is left"), "{:?}", machine.problem());
    // What is ordered for it is not passed over as if it had been applied.
    machine.apply(machine.upto(), &call(1, 1, &add(5)));
    assert!(machine.problem().is_some());
}
