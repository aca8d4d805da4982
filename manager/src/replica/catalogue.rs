//! What is deployed: packages, the classes they bring, the instances that live.
//!
//! A deployment has two phases, both in the total order. *Offered*: every member fetches the
//! package, loads it, and says so (or why it cannot). *Active*: at the position where the last
//! member of the view has said so, every replica creates the instances, all at once and all alike.
//! So a broken library is refused before anything depends on it, and no replica ever waits for a
//! download while calls pile up. One member's refusal rejects the package for all.

use crate::codec::{Malformed, Reader, Writer};
use crate::package::Digest;
use std::collections::{BTreeMap, BTreeSet};

/// A package in the catalogue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Component name.
    pub name: String,
    /// Component version.
    pub version: String,
    /// Full names of its classes.
    pub classes: Vec<String>,
    /// A node that has the package.
    pub source: u16,
    /// Nodes that have loaded it.
    pub ready: BTreeSet<u16>,
    /// Where the deployment stands.
    pub phase: Phase,
}

/// Where a deployment stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Members are fetching and loading it.
    Offered,
    /// Its instances live.
    Active,
    /// A member could not use it.
    Rejected {
        /// Which.
        node: u16,
        /// Why.
        problem: String,
    },
}

/// A live instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Instance {
    /// Full name of its class.
    pub class: String,
    /// The package it comes from.
    pub digest: Digest,
}

/// All packages and instances.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Catalogue {
    /// By digest.
    pub packages: BTreeMap<Digest, Entry>,
    /// By number; numbers are never used twice.
    pub instances: BTreeMap<u32, Instance>,
    pub(super) next_instance: u32,
}

impl Catalogue {
    /// The package of this component that is offered or active.
    pub fn component(&self, name: &str) -> Option<(&Digest, &Entry)> {
        self.packages
            .iter()
            .find(|(_, e)| e.name == name && !matches!(e.phase, Phase::Rejected { .. }))
    }

    /// The package that brings a class and is offered or active.
    pub fn class(&self, class: &str) -> Option<(&Digest, &Entry)> {
        self.packages.iter().find(|(_, e)| {
            !matches!(e.phase, Phase::Rejected { .. }) && e.classes.iter().any(|c| c == class)
        })
    }

    /// Activates an offered package if all of `members` have it; gives the new instances.
    pub(super) fn activate(&mut self, digest: Digest, members: &[u16]) -> Option<Vec<u32>> {
        let entry = self.packages.get_mut(&digest)?;
        let all = !members.is_empty() && members.iter().all(|node| entry.ready.contains(node));
        if entry.phase != Phase::Offered || !all {
            return None;
        }
        entry.phase = Phase::Active;
        let mut created = Vec::new();
        for class in &entry.classes {
            self.next_instance += 1;
            let instance = Instance { class: class.clone(), digest };
            self.instances.insert(self.next_instance, instance);
            created.push(self.next_instance);
        }
        Some(created)
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(self.packages.len() as u32);
        for (digest, entry) in &self.packages {
            w.raw(&digest.0).text(&entry.name).text(&entry.version).u16(entry.source);
            w.u32(entry.classes.len() as u32);
            for class in &entry.classes {
                w.text(class);
            }
            w.u32(entry.ready.len() as u32);
            for node in &entry.ready {
                w.u16(*node);
            }
            match &entry.phase {
                Phase::Offered => w.u8(0),
                Phase::Active => w.u8(1),
                Phase::Rejected { node, problem } => w.u8(2).u16(*node).text(problem),
            };
        }
        w.u32(self.instances.len() as u32);
        for (id, instance) in &self.instances {
            w.u32(*id).text(&instance.class).raw(&instance.digest.0);
        }
        w.u32(self.next_instance);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Catalogue, Malformed> {
        let mut catalogue = Catalogue::default();
        for _ in 0..r.count(51)? {
            let digest = Digest(r.digest()?);
            let (name, version) = (r.text()?.to_owned(), r.text()?.to_owned());
            let source = r.u16()?;
            let classes =
                (0..r.count(4)?).map(|_| r.text().map(str::to_owned)).collect::<Result<_, _>>()?;
            let ready = (0..r.count(2)?).map(|_| r.u16()).collect::<Result<_, _>>()?;
            let phase = match r.u8()? {
                0 => Phase::Offered,
                1 => Phase::Active,
                2 => Phase::Rejected { node: r.u16()?, problem: r.text()?.to_owned() },
                _ => return Err(Malformed("unknown phase of a deployment")),
            };
            let entry = Entry { name, version, classes, source, ready, phase };
            catalogue.packages.insert(digest, entry);
        }
        for _ in 0..r.count(40)? {
            let id = r.u32()?;
            let instance = Instance { class: r.text()?.to_owned(), digest: Digest(r.digest()?) };
            catalogue.instances.insert(id, instance);
        }
        catalogue.next_instance = r.u32()?;
        Ok(catalogue)
    }
}
