//! The program `quintet-proxy`: its configuration, its errors, its end.

mod common;

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use common::{Behaviour, CLUSTER, Cluster, grpc::Grpc, until};
use quintet_client::proxy::Address;
use tokio::task::JoinSet;

const PATH: &str = "/test.Echo/Echo";

fn proxy() -> Command {
    Command::new(env!("CARGO_BIN_EXE_quintet-proxy"))
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn config_check_accepts_what_is_good_and_names_what_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.toml");
    let check = |text: &str, flags: &[&str]| {
        std::fs::write(&file, text).unwrap();
        proxy().args(["config", "check"]).arg(&file).args(flags).output().unwrap()
    };
    let good = check("managers = [\"127.0.0.1:7411\"]\n", &[]);
    assert!(good.status.success() && good.stdout.starts_with(b"the configuration is good"));
    assert!(check("", &["--manager", "a:1", "--manager", "b:2"]).status.success());
    let unknown = failed(&check("managers = [\"a:1\"]\nlisten_on = \"x\"\n", &[]));
    assert!(
        unknown.contains("listen_on") && unknown.contains("line 2") && unknown.contains("listen"),
        "{unknown}"
    );
    assert!(failed(&check("", &[])).contains("--manager"));
    let missing = proxy().args(["config", "check", "/nowhere/proxy.toml"]).output().unwrap();
    assert!(failed(&missing).contains("/nowhere/proxy.toml"));
}

#[test]
fn help_that_cannot_be_printed_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said = failed(&proxy().arg("--help").stdout(full).output().unwrap());
    assert!(said.starts_with("quintet-proxy: cannot print: "), "{said}");
    assert!(proxy().arg("--help").output().unwrap().status.success());
    assert_eq!(proxy().arg("--nonsense").output().unwrap().status.code(), Some(2));
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let mut command = proxy();
    command.args(["--manager", "127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    let refused = failed(&command.env("QUINTET_LOG", "a=b=c").output().unwrap());
    assert!(refused.contains("QUINTET_LOG") && refused.contains("write a level"), "{refused}");
}

#[test]
fn an_occupied_port_is_said_plainly() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error =
        failed(&proxy().args(["--manager", "127.0.0.1:1", "--listen", &address]).output().unwrap());
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
    let status = ["--manager", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--status", &address];
    assert!(failed(&proxy().args(status).output().unwrap()).contains("in use"));
}

/// Starts a proxy and reads from its log where it listens.
fn start(cluster: &Cluster) -> (Child, Address) {
    let mut child = proxy()
        .args([
            "--cluster",
            CLUSTER,
            "--listen",
            "127.0.0.1:0",
            "--manager",
            &cluster.addresses().join(","),
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the proxy ended");
        if let Some((_, address)) = line.trim().split_once("gRPC clients connect to ") {
            break address.parse().unwrap();
        }
    };
    std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
    (child, address)
}

fn terminate(child: &Child) {
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_answers_everything_that_was_taken() {
    let cluster = Cluster::start(3).await;
    let (mut child, address) = start(&cluster);
    let mut callers = JoinSet::new();
    for caller in 0..8u32 {
        let grpc = Grpc::connect(&address).await;
        callers.spawn(async move {
            let mut answered = Vec::new();
            loop {
                let message =
                    [caller.to_le_bytes(), (answered.len() as u32).to_le_bytes()].concat();
                let framed = quintet_client::wire::Body::from(&message[..]).into_framed();
                // An error of the transport: the proxy has gone, and this call was not taken.
                let Ok(answer) = grpc.send(PATH, vec![framed], &[]).await else { return answered };
                assert_eq!(answer.status(), (0, String::new()));
                answered.push(message);
            }
        });
    }
    until(async || cluster.ledger().executed.len() > 500).await;
    terminate(&child);
    let mut answered = Vec::new();
    while let Some(caller) = callers.join_next().await {
        answered.extend(caller.unwrap());
    }
    let end = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(end.code(), Some(0));
    cluster.ledger().assert_executed_once(answered);
    until(async || cluster.ledger().finished.len() == 3).await;
}

#[tokio::test]
async fn an_idle_proxy_ends_at_once() {
    let cluster = Cluster::start(1).await;
    cluster.behave(1, Behaviour::Swallow);
    let (mut child, address) = start(&cluster);
    let _idle = Grpc::connect(&address).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    terminate(&child);
    let end = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(end.code(), Some(0));
}
