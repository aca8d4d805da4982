//! The gRPC front door, from the wire's point of view: what a stock client relies on, and what no stock client would do.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Behaviour, CLUSTER, Cluster, grpc::Grpc, until};
use http::StatusCode;
use quintet_client::{
    proxy::{Address, Proxy, ProxyConfig},
    wire::{Body, Code, Reason},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
};

const PATH: &str = "/test.Echo/Echo";

/// A proxy in this process.
struct Running {
    address: Address,
    status: Address,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(cluster: &Cluster, adjust: impl FnOnce(&mut ProxyConfig)) -> Self {
        let any: Address = "127.0.0.1:0".parse().unwrap();
        let mut config = ProxyConfig {
            cluster: CLUSTER.into(),
            listen: vec![any.clone()],
            managers: cluster.addresses(),
            status: Some(any),
            ..ProxyConfig::default()
        };
        adjust(&mut config);
        let proxy = Proxy::bind(config).await.unwrap();
        let (address, status) = (proxy.addresses().remove(0), proxy.status_address().unwrap());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(proxy.run(async move {
            let _ = stopped.await;
        }));
        Self { address, status, stop, task }
    }

    async fn page(&self, path: &str) -> (u16, serde_json::Value) {
        let Address::Tcp(address) = self.status else { panic!("a TCP address") };
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }
}

#[tokio::test]
async fn a_call_goes_through_and_its_status_stands_in_the_trailers() {
    let cluster = Cluster::start(3).await;
    let proxy = Running::start(&cluster, |_| {}).await;
    let grpc = Grpc::connect(&proxy.address).await;
    for message in [&b""[..], b"hello", &[7; 60_000]] {
        let answer = grpc.unary(PATH, message, &[]).await;
        assert_eq!(answer.http, StatusCode::OK);
        assert_eq!(answer.headers["content-type"], "application/grpc");
        assert_eq!(answer.framed, *Body::from(message).framed());
        assert!(!answer.headers.contains_key("grpc-status"));
        assert_eq!(answer.status(), (0, String::new()));
    }
}

#[tokio::test]
async fn an_error_is_trailers_only_and_its_message_is_encoded() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |_| {}).await;
    let answer = Grpc::connect(&proxy.address).await.unary("/test.Echo/Fail", b"x", &[]).await;
    assert_eq!(answer.http, StatusCode::OK);
    assert!(
        answer.headers.contains_key("grpc-status")
            && answer.framed.is_empty()
            && answer.trailers.is_none()
    );
    assert_eq!(answer.status(), (5, "100 %25 m%C3%BCde%0A".into()));
}

#[tokio::test]
async fn a_message_in_many_frames_arrives_whole() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |_| {}).await;
    let framed = Body::from(&b"a message in pieces"[..]).into_framed();
    let pieces = framed.chunks(3).map(Bytes::copy_from_slice).collect();
    let answer = Grpc::connect(&proxy.address).await.send(PATH, pieces, &[]).await.unwrap();
    assert_eq!(answer.framed, framed);
}

#[tokio::test]
async fn what_is_not_supported_is_refused_clearly_and_not_executed() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |config| config.limits.message_bytes_max = 1000).await;
    let grpc = Grpc::connect(&proxy.address).await;
    let one = || Body::from(&b"x"[..]).into_framed();
    let long = || Body::from(vec![0; 1001]).into_framed();
    let cases = [
        (PATH, vec![one(), one()], None, Code::Unimplemented, "streaming"),
        (PATH, vec![], None, Code::Unimplemented, "unary"),
        (
            PATH,
            vec![Bytes::from_static(b"\x01\0\0\0\x01x")],
            None,
            Code::Unimplemented,
            "compressed",
        ),
        (PATH, vec![long()], None, Code::ResourceExhausted, "1000"),
        (PATH, vec![Bytes::from_static(b"\x09\0\0\0\x01x")], None, Code::Internal, "flag"),
        ("/nonsense", vec![one()], None, Code::Unimplemented, "Method"),
        (PATH, vec![one()], Some(("grpc-timeout", "soon")), Code::InvalidArgument, "grpc-timeout"),
    ];
    for (path, data, headers, code, word) in cases {
        let (number, message) = grpc.send(path, data, headers.as_slice()).await.unwrap().status();
        assert_eq!(number, u32::from(code.number()), "{message}");
        assert!(message.starts_with("not executed") && message.contains(word), "{message}");
    }
    let web = grpc.unary(PATH, b"x", &[("content-type", "application/json")]).await;
    assert_eq!(web.http, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    cluster.ledger().assert_executed_once([]);
}

