//! Components compiled into the daemon: the *linked* host.
//!
//! No library travels for them, so nothing in the package itself says that all nodes will run the
//! same thing. The package therefore carries the digest of the component's descriptor, and a daemon
//! that was built without the component, or from another `.proto`, refuses the offer with the
//! reason; the deployment is then rejected for all, as with a library that cannot be loaded. Equal
//! descriptors do not make equal code: that is for whoever installs the daemons.

use super::Error;
use crate::package::Digest;
use quintet_component::Factory;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The linked components by name.
#[derive(Default)]
pub struct Linked(pub(crate) BTreeMap<&'static str, Arc<dyn Factory>>);

impl Linked {
    /// What `quintetd` is built with. Who may call may call all of it, so nothing in it does harm. One more is a
    /// dependency of this crate and a line here; its crate must not `export!`, for a program holds one library entry
    /// only.
    pub fn shipped() -> Linked {
        Linked::default().with("counter", Arc::new(counter::CounterFactory::new()))
    }

    /// These and one more, deployed as `linked:NAME`.
    pub fn with(mut self, name: &'static str, factory: Arc<dyn Factory>) -> Linked {
        self.0.insert(name, factory);
        self
    }

    /// Digest of the descriptor of the component of this name.
    pub fn descriptor(&self, name: &str) -> Result<Digest, Error> {
        self.find(name).map(|factory| Digest::of(factory.descriptor()))
    }

    /// The factory of this name, if its descriptor is the one that the package tells.
    pub fn factory(&self, name: &str, descriptor: Option<&str>) -> Result<Arc<dyn Factory>, Error> {
        let found = self.descriptor(name)?;
        if descriptor != Some(&found.to_string()) {
            let expected = descriptor.unwrap_or("none").to_owned();
            return Err(Error::Descriptor { name: name.to_owned(), expected, found });
        }
        self.find(name).cloned()
    }

    fn find(&self, name: &str) -> Result<&Arc<dyn Factory>, Error> {
        self.0.get(name).ok_or_else(|| {
            let linked: Vec<&str> = self.0.keys().copied().collect();
            let linked = if linked.is_empty() { "none".into() } else { linked.join(", ") };
            Error::NotLinked { name: name.to_owned(), linked }
        })
    }
}
