//! One replica of a component: its state, its reply records, and what people want to know of it.

use super::Update;
use crate::admin::types::EventKind;
use crate::events::Events;
use crate::limits::REPLY_BYTES;
use crate::replica::{Records, Refusal, Reply, Verdict};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use quintet_component::{Class, Code, Context, Factory, Instance as Component, Status};
use quintet_vsync::Position;
use sha2::{Digest as _, Sha256};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// One replica of a component.
pub struct Instance {
    id: u32,
    class: Arc<Class>,
    state: RwLock<State>,
    events: Arc<Events>,
    failure: ArcSwapOption<String>,
    /// First position not routed to this instance yet, and not applied yet: a read that must see
    /// everything routed so far waits until the second has reached the first.
    routed: AtomicU64,
    applied: AtomicU64,
    updates: AtomicU64,
    repeats: AtomicU64,
    reads: AtomicU64,
    records: AtomicU64,
}

struct State {
    /// None if the instance could not be loaded from a snapshot of a failed one.
    component: Option<Box<dyn Component>>,
    records: Records,
    /// Position and ordered time of the last update.
    position: u64,
    time_ns: u64,
}

/// An instance's whole state, for a snapshot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Saved {
    /// Its number.
    pub id: u32,
    /// Position of its last update.
    pub position: u64,
    /// Ordered time of its last update.
    pub time_ns: u64,
    /// Why it has failed; empty if it has not.
    pub failure: String,
    /// What the component saved; empty if it has failed.
    pub state: Vec<u8>,
    /// The reply records, encoded.
    pub records: Vec<u8>,
}

/// What a read gave.
#[derive(Debug)]
pub struct ReadOutcome {
    /// The reply; its position is that of the last update the read saw.
    pub reply: Reply,
    /// A quorum must keep everything below this before the reply may leave.
    pub upto: u64,
}

impl Instance {
    /// A fresh instance.
    pub fn create(
        id: u32,
        class: Arc<Class>,
        factory: &dyn Factory,
        events: Arc<Events>,
    ) -> Result<Instance, String> {
        let component = factory.create().map_err(|e| e.to_string())?;
        let state = State {
            component: Some(component),
            records: Records::default(),
            position: 0,
            time_ns: 0,
        };
        Ok(Instance::with(id, class, state, events))
    }

    /// An instance as it was saved.
    pub fn restore(
        saved: &Saved,
        class: Arc<Class>,
        factory: &dyn Factory,
        events: Arc<Events>,
    ) -> Result<Instance, String> {
        let records = Records::decode(&saved.records).map_err(|e| e.to_string())?;
        let component = if saved.failure.is_empty() {
            let mut component = factory.create().map_err(|e| e.to_string())?;
            let mut from = &saved.state[..];
            let loaded = catch_unwind(AssertUnwindSafe(|| component.load(&mut from)));
            loaded
                .map_err(|panic| format!("panicked while loading: {}", panic_text(&*panic)))?
                .map_err(|e| format!("cannot load its saved state: {e}"))?;
            Some(component)
        } else {
            None
        };
        let upto = saved.position + 1;
        let state = State { component, records, position: saved.position, time_ns: saved.time_ns };
        let instance = Instance::with(saved.id, class, state, events);
        instance.routed.store(upto, Relaxed);
        instance.applied.store(upto, Relaxed);
        if !saved.failure.is_empty() {
            instance.fail(saved.failure.clone());
        }
        Ok(instance)
    }

    fn with(id: u32, class: Arc<Class>, state: State, events: Arc<Events>) -> Instance {
        Instance {
            id,
            class,
            records: AtomicU64::new(state.records.len() as u64),
            state: RwLock::new(state),
            events,
            failure: ArcSwapOption::empty(),
            routed: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        }
    }

    /// Its number, the same on every node.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its class.
    pub fn class(&self) -> &Arc<Class> {
        &self.class
    }

    /// Why it has failed, if it has.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// The delivery thread is about to queue something below `upto`.
    pub(super) fn route(&self, upto: u64) {
        self.routed.store(upto, Release);
    }

    /// Does the state reflect every position up to `position`? `delivered` is the first position
    /// not delivered to this node.
    pub fn has_applied(&self, position: u64, delivered: u64) -> bool {
        let routed = self.routed.load(Acquire);
        let applied = self.applied.load(Acquire);
        // Either an update behind it was applied, or all there is was applied and nothing up to it
        // can still come.
        position == 0 || applied > position || (delivered > position && applied >= routed)
    }

    /// (position, updates, repeats, reads, records) for people.
    pub fn figures(&self) -> (u64, u64, u64, u64, u64) {
        let position = self.applied.load(Acquire).saturating_sub(1);
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        (position, load(&self.updates), load(&self.repeats), load(&self.reads), load(&self.records))
    }

    /// Answers a read from the state as it is.
    pub fn read(&self, method: u32, client: u128, body: &[u8]) -> ReadOutcome {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let context = Context::new(state.position, state.time_ns, client);
        let result = match (self.failure(), &state.component) {
            (None, Some(component)) => {
                catch_unwind(AssertUnwindSafe(|| component.read(method, &context, body)))
                    // A read cannot leave the state half changed: the instance goes on.
                    .unwrap_or_else(|panic| {
                        Err(Status::internal(format!("the read panicked: {}", panic_text(&*panic))))
                    })
            }
            (why, _) => Err(self.failed_status(why)),
        };
        self.reads.fetch_add(1, Relaxed);
        let upto = if state.position == 0 { 0 } else { state.position + 1 };
        ReadOutcome { reply: reply_of(result, state.position), upto }
    }

