//! `quintet recover --owed VIEW:PLACE`.

use super::Error;
use super::api::{self, Failure};
use super::cluster::Cluster;
use crate::admin::types::Recover;
use crate::print::say;
use bytes::Bytes;

/// Tells a node that waits for state that was acknowledged to go on without it.
pub(super) async fn recover(cluster: &Cluster, owed: String) -> Result<(), Error> {
    let request = Recover { owed };
    let body = serde_json::to_vec(&request).map_err(|error| Error::new(error.to_string()))?;
    let body = Bytes::from(body);
    let mut last = None;
    for daemon in &cluster.daemons {
        match api::post::<Recover>(&daemon.door, "/v1/recover", ("application/json", body.clone()))
            .await
        {
            Ok(_) => {
                let Recover { owed } = request;
                say!("told: what was owed up to {owed} is given up; quintet events shows the view");
                return Ok(());
            }
            // Why one refused says more than that another is not there.
            Err(Failure::Unreachable(_)) if last.is_some() => {}
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.map_or_else(|| Error::new("the cluster has no daemons"), Error::from))
}
