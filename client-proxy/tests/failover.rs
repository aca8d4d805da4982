//! The library against managers that answer, refuse, die, hang and lie.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{Behaviour, CLUSTER, Cluster, until};
use quintet_client::{
    Client, ClientConfig, FetchError, fetch,
    wire::{Code, Digest, Reason},
};
use tokio::task::JoinSet;

const PATH: &str = "/test.Echo/Echo";
const LONG: Duration = Duration::from_secs(20);

fn config(cluster: &Cluster) -> ClientConfig {
    ClientConfig::new(CLUSTER, cluster.addresses())
}

/// A client that is connected to everybody.
async fn connected(cluster: &Cluster) -> Client {
    let client = Client::connect(config(cluster)).await.unwrap();
    let count = cluster.addresses().len();
    until(async || {
        let status = client.status().await.unwrap();
        status.managers.iter().filter(|manager| manager.state == "connected").count() == count
    })
    .await;
    client
}

async fn routed(client: &Client) -> u16 {
    client.status().await.unwrap().routed.unwrap()
}

#[tokio::test]
async fn a_call_is_answered_and_the_end_is_told() {
    let cluster = Cluster::start(1).await;
    let client = Client::connect(config(&cluster)).await.unwrap();
    let reply = client.call(PATH, &b"hello"[..], LONG).await.unwrap();
    assert_eq!((&reply.body[..], reply.position), (&b"hello"[..], 1));
    let status = client.call("/test.Echo/Fail", &b"x"[..], LONG).await.unwrap_err();
    assert_eq!((status.code, &*status.message), (Code::NotFound, "100 % müde\n"));
    client.close(LONG).await;
    until(async || cluster.ledger().finished.len() == 1).await;
    assert_eq!(client.call(PATH, &b"late"[..], LONG).await.unwrap_err().code, Code::Unavailable);
}

#[tokio::test]
async fn one_endpoint_is_enough_to_survive_its_death() {
    let cluster = Cluster::start(3).await;
    let client = Client::connect(ClientConfig::new(CLUSTER, [cluster.addresses()[0].clone()]))
        .await
        .unwrap();
    until(async || {
        client.status().await.unwrap().managers.iter().all(|manager| manager.state == "connected")
    })
    .await;
    assert_eq!(client.status().await.unwrap().managers.len(), 3);
    for node in [1, 2] {
        cluster.kill(node);
        client.call(PATH, vec![node as u8], LONG).await.unwrap();
    }
    assert_eq!(routed(&client).await, 3);
}

#[tokio::test]
async fn a_manager_that_dies_between_doing_and_answering_leaves_one_execution() {
    let cluster = Cluster::start(3).await;
    let client = connected(&cluster).await;
    cluster.behave(routed(&client).await, Behaviour::Break);
    client.call(PATH, &b"once"[..], LONG).await.unwrap();
    let ledger = cluster.ledger();
    ledger.assert_executed_once([b"once".to_vec()]);
    assert_eq!(ledger.repeated, 1);
}

#[tokio::test]
async fn a_paused_manager_is_left_when_another_pushes_a_view_without_it() {
    let cluster = Cluster::start(3).await;
    let client = connected(&cluster).await;
    let paused = routed(&client).await;
    cluster.pause(paused, true);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call(PATH, &b"x"[..], LONG).await }
    });
    until(async || client.status().await.unwrap().in_flight == 1).await;
    let others: Vec<u16> = [1, 2, 3].into_iter().filter(|node| *node != paused).collect();
    cluster.change_view(&others);
    call.await.unwrap().unwrap();
    let status = client.status().await.unwrap();
    assert_ne!(status.routed, Some(paused));
    assert_eq!((status.counters.replays, status.counters.reroutes), (1, 1));
    // It wakes, and is taken back when a view has it again.
    cluster.pause(paused, false);
    cluster.kill(paused);
    cluster.restart(paused).await;
    cluster.change_view(&[1, 2, 3]);
    until(async || {
        let status = client.status().await.unwrap();
        status.managers.iter().filter(|manager| manager.primary).count() == 3
    })
    .await;
    cluster.ledger().assert_executed_once([b"x".to_vec()]);
}

