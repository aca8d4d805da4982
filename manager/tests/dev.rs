//! `quintet dev` as a person uses it: a cluster that can be injured, and commands that tell what is there and what not.

mod common;

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
    fn start() -> Dev {
        common::build_proxy();
        let dir = tempfile::tempdir().unwrap();
        let mut command = quintet(dir.path(), &["dev", "--nodes", "1"]);
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
    let dev = Dev::start();
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
