//! What clients of the native protocol can rely on.

mod common;

use common::{Daemon, Layout, Native, PATIENCE, cluster};
use quintet_client::wire::{Body, Call, Code, Farewell, Frame, Goodbye, Reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn position(frame: Option<Frame>) -> u64 {
    match frame {
        Some(Frame::Reply(reply)) if reply.status.is_ok() => reply.position,
        other => panic!("no good reply: {other:?}"),
    }
}

#[tokio::test]
async fn a_call_that_is_repeated_at_another_manager_is_answered_from_the_record() {
    let (layout, daemons) = cluster();
    let mut first = Native::connect(&layout, 1, 77).await;
    first.add(1, 1, 5).await;
    let original = position(first.answer().await);
    for node in [2, 3, 1] {
        let mut again = Native::connect(&layout, node, 77).await;
        again.add(1, 1, 5).await;
        assert_eq!(position(again.answer().await), original, "node {node}");
    }
    daemons[0].wait_value(5);
}

#[tokio::test]
async fn a_call_under_way_when_its_manager_is_killed_happens_once() {
    let (layout, mut daemons) = cluster();
    let mut doomed = Native::connect(&layout, 1, 78).await;
    for seq in 1..=50 {
        doomed.add(seq, 1, 1).await;
    }
    daemons.remove(0).kill();
    let mut other = Native::connect(&layout, 2, 78).await;
    for seq in 1..=50 {
        other.add(seq, 1, 1).await;
    }
    let mut answered = 0;
    while answered < 50 {
        match other.answer().await {
            Some(Frame::Reply(reply)) => {
                assert!(reply.status.is_ok(), "{reply:?}");
                answered += 1;
            }
            // This copy was not taken: the view change takes long, or the deployment has not reached this node.
            Some(Frame::Refuse(refuse)) if refuse.reason == Reason::Overloaded => {
                other.add(refuse.seq, 1, 1).await;
            }
            other => panic!("{other:?}"),
        }
    }
    daemons[0].wait_value(50);
    assert_eq!(daemons[0].audit()["equal"], true);
}

#[tokio::test]
async fn a_corrupt_frame_costs_its_own_connection_only() {
    let layout = Layout::new(1);
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    daemon.deploy_counter();
    let mut good = Native::connect(&layout, 1, 5).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[3, 0, 0, 0, 99, 1, 2], &[255; 64]] {
        let mut bad = TcpStream::connect(layout.client(1)).await.unwrap();
        bad.write_all(garbage).await.unwrap();
        let mut said = Vec::new();
        bad.read_to_end(&mut said).await.unwrap();
        assert!(said.len() > 10, "it is told why before the connection is closed");
    }
    good.add(1, 1, 3).await;
    position(good.answer().await);
    assert_eq!(daemon.status()["counters"]["malformed_frames"], 3);
    let events = daemon.get("/v1/events").unwrap().to_string();
    assert!(events.contains("looks like HTTP/1"), "{events}");
}

