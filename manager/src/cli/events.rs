//! `quintet events [-f]`: what every node saw, merged by time.

use super::cluster::Cluster;
use super::door::Door;
use super::status::nobody;
use super::{Error, api, print_json};
use crate::admin::types::{Event, EventKind, ViewChange};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long to wait before a daemon that went away is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// Prints the events of all nodes; with `follow` goes on until interrupted.
pub(super) async fn events(cluster: &Cluster, follow: bool, json: bool) -> Result<(), Error> {
    let mut all = Vec::new();
    let (mut seen, mut answered) = (Vec::new(), false);
    for daemon in &cluster.daemons {
        let events = api::get::<Vec<Event>>(&daemon.door, "/v1/events").await;
        answered |= events.is_ok();
        let events = events.unwrap_or_default();
        seen.push(events.iter().map(|event| event.seq).max().unwrap_or(0));
        all.extend(events);
    }
    // Who follows waits for them to come.
    if !answered && !follow {
        return Err(nobody());
    }
    all.sort_by_key(|event| event.at_ns);
    if json && !follow {
        return print_json(&all.iter().map(flat).collect::<Vec<_>>());
    }
    all.iter().for_each(|event| print(event, json));
    if !follow {
        return Ok(());
    }
    let (sender, mut receiver) = mpsc::channel(256);
    for (daemon, since) in cluster.daemons.iter().zip(seen) {
        tokio::spawn(follow_one(daemon.door.clone(), since, sender.clone()));
    }
    drop(sender);
    while let Some(event) = receiver.recv().await {
        print(&event, json);
    }
    Ok(())
}

/// Follows one daemon's stream, through its restarts.
async fn follow_one(door: Door, mut since: u64, sink: mpsc::Sender<Event>) {
    loop {
        if let Ok(mut body) = api::stream(&door, &format!("/v1/events/stream?since={since}")).await
        {
            let mut text = String::new();
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                text.push_str(&String::from_utf8_lossy(&data));
                while let Some(end) = text.find('\n') {
                    let line: String = text.drain(..=end).collect();
                    let Some(event) = line
                        .strip_prefix("data:")
                        .and_then(|data| serde_json::from_str::<Event>(data).ok())
                    else {
                        continue;
                    };
                    since = event.seq;
                    if sink.send(event).await.is_err() {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(RETRY).await;
        // A restarted daemon counts from 1 again.
        if let Ok(events) = api::get::<Vec<Event>>(&door, "/v1/events").await
            && events.last().is_none_or(|last| last.seq < since)
        {
            since = 0;
        }
    }
}

fn print(event: &Event, json: bool) {
    if json {
        println!("{}", flat(event));
        return;
    }
    let seconds = event.unix_ms / 1000 % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let clock = format!("{hour:02}:{minute:02}:{second:02}.{:03}", event.unix_ms % 1000);
    let kind = format!("{:?}", event.kind).to_lowercase();
    println!("{clock}  node {}  {kind:<9}  {}", event.node, event.text);
}

/// One event as a flat JSON object; a view's details stand beside the rest.
fn flat(event: &Event) -> Value {
    let mut value = json!({
        "kind": event.kind, "at_node": event.node, "seq": event.seq, "at_ns": event.at_ns, "unix_ms": event.unix_ms,
        "text": event.text,
    });
    if let (EventKind::View, Some(change)) = (event.kind, &event.view) {
        let ViewChange {
            view,
            joined,
            departed,
            cause,
            evidence_ns,
            wedged_ns,
            installed_ns,
            took_us,
        } = change;
        let nodes = |members: &[crate::admin::types::Member]| {
            members.iter().map(|m| m.node).collect::<Vec<_>>()
        };
        value["view"] = json!(view.id);
        value["members"] = json!(nodes(&view.members));
        value["joined"] = json!(nodes(joined));
        value["departed"] = json!(nodes(departed));
        value["cause"] = json!(cause);
        value["evidence_ns"] = json!(evidence_ns);
        value["wedged_ns"] = json!(wedged_ns);
        value["installed_ns"] = json!(installed_ns);
        value["took_us"] = json!(took_us);
    }
    value
}
