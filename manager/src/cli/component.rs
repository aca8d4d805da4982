//! `quintet component deploy|list|remove`.

use super::cluster::Cluster;
use super::table::{Table, position};
use super::{Error, print_json};
use crate::admin::types::{Component, ComponentState, Deployed, Instance};
use crate::package::{self, Package};
use crate::print::say;
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// Packs what is named, uploads it, and waits until the component serves on every node.
pub(super) async fn deploy(cluster: &Cluster, what: &Path, json: bool) -> Result<(), Error> {
    let package = package(what).map_err(|error| Error::new(error.to_string()))?;
    let body = ("application/x-tar", Bytes::from(package.to_bytes()));
    let deployed: Deployed = cluster.post("/v1/components", body).await?;
    if deployed.component.state == ComponentState::Rejected {
        let why = deployed.component.reason.unwrap_or_else(|| "no reason given".into());
        return Err(Error::new(format!("{} was rejected: {why}", deployed.component.name)));
    }
    if json {
        return print_json(&deployed);
    }
    let component = &deployed.component;
    let nodes: Vec<String> = component.ready.iter().map(u16::to_string).collect();
    let note = if deployed.unchanged { "was active already" } else { "is active" };
    say!("{} {} {note} on nodes {}", component.name, component.version, nodes.join(" "));
    for class in &component.classes {
        for method in &class.methods {
            say!("  {:<28} {:<7} {} → {}", method.path, method.kind, method.request, method.reply);
        }
    }
    Ok(())
}

/// The package of a directory, or of `linked:NAME`.
fn package(what: &Path) -> Result<Package, package::Error> {
    if let Some(name) = what.to_str().and_then(|what| what.strip_prefix("linked:")) {
        return Package::linked(name);
    }
    // A library named without a path may lie where this very program was built.
    let beside: Option<PathBuf> =
        std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let search: Vec<PathBuf> = beside.into_iter().collect();
    Package::from_dir(what, &search)
}

/// Lists what is deployed.
pub(super) async fn list(cluster: &Cluster, json: bool) -> Result<(), Error> {
    let components: Vec<Component> = cluster.get("/v1/components").await?;
    if json {
        return print_json(&components);
    }
    let mut table =
        Table::new(&["component", "version", "state", "nodes", "classes", "digest", "why"]);
    for component in components {
        table.row(vec![
            component.name,
            component.version,
            format!("{:?}", component.state).to_lowercase(),
            component.ready.iter().map(u16::to_string).collect::<Vec<_>>().join(" "),
            component.classes.into_iter().map(|class| class.name).collect::<Vec<_>>().join(" "),
            component.digest.chars().take(12).collect(),
            component.reason.unwrap_or_default(),
        ]);
    }
    table.print();
    Ok(())
}

/// Takes a component away, and the state of its instances with it: that only if it is wanted.
pub(super) async fn remove(cluster: &Cluster, name: &str, yes: bool) -> Result<(), Error> {
    let components: Vec<Component> = cluster.get("/v1/components").await?;
    let its = components.iter().filter(|component| component.name == name);
    let classes: Vec<&str> = its.flat_map(|c| &c.classes).map(|class| &*class.name).collect();
    let instances: Vec<Instance> = cluster.get("/v1/instances").await?;
    let lost: Vec<String> = instances
        .iter()
        .filter(|instance| instance.position > 0 && classes.contains(&&*instance.class))
        .map(|instance| {
            format!("{}, updated up to {}", instance.class, position(instance.position))
        })
        .collect();
    if !lost.is_empty() && !yes {
        let what = format!("{name} has state that would be lost on all nodes: {}", lost.join("; "));
        return Err(
            Error::new(what).hint("nothing was changed; to remove it with its state, add --yes")
        );
    }
    cluster.delete(&format!("/v1/components/{name}")).await?;
    match &lost[..] {
        [] => say!("{name} is gone from all nodes; it had no state"),
        lost => say!("{name} is gone from all nodes, and its state: {}", lost.join("; ")),
    }
    Ok(())
}
