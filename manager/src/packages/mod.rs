//! The packages this node holds, and the libraries it has loaded.
//!
//! A package lies in the data directory under its digest, so it is fetched once and found again
//! after a restart. What arrives from the network is checked against the digest before it is used,
//! and written beside and renamed, so a half package never exists. A loaded library stays loaded
//! until the process ends: instances and reply records may still point into it.
//!
//! A package without a library stands for a component that the daemon was built with; see
//! [`Linked`]. It is stored, fetched and found again like any other.

mod linked;
#[cfg(test)]
mod tests;

pub use linked::Linked;

use crate::package::{self, Digest, Package};
use quintet_component::{Class, Factory, library};
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a package cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are no package.
    #[error(transparent)]
    Package(#[from] package::Error),
    /// The library cannot be used: another ABI version, a missing symbol, not a library.
    #[error("{0}")]
    Library(String),
    /// The daemon was not built with the component.
    #[error("no component `{name}` is linked into this daemon; linked are: {linked}")]
    NotLinked {
        /// What was asked for.
        name: String,
        /// What there is.
        linked: String,
    },
    /// The daemon was built with the component, but from another `.proto`.
    #[error(
        "the component `{name}` linked into this daemon has another .proto than the one deployed \
         (sha-256 of the descriptor {found}, not {expected}): run the same quintetd on all nodes"
    )]
    Descriptor {
        /// The component.
        name: String,
        /// What the package says.
        expected: String,
        /// What this daemon has.
        found: Digest,
    },
    /// The bytes have another digest than they should.
    #[error(
        "the package's sha-256 is {found}, not {expected}: it was damaged on the way or on disk"
    )]
    Digest {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
}

/// A class with the factory that makes its instances.
#[derive(Clone)]
pub struct Loaded {
    /// What its `.proto` says.
    pub class: Arc<Class>,
    /// Makes instances.
    pub factory: Arc<dyn Factory>,
}

impl Loaded {
    /// Can an instance of it be had at all? Asked of a package that is offered, before anything depends on it.
    pub fn try_out(&self) -> Result<(), String> {
        let created = self.factory.create();
        created
            .map(drop)
            .map_err(|why| format!("no instance of {} can be created: {why}", self.class.name()))
    }
}

/// Packages on disk and libraries in memory.
pub struct Packages {
    dir: PathBuf,
    linked: Linked,
    loaded: Mutex<HashMap<Digest, Arc<Vec<Loaded>>>>,
}

impl Packages {
    /// Keeps packages in `dir`, which is created; `linked` is what the daemon was built with.
    pub fn open(dir: PathBuf, linked: Linked) -> Result<Packages, Error> {
        fs::create_dir_all(&dir).map_err(|source| Error::Io { path: dir.clone(), source })?;
        Ok(Packages { dir, linked, loaded: Mutex::default() })
    }

    /// Where a package lies, whether it is there or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.tar"))
    }

    /// Is it on disk?
    pub fn holds(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Writes into the package of a linked component which descriptor all nodes must have: the one
    /// this daemon has. False if there was nothing to write.
    pub fn seal(&self, package: &mut Package) -> Result<bool, Error> {
        let manifest = &mut package.manifest;
        let (Some(name), None) = (&manifest.linked, &manifest.descriptor) else { return Ok(false) };
        manifest.descriptor = Some(self.linked.descriptor(name)?.to_string());
        Ok(true)
    }

    /// Stores a package that should have this digest.
    pub fn store(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let found = Digest::of(bytes);
        if found != *digest {
            return Err(Error::Digest { expected: *digest, found });
        }
        Package::from_bytes(bytes)?;
        replace(&self.path(digest), bytes)
    }

    /// The classes of a package that is on disk; loads its library, or looks its linked component
    /// up, unless that has happened.
    pub fn load(&self, digest: &Digest) -> Result<Arc<Vec<Loaded>>, Error> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(classes) = loaded.get(digest) {
            return Ok(classes.clone());
        }
        let path = self.path(digest);
        let bytes = fs::read(&path).map_err(|source| Error::Io { path, source })?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Digest { expected: *digest, found });
        }
        let package = Package::from_bytes(&bytes)?;
        let factories = match &package.manifest.linked {
            Some(name) => vec![self.linked.factory(name, package.manifest.descriptor.as_deref())?],
            None => self.open_library(digest, &package)?,
        };
        let classes = factories
            .into_iter()
            .map(|factory| {
                let class = Class::of(&*factory).map_err(|e| Error::Library(e.to_string()))?;
                Ok(Loaded { class: Arc::new(class), factory })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let classes = Arc::new(classes);
        loaded.insert(*digest, classes.clone());
        Ok(classes)
    }

    fn open_library(
        &self,
        digest: &Digest,
        package: &Package,
    ) -> Result<Vec<Arc<dyn Factory>>, Error> {
        // Beside the package, under the library's own name: error messages and debuggers show it.
        let place = self.dir.join(digest.to_string());
        fs::create_dir_all(&place).map_err(|source| Error::Io { path: place.clone(), source })?;
        let file = place.join(&package.manifest.library);
        replace(&file, &package.library)?;
        library::open(&file).map_err(|e| Error::Library(e.to_string()))
    }

    /// The class of this name in a package, loading it if necessary.
    pub fn class(&self, digest: &Digest, name: &str) -> Result<Loaded, Error> {
        let classes = self.load(digest)?;
        let found = classes.iter().find(|loaded| loaded.class.name() == name).cloned();
        found.ok_or_else(|| Error::Library(format!("package {digest} has no class {name}")))
    }
}

/// Writes a file so that it is either whole or not there.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = path.with_extension(format!("unfinished-{}", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&unfinished);
        Error::Io { path: path.to_owned(), source }
    })
}
