//! Updates in order, repeats from the record, failures that stay where they are.

use super::*;
use crate::events::Events;
use crate::runtime::{Answer, Slots, Waiter};
use crate::testing::{add, crash, get, specimen_class, value_of};
use specimen::SpecimenFactory;
use tokio::sync::mpsc::unbounded_channel;

fn instance() -> (Arc<Instance>, Arc<Events>) {
    let events = Arc::new(Events::new(1, 100));
    let instance =
        Instance::create(1, specimen_class(), &SpecimenFactory::new(), events.clone()).unwrap();
    (Arc::new(instance), events)
}

fn update(at: u64, client: u128, seq: u64, (method, body): (u32, Vec<u8>)) -> Update {
    let body = Bytes::from(body);
    Update { at, time_ns: at, client, seq, first_incomplete: 1, method, body }
}

fn value(instance: &Instance) -> i64 {
    value_of(&instance.read(get().0, 0, &[]).reply.body)
}

fn settle(executor: &Executor) {
    let (tx, rx) = bounded(1);
    executor.send(Job::Save(tx));
    rx.recv().unwrap().unwrap();
}

/// The instance that comes out of a snapshot of what `executor` runs.
fn saved_and_restored(executor: &Executor, events: Arc<Events>) -> Instance {
    let (tx, rx) = bounded(1);
    executor.send(Job::Save(tx));
    let saved = rx.recv().unwrap().unwrap();
    Instance::restore(&saved, specimen_class(), &SpecimenFactory::new(), events).unwrap()
}

#[test]
fn updates_happen_once_and_every_copy_gets_the_first_reply() {
    let (instance, _) = instance();
    let outbox = Arc::new(Outbox::default());
    outbox.kept(u64::MAX);
    let executor = Executor::start(instance.clone(), outbox.clone(), 16);
    let slots = Slots::new(100);
    let mut replies = Vec::new();
    for at in [10, 20, 30] {
        let (to, mut from) = unbounded_channel();
        let slots = [slots.take().unwrap(), slots.take().unwrap()];
        assert!(outbox.wait(7, 1, Waiter { to, seq: 1, slots }));
        executor.update(update(at, 7, 1, add(5)));
        replies.push(from.blocking_recv().unwrap().answer);
    }
    assert_eq!(value(&instance), 5);
    assert!(replies.iter().all(|r| *r == replies[0]), "{replies:?}");
    let Answer::Reply(reply) = &replies[0] else { panic!("refused") };
    assert_eq!(reply.position, 10);
    let (position, updates, repeats, ..) = instance.figures();
    assert_eq!((position, updates, repeats), (30, 1, 2));
}

#[test]
fn a_panic_fails_the_instance_and_nothing_else() {
    let (instance, events) = instance();
    let outbox = Arc::new(Outbox::default());
    let executor = Executor::start(instance.clone(), outbox, 16);
    executor.update(update(1, 7, 1, add(5)));
    executor.update(update(2, 7, 2, crash()));
    executor.update(update(3, 7, 3, add(1)));
    settle(&executor);
    let why = instance.failure().unwrap();
    assert!(why.contains("crash"), "{why}");
    assert!(events.since(0)[0].text.contains("failed"));
    assert_eq!(instance.read(get().0, 0, &[]).reply.code, 13);
    // It can still be part of a snapshot, and comes back failed.
    let again = saved_and_restored(&executor, events);
    assert_eq!(again.failure(), Some(why));
}

#[test]
fn saved_and_restored_is_the_same_instance_with_the_same_memory_of_replies() {
    let (instance, events) = instance();
    let outbox = Arc::new(Outbox::default());
    let executor = Executor::start(instance.clone(), outbox.clone(), 16);
    for i in 1..=20 {
        executor.update(update(i, 7, i, add(i as i64)));
    }
    let again = saved_and_restored(&executor, events);
    let other = Executor::start(Arc::new(again), outbox, 16);
    for executor in [&executor, &other] {
        executor.update(update(21, 7, 3, add(3)));
        executor.update(update(22, 7, 21, add(1)));
    }
    let (tx, rx) = bounded(2);
    executor.send(Job::Hash(tx.clone()));
    other.send(Job::Hash(tx));
    assert_eq!(rx.recv().unwrap(), rx.recv().unwrap());
    assert_eq!(value(other.instance()), 211);
    assert_eq!(other.instance().figures().2, 1, "the repeat was answered from the record");
}

#[test]
fn a_read_knows_what_it_must_wait_for() {
    let (instance, _) = instance();
    let outbox = Arc::new(Outbox::default());
    assert!(instance.has_applied(0, 0), "a client that has seen nothing");
    assert!(!instance.has_applied(9, 5), "not delivered yet");
    assert!(instance.has_applied(9, 10), "delivered, and nothing of it was for this instance");
    let turn = instance.write();
    let executor = Executor::start(instance.clone(), outbox, 16);
    executor.update(update(9, 7, 1, add(1)));
    assert!(!instance.has_applied(9, 10), "queued, not applied");
    drop(turn);
    settle(&executor);
    assert!(instance.has_applied(9, 10));
    assert_eq!(instance.read(get().0, 0, &[]).upto, 10);
}

/// A component whose reads wait for each other.
struct Meeting(Arc<std::sync::Barrier>);

impl quintet_component::Instance for Meeting {
    fn update(
        &mut self,
        _: u32,
        _: &quintet_component::Context,
        _: &[u8],
    ) -> Result<Vec<u8>, quintet_component::Status> {
        Ok(Vec::new())
    }

    fn read(
        &self,
        _: u32,
        _: &quintet_component::Context,
        _: &[u8],
    ) -> Result<Vec<u8>, quintet_component::Status> {
        self.0.wait();
        Ok(Vec::new())
    }

    fn save(&self, _: &mut dyn std::io::Write) -> std::io::Result<()> {
        Ok(())
    }

    fn load(&mut self, _: &mut dyn std::io::Read) -> std::io::Result<()> {
        Ok(())
    }
}

impl quintet_component::Factory for Meeting {
    fn class(&self) -> &str {
        "specimen.Specimen"
    }

    fn descriptor(&self) -> &[u8] {
        &[]
    }

    fn create(&self) -> Result<Box<dyn quintet_component::Instance>, quintet_component::Error> {
        Ok(Box::new(Meeting(self.0.clone())))
    }
}

#[test]
fn reads_of_one_instance_run_at_the_same_time() {
    let meeting = Meeting(Arc::new(std::sync::Barrier::new(2)));
    let events = Arc::new(Events::new(1, 100));
    let instance = Arc::new(Instance::create(1, specimen_class(), &meeting, events).unwrap());
    let readers = Readers::start(2, 2);
    let (tx, rx) = bounded(2);
    for _ in 0..2 {
        let (instance, tx) = (instance.clone(), tx.clone());
        let read = move || tx.send(instance.read(0, 1, &[]).reply.code).expect("it is awaited");
        let queued = readers.submit(read);
        assert!(queued.is_ok());
    }
    // Each comes back only when the other is inside; one after the other, none ever would.
    for _ in 0..2 {
        assert_eq!(rx.recv_timeout(std::time::Duration::from_secs(60)), Ok(0));
    }
}
