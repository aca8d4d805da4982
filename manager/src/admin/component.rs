//! Deploying and removing components.

use super::types::{Component, ComponentState, Deployed};
use super::{Api, Refusal, show};
use crate::package::{Digest, Manifest, Package};
use crate::packages::{self, Loaded};
use crate::replica::{Deploy, Message};
use crate::runtime::Shared;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the members may take to fetch and load a package.
const PATIENCE: Duration = Duration::from_secs(45);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// What was there before an offer may still be seen for so long, until the offer is delivered.
const GRACE: Duration = Duration::from_millis(300);

pub(super) async fn deploy(
    State(api): State<Api>,
    bytes: Bytes,
) -> Result<(StatusCode, Json<Deployed>), Refusal> {
    let shared = &api.shared;
    if !shared.standing.borrow().serves() {
        return Err(Refusal::not_serving(shared));
    }
    let (digest, manifest, classes) = load(shared, bytes).await.map_err(unusable)?;
    let unchanged = is(shared, &digest, ComponentState::Active);
    let removals = removals(shared, &digest);
    if !unchanged {
        let classes = classes.iter().map(|loaded| loaded.class.name()).collect();
        let (name, version) = (&*manifest.name, &*manifest.version);
        let source = shared.config.node;
        shared.try_send(&Message::Deploy(Deploy { digest, source, name, version, classes }))?;
    }
    let component = settled(shared, &digest, removals).await?;
    kept(shared).await?;
    if component.state == ComponentState::Rejected {
        let why = component.reason.clone().unwrap_or_default();
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("component {} was rejected: {why}", component.name),
            "no member runs it: a component runs on all members or on none",
            "correct what the message names, then deploy again",
        ));
    }
    let status = if unchanged { StatusCode::OK } else { StatusCode::CREATED };
    let digest = digest.to_string();
    Ok((status, Json(Deployed { digest, component, unchanged })))
}

/// Waits until a quorum keeps what was seen here. What is told before could be undone by the end of this process.
async fn kept(shared: &Shared) -> Result<(), Refusal> {
    let (upto, until) = (shared.directory.load().upto, Instant::now() + PATIENCE);
    while !shared.outbox.is_kept(upto) {
        if Instant::now() > until {
            let what = "it was ordered, but no quorum has written it to disk in time".to_owned();
            return Err(Refusal::too_late(
                what,
                "look at quintet component list and at quintet status",
            ));
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

fn unusable(why: packages::Error) -> Refusal {
    let fix = match why {
        packages::Error::NotLinked { .. } => {
            "deploy one that is linked, or a directory with component.toml and library"
        }
        packages::Error::Descriptor { .. } => {
            "deploy linked:NAME, so that the daemon says itself which descriptor it has"
        }
        _ => "build the component with this release's quintet-component and deploy it again",
    };
    Refusal::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        why.to_string(),
        "nothing was deployed and nothing was changed",
        fix,
    )
}

/// Stores the package and loads its library here, before anybody else is bothered.
async fn load(
    shared: &Arc<Shared>,
    bytes: Bytes,
) -> Result<(Digest, Manifest, Arc<Vec<Loaded>>), packages::Error> {
    let shared = shared.clone();
    let job = move || {
        let mut package = Package::from_bytes(&bytes)?;
        // What needs no seal stays as it was packed, by whichever tar.
        let sealed = shared.packages.seal(&mut package)?;
        let bytes = if sealed { Bytes::from(package.to_bytes()) } else { bytes };
        let digest = Digest::of(&bytes);
        shared.packages.store(&digest, &bytes)?;
        let classes = shared.packages.load(&digest)?;
        Ok((digest, package.manifest, classes))
    };
    let failed = |e: tokio::task::JoinError| Err(packages::Error::Library(e.to_string()));
    tokio::task::spawn_blocking(job).await.unwrap_or_else(failed)
}

fn find(shared: &Shared, digest: &Digest) -> Option<Component> {
    let directory = shared.directory.load_full();
    let entry = directory.catalogue.packages.get(digest)?;
    Some(show::component(shared, digest, entry))
}

fn is(shared: &Shared, digest: &Digest, state: ComponentState) -> bool {
    find(shared, digest).is_some_and(|component| component.state == state)
}

/// How often it went from here.
fn removals(shared: &Shared, digest: &Digest) -> u64 {
    shared.directory.load().removed.get(digest).copied().unwrap_or(0)
}

/// Waits until all members have it, or one has refused it, or it is gone again: more often than `removals`.
async fn settled(shared: &Shared, digest: &Digest, removals: u64) -> Result<Component, Refusal> {
    let until = Instant::now() + PATIENCE;
    // A rejection from an earlier attempt is still there until the new offer is delivered.
    let stale = find(shared, digest).filter(|c| c.state == ComponentState::Rejected);
    let began = Instant::now();
    let mut gone = None;
    loop {
        let grace = stale.is_some() && began.elapsed() < GRACE;
        match find(shared, digest) {
            Some(component) if component.state == ComponentState::Active => return Ok(component),
            Some(component) if component.state == ComponentState::Rejected && !grace => {
                return Ok(component);
            }
            // It may have been another's that went, and ours still comes.
            None if self::removals(shared, digest) != removals
                && gone.get_or_insert_with(Instant::now).elapsed() > GRACE =>
            {
                return Err(Refusal::new(
                    StatusCode::CONFLICT,
                    "the component was removed while it was being deployed",
                    "it is not deployed, and what state it had is gone",
                    "deploy it again, if it is to stay",
                ));
            }
            _ if Instant::now() < until => sleep(LOOK_AGAIN).await,
            found => {
                let ready = found.map(|c| c.ready).unwrap_or_default();
                let what =
                    format!("not all members have loaded the package in time; ready: {ready:?}");
                return Err(Refusal::too_late(what, "look at quintet component list and the logs"));
            }
        }
    }
}

pub(super) async fn undeploy(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let shared = &api.shared;
    if !shared.standing.borrow().serves() {
        return Err(Refusal::not_serving(shared));
    }
    let directory = shared.directory.load_full();
    let Some((digest, _)) = directory.catalogue.component(&name) else {
        let known: Vec<_> =
            directory.catalogue.packages.values().map(|e| e.name.as_str()).collect();
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("component {name} is not deployed"),
            "nothing was changed",
            format!(
                "deployed: {}",
                if known.is_empty() { "none".into() } else { known.join(", ") }
            ),
        ));
    };
    let removals = removals(shared, digest);
    shared.try_send(&Message::Undeploy { digest: *digest })?;
    let until = Instant::now() + PATIENCE;
    // Somebody may deploy it again before we have looked.
    while find(shared, digest).is_some() && self::removals(shared, digest) == removals {
        if Instant::now() > until {
            let what = format!("component {name} was not removed in time");
            return Err(Refusal::too_late(what, "look at quintet component list"));
        }
        sleep(LOOK_AGAIN).await;
    }
    kept(shared).await?;
    Ok(StatusCode::NO_CONTENT)
}
