//! The state of a node, whatever drives it: replica and executors, and the effects between them.

use super::loader::{self, Unavailable};
use super::{Cut, Directory, Shared};
use crate::admin::types::EventKind;
use crate::executor::{Executor, Instance, Job, Update};
use crate::limits::PACKAGES;
use crate::package::Digest;
use crate::replica::{Effect, Replica};
use crate::transfer::stream::Snapshot;
use bytes::Bytes;
use crossbeam_channel::unbounded;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// See the module's header.
pub struct Machine {
    shared: Arc<Shared>,
    replica: Replica,
    executors: BTreeMap<u32, Executor>,
    /// See [`Directory::removed`].
    removed: BTreeMap<Digest, u64>,
    /// A member of the view: effects that need other nodes are carried out.
    live: bool,
    /// Why this state is not that of the group any more: an instance of it cannot be had here.
    problem: Option<String>,
}

impl Machine {
    /// Nothing yet.
    pub fn new(shared: Arc<Shared>) -> Machine {
        let replica = Replica::default();
        let (executors, removed) = (BTreeMap::new(), BTreeMap::new());
        Machine { shared, replica, executors, removed, live: false, problem: None }
    }

    /// First position not applied.
    pub fn upto(&self) -> u64 {
        self.replica.upto()
    }

    /// The replicated state.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Why this state is of no use, if so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Applies a delivered message.
    pub fn apply(&mut self, at: u64, bytes: &[u8]) {
        match self.replica.apply(at, bytes) {
            Effect::Update { call, time_ns } => {
                let Some(executor) = self.executors.get(&call.instance) else {
                    // It could not be had here. A state that lacks its updates must not go on.
                    let why = || format!("instance {} does not run here", call.instance);
                    self.problem.get_or_insert_with(why);
                    return;
                };
                executor.update(Update {
                    at,
                    time_ns,
                    client: call.client,
                    seq: call.seq,
                    first_incomplete: call.first_incomplete,
                    method: call.method,
                    body: Bytes::copy_from_slice(call.body),
                });
            }
            effect => self.carry_out(effect),
        }
    }

    /// Applies an installed view.
    pub fn install(&mut self, at: u64, view: u64, members: Vec<u16>) {
        for effect in self.replica.install(at, view, members) {
            self.carry_out(effect);
        }
    }

