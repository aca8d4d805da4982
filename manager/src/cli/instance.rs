//! `quintet instance list [--audit]`.

use super::cluster::Cluster;
use super::status::nobody;
use super::table::{Table, position};
use super::{Error, api, print_json};
use crate::admin::types::{Audit, Instance};
use crate::print::say;
use bytes::Bytes;
use serde::Serialize;

/// One replica, with its state hash when an audit was asked for.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    instance: Instance,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

/// Lists the replicas on every node that answers; `audit` adds their state hashes at one position.
pub(super) async fn list(cluster: &Cluster, audit: bool, json: bool) -> Result<(), Error> {
    let audit: Option<Audit> = if audit {
        Some(cluster.post("/v1/audit", ("application/json", Bytes::from_static(b"{}"))).await?)
    } else {
        None
    };
    let (mut rows, mut answered) = (Vec::new(), false);
    for daemon in &cluster.daemons {
        let Ok(instances) = api::get::<Vec<Instance>>(&daemon.door, "/v1/instances").await else {
            continue;
        };
        answered = true;
        for mut instance in instances {
            let audited = audit.as_ref().and_then(|audit| {
                audit.replicas.iter().find(|replica| {
                    replica.instance == instance.id && replica.node == instance.node
                })
            });
            if let (Some(audit), Some(_)) = (&audit, audited) {
                instance.position = audit.position;
            }
            rows.push(Row { instance, hash: audited.map(|replica| replica.hash.clone()) });
        }
    }
    if !answered {
        return Err(nobody());
    }
    rows.sort_by_key(|row| (row.instance.id, row.instance.node));
    if json {
        return print_json(&rows);
    }
    let mut table = Table::new(&[
        "class",
        "node",
        "state",
        ">position",
        ">updates",
        ">repeats",
        ">reads",
        ">replies kept",
        "hash, error",
    ]);
    for Row { instance, hash } in &rows {
        table.row(vec![
            instance.class.clone(),
            instance.node.to_string(),
            instance.state.clone(),
            position(instance.position),
            instance.updates.to_string(),
            instance.repeats.to_string(),
            instance.reads.to_string(),
            instance.records.to_string(),
            instance.error.clone().or_else(|| hash.clone()).unwrap_or_default(),
        ]);
    }
    table.print();
    if let Some(audit) = audit {
        let verdict = if audit.equal {
            "all replicas are equal"
        } else {
            "REPLICAS DIFFER, or some did not answer"
        };
        say!("\naudited at {}: {verdict}", position(audit.position));
        if !audit.missing.is_empty() {
            say!("no answer from node {:?}", audit.missing);
        }
    }
    Ok(())
}