#[tokio::test]
async fn a_manager_that_refuses_is_passed_over() {
    for reason in [Reason::NotPrimary, Reason::Starting, Reason::Draining] {
        let cluster = Cluster::start(2).await;
        let client = connected(&cluster).await;
        let refuser = routed(&client).await;
        cluster.behave(refuser, Behaviour::Refuse(reason));
        client.call(PATH, &b"x"[..], LONG).await.unwrap();
        assert_ne!(routed(&client).await, refuser);
    }
}

#[tokio::test]
async fn overload_and_unknown_methods_have_their_codes() {
    let cluster = Cluster::start(1).await;
    let client = connected(&cluster).await;
    cluster.behave(1, Behaviour::Refuse(Reason::Overloaded));
    let status = client.call(PATH, &b"x"[..], Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(status.code, Code::ResourceExhausted);
    assert!(status.message.starts_with("not executed"), "{status}");
    cluster.behave(1, Behaviour::Refuse(Reason::UnknownMethod));
    let status = client.call(PATH, &b"x"[..], LONG).await.unwrap_err();
    assert_eq!((status.code, &*status.message), (Code::Unimplemented, "told to refuse"));
    cluster.ledger().assert_executed_once([]);
}

#[tokio::test]
async fn garbage_from_a_manager_is_survived() {
    let cluster = Cluster::start(2).await;
    let client = connected(&cluster).await;
    let liar = routed(&client).await;
    cluster.behave(liar, Behaviour::Garbage);
    client.call(PATH, &b"x"[..], LONG).await.unwrap();
    assert_ne!(routed(&client).await, liar);
    cluster.ledger().assert_executed_once([b"x".to_vec()]);
}

#[tokio::test]
async fn without_a_primary_view_calls_wait_and_say_why() {
    let cluster = Cluster::start(2).await;
    let client = connected(&cluster).await;
    cluster.primary(1, false);
    cluster.primary(2, false);
    cluster.change_view(&[1, 2]);
    until(async || client.status().await.unwrap().routed.is_none()).await;
    let status = client.call(PATH, &b"x"[..], Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(status.code, Code::Unavailable);
    assert!(
        status.message.contains("no manager is in a primary view (connected to n1, n2)"),
        "{status}"
    );
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call(PATH, &b"y"[..], LONG).await }
    });
    until(async || client.status().await.unwrap().in_flight == 1).await;
    cluster.primary(1, true);
    cluster.change_view(&[1, 2]);
    waiting.await.unwrap().unwrap();
    cluster.ledger().assert_executed_once([b"y".to_vec()]);
}

