//! What survives which deaths.

mod common;

use common::{Daemon, Layout, Native, cluster};
use quintet_client::wire::Frame;

fn add(daemon: &Daemon, amount: i64) {
    let (status, reply) = daemon.call("Add", &format!(r#"{{"amount":{amount}}}"#));
    assert!(status == 200 && reply["status"] == "OK", "{status} {reply}");
}

fn whole(daemons: &[Daemon]) {
    for daemon in daemons {
        daemon.wait_until("a view of three", |d| d.is_member(3));
    }
    assert_eq!(daemons[0].audit()["equal"], true);
}

#[test]
fn a_killed_node_comes_back_with_the_state_it_missed() {
    let (layout, mut daemons) = cluster();
    add(&daemons[0], 1);
    daemons.remove(1).kill();
    daemons[0].wait_until("a view of two", |d| d.is_member(2));
    for _ in 0..20 {
        add(&daemons[0], 1);
    }
    daemons.insert(1, Daemon::start(&layout, 2));
    whole(&daemons);
    daemons[1].wait_value(21);
}

#[test]
fn the_survivor_of_two_deaths_refuses_until_one_is_back() {
    let (layout, mut daemons) = cluster();
    for _ in 0..10 {
        add(&daemons[0], 1);
    }
    let survivor = daemons.remove(2);
    Daemon::kill_at_once(daemons);
    survivor.wait_until("the loss of the quorum", |d| d.status()["state"] == "blocked");
    for (method, body) in [("Add", r#"{"amount":1}"#), ("Get", "{}")] {
        let (status, problem) = survivor.call(method, body);
        assert_eq!(status, 503, "{problem}");
        assert!(problem["what"].as_str().unwrap().contains("blocked"), "{problem}");
        assert!(problem["means"].is_string() && problem["do"].is_string(), "{problem}");
    }
    let back = Daemon::start(&layout, 1);
    for daemon in [&survivor, &back] {
        daemon.wait_until("a view of two", |d| d.is_member(2));
        daemon.wait_value(10);
    }
    add(&survivor, 1);
    assert_eq!(back.audit()["equal"], true);
}

#[test]
fn all_three_killed_at_once_lose_nothing_that_was_acknowledged() {
    let (layout, daemons) = cluster();
    for _ in 0..300 {
        add(&daemons[1], 1);
    }
    Daemon::kill_at_once(daemons);
    let daemons: Vec<_> = (1..=3).map(|node| Daemon::start(&layout, node)).collect();
    whole(&daemons);
    daemons[2].wait_value(300);
    add(&daemons[2], 1);
    daemons[0].wait_value(301);
}

#[test]
fn snapshots_are_taken_while_calls_go_on_and_a_restart_builds_on_them() {
    let (layout, daemons) = cluster();
    let mut added = 0;
    daemons[0].wait_until("a snapshot on every node", |_| {
        (0..100).for_each(|_| add(&daemons[0], 1));
        added += 100;
        daemons.iter().all(|d| d.status()["counters"]["snapshots"].as_u64() > Some(0))
    });
    Daemon::kill_at_once(daemons);
    let daemons: Vec<_> = (1..=3).map(|node| Daemon::start(&layout, node)).collect();
    whole(&daemons);
    daemons[1].wait_value(added);
    let events = daemons[0].get("/v1/events").unwrap().to_string();
    assert!(events.contains("snapshot at") && !events.contains("snapshot at 0,"), "{events}");
}

#[test]
fn a_damaged_journal_is_repaired_from_the_others_and_said() {
    let (layout, mut daemons) = cluster();
    for _ in 0..20 {
        add(&daemons[0], 1);
    }
    daemons.remove(1).kill();
    let journal = std::fs::read_dir(layout.data(2).join("state"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "log"))
        .unwrap();
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&journal, bytes).unwrap();
    daemons.insert(1, Daemon::start(&layout, 2));
    whole(&daemons);
    let events = daemons[1].get("/v1/events").unwrap().to_string();
    assert!(events.contains("bytes dropped"), "{events}");
    daemons[1].wait_value(20);
}

/// Takes away what a node keeps of the group's state: journal and snapshots.
fn forget_state(layout: &Layout, node: u16) {
    for file in std::fs::read_dir(layout.data(node).join("state")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "log" || e == "state") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn state_that_is_gone_from_all_disks_is_given_up_by_an_operator_only() {
    let (layout, mut daemons) = cluster();
    (0..20).for_each(|_| add(&daemons[0], 1));
    daemons.remove(2).kill();
    daemons[0].wait_until("a view of two", |d| d.is_member(2));
    add(&daemons[0], 1);
    Daemon::kill_at_once(daemons);
    (1..=3).for_each(|node| forget_state(&layout, node));
    let daemons: Vec<_> = (1..=3).map(|node| Daemon::start(&layout, node)).collect();
    let owed = |d: &Daemon| {
        let reason = d.status()["reason"].as_str().unwrap_or_default().to_owned();
        let (_, owed) = reason.split_once("owed ")?;
        Some(owed.split_once(',')?.0.to_owned())
    };
    for daemon in &daemons {
        daemon.wait_until("what is missing to be said", |d| owed(d).is_some());
    }
    let (status, problem) =
        daemons[2].request("POST", "/v1/recover", br#"{"owed":"0:1"}"#).unwrap();
    assert_eq!(status, 409, "less than is owed: {problem}");
    let request = format!(r#"{{"owed":"{}"}}"#, owed(&daemons[2]).unwrap());
    let (status, told) = daemons[2].request("POST", "/v1/recover", request.as_bytes()).unwrap();
    assert_eq!(status, 200, "{told}");
    for daemon in &daemons {
        daemon.wait_until("a view", |d| d.status()["state"] == "member");
    }
    let events: String = daemons.iter().map(|d| d.get("/v1/events").unwrap().to_string()).collect();
    assert!(events.contains("recovered by operator below owed"), "{events}");
    assert!(events.contains("an operator gave up"), "{events}");
}

#[tokio::test]
async fn sigterm_under_load_hands_over_without_losing_a_call() {
    let (layout, mut daemons) = cluster();
    let mut client = Native::connect(&layout, 3, 99).await;
    let mut answered = Vec::new();
    for seq in 1..=400 {
        client.add(seq, 1, 1).await;
    }
    let leaving = daemons.remove(2);
    leaving.signal(15);
    while let Some(frame) = client.answer().await {
        match frame {
            Frame::Reply(reply) => {
                assert!(reply.status.is_ok(), "{reply:?}");
                answered.push(reply.seq);
            }
            // Refused, so not executed: for another manager.
            Frame::Refuse(_) => {}
            _ => unreachable!("answers only"),
        }
    }
    assert!(leaving.wait().success(), "a clean end is exit code 0");
    daemons[0].wait_until("a view of two", |d| d.is_member(2));
    let mut rest = Native::connect(&layout, 1, 99).await;
    for seq in (1..=400).filter(|seq| !answered.contains(seq)) {
        rest.add(seq, 1, 1).await;
        let answer = rest.answer().await;
        assert!(matches!(&answer, Some(Frame::Reply(r)) if r.status.is_ok()), "{answer:?}");
    }
    daemons[0].wait_value(400);
}

#[tokio::test]
async fn a_node_that_slept_past_its_removal_begins_anew_and_answers_nothing_old() {
    let (layout, daemons) = cluster();
    add(&daemons[0], 5);
    daemons[2].wait_value(5);
    let before = daemons[2].status()["incarnation"].clone();
    let mut connected = Native::connect(&layout, 3, 55).await;
    assert!(matches!(connected.next().await, Some(Frame::Welcome(_))));
    daemons[2].signal(19);
    daemons[0].wait_until("a view of two", |d| d.is_member(2));
    add(&daemons[0], 7);
    // What lies in its socket when it wakes is the first that it looks at.
    for seq in 1..=20 {
        connected.get(2 * seq).await;
        connected.add(2 * seq + 1, 1, 1).await;
    }
    daemons[2].signal(18);
    let mut added = 0;
    while let Some(answer) = connected.answer().await {
        match answer {
            // An odd number is an update. One that is acknowledged has happened, so it is counted below.
            Frame::Reply(reply) if reply.seq % 2 == 1 && reply.status.is_ok() => added += 1,
            // Protobuf: field 1, varint. The value before it slept was 5.
            Frame::Reply(reply) if reply.status.is_ok() => {
                assert!(reply.body[1] >= 12, "an answer from the old view: {reply:?}");
            }
            Frame::Reply(reply) => panic!("{reply:?}"),
            _ => {}
        }
        let open = daemons[2].status()["connections"].as_u64();
        if open == Some(0) {
            break;
        }
    }
    // From now on: a refusal or the new value, never the old one.
    loop {
        let (status, reply) = daemons[2].call("Get", "{}");
        if status == 200 {
            let value: i64 = reply["body"]["value"].as_str().unwrap().parse().unwrap();
            assert!(value >= 12 + added, "an answer from the old view: {reply}");
            break;
        }
        assert_eq!(status, 503, "{reply}");
    }
    whole(&daemons);
    daemons[2].wait_value(12 + added);
    let after = daemons[2].status();
    assert_eq!(after["incarnations"], 2);
    assert_ne!(after["incarnation"], before);
}

#[test]
fn a_group_whose_package_is_gone_everywhere_keeps_its_state_until_it_is_put_back() {
    let (layout, daemons) = cluster();
    for _ in 0..10 {
        add(&daemons[0], 1);
    }
    Daemon::kill_at_once(daemons);
    let moved = |from: &str, to: &str| {
        for node in 1..=3 {
            let dir = layout.data(node);
            let _ = std::fs::remove_dir_all(dir.join(to));
            std::fs::rename(dir.join(from), dir.join(to)).unwrap();
        }
    };
    let state = |node| {
        let dir = layout.data(node).join("state");
        let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
        let mut kept: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|e| e == "log" || e == "state"))
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect();
        assert!(!kept.is_empty(), "a journal at least");
        kept.sort();
        kept
    };
    let before: Vec<_> = (1..=3).map(state).collect();
    moved("packages", "away");
    let mut daemons: Vec<_> = (1..=3).map(|node| Daemon::start(&layout, node)).collect();
    // Together they would be a group that has forgotten everything. Where they know that something was acknowledged they
    // block, else the first to see it ends; either says why.
    let until = std::time::Instant::now() + common::PATIENCE;
    let said = loop {
        assert!(std::time::Instant::now() < until, "nobody refuses:\n{}", daemons[0].log());
        if let Some(index) = daemons.iter_mut().position(|daemon| daemon.ended().is_some()) {
            let failed = daemons.remove(index);
            let said = failed.log();
            assert_eq!(failed.wait().code(), Some(1));
            assert!(said.contains("would start without its state"), "{said}");
            break said;
        }
        if daemons.iter().all(|d| d.log().contains("state that was acknowledged is not here")) {
            break daemons[1].log();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    for part in ["counter.Counter", "put right what is missing"] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    for daemon in &daemons {
        assert_ne!(daemon.status()["state"], "member", "{}", daemon.log());
    }
    Daemon::kill_at_once(daemons);
    assert_eq!((1..=3).map(state).collect::<Vec<_>>(), before, "nothing of the state was touched");

    moved("away", "packages");
    let daemons: Vec<_> = (1..=3).map(|node| Daemon::start(&layout, node)).collect();
    whole(&daemons);
    daemons[1].wait_value(10);
    add(&daemons[0], 1);
}

#[test]
fn sigterm_ends_a_node_that_is_no_member_at_once_and_cleanly() {
    let (layout, mut daemons) = cluster();
    let blocked = daemons.remove(2);
    Daemon::kill_at_once(daemons);
    blocked.wait_until("the loss of the quorum", |d| d.status()["state"] == "blocked");
    // Kept to the end: its directory goes with it.
    let elsewhere = common::Layout::new(3);
    let outside = Daemon::start(&elsewhere, 1);
    outside.wait_until("the search", |d| d.status()["state"] == "outside");
    let sockets = [layout.socket(3), outside.socket().to_owned()];
    for daemon in [blocked, outside] {
        daemon.signal(15);
        assert_eq!(daemon.wait().code(), Some(0));
    }
    for socket in sockets {
        assert!(!socket.exists(), "{} is left behind", socket.display());
    }
}

#[test]
fn a_component_that_panics_fails_visibly_and_the_managers_live_on() {
    let (_layout, daemons) = cluster();
    daemons[0].deploy_specimen();
    let (status, reply) = daemons[0].call_of("specimen", "Crash", "{}");
    assert_eq!((status, &reply["status"]), (200, &"INTERNAL".into()), "{reply}");
    for daemon in &daemons {
        daemon
            .wait_until("the failure", |d| d.get("/v1/instances").unwrap()[1]["state"] == "failed");
        assert_eq!(daemon.status()["state"], "member");
        assert_eq!(daemon.get("/v1/instances").unwrap()[0]["state"], "running");
    }
}

#[test]
fn a_call_under_way_when_the_group_blocks_is_told_so_before_its_deadline() {
    let (_layout, daemons) = cluster();
    for other in &daemons[1..] {
        other.signal(19);
    }
    // Ordered before anybody can know that the others do not run; its outcome stays open.
    let call = br#"{"class":"counter","method":"Add","body":{"amount":1},"deadline_ms":3600000}"#;
    let (status, problem) = daemons[0].request("POST", "/v1/call", call).unwrap();
    assert_eq!(status, 504, "{problem}");
    assert!(problem["what"].as_str().unwrap().contains("node 1 is blocked"), "{problem}");
    assert!(problem["means"].as_str().unwrap().contains("may still happen"), "{problem}");
}
