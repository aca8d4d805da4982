//! `quintet links`: every link, from both of its ends: path and why, state, times, and what went over it.

use super::cluster::Cluster;
use super::status::{NodeRow, gather, print_packets};
use super::table::{Table, bytes, micros};
use super::{Error, print_json};
use crate::admin::types::{Link, Rail};

/// Prints them.
pub(super) async fn links(cluster: &Cluster, json: bool) -> Result<(), Error> {
    let whole = gather(cluster).await;
    if json {
        let rows: Vec<_> = whole
            .nodes
            .iter()
            .map(|row| match &row.links_unknown {
                None => serde_json::json!({"node": row.node, "links": row.links}),
                Some(why) => serde_json::json!({"node": row.node, "links": null, "unknown": why}),
            })
            .collect();
        print_json(&rows)?;
    } else {
        table(&whole.nodes).print();
        print_packets(&whole.nodes);
    }
    whole.answered()?;
    match whole.nodes.iter().filter(|row| row.links_unknown.is_some()).count() {
        0 => Ok(()),
        silent => {
            Err(Error::new(format!("{silent} of {} nodes did not answer", whole.nodes.len())).hint(
                "`quintet stat -d DATA_DIR` shows the links of one on this machine all the same",
            ))
        }
    }
}

/// The last one says why, whatever there is to say.
const COLUMNS: [&str; 16] = [
    "link",
    "path",
    "state",
    ">round trip",
    ">heard ago",
    ">longest silence",
    ">beat/suspect/dead",
    ">packets out/in",
    ">bytes out/in",
    ">sent again",
    ">marked",
    ">slowed down",
    ">datagram",
    ">doorbells",
    "network",
    "why this path",
];

fn table(rows: &[NodeRow]) -> Table {
    let mut table = Table::new(&COLUMNS);
    for row in rows {
        let node = row.node.map_or_else(|| "?".into(), |node| node.to_string());
        if let Some(why) = &row.links_unknown {
            let mut cells = vec![String::new(); COLUMNS.len()];
            (cells[0], cells[2]) = (format!("{node} → ?"), "no answer".into());
            cells[COLUMNS.len() - 1].clone_from(why);
            table.row(cells);
        }
        for link in &row.links {
            table.row(cells(&node, link));
        }
    }
    table
}

/// Cells of what is not counted on a path stay empty.
fn cells(node: &str, link: &Link) -> Vec<String> {
    let count = |name: &str| link.counters.get(name).copied();
    let text = |name: &str| count(name).map_or_else(String::new, |count| count.to_string());
    let pair = |one: &str, two: &str, show: fn(u64) -> String| match (count(one), count(two)) {
        (Some(one), Some(two)) => format!("{}/{}", show(one), show(two)),
        _ => String::new(),
    };
    let millis = |ms: f64| micros(ms * 1e3);
    vec![
        format!("{node} → {}", link.peer),
        link.path.clone(),
        link.state.clone(),
        link.rtt_us.map_or_else(String::new, micros),
        link.heard_ms.map_or_else(String::new, millis),
        link.watch.map_or_else(String::new, |watch| millis(watch.longest_ms)),
        link.watch.map_or_else(String::new, |watch| {
            format!("{}/{}/{} ms", watch.heartbeat_ms, watch.suspect_ms, watch.dead_ms)
        }),
        pair("packets_sent", "packets_received", |count| count.to_string()),
        pair("bytes_sent", "bytes_received", bytes),
        text("retransmits"),
        text("marked"),
        text("congestion"),
        link.datagram.map_or_else(String::new, |bytes| format!("{bytes} B")),
        text("doorbells"),
        link.rail.as_ref().map_or_else(String::new, network),
        link.reason.clone(),
    ]
}

/// Which network packets take, and why; empty where there is but one.
fn network(rail: &Rail) -> String {
    if rail.of < 2 {
        return String::new();
    }
    let numbers: Vec<_> = rail.silent.iter().map(u64::to_string).collect();
    let silent = match &numbers[..] {
        [] => String::new(),
        some => format!("; no answer by {}", some.join(", ")),
    };
    format!("{} of {}, {}: {}{silent}", rail.number, rail.of, rail.to, rail.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::Watch;

    fn link(counters: &[(&str, u64)]) -> Link {
        Link {
            peer: 3,
            incarnation: 7,
            path: "udp".into(),
            reason: "the configuration says so".into(),
            state: "suspected".into(),
            rtt_us: Some(41.2),
            heard_ms: Some(61.5),
            watch: Some(Watch {
                heartbeat_ms: 12.5,
                suspect_ms: 45.0,
                dead_ms: 100.0,
                longest_ms: 16.0,
            }),
            rail: None,
            datagram: None,
            counters: counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        }
    }

    #[test]
    fn a_row_tells_path_reason_times_and_traffic() {
        let udp = Link {
            datagram: Some(1472),
            ..link(&[
                ("packets_sent", 10),
                ("packets_received", 11),
                ("bytes_sent", 2_500_000),
                ("bytes_received", 12),
                ("retransmits", 3),
                ("marked", 12),
                ("congestion", 2),
            ])
        };
        assert_eq!(
            cells("1", &udp),
            [
                "1 → 3",
                "udp",
                "suspected",
                "41.2 µs",
                "61.5 ms",
                "16.0 ms",
                "12.5/45/100 ms",
                "10/11",
                "2.5 MB/12 B",
                "3",
                "12",
                "2",
                "1472 B",
                "",
                "",
                "the configuration says so"
            ]
        );
        let shm = cells("1", &link(&[("doorbells", 9)]));
        assert_eq!(shm[7..14], ["", "", "", "", "", "", "9"]);
    }

    #[test]
    fn a_row_tells_which_of_several_networks_and_which_are_silent() {
        let rail = Rail {
            number: 2,
            of: 2,
            to: "10.1.0.3:7100".parse().unwrap(),
            reason: "the one before carried nothing".into(),
            silent: vec![1],
        };
        let said = "2 of 2, 10.1.0.3:7100: the one before carried nothing; no answer by 1";
        assert_eq!(network(&rail), said);
        assert_eq!(network(&Rail { number: 1, of: 1, silent: vec![], ..rail }), "");
    }

    #[test]
    fn a_daemon_that_says_less_leaves_cells_empty() {
        let old = Link { heard_ms: None, watch: None, rtt_us: None, ..link(&[]) };
        assert!(cells("1", &old)[3..15].iter().all(String::is_empty));
    }
}
