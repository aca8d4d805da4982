//! What is deployed, as the servers look it up: an immutable table, replaced when it changes.

use crate::executor::Instance;
use crate::package::Digest;
use crate::replica::Catalogue;
use quintet_component::{Kind, Method};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The table.
#[derive(Default)]
pub struct Directory {
    /// By gRPC path, `/bank.Bank/Transfer`.
    pub routes: HashMap<String, Route>,
    /// All instances on this node.
    pub instances: Vec<Arc<Instance>>,
    /// All packages.
    pub catalogue: Catalogue,
    /// How often this node has seen packages go, of late: whoever waits for one may not have seen it come.
    pub removed: BTreeMap<Digest, u64>,
    /// The position up to which this is what was ordered.
    pub upto: u64,
}

/// Where a path leads.
#[derive(Clone)]
pub struct Route {
    /// The instance.
    pub instance: Arc<Instance>,
    /// The method's number.
    pub method: u32,
    /// Whether it changes state.
    pub update: bool,
    /// The longest a caller waits.
    pub deadline: Option<Duration>,
}

impl Directory {
    pub(super) fn build(
        instances: Vec<Arc<Instance>>,
        catalogue: Catalogue,
        removed: BTreeMap<Digest, u64>,
        upto: u64,
    ) -> Directory {
        let mut routes = HashMap::new();
        for instance in &instances {
            for method in instance.class().methods() {
                let update = method.kind() == Kind::Update;
                let (instance, deadline) = (instance.clone(), method.options().deadline);
                let route = Route { instance, method: method.id(), update, deadline };
                routes.insert(method.path().to_owned(), route);
            }
        }
        Directory { routes, instances, catalogue, removed, upto }
    }

    /// The method a person means: class `bank`, `Bank` or `bank.Bank`, method in any case. `Err`
    /// lists what there is.
    pub fn find(&self, class: &str, method: &str) -> Result<(Route, Method), String> {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let matching: Vec<_> = self
            .instances
            .iter()
            .filter(|i| {
                let name = i.class().name();
                let package = name.rsplit_once('.').map_or("", |(package, _)| package);
                same(name, class) || same(i.class().short_name(), class) || same(package, class)
            })
            .collect();
        let instance = match matching[..] {
            [one] => one,
            [] => {
                let known: Vec<&str> = self.instances.iter().map(|i| i.class().name()).collect();
                return Err(match known[..] {
                    [] => "nothing is deployed".to_owned(),
                    _ => format!("there is no class {class}; deployed: {}", known.join(", ")),
                });
            }
            _ => {
                let known: Vec<&str> = matching.iter().map(|i| i.class().name()).collect();
                return Err(format!("{class} may mean {}", known.join(" or ")));
            }
        };
        let methods = instance.class().methods();
        let Some(found) = methods.iter().find(|m| same(m.name(), method)) else {
            let known: Vec<&str> = methods.iter().map(Method::name).collect();
            let name = instance.class().name();
            return Err(format!("{name} has no method {method}; it has {}", known.join(", ")));
        };
        Ok((self.routes[found.path()].clone(), found.clone()))
    }
}
