//! The tools that look at a running cluster, beside real daemons.

mod common;

use common::{Daemon, Layout};
use quintet_manager::config::PathChoice;
use serde_json::Value;
use std::process::{Command, Output};

/// Runs `quintet` for these daemons.
fn quintet(daemons: &[Daemon], words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    command.env_remove("QUINTET_TOKEN_FILE").env_remove("QUINTET_ADMIN");
    for daemon in daemons {
        command.arg("--admin").arg(daemon.socket());
    }
    command.args(words).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&printed(output)).unwrap()
}

/// Two daemons in one view, over that path.
fn pair(path: PathChoice) -> (Layout, Vec<Daemon>) {
    let layout = Layout::new(2);
    for node in 1..=2 {
        let mut config = layout.config(node);
        config.transport.path = path;
        std::fs::write(layout.file(node), toml::to_string_pretty(&config).unwrap()).unwrap();
    }
    let daemons: Vec<_> = (1..=2).map(|node| Daemon::start(&layout, node)).collect();
    for daemon in &daemons {
        daemon.wait_until("a view of two", |d| d.is_member(2));
    }
    (layout, daemons)
}

#[test]
fn links_over_packets_tell_what_was_sent_and_how_silence_is_judged() {
    let (_layout, daemons) = pair(PathChoice::Udp);
    let all = json(&quintet(&daemons, &["links", "-o", "json"]));
    let link = &all[0]["links"][0];
    assert_eq!(
        (&link["peer"], &link["path"], &link["state"]),
        (&2.into(), &"udp".into(), &"up".into())
    );
    // As the tests' configuration says.
    let watch = &link["watch"];
    assert_eq!(
        (&watch["heartbeat_ms"], &watch["suspect_ms"], &watch["dead_ms"]),
        (&20.0.into(), &300.0.into(), &1500.0.into())
    );
    assert!(watch["longest_ms"].as_f64().unwrap() > 0.0, "{link}");
    assert!(link["heard_ms"].as_f64().unwrap() < 1500.0, "a member was heard: {link}");
    let counters = link["counters"].as_object().unwrap();
    assert!(
        counters["packets_sent"].as_u64() > Some(0)
            && counters["bytes_received"].as_u64() > Some(0)
    );
    assert!(counters.contains_key("retransmits") && !counters.contains_key("doorbells"));
    let table = printed(&quintet(&daemons, &["links"]));
    assert!(table.contains("20/300/1500 ms") && table.contains("1 → 2"), "{table}");
}

#[test]
fn links_over_shared_memory_tell_doorbells_and_rarer_heartbeats() {
    let (_layout, daemons) = pair(PathChoice::Auto);
    let all = json(&quintet(&daemons, &["links", "-o", "json"]));
    let link = &all[1]["links"][0];
    assert_eq!((&link["peer"], &link["path"]), (&1.into(), &"shm".into()));
    // An eighth of the time after which a silent peer is dead.
    assert_eq!(link["watch"]["heartbeat_ms"], 187.5);
    let counters: Vec<_> = link["counters"].as_object().unwrap().keys().collect();
    assert_eq!(counters, ["doorbells"]);
    assert!(printed(&quintet(&daemons, &["links"])).contains("187.5/562.5/1500 ms"));
}
