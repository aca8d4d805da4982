//! `quintet dev` as a person uses it: a cluster that can be injured, and commands that tell what is there and what not.

mod common;
#[path = "../../scripts/tidy/skip.rs"]
mod skip;

use common::PATIENCE;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A development cluster of one node.
struct Dev {
    dir: tempfile::TempDir,
    child: Child,
}

impl Dev {
    fn start(how: &[&str]) -> Dev {
        common::build_proxy();
        let dir = tempfile::tempdir().unwrap();
        let mut command = quintet(dir.path(), &[&["dev", "--nodes", "1"], how].concat());
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        Dev { dir, child }
    }

    /// Runs one command: whether it succeeded, and all it said.
    fn run(&self, words: &[&str]) -> (bool, String) {
        said(&quintet(self.dir.path(), words).output().unwrap())
    }

    /// What `quintet status` says, as soon as it says this.
    fn wait_status(&self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, status) = self.run(&["status"]);
            if status.contains(part) {
                return status;
            }
            assert!(Instant::now() < until, "waited in vain for {part}:\n{status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its children die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn quintet(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    command.env_remove("QUINTET_ADMIN").arg("--cluster-dir").arg(dir).args(words);
    command
}

fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_killed_proxy_is_seen_and_can_be_started_again() {
    let dev = Dev::start(&[]);
    dev.wait_status("sends to node 1");
    let (done, text) = dev.run(&["dev", "kill", "proxy"]);
    assert!(done && text.contains("the proxy killed"), "{text}");
    let status = dev.wait_status("no answer at");
    assert!(status.contains("proxy on 127.0.0.1:") && status.contains("proxy.sock"), "{status}");
    let (done, text) = dev.run(&["dev", "start", "proxy"]);
    assert!(done && text.contains("the proxy started"), "{text}");
    dev.wait_status("sends to node 1");
    let (done, text) = dev.run(&["dev", "start", "proxy"]);
    assert!(!done && text.contains("the proxy is running"), "{text}");
}

#[test]
fn a_killed_cluster_leaves_no_namespace_and_no_cable_behind() {
    let can = Command::new("unshare").args(["--net", "ip", "link"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip::skip("no network namespace can be made here; that needs root and iproute2");
    }
    let mut dev = Dev::start(&["--netns"]);
    dev.wait_status("sends to node 1");
    let name = format!("qd{}", dev.child.id());
    let cable = Path::new("/sys/class/net").join(&name);
    assert!(cable.exists(), "the cable to the cluster is called {name}");
    dev.child.kill().unwrap();
    dev.child.wait().unwrap();
    let until = Instant::now() + PATIENCE;
    while cable.exists() {
        assert!(Instant::now() < until, "{name} is left behind");
        std::thread::sleep(Duration::from_millis(20));
    }
    let named = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let left: Vec<_> = named.map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|left| left.to_string_lossy().starts_with(&name)), "{left:?}");
}
