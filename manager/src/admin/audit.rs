//! Every replica's state hash at one position of the order.

use super::types::{Audit, AuditedReplica};
use super::{Api, Refusal};
use crate::replica::Message;
use axum::Json;
use axum::extract::State;
use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;
use tokio::time::timeout;

/// How long replicas may take; hashing a large state takes its time.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn audit(State(api): State<Api>) -> Result<Json<Audit>, Refusal> {
    let shared = &api.shared;
    if !shared.standing.borrow().serves() {
        return Err(Refusal::not_serving(shared));
    }
    let token = getrandom::u64().unwrap_or(shared.started_ns);
    let mut reports = shared.audits.follow();
    shared.try_send(&Message::Audit { token })?;
    let all = async {
        while !shared.audits.get(token).is_some_and(|record| {
            // A member that died meanwhile does not report any more.
            let members = shared.members();
            let missing = record.members.iter().filter(|n| !record.reports.contains_key(n));
            record.is_complete() || missing.clone().all(|n| !members.contains(n))
        }) {
            // Looks again now and then, for views change without a report.
            let _ = timeout(Duration::from_millis(200), reports.changed()).await;
        }
    };
    let _ = timeout(PATIENCE, all).await;
    let Some(record) = shared.audits.get(token) else {
        let what = "the audit was ordered, but its place in the order was not reached in time";
        return Err(Refusal::too_late(what, "look at quintet status: is the view blocked?"));
    };
    let directory = shared.directory.load();
    let class = |id| directory.catalogue.instances.get(&id).map(|i| i.class.clone());
    let mut replicas = Vec::new();
    for (node, hashes) in &record.reports {
        for (id, hash) in hashes {
            let (hash, error) = match hash {
                Ok(hash) => (hex(hash), None),
                Err(why) => (String::new(), Some(why.clone())),
            };
            let class = class(*id).unwrap_or_default();
            replicas.push(AuditedReplica { instance: *id, class, node: *node, hash, error });
        }
    }
    replicas.sort_by_key(|r| (r.instance, r.node));
    let mut first: HashMap<u32, &str> = HashMap::new();
    let same = replicas
        .iter()
        .all(|r| r.error.is_none() && **first.entry(r.instance).or_insert(&r.hash) == *r.hash);
    let missing: Vec<u16> =
        record.members.iter().copied().filter(|n| !record.reports.contains_key(n)).collect();
    let equal = same && missing.is_empty();
    Ok(Json(Audit { position: record.position, view: record.view, equal, missing, replicas }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
