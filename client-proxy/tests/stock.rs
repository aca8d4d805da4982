//! A stock Python client (grpcio, from a package registry) through the proxy, while managers die.

mod common;
#[path = "../../scripts/tidy/skip.rs"]
mod skip;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use common::{CLUSTER, Cluster, until};
use quintet_client::proxy::{Proxy, ProxyConfig};

/// A Python with grpcio: `QUINTET_TEST_PYTHON`, or one in a virtual environment that is made once.
fn python() -> Option<PathBuf> {
    let has_grpc = |python: &PathBuf| {
        Command::new(python)
            .args(["-c", "import grpc"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|end| end.success())
    };
    if let Some(given) = std::env::var_os("QUINTET_TEST_PYTHON") {
        return Some(PathBuf::from(given)).filter(has_grpc);
    }
    let environment = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("grpcio");
    let python = environment.join("bin/python");
    if !has_grpc(&python) {
        let run = |command: &mut Command| {
            command.stdout(Stdio::null()).status().is_ok_and(|end| end.success())
        };
        let _ = run(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            && run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "grpcio"]));
    }
    Some(python).filter(has_grpc)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_python_client_notices_nothing() {
    const CALLERS: usize = 8;
    const CALLS: usize = 250;
    let Some(python) = tokio::task::spawn_blocking(python).await.unwrap() else {
        return skip::skip(
            "no Python with grpcio, and none could be installed; set QUINTET_TEST_PYTHON",
        );
    };
    let cluster = Cluster::start(3).await;
    let config = ProxyConfig {
        cluster: CLUSTER.into(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        managers: cluster.addresses(),
        ..ProxyConfig::default()
    };
    let proxy = Proxy::bind(config).await.unwrap();
    let address = proxy.addresses().remove(0).to_string();
    tokio::spawn(proxy.run(std::future::pending()));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stock_client.py");
    let child = Command::new(python)
        .args([script, &address, &CALLERS.to_string(), &CALLS.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    // While it calls, every manager dies once, after the one before is back.
    for node in [1, 2, 3] {
        let before = cluster.ledger().executed.len();
        until(async || cluster.ledger().executed.len() > before + CALLERS * CALLS / 8).await;
        cluster.kill(node);
        tokio::time::sleep(Duration::from_millis(20)).await;
        cluster.restart(node).await;
        cluster.change_view(&[1, 2, 3]);
    }
    let output = output.await.unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(report["errors"], serde_json::json!([]));
    assert_eq!((&report["ok"], &report["wrong"]), (&(CALLERS * CALLS).into(), &0.into()));
    assert_eq!(report["fail"], serde_json::json!(["NOT_FOUND", "100 % müde\n"]));
    assert_eq!(report["stream"][0], "UNIMPLEMENTED");
    assert_eq!(report["large"][0], "RESOURCE_EXHAUSTED");
    assert_eq!(report["whole"][0], "OK");
    assert_eq!(report["compressed"][0], "UNIMPLEMENTED");
    assert_eq!(report["named"], serde_json::json!([["OK", ""], ["OK", ""], ["OK", ""]]));
    let calls = (0..CALLERS)
        .flat_map(|caller| (0..CALLS).map(move |call| format!("{caller}/{call}").into_bytes()));
    let others = [b"fail".to_vec(), b"named".to_vec(), vec![0; 60_000]];
    cluster.ledger().assert_executed_once(calls.chain(others));
}
