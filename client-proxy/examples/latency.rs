//! What the proxy adds to a call: `cargo run --release -p quintet-client --example latency`.
//!
//! Two paths are measured in turn with the same gRPC client, one call at a time and then 64 at a time:
//! to an HTTP/2 server that echoes (nothing between), and through a `quintet-proxy` process to a manager that echoes.
//! The second has one hop more each way (proxy to manager), so the difference is everything the proxy costs.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    convert::Infallible,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{CLUSTER, Cluster, grpc::Grpc};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quintet_client::proxy::Address;
use tokio::task::JoinSet;

const CALLS: usize = 20_000;

struct Stop(Child);

impl Drop for Stop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert("grpc-status", 0.into());
    Ok(response)
}

async fn echo_server() -> Address {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(echo)));
        }
    });
    address
}

/// Latencies in microseconds, sorted, and calls per second.
async fn measure(address: &Address, callers: usize) -> (Vec<u64>, f64) {
    let grpc = Grpc::connect(address).await;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let grpc = grpc.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            for call in 0..CALLS / callers {
                let begun = Instant::now();
                let answer = grpc.unary("/test.Echo/Echo", &[7; 32], &[]).await;
                assert_eq!(answer.status().0, 0, "call {call}");
                latencies.push(begun.elapsed().as_nanos() as u64);
            }
            latencies
        });
    }
    let mut latencies = Vec::new();
    while let Some(some) = tasks.join_next().await {
        latencies.extend(some.unwrap());
    }
    let rate = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    (latencies, rate)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cluster = Cluster::start(1).await;
    let direct = echo_server().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let program =
        std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("quintet-proxy");
    let child = Command::new(&program)
        .args([
            "--cluster",
            CLUSTER,
            "--listen",
            &free.to_string(),
            "--manager",
            &cluster.addresses()[0],
        ])
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{}: {error}; build it first (cargo build --release)", program.display())
        });
    let _stop = Stop(child);
    while tokio::net::TcpStream::connect(free).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let proxied = Address::Tcp(free);
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>12}",
        "callers", "path", "p50 µs", "p99 µs", "p99.9 µs", "calls/s"
    );
    for callers in [1, 64] {
        for (name, address) in [("warm-up", &proxied), ("direct", &direct), ("proxy", &proxied)] {
            let (latencies, rate) = measure(address, callers).await;
            let at =
                |share: f64| latencies[(latencies.len() as f64 * share) as usize] as f64 / 1000.0;
            if name != "warm-up" {
                println!(
                    "{callers:>8} {name:>10} {:>10.1} {:>10.1} {:>10.1} {rate:>12.0}",
                    at(0.5),
                    at(0.99),
                    at(0.999)
                );
            }
        }
    }
}