#[tokio::test]
async fn deadlines_are_passed_on_and_kept() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |_| {}).await;
    let grpc = Grpc::connect(&proxy.address).await;
    grpc.unary(PATH, b"x", &[("grpc-timeout", "5S")]).await;
    let told = cluster.ledger().deadlines[0];
    assert!((1..=5000).contains(&told), "{told}");
    cluster.behave(1, Behaviour::Swallow);
    let (code, message) = grpc.unary(PATH, b"y", &[("grpc-timeout", "50m")]).await.status();
    assert_eq!(code, 4);
    assert!(message.contains("outcome is unknown") && message.contains("n1"), "{message}");
    cluster.kill(1);
    let (code, message) = loop {
        // Until the death is noticed, a call may still be sent into the void.
        let status = grpc.unary(PATH, b"z", &[("grpc-timeout", "50m")]).await.status();
        if status.0 != 4 {
            break status;
        }
    };
    assert_eq!(code, 14);
    assert!(
        message.contains("not executed") && message.contains("no manager can be reached"),
        "{message}"
    );
}

/// It may be over before anybody has looked at the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_has_passed_on_arrival_is_kept_and_holds_up_nobody() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |_| {}).await;
    let grpc = Grpc::connect(&proxy.address).await;
    assert_eq!(grpc.unary(PATH, b"w", &[]).await.status().0, 0);
    for timeout in ["0n", "1n", "10u", "100u", "500u", "1m"].repeat(20) {
        let metadata = [("grpc-timeout", timeout)];
        let late = grpc.unary(PATH, b"x", &metadata);
        let late = tokio::time::timeout(Duration::from_secs(10), late).await;
        let (code, message) = late.expect("an answer").status();
        assert!(code == 4 || code == 0, "{timeout}: {code} {message}");
    }
    let answer = tokio::time::timeout(Duration::from_secs(10), grpc.unary(PATH, b"y", &[])).await;
    assert_eq!(answer.expect("an answer").status().0, 0);
}

#[tokio::test]
async fn a_clients_own_retry_with_a_request_id_is_the_same_call() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |_| {}).await;
    let grpc = Grpc::connect(&proxy.address).await;
    let id = [("quintet-request-id", "transfer-1")];
    for _ in 0..3 {
        assert_eq!(grpc.unary(PATH, b"once", &id).await.status().0, 0);
    }
    assert_eq!(grpc.unary(PATH, b"other", &id).await.status().0, 3);
    assert_eq!(grpc.unary(PATH, b"x", &[("quintet-request-id", "")]).await.status().0, 3);
    cluster.ledger().assert_executed_once([b"once".to_vec()]);
}

#[tokio::test]
async fn more_calls_than_the_limit_are_shed_at_once() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |config| config.limits.calls_max = 20).await;
    let grpc = Grpc::connect(&proxy.address).await;
    cluster.behave(1, Behaviour::Swallow);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..50u8 {
        let grpc = grpc.clone();
        calls.spawn(async move {
            grpc.unary(PATH, &[number], &[("grpc-timeout", "1S")]).await.status()
        });
    }
    let mut shed = 0;
    while let Some(status) = calls.join_next().await {
        let (code, message) = status.unwrap();
        if code == 8 {
            assert!(message.starts_with("not executed"), "{message}");
            shed += 1;
        }
    }
    assert_eq!(shed, 30);
}

