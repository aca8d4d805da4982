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
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// What the extension of a file being written begins with; the process's id follows.
const UNFINISHED: &str = "unfinished-";

/// More than the clock that files are stamped with may be behind the system's.
const FILE_CLOCK_BEHIND: Duration = Duration::from_secs(1);

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
    /// What lies in `dir` since before has no writer any more.
    opened: SystemTime,
    linked: Linked,
    loaded: Mutex<HashMap<Digest, Arc<Vec<Loaded>>>>,
}

impl Packages {
    /// Keeps packages in `dir`, which is created; `linked` is what the daemon was built with.
    pub fn open(dir: PathBuf, linked: Linked) -> Result<Packages, Error> {
        fs::create_dir_all(&dir).map_err(|source| Error::Io { path: dir.clone(), source })?;
        Ok(Packages { dir, opened: SystemTime::now(), linked, loaded: Mutex::default() })
    }

    /// Deletes what an earlier process left and nothing needs any more: packages that are neither `wanted` nor loaded,
    /// their libraries, and half-written files. Gives what was deleted; what cannot be stays where it is.
    ///
    /// What a recovery has loaded stays, wanted or not: the journal that it read may be read again, and until a snapshot
    /// takes its place it needs the component from its deployment to its removal.
    pub fn sweep<'a>(&self, wanted: impl IntoIterator<Item = &'a Digest>) -> Vec<PathBuf> {
        let mut wanted: HashSet<String> = wanted.into_iter().map(Digest::to_string).collect();
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.extend(loaded.keys().map(Digest::to_string));
        drop(loaded);
        let all = entries(&self.dir);
        let digests = all.iter().filter_map(|path| match name(path).split_once('.') {
            Some((digest, "tar")) => Some(digest),
            Some(_) => None,
            None => Some(name(path)),
        });
        let mut left: Vec<PathBuf> = Vec::new();
        for digest in digests.filter(|d| is_digest(d) && !wanted.contains(*d)) {
            let library = self.dir.join(digest);
            let package = library.with_extension("tar");
            if !package.exists() || self.is_older(&package) {
                left.extend([package, library]);
            }
        }
        let inner = wanted.iter().flat_map(|digest| entries(&self.dir.join(digest)));
        let unfinished = all.iter().cloned().chain(inner).filter(|path| is_unfinished(path));
        left.extend(unfinished.filter(|path| self.is_older(path)));
        left.retain(|path| delete(path).is_ok());
        left
    }

    /// Was it there before this process?
    fn is_older(&self, path: &Path) -> bool {
        let modified = fs::metadata(path).and_then(|data| data.modified());
        modified.is_ok_and(|modified| modified + FILE_CLOCK_BEHIND < self.opened)
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

/// What is in a directory; nothing if it is not there.
fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map_or_else(|_| Vec::new(), |all| all.flatten().map(|e| e.path()).collect())
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_unfinished(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extension.starts_with(UNFINISHED))
}

fn delete(path: &Path) -> std::io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Writes a file so that it is either whole or not there.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = path.with_extension(format!("{UNFINISHED}{}", std::process::id()));
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