    /// The exclusive side, for the executor.
    pub(super) fn write(&self) -> Turn<'_> {
        Turn { instance: self, state: self.state.write().unwrap_or_else(PoisonError::into_inner) }
    }

    fn fail(&self, why: String) {
        let name = self.class.name();
        self.events
            .note(EventKind::Instance, format!("instance {} of {name} failed: {why}", self.id));
        self.failure.store(Some(Arc::new(why)));
    }

    fn failed_status(&self, why: Option<Arc<String>>) -> Status {
        let why = why.map_or_else(|| "it was never loaded".to_owned(), |why| (*why).clone());
        let name = self.class.name();
        Status::internal(format!("instance {} of {name} has failed: {why}", self.id))
    }
}

/// The executor's exclusive hold on an instance.
pub(super) struct Turn<'a> {
    instance: &'a Instance,
    state: RwLockWriteGuard<'a, State>,
}

impl Turn<'_> {
    /// Applies an update, or answers a repeat from its record. `Err`: this copy is not executed.
    pub(super) fn update(&mut self, update: Update) -> Result<Reply, Refusal> {
        let instance = self.instance;
        let state = &mut *self.state;
        let Update { at, time_ns, client, seq, first_incomplete, method, body } = update;
        let reply = match state.records.check(client, seq, first_incomplete) {
            Verdict::Repeat(reply) => {
                instance.repeats.fetch_add(1, Relaxed);
                Ok(reply.clone())
            }
            Verdict::Late => {
                Ok(reply_of(Err(Status::aborted("this call was answered before")), at))
            }
            Verdict::Full => Err(Refusal::Replies),
            Verdict::New => {
                let context = Context::new(at, time_ns, client);
                let result = match (instance.failure(), &mut state.component) {
                    (None, Some(component)) => {
                        let call = AssertUnwindSafe(|| component.update(method, &context, &body));
                        catch_unwind(call).unwrap_or_else(|panic| {
                            let why =
                                format!("panicked at {}: {}", Position(at), panic_text(&*panic));
                            instance.fail(why.clone());
                            Err(Status::internal(why))
                        })
                    }
                    (why, _) => Err(instance.failed_status(why)),
                };
                let reply = reply_of(result, at);
                state.records.insert(client, seq, reply.clone());
                instance.updates.fetch_add(1, Relaxed);
                if instance.failure.load().is_none()
                    && let Some(why) = state.component.as_ref().and_then(|c| c.failure())
                {
                    instance.fail(why);
                }
                Ok(reply)
            }
        };
        (state.position, state.time_ns) = (at, time_ns);
        instance.records.store(state.records.len() as u64, Relaxed);
        instance.applied.store(at + 1, Release);
        reply
    }

    pub(super) fn forget(&mut self, clients: &[u128]) {
        clients.iter().for_each(|client| self.state.records.forget(*client));
        self.instance.records.store(self.state.records.len() as u64, Relaxed);
    }

    /// The whole state at this place of the order. An instance that has failed is saved as failed, without state; one
    /// that works but cannot be saved makes the snapshot impossible, for what it holds would be lost with it.
    pub(super) fn save(&mut self) -> Result<Saved, String> {
        let mut state = Vec::new();
        let failure = self.instance.failure().map_or_else(String::new, |why| why.to_string());
        if failure.is_empty() {
            self.save_into(&mut state)?;
        }
        let records = self.state.records.encode();
        let (position, time_ns) = (self.state.position, self.state.time_ns);
        Ok(Saved { id: self.instance.id, position, time_ns, failure, state, records })
    }

    /// sha-256 over what the component saves and the reply records.
    pub(super) fn hash(&mut self) -> Result<[u8; 32], String> {
        let mut hasher = Hasher(Sha256::new());
        self.save_into(&mut hasher)?;
        hasher.0.update(self.state.records.encode());
        Ok(hasher.0.finalize().into())
    }

    fn save_into(&self, out: &mut dyn std::io::Write) -> Result<(), String> {
        if let Some(why) = self.instance.failure() {
            return Err((*why).clone());
        }
        let component = self.state.component.as_ref().ok_or("it was never loaded")?;
        catch_unwind(AssertUnwindSafe(|| component.save(out)))
            .map_err(|panic| format!("panicked while saving: {}", panic_text(&*panic)))?
            .map_err(|e| format!("cannot save its state: {e}"))
    }
}

struct Hasher(Sha256);

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn reply_of(result: Result<Vec<u8>, Status>, position: u64) -> Reply {
    let result = result.and_then(|body| {
        if body.len() <= REPLY_BYTES {
            return Ok(body);
        }
        let what = format!("a reply of {} bytes; at most {REPLY_BYTES} are allowed", body.len());
        Err(Status::resource_exhausted(what))
    });
    match result {
        Ok(body) => Reply { code: 0, message: String::new(), position, body: Bytes::from(body) },
        Err(status) => {
            // A component that fails with OK would confuse everybody after it.
            let code = if status.code() == Code::Ok { Code::Unknown } else { status.code() };
            let message: String = status.message().chars().take(1024).collect();
            Reply { code: code.number() as u8, message, position, body: Bytes::new() }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