#[tokio::test]
async fn another_cluster_is_not_used() {
    let cluster = Cluster::start(1).await;
    let mut config = ClientConfig::new("other", cluster.addresses());
    config.connect = Duration::from_millis(200);
    let error = Client::connect(config).await.unwrap_err();
    assert!(error.to_string().contains("this is test"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_with_the_addresses() {
    let mut config = ClientConfig::new(CLUSTER, ["127.0.0.1:1"]);
    config.connect = Duration::from_millis(200);
    let error = Client::connect(config).await.unwrap_err();
    assert!(
        error.to_string().contains("127.0.0.1:1") && error.to_string().contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_named_call_goes_on_when_its_caller_gave_up() {
    let cluster = Cluster::start(2).await;
    let client = connected(&cluster).await;
    let first = routed(&client).await;
    cluster.behave(first, Behaviour::Swallow);
    let short = Duration::from_millis(30);
    for _ in 0..3 {
        let status = client.call_named("order-7", PATH, &b"x"[..], short).await.unwrap_err();
        assert_eq!(status.code, Code::DeadlineExceeded);
    }
    cluster.kill(first);
    let reply = client.call_named("order-7", PATH, &b"x"[..], LONG).await.unwrap();
    assert_eq!(&reply.body[..], b"x");
    let again = client.call_named("order-7", PATH, &b"x"[..], LONG).await.unwrap();
    assert_eq!(again.position, reply.position);
    let other = client.call_named("order-7", PATH, &b"y"[..], LONG).await.unwrap_err();
    assert_eq!(other.code, Code::InvalidArgument);
    cluster.ledger().assert_executed_once([b"x".to_vec()]);
}

#[tokio::test]
async fn packages_are_fetched_by_digest() {
    let cluster = Cluster::start(1).await;
    let package: Vec<u8> = (0..12_345u32).map(|i| i as u8).collect();
    let (known, unknown) = (Digest([1; 32]), Digest([2; 32]));
    cluster.ledger().packages.insert(known, package.clone());
    let address = cluster.addresses()[0].clone();
    let mut got = Vec::new();
    assert_eq!(fetch(&address, CLUSTER, known, 1 << 20, &mut got).await.unwrap(), 12_345);
    assert_eq!(got, package);
    let missing = fetch(&address, CLUSTER, unknown, 1 << 20, &mut Vec::new()).await;
    assert!(
        matches!(missing, Err(FetchError::Missing(digest)) if digest == unknown),
        "{missing:?}"
    );
    let long = fetch(&address, CLUSTER, known, 1000, &mut Vec::new()).await;
    assert!(matches!(long, Err(FetchError::TooLong { .. })), "{long:?}");
}

#[tokio::test]
async fn closing_waits_for_what_is_in_flight() {
    let cluster = Cluster::start(1).await;
    let client = connected(&cluster).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call("/test.Echo/Slow", &b"x"[..], LONG).await }
    });
    until(async || client.status().await.unwrap().in_flight == 1).await;
    client.close(LONG).await;
    call.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_breaks_lose_nothing_and_repeat_nothing() {
    const CALLERS: u32 = 16;
    const BREAKS: u32 = 150;
    let cluster = Cluster::start(3).await;
    let client = connected(&cluster).await;
    let calm = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (client, calm) = (client.clone(), calm.clone());
        callers.spawn(async move {
            let mut made = Vec::new();
            while !calm.load(Ordering::Relaxed) {
                let message = [caller.to_le_bytes(), (made.len() as u32).to_le_bytes()].concat();
                let reply = client.call(PATH, message.clone(), LONG).await.unwrap();
                assert_eq!(reply.body[..], message[..]);
                made.push(message);
            }
            made
        });
    }
    let mut random = 12345u32;
    for _ in 0..BREAKS {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let node = (random >> 16) as u16 % 3 + 1;
        let passing = match random >> 8 & 7 {
            0 => {
                cluster.kill(node);
                tokio::time::sleep(Duration::from_millis(5)).await;
                cluster.restart(node).await;
                cluster.change_view(&[1, 2, 3]);
                None
            }
            1 | 2 => Some(Behaviour::Break),
            3 => Some(Behaviour::Refuse(Reason::NotPrimary)),
            _ => {
                cluster.cut(node);
                None
            }
        };
        if let Some(behaviour) = passing {
            cluster.behave(node, behaviour);
            tokio::time::sleep(Duration::from_millis(5)).await;
            cluster.behave(node, Behaviour::Serve);
        }
        tokio::time::sleep(Duration::from_millis(u64::from(random >> 28))).await;
    }
    calm.store(true, Ordering::Relaxed);
    let mut made = Vec::new();
    while let Some(caller) = callers.join_next().await {
        made.extend(caller.unwrap());
    }
    let ledger = cluster.ledger();
    ledger.assert_executed_once(made);
    assert!(ledger.repeated > 0, "no call was ever in doubt: the storm was too weak");
}

#[tokio::test]
async fn a_call_that_takes_longer_than_its_method_allows_ends_unless_it_was_named() {
    const LATE: &str = "/test.Echo/Late";
    let cluster = Cluster::start(1).await;
    let client = connected(&cluster).await;
    let status = client.call(LATE, &b"x"[..], LONG).await.unwrap_err();
    assert_eq!((status.code, &*status.message), (Code::DeadlineExceeded, "longer than allowed"));
    let status = client.call_named("order-8", LATE, &b"y"[..], LONG).await.unwrap_err();
    assert_eq!(status.code, Code::DeadlineExceeded);
    // The named one goes on, and asking again fetches its one outcome.
    let reply = client.call_named("order-8", LATE, &b"y"[..], LONG).await.unwrap();
    assert_eq!(&reply.body[..], b"y");
    cluster.ledger().assert_executed_once([b"x".to_vec(), b"y".to_vec()]);
}
