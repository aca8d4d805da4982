//! A full disk ends one node, in words; the others go on, and with room made it comes back.

mod common;
#[path = "../../scripts/tidy/skip.rs"]
mod skip;

use common::{Daemon, Layout, Native, PATIENCE};
use quintet_client::wire::Frame;
use quintet_manager::package::Package;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A small file system in a mount namespace of its own, which ends with the process that holds it.
struct Disk {
    holder: Child,
    at: PathBuf,
}

impl Disk {
    /// Mounts one at `at`; nothing where the system does not let this process do so, which is said.
    fn mount(at: &Path, kib: u32) -> Option<Disk> {
        std::fs::create_dir_all(at).unwrap();
        // `cat` ends with this process, whatever becomes of it, for its input ends.
        let script =
            format!("mount -t tmpfs -o size={kib}k none \"$0\" && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .arg(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let _ = BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line);
        let disk = Disk { holder, at: at.to_owned() };
        if line.trim() == "mounted" {
            return Some(disk);
        }
        skip::skip("no file system can be mounted here; that needs root");
        None
    }

    /// A file on it, as seen from here.
    fn file(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.at.strip_prefix("/").unwrap()).join(name)
    }

    /// Writes a file until `kib` are left, or nothing.
    fn fill(&self, leave_kib: u64) {
        let mut ballast = File::create(self.file("ballast")).unwrap();
        let mut size = 0;
        while ballast.write_all(&[1; 4096]).is_ok() {
            size += 4096;
        }
        if leave_kib > 0 {
            ballast.set_len(size - leave_kib * 1024).unwrap();
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.file("ballast")).unwrap();
    }

    fn start(&self, layout: &Layout, node: u16) -> Daemon {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        command.arg(env!("CARGO_BIN_EXE_quintetd")).arg("--config").arg(layout.file(node));
        Daemon::start_by(layout, node, command)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Deploys the counter that is linked into the daemons: its package is small.
fn deploy(daemon: &Daemon) {
    let package = Package::linked("counter").unwrap().to_bytes();
    let (status, body) = daemon.request("POST", "/v1/components", &package).unwrap();
    assert!(status < 300, "{status} {body}");
}

fn add(daemon: &Daemon) {
    let (status, reply) = daemon.call("Add", r#"{"amount":1}"#);
    assert!(status == 200 && reply["status"] == "OK", "{status} {reply}");
}

#[test]
fn a_member_whose_disk_is_full_ends_in_words_and_the_others_lose_nothing() {
    let layout = Layout::new(3);
    let Some(disk) = Disk::mount(&layout.data(2), 4096) else { return };
    let one = Daemon::start(&layout, 1);
    let mut two = disk.start(&layout, 2);
    let three = Daemon::start(&layout, 3);
    for daemon in [&one, &two, &three] {
        daemon.wait_until("a view of three", |d| d.is_member(3));
    }
    deploy(&one);
    add(&one);
    disk.fill(0);
    // Every one of them is acknowledged, before, while and after the node goes.
    let (mut value, until) = (1, Instant::now() + PATIENCE);
    let status = loop {
        add(&one);
        value += 1;
        if let Some(status) = two.ended() {
            break status;
        }
        assert!(Instant::now() < until, "it goes on with a full disk:\n{}", two.log());
    };
    assert_eq!(status.code(), Some(1));
    let said = two.log();
    let last = said.lines().last().unwrap_or_default();
    for part in ["/n2/", "/journal-", "No space left on device", "Make room, then start it again"] {
        assert!(last.contains(part), "{part} is missing:\n{said}");
    }
    assert_eq!(said.matches(" began, with state").count(), 1, "one attempt:\n{said}");
    for daemon in [&one, &three] {
        daemon.wait_until("a view of two", |d| d.is_member(2));
        daemon.wait_value(value);
    }

    // As long as there is no room it does not even begin.
    let refused = disk.start(&layout, 2);
    let log = layout.dir();
    assert_eq!(refused.wait().code(), Some(1));
    let said = std::fs::read_to_string(Path::new(&log).join("n2.log")).unwrap();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("`data_dir`") && last.contains("the disk is full; make room"), "{said}");

    disk.make_room();
    let two = disk.start(&layout, 2);
    two.wait_until("a view of three", |d| d.is_member(3));
    add(&two);
    two.wait_value(value + 1);
    assert_eq!(one.audit()["equal"], true);
}

#[tokio::test]
async fn a_learner_whose_disk_is_full_ends_in_words_and_learns_when_there_is_room() {
    let layout = Layout::new(3);
    let Some(disk) = Disk::mount(&layout.data(2), 4096) else { return };
    let one = Daemon::start(&layout, 1);
    let three = Daemon::start(&layout, 3);
    for daemon in [&one, &three] {
        daemon.wait_until("a view of two", |d| d.is_member(2));
    }
    deploy(&one);
    // A state of some size: the replies to a client that acknowledges none of them.
    let mut client = Native::connect(&layout, 1, 7).await;
    for seq in 1..=8000 {
        client.add(seq, 1, 1).await;
        let answer = client.answer().await;
        assert!(matches!(&answer, Some(Frame::Reply(r)) if r.status.is_ok()), "{answer:?}");
    }
    // Enough to begin with, not enough for that state.
    disk.fill(128);
    let two = disk.start(&layout, 2);
    assert_eq!(two.wait().code(), Some(1));
    let said = std::fs::read_to_string(Path::new(&layout.dir()).join("n2.log")).unwrap();
    let last = said.lines().last().unwrap_or_default();
    for part in ["/n2/", "/unfinished-received.state", "No space left on device", "Make room"] {
        assert!(last.contains(part), "{part} is missing:\n{said}");
    }
    assert_eq!(said.matches(" began, with state").count(), 1, "one attempt:\n{said}");
    for daemon in [&one, &three] {
        daemon.wait_until("a view of two", |d| d.is_member(2));
    }
    add(&three);

    disk.make_room();
    let two = disk.start(&layout, 2);
    two.wait_until("a view of three", |d| d.is_member(3));
    two.wait_value(8001);
    assert_eq!(one.audit()["equal"], true);
}

#[test]
fn a_learner_without_room_for_the_package_ends_in_words_too() {
    let layout = Layout::new(3);
    let Some(disk) = Disk::mount(&layout.data(2), 1024) else { return };
    let one = Daemon::start(&layout, 1);
    let three = Daemon::start(&layout, 3);
    for daemon in [&one, &three] {
        daemon.wait_until("a view of two", |d| d.is_member(2));
    }
    // A library of several MiB.
    one.deploy_counter();
    add(&one);
    let two = disk.start(&layout, 2);
    assert_eq!(two.wait().code(), Some(1));
    let said = std::fs::read_to_string(Path::new(&layout.dir()).join("n2.log")).unwrap();
    let last = said.lines().last().unwrap_or_default();
    for part in ["/n2/packages/", "No space left on device", "make room", "then start it again"] {
        assert!(last.contains(part), "{part} is missing:\n{said}");
    }
    assert_eq!(said.matches(" began, with state").count(), 1, "one attempt:\n{said}");

    // Nothing has happened in the group since, so nothing but the death itself told the donor that it is free again.
    drop(disk);
    let two = Daemon::start(&layout, 2);
    two.wait_until("a view of three", |d| d.is_member(3));
    add(&three);
    two.wait_value(2);
}