#[tokio::test]
async fn junk_from_a_client_ends_its_connection_only() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |_| {}).await;
    let Address::Tcp(address) = proxy.address else { panic!("a TCP address") };
    let grpc = Grpc::connect(&proxy.address).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let headers_of_nonsense = [0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
    let data_on_no_stream = [0, 0, 1, 0, 1, 0, 0, 0, 9, 0];
    let junk: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 5000],
        [&preface[..], &[0xff; 100]].concat(),
        [&preface[..], &settings, &headers_of_nonsense].concat(),
        [&preface[..], &settings, &data_on_no_stream].concat(),
    ];
    for bytes in junk {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let mut said = Vec::new();
        let end =
            tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut said)).await;
        assert!(end.is_ok(), "the connection was left open after {bytes:?}");
        assert_eq!(grpc.unary(PATH, b"x", &[]).await.status().0, 0);
    }
}

#[tokio::test]
async fn a_unix_socket_serves_too_and_a_stale_one_is_taken_over() {
    let cluster = Cluster::start(1).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listen = Address::Unix(path.clone());
    let proxy = Running::start(&cluster, |config| config.listen = vec![listen.clone()]).await;
    assert_eq!(Grpc::connect(&proxy.address).await.unary(PATH, b"x", &[]).await.status().0, 0);
    let second = ProxyConfig {
        listen: vec![listen],
        managers: cluster.addresses(),
        ..ProxyConfig::default()
    };
    let error = Proxy::bind(second).await.unwrap_err().to_string();
    assert!(error.contains("in use") && error.contains("proxy.sock"), "{error}");
    proxy.stop.send(()).unwrap();
    proxy.task.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn the_status_page_tells_the_route_and_the_counts() {
    let cluster = Cluster::start(3).await;
    let proxy = Running::start(&cluster, |_| {}).await;
    until(async || proxy.page("/ready").await.0 == 200).await;
    let grpc = Grpc::connect(&proxy.address).await;
    grpc.unary(PATH, b"x", &[]).await;
    let (code, before) = proxy.page("/status").await;
    assert_eq!(code, 200);
    assert_eq!(before["outcomes"]["OK"], 1);
    assert_eq!(before["session"]["answered"], 1);
    assert_eq!(before["session"]["members"], serde_json::json!([1, 2, 3]));
    let routed = before["session"]["routed"].as_u64().unwrap();
    until(async || {
        let (_, page) = proxy.page("/status").await;
        page["session"]["managers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|manager| manager["state"] == "connected")
    })
    .await;
    cluster.kill(u16::try_from(routed).unwrap());
    grpc.unary(PATH, b"y", &[]).await;
    let (_, after) = proxy.page("/status").await;
    assert_eq!(after["session"]["reroutes"], 1);
    assert_ne!(after["session"]["routed"], routed);
    assert_eq!(proxy.page("/nothing").await.0, 404);
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight_and_says_goodbye() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |_| {}).await;
    let grpc = Grpc::connect(&proxy.address).await;
    let slow = tokio::spawn({
        let grpc = grpc.clone();
        async move { grpc.unary("/test.Echo/Slow", b"x", &[]).await.status() }
    });
    until(async || proxy.page("/status").await.1["session"]["in_flight"] == 1).await;
    proxy.stop.send(()).unwrap();
    assert_eq!(slow.await.unwrap().0, 0);
    proxy.task.await.unwrap();
    until(async || cluster.ledger().finished.len() == 1).await;
}

#[tokio::test]
async fn stopping_gives_up_what_nobody_answers_and_says_so() {
    let cluster = Cluster::start(1).await;
    let proxy = Running::start(&cluster, |config| config.timing.drain_ms = 100).await;
    let grpc = Grpc::connect(&proxy.address).await;
    cluster.behave(1, Behaviour::Refuse(Reason::NotPrimary));
    let hopeless = tokio::spawn(async move { grpc.unary(PATH, b"x", &[]).await.status() });
    until(async || proxy.page("/status").await.1["session"]["in_flight"] == 1).await;
    proxy.stop.send(()).unwrap();
    let (code, message) = hopeless.await.unwrap();
    assert_eq!(code, 14, "{message}");
    assert!(message.starts_with("not executed"), "{message}");
    proxy.task.await.unwrap();
}