    /// This node is a member now: it does its part in deployments that are under way.
    pub fn go_live(&mut self) {
        self.live = true;
        let node = self.shared.config.node;
        for (digest, entry) in self.replica.offered() {
            if !entry.ready.contains(&node) {
                loader::load(&self.shared, *digest, entry.source);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect<'_>) {
        let events = &self.shared.events;
        match effect {
            Effect::Update { .. } => unreachable!("handled by apply"),
            Effect::Nothing => {}
            Effect::Answer { client, seq, reply } => {
                self.shared.outbox.executed(client, seq, &reply)
            }
            Effect::Refuse { client, seq, refusal } => {
                self.shared.outbox.refused(client, seq, refusal);
            }
            Effect::Forget { clients } => {
                let clients: Arc<[u128]> = clients.into();
                self.executors.values().for_each(|e| e.send(Job::Forget(clients.clone())));
            }
            Effect::Load { digest, source } => {
                if self.live {
                    let entry = &self.replica.catalogue().packages[&digest];
                    let what = format!("component {} offered by n{source}", entry.name);
                    events.note(EventKind::Component, what);
                    loader::load(&self.shared, digest, source);
                }
                self.publish();
            }
            Effect::Activated { digest, instances } => {
                for (id, class) in instances {
                    self.create(id, &digest, &class);
                }
                self.publish();
            }
            Effect::Rejected { digest, node, problem } => {
                if self.live {
                    let name = &self.replica.catalogue().packages[&digest].name;
                    let what = format!("component {name} rejected by n{node}: {problem}");
                    events.note(EventKind::Component, what);
                }
                self.publish();
            }
            Effect::Removed { digest, name, instances } => {
                if self.live {
                    events.note(EventKind::Component, format!("component {name} removed"));
                }
                if self.removed.len() >= PACKAGES {
                    self.removed.clear();
                }
                *self.removed.entry(digest).or_default() += 1;
                // Out of the table first, so that nobody finds an instance that ends.
                let gone: Vec<_> =
                    instances.iter().filter_map(|id| self.executors.remove(id)).collect();
                self.publish();
                drop(gone);
            }
            Effect::Audit { token } => self.audit(token),
            Effect::Audited { token, node, hashes } => {
                self.shared.audits.report(token, node, hashes);
            }
            Effect::Ignored(why) => {
                tracing::warn!("a message nobody here understands was ignored by all: {why}");
            }
        }
    }

    fn create(&mut self, id: u32, digest: &Digest, class: &str) {
        let loaded = match loader::obtain(&self.shared, digest, &[])
            .and_then(|()| Ok(self.shared.packages.class(digest, class)?))
        {
            Ok(loaded) => loaded,
            Err(why) => {
                self.problem = Some(format!("cannot run class {class}: {why}"));
                return;
            }
        };
        let events = self.shared.events.clone();
        let created = Instance::create(id, loaded.class, &*loaded.factory, events.clone());
        let instance = match created {
            Ok(instance) => instance,
            Err(why) => {
                // The package was tried out, here and everywhere: it is this node, and the others go on. An instance
                // that had failed here alone would make other replies than theirs.
                self.problem = Some(format!("cannot create an instance of {class}: {why}"));
                return;
            }
        };
        if self.live {
            events.note(EventKind::Instance, format!("instance {id} of {class} is running"));
        }
        self.start(instance);
    }

    fn start(&mut self, instance: Instance) {
        let queue = self.shared.config.limits.instance_queue;
        let id = instance.id();
        let executor = Executor::start(Arc::new(instance), self.shared.outbox.clone(), queue);
        self.executors.insert(id, executor);
    }

    /// Replaces everything by a snapshot. The state is unusable after an error.
    pub fn load(&mut self, snapshot: Snapshot) -> Result<(), Unavailable> {
        self.executors.clear();
        self.problem = None;
        self.replica = Replica::decode(&snapshot.replica).map_err(|e| e.to_string())?;
        let known: Vec<(u32, Digest, String)> = self
            .replica
            .catalogue()
            .instances
            .iter()
            .map(|(id, i)| (*id, i.digest, i.class.clone()))
            .collect();
        for (id, digest, class) in known {
            let saved = snapshot.instances.iter().find(|saved| saved.id == id);
            let saved = saved.ok_or_else(|| format!("instance {id} of {class} is missing"))?;
            loader::obtain(&self.shared, &digest, &[])?;
            let loaded = self.shared.packages.class(&digest, &class)?;
            let events = self.shared.events.clone();
            let instance = Instance::restore(saved, loaded.class, &*loaded.factory, events)
                .map_err(|why| format!("instance {id} of {class}: {why}"))?;
            self.start(instance);
        }
        self.publish();
        Ok(())
    }

    /// Begins a snapshot of everything, here in the order.
    pub fn cut(&self) -> Cut {
        Cut::mark(&self.replica, self.executors.values())
    }

    #[cfg(test)]
    pub(super) fn each(&self, job: impl FnMut(&Executor)) {
        self.executors.values().for_each(job);
    }

    /// Hashes every instance here in the order, and tells the group when that is done.
    fn audit(&self, token: u64) {
        let (view, members) = self.replica.view();
        self.shared.audits.begin(token, self.upto() - 1, view, members);
        if !self.live {
            return;
        }
        let (tx, hashes) = unbounded();
        self.executors.values().for_each(|e| e.send(Job::Hash(tx.clone())));
        drop(tx);
        loader::report_hashes(&self.shared, token, hashes);
    }

    /// The packages that the catalogue names.
    pub fn packages(&self) -> impl Iterator<Item = &Digest> {
        self.replica.catalogue().packages.keys()
    }

    /// Renews what the servers look things up in.
    pub fn publish(&self) {
        let instances = self.executors.values().map(|e| e.instance().clone()).collect();
        let catalogue = self.replica.catalogue().clone();
        let directory = Directory::build(instances, catalogue, self.removed.clone(), self.upto());
        self.shared.directory.store(Arc::new(directory));
        self.shared.delivered.store(self.upto(), Ordering::Release);
    }
}
