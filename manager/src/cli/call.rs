//! `quintet call CLASS METHOD JSON`.

use super::cluster::Cluster;
use super::table::{micros, position};
use super::{Error, print_json};
use crate::admin::types::{CallReply, CallRequest};
use crate::print::complain;
use bytes::Bytes;

/// Calls a method of a component through the admin API and prints its reply.
pub(super) async fn call(
    cluster: &Cluster,
    class: String,
    method: String,
    request: &str,
    deadline_ms: Option<u32>,
    json: bool,
) -> Result<(), Error> {
    let body = serde_json::from_str(request).map_err(|error| {
        Error::new(format!("the request is not JSON: {error}"))
            .hint("for example: '{\"from\":1,\"to\":2,\"amount\":5}'")
    })?;
    let request = CallRequest { class, method, body, deadline_ms };
    let bytes = serde_json::to_vec(&request).map_err(|error| Error::new(error.to_string()))?;
    let reply: CallReply =
        cluster.post("/v1/call", ("application/json", Bytes::from(bytes))).await?;
    if json {
        print_json(&reply)?;
    } else if reply.status == "OK" {
        print_json(&reply.body)?;
        let took = micros(reply.took_us as f64);
        match reply.position {
            0 => complain!("before any update, {took}"),
            at => complain!("at {}, {took}", position(at)),
        }
    }
    if reply.status == "OK" {
        Ok(())
    } else {
        Err(Error::new(format!("{}: {}", reply.status, reply.message)))
    }
}
