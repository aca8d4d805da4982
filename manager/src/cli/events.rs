//! `quintet events [-f]`: what every node saw, merged by time.

use super::cluster::Cluster;
use super::door::Door;
use super::status::nobody;
use super::{Error, api, print_json};
use crate::admin::types::{Event, EventKind, ViewChange};
use crate::print::say;
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
        seen.push(events.iter().max_by_key(|event| event.seq).map(Seen::of));
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
    for (daemon, last) in cluster.daemons.iter().zip(seen) {
        tokio::spawn(follow_one(daemon.door.clone(), last, sender.clone()));
    }
    drop(sender);
    while let Some(event) = receiver.recv().await {
        print(&event, json);
    }
    Ok(())
}

/// Follows one daemon's stream, through its restarts: `last` is the latest event of it that was seen.
async fn follow_one(door: Door, mut last: Option<Seen>, sink: mpsc::Sender<Event>) {
    loop {
        let since = last.map_or(0, |seen| seen.seq);
        let path = format!("/v1/events/stream?since={since}");
        if let Ok(mut body) = api::stream(&door, &path).await {
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
                    last = Some(Seen::of(&event));
                    if sink.send(event).await.is_err() {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(RETRY).await;
        // A restarted daemon counts from 1 again: its event of that number is another one.
        if let Ok(events) = api::get::<Vec<Event>>(&door, "/v1/events").await
            && !last.is_some_and(|seen| seen.stands_in(&events))
        {
            last = None;
        }
    }
}

/// What tells an event of a daemon from that of the same number in another run of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    seq: u64,
    at_ns: u64,
}

impl Seen {
    fn of(event: &Event) -> Seen {
        Seen { seq: event.seq, at_ns: event.at_ns }
    }

    /// Was it, or something older than all that is remembered, seen in the run that `events` are of?
    fn stands_in(self, events: &[Event]) -> bool {
        let same = events.iter().any(|event| Seen::of(event) == self);
        let forgotten =
            events.first().is_some_and(|first| first.seq > self.seq && first.at_ns > self.at_ns);
        same || forgotten
    }
}

fn print(event: &Event, json: bool) {
    if json {
        say!("{}", flat(event));
        return;
    }
    let seconds = event.unix_ms / 1000 % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let clock = format!("{hour:02}:{minute:02}:{second:02}.{:03}", event.unix_ms % 1000);
    let kind = format!("{:?}", event.kind).to_lowercase();
    say!("{clock}  node {}  {kind:<9}  {}", event.node, event.text);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, at_ns: u64) -> Event {
        let (kind, text) = (EventKind::Node, String::new());
        Event { seq, node: 1, at_ns, unix_ms: 0, kind, text, view: None }
    }

    #[test]
    fn an_event_of_another_run_is_not_the_one_that_was_seen() {
        let seen = Seen::of(&event(3, 30));
        let run = [event(1, 10), event(2, 20), event(3, 30), event(4, 40)];
        assert!(seen.stands_in(&run));
        assert!(seen.stands_in(&[event(7, 70), event(8, 80)]), "forgotten meanwhile");
        assert!(!seen.stands_in(&[event(1, 50)]), "a new run, just begun");
        let longer = [event(1, 50), event(2, 51), event(3, 52), event(4, 53)];
        assert!(!seen.stands_in(&longer), "a new run that has come further already");
        assert!(!seen.stands_in(&[]));
    }
}