#[tokio::test]
async fn a_client_of_another_cluster_is_told_so() {
    let layout = Layout::new(1);
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    let mut native = Native::connect_named(&layout, 1, 1, "another").await;
    match native.next().await {
        Some(Frame::Goodbye(goodbye)) => assert_eq!(goodbye.reason, Farewell::Cluster),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_leaves_the_places_for_calls_to_others() {
    let layout = Layout::new(1);
    let mut config = layout.config(1);
    (config.limits.calls, config.limits.client_patience_s) = (32, 1);
    std::fs::write(layout.file(1), toml::to_string_pretty(&config).unwrap()).unwrap();
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    daemon.deploy_counter();
    let mut deaf = Native::connect(&layout, 1, 6).await;
    let flood = async {
        for seq in 1.. {
            let (path, body) = ("/counter.Counter/Get".into(), Body::from(&[][..]));
            let (first_incomplete, deadline_ms, min_position) = (seq, 0, 0);
            let call = Call { seq, first_incomplete, deadline_ms, min_position, path, body };
            if deaf.writer.write_frame(&Frame::Call(call)).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("it is disconnected");
    let events = daemon.get("/v1/events").unwrap().to_string();
    assert!(events.contains("does not read"), "{events}");
    let mut other = Native::connect(&layout, 1, 5).await;
    loop {
        other.add(1, 1, 3).await;
        match other.answer().await {
            Some(Frame::Refuse(refuse)) => assert_eq!(refuse.reason, Reason::Overloaded),
            reply => break assert!(position(reply) > 0),
        }
    }
}

/// Asks for call 1 again on a new connection.
async fn repeated(layout: &Layout, client: u128) -> Code {
    let mut again = Native::connect(layout, 1, client).await;
    again.add(1, 1, 5).await;
    match again.answer().await {
        Some(Frame::Reply(reply)) => reply.status.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_repeated_after_its_session_has_ended_is_not_executed_again() {
    let layout = Layout::new(1);
    let mut config = layout.config(1);
    config.limits.session_idle_s = 2;
    std::fs::write(layout.file(1), toml::to_string_pretty(&config).unwrap()).unwrap();
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    daemon.deploy_counter();
    let (mut connected, mut absent, mut finished) = (
        Native::connect(&layout, 1, 1).await,
        Native::connect(&layout, 1, 2).await,
        Native::connect(&layout, 1, 3).await,
    );
    for client in [&mut connected, &mut absent, &mut finished] {
        client.add(1, 1, 5).await;
        position(client.answer().await);
    }
    drop(absent);
    let goodbye = Goodbye { reason: Farewell::Finished, message: "done".into() };
    finished.writer.write_frame(&Frame::Goodbye(goodbye)).await.unwrap();
    while repeated(&layout, 3).await != Code::Unknown {}
    // Every question is a sign of life, so it is asked ever more rarely.
    let mut pause = std::time::Duration::from_secs(3);
    while {
        tokio::time::sleep(pause).await;
        repeated(&layout, 2).await
    } != Code::Unknown
    {
        assert!(pause < PATIENCE, "its session never ends");
        pause *= 2;
    }
    assert_eq!(repeated(&layout, 1).await, Code::Ok, "who is connected stays known");
    daemon.wait_value(15);
    // What was never asked before is executed.
    let mut back = Native::connect(&layout, 1, 2).await;
    back.add(2, 2, 1).await;
    position(back.answer().await);
    daemon.wait_value(16);
}

#[tokio::test]
async fn a_call_past_the_deadline_of_its_method_is_told_so_and_goes_on_to_its_one_outcome() {
    let layout = Layout::new(1);
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    daemon.deploy_specimen();
    let mut client = Native::connect(&layout, 1, 5).await;
    // protobuf: field 1, varint 1000; ten times as long as the method allows
    let body = Body::from(&[8, 0xe8, 7][..]);
    let (seq, first_incomplete, deadline_ms, min_position) = (1, 1, 0, 0);
    let path = "/specimen.Specimen/Dawdle".into();
    let call = Call { seq, first_incomplete, deadline_ms, min_position, path, body };
    client.writer.write_frame(&Frame::Call(call)).await.unwrap();
    let told = loop {
        match client.next().await {
            Some(Frame::Late(late)) => break late,
            Some(Frame::View(_) | Frame::Welcome(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(told.seq == 1 && told.message.contains("unknown"), "{told:?}");
    let (status, problem) = daemon.call_of("specimen", "Dawdle", r#"{"ms":1000}"#);
    assert_eq!(status, 504, "{problem}");
    assert!(problem["means"].as_str().unwrap().contains("may still happen"), "{problem}");
    let (status, problem) = daemon.call_of("specimen", "Ponder", r#"{"ms":1000}"#);
    assert_eq!(status, 504, "{problem}");
    assert_eq!(problem["means"], "nothing was changed: it only reads");
    position(client.answer().await);
    let (status, reply) = daemon.call_of("specimen", "Add", r#"{"amount":0}"#);
    assert_eq!((status, &reply["body"]["value"]), (200, &"2".into()), "{reply}");
}
