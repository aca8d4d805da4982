//! The tools that look at a running cluster, beside real daemons.

mod common;
#[path = "../../scripts/tidy/skip.rs"]
mod skip;

use common::{Daemon, Layout};
use quintet_manager::config::{Config, OneOrMore, PathChoice};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

/// Runs `quintet` for these daemons.
fn quintet(daemons: &[Daemon], words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    command.env_remove("QUINTET_TOKEN_FILE").env_remove("QUINTET_ADMIN");
    for daemon in daemons {
        command.arg("--admin").arg(daemon.socket());
    }
    command.args(words).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&printed(output)).unwrap()
}

/// Two daemons in one view, over that path.
fn pair(path: PathChoice) -> (Layout, Vec<Daemon>) {
    pair_with(|config| config.transport.path = path)
}

fn pair_with(edit: impl Fn(&mut Config)) -> (Layout, Vec<Daemon>) {
    let layout = Layout::new(2);
    for node in 1..=2 {
        let mut config = layout.config(node);
        edit(&mut config);
        std::fs::write(layout.file(node), toml::to_string_pretty(&config).unwrap()).unwrap();
    }
    let daemons: Vec<_> = (1..=2).map(|node| Daemon::start(&layout, node)).collect();
    for daemon in &daemons {
        daemon.wait_until("a view of two", |d| d.is_member(2));
    }
    (layout, daemons)
}

#[test]
fn links_over_packets_tell_what_was_sent_and_how_silence_is_judged() {
    let (_layout, daemons) = pair(PathChoice::Udp);
    let all = json(&quintet(&daemons, &["links", "-o", "json"]));
    let link = &all[0]["links"][0];
    assert_eq!(
        (&link["peer"], &link["path"], &link["state"]),
        (&2.into(), &"udp".into(), &"up".into())
    );
    // As the tests' configuration says.
    let watch = &link["watch"];
    assert_eq!(
        (&watch["heartbeat_ms"], &watch["suspect_ms"], &watch["dead_ms"]),
        (&20.0.into(), &300.0.into(), &1500.0.into())
    );
    assert!(watch["longest_ms"].as_f64().unwrap() > 0.0, "{link}");
    assert!(link["heard_ms"].as_f64().unwrap() < 1500.0, "a member was heard: {link}");
    let counters = link["counters"].as_object().unwrap();
    assert!(
        counters["packets_sent"].as_u64() > Some(0)
            && counters["bytes_received"].as_u64() > Some(0)
    );
    assert!(counters.contains_key("retransmits") && !counters.contains_key("doorbells"));
    let table = printed(&quintet(&daemons, &["links"]));
    assert!(table.contains("20/300/1500 ms") && table.contains("1 → 2"), "{table}");
}

#[test]
fn nodes_in_two_networks_are_linked_by_the_first_and_bind_to_both() {
    let (_layout, daemons) = pair_with(|config| {
        config.transport.path = PathChoice::Udp;
        config.bind = Default::default();
        for node in &mut config.nodes {
            let first = node.transport.first();
            let second = SocketAddr::new(first.ip(), first.port() + 1000);
            node.transport = OneOrMore(vec![first, second]);
        }
    });
    let all = json(&quintet(&daemons, &["links", "-o", "json"]));
    let link = &all[0]["links"][0];
    let rail = &link["rail"];
    assert_eq!((&rail["number"], &rail["of"]), (&1.into(), &2.into()), "{link}");
    assert!(link["datagram"].as_u64() >= Some(1200), "{link}");
    let counters = link["counters"].as_object().unwrap();
    assert!(["marked", "congestion", "failovers"].iter().all(|name| counters.contains_key(*name)));
    let table = printed(&quintet(&daemons, &["links"]));
    assert!(table.contains("1 of 2, 127.") && table.contains("the first"), "{table}");
    let nodes = json(&quintet(&daemons, &["status", "-o", "json"]));
    assert!(nodes.to_string().contains(rail["to"].as_str().unwrap()), "{nodes}");
}

#[test]
fn links_over_shared_memory_tell_doorbells_and_rarer_heartbeats() {
    let (_layout, daemons) = pair(PathChoice::Auto);
    let all = json(&quintet(&daemons, &["links", "-o", "json"]));
    let link = &all[1]["links"][0];
    assert_eq!((&link["peer"], &link["path"]), (&1.into(), &"shm".into()));
    // An eighth of the time after which a silent peer is dead.
    assert_eq!(link["watch"]["heartbeat_ms"], 187.5);
    let counters: Vec<_> = link["counters"].as_object().unwrap().keys().collect();
    assert_eq!(counters, ["doorbells"]);
    assert!(printed(&quintet(&daemons, &["links"])).contains("187.5/562.5/1500 ms"));
}

/// What `quintet doctor -o json` says, and its exit status.
fn doctor(command: &mut Command) -> (Value, Option<i32>) {
    let output = command.args(["-o", "json"]).output().unwrap();
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code())
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

#[test]
fn the_doctor_needs_no_daemon_and_fails_with_2_for_a_problem_only() {
    let program = env!("CARGO_BIN_EXE_quintet");
    let (report, status) = doctor(Command::new(program).arg("doctor"));
    let is_problem = report["verdict"] == "problem";
    assert_eq!(status, Some(if is_problem { 2 } else { 0 }), "{report:#}");
    assert_eq!(check(&report, "configuration")["verdict"], "unknown");

    let layout = Layout::new(2);
    let file = layout.file(1);
    let with = || {
        let mut command = Command::new(program);
        command.arg("doctor").arg("-c").arg(&file);
        command
    };
    let (report, _) = doctor(&mut with());
    for (name, verdict) in [
        ("configuration", "ok"),
        ("transport port", "ok"),
        ("path MTU to node 2", "ok"),
        ("port of node 2", "warning"),
    ] {
        assert_eq!(check(&report, name)["verdict"], verdict, "{report:#}");
    }

    let text = std::fs::read_to_string(&file).unwrap().replace("node = 1", "node = 7");
    std::fs::write(&file, text).unwrap();
    let (report, status) = doctor(&mut with());
    assert_eq!((&report["verdict"], status), (&"problem".into(), Some(2)));
    let wrong = check(&report, "configuration");
    assert!(wrong["found"].as_str().unwrap().contains("node 7"), "{wrong}");
    let table = with().output().unwrap();
    let text = String::from_utf8_lossy(&table.stdout);
    assert!(text.contains("PROBLEM         configuration") && text.contains("fix: "), "{text}");
    assert_eq!(table.status.code(), Some(2));
}

#[test]
fn beside_a_running_daemon_its_port_is_no_problem() {
    let layout = Layout::new(2);
    let daemons = [Daemon::start(&layout, 1), Daemon::start(&layout, 2)];
    for daemon in &daemons {
        daemon.wait_until("a view of two", |d| d.is_member(2));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    let (report, _) = doctor(command.arg("doctor").arg("-c").arg(layout.file(1)));
    let port = check(&report, "transport port");
    assert!(
        port["found"].as_str().unwrap().contains("the daemon of this directory runs"),
        "{port}"
    );
    assert_eq!(check(&report, "port of node 2")["verdict"], "ok", "{report:#}");
}

/// Two network namespaces with a cable that takes larger datagrams at one end than it gives at the other, as where a
/// switch was forgotten. Gone when dropped.
struct Hole {
    names: [String; 2],
}

fn ip(words: &str) -> bool {
    let done = Command::new("ip").args(words.split(' ')).output();
    done.is_ok_and(|output| output.status.success())
}

impl Hole {
    fn new() -> Option<Hole> {
        let id = std::process::id();
        let hole = Hole { names: [format!("qh{id}a"), format!("qh{id}b")] };
        if !hole.names.iter().all(|name| ip(&format!("netns add {name}"))) {
            skip::skip("`ip netns add` does not work here: it needs root and the package iproute2");
            return None;
        }
        let [a, b] = &hole.names;
        assert!(ip(&format!("link add cable netns {a} type veth peer name cable netns {b}")));
        for (host, name, mtu) in [(1, a, 9000), (2, b, 1500)] {
            assert!(ip(&format!("-n {name} addr add 10.231.78.{host}/24 dev cable")));
            assert!(ip(&format!("-n {name} link set cable mtu {mtu} up")));
        }
        Some(hole)
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns del {name}"));
        }
    }
}

#[test]
fn a_black_hole_between_hosts_is_found() {
    let Some(hole) = Hole::new() else { return };
    let layout = Layout::new(2);
    let mut config = layout.config(1);
    for (node, host) in config.nodes.iter_mut().zip(1..) {
        node.transport = format!("10.231.78.{host}:7100").parse().unwrap();
    }
    config.bind = config.nodes[0].transport.clone();
    std::fs::write(layout.file(1), toml::to_string_pretty(&config).unwrap()).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &hole.names[0], env!("CARGO_BIN_EXE_quintet"), "doctor", "-c"]);
    let (report, status) = doctor(command.arg(layout.file(1)));
    let path = check(&report, "path MTU to node 2");
    assert_eq!((&path["verdict"], status), (&"problem".into(), Some(2)), "{path}");
    let found = path["found"].as_str().unwrap();
    assert!(found.contains("1472 bytes arrive, 8972 vanish"), "{found}");

    let [a, b] = &hole.names;
    assert!(ip(&format!("-n {b} link set cable mtu 9000")));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", a, env!("CARGO_BIN_EXE_quintet"), "doctor", "-c"]);
    let (report, _) = doctor(command.arg(layout.file(1)));
    assert_eq!(check(&report, "path MTU to node 2")["verdict"], "ok", "{report:#}");
}

/// The counters of one daemon, as `quintet stat` reads them.
fn stat(layout: &Layout, node: u16) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    let output = command.args(["stat", "-o", "json", "-d"]).arg(layout.data(node)).output();
    json(&output.unwrap())[0].clone()
}

#[test]
fn counters_are_read_of_a_daemon_that_is_stopped() {
    let (layout, daemons) = common::cluster();
    for _ in 0..5 {
        assert_eq!(daemons[0].call("Add", r#"{"amount":1}"#).0, 200);
    }
    let counted = |node: &Value, name: &str| node["counters"][name].as_u64().unwrap();
    daemons[0].wait_until("the figures of the engine", |_| {
        counted(&stat(&layout, 1), "engine.delivered") >= 5
    });
    daemons[0].signal(libc::SIGSTOP);
    daemons[1].wait_until("the stop", |_| stat(&layout, 1)["process"] == "stopped");
    let now = stat(&layout, 1);
    assert_eq!(now["pid"].as_u64(), Some(u64::from(daemons[0].pid())));
    assert_eq!((counted(&now, "manager.updates"), counted(&now, "process.node")), (5, 1));
    assert!(counted(&now, "engine.views") >= 1 && counted(&now, "engine.members") == 3, "{now:#}");
    let words = &now["words"];
    assert_eq!((&words["link.n2.state"], &words["link.n3.path"]), (&"up".into(), &"shm".into()));
    let reason = words["link.n3.reason"].as_str().unwrap();
    assert!(reason.contains("memory"), "{reason}");
    // Five updates, each a record in the lane of the group that all read; none of them by anybody else.
    for lane in ["lane.group", "link.n2.group", "link.n3.group"] {
        assert!(counted(&now, &format!("{lane}.records")) >= 5, "{lane}: {now:#}");
        assert!(counted(&now, &format!("{lane}.words")) >= 5, "{lane}: {now:#}");
    }
    let bytes = counted(&now, "link.n2.group.bytes_sent");
    assert!(bytes > 0 && bytes <= counted(&now, "lane.group.bytes"), "{now:#}");
    assert!(counted(&now, "link.n2.control.bytes_received") > 0, "{now:#}");
    assert!(now["counters"]["lane.group.credit_stalls"].is_u64(), "{now:#}");
    assert!(counted(&now, "link.n2.heard_ns") > 0 && counted(&now, "manager.position") > 0);
    // Its age grows, its counters do not, and the table says so aloud.
    daemons[1].wait_until("a second of standing still", |_| {
        stat(&layout, 1)["age_us"].as_u64() > Some(1_000_000)
    });
    assert_eq!(stat(&layout, 1)["counters"], now["counters"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    let text = printed(&command.args(["stat", "-d"]).arg(layout.data(1)).output().unwrap());
    assert!(text.contains("stopped): ITS POLLER STANDS STILL"), "{text}");
    // Who is asked about its links and does not answer is not left out in silence.
    let output = quintet(&daemons, &["links"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.lines().any(|line| line.contains("→ ?") && line.contains("no answer")), "{text}");
    assert!(text.contains("2 → 3") && text.contains("3 → 2"), "{text}");
    let output = quintet(&daemons, &["links", "-o", "json"]);
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows[0]["links"].is_null() && rows[0]["unknown"].is_string(), "{rows:#}");
    daemons[0].signal(libc::SIGCONT);
}

/// Each of these daemons says something only after all of them have been asked.
#[test]
fn all_daemons_are_asked_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [1, 2, 3].map(|n| dir.path().join(n.to_string()));
    let doors = paths.each_ref().map(|path| UnixListener::bind(path).unwrap());
    let asked = std::thread::spawn(move || {
        let streams = doors.each_ref().map(|door| door.accept().unwrap().0);
        // Its end is an answer too.
        drop(streams);
        doors
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    for path in &paths {
        command.arg("--admin").arg(path);
    }
    let output = command.env_remove("QUINTET_TOKEN_FILE").arg("links").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.matches("no answer").count(), 3, "{text}");
    assert!(!text.contains("gave no answer within"), "one was asked after the other: {text}");
    drop(asked.join().unwrap());
}

#[test]
fn counters_end_with_their_daemon_and_nothing_else_is_taken_for_them() {
    let layout = Layout::new(1);
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    assert_eq!(stat(&layout, 1)["node"], 1);
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait().success());
    let file = layout.data(1).join("stats");
    assert!(file.symlink_metadata().is_err(), "the link goes with the daemon");
    let said = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
        let output = command.env_remove("QUINTET_ADMIN").arg("stat").args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let data = layout.data(1).display().to_string();
    assert!(said(&["-d", &data]).contains("no daemon runs with the data directory"));
    std::fs::write(&file, b"QNTSTATS\x01").unwrap();
    assert!(said(&["-d", &data]).contains("cut off"));
    std::fs::write(&file, b"some other text, and enough of it").unwrap();
    assert!(said(&["-d", &data]).contains("no counters of Quintet"));
    assert!(said(&["--admin", "/nowhere.sock"]).contains("quintet stat -d"));
}

#[test]
fn what_cannot_be_printed_is_said_and_no_panic() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_quintet"));
    let output = doctor.arg("doctor").stdout(full()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: cannot print: "), "{said}");
    // With nowhere left to say it, the exit status is all there is.
    let mut status = Command::new(env!("CARGO_BIN_EXE_quintet"));
    status.args(["--admin", "/nowhere", "status"]).stdout(full()).stderr(full());
    assert_eq!(status.status().unwrap().code(), Some(1));
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_quintetd"));
    daemon.args(["--config", "/nowhere"]).stderr(full());
    assert_eq!(daemon.status().unwrap().code(), Some(1));
}

/// The writing end of a pipe that nobody reads.
fn nobody() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    for words in [&["doctor"][..], &["doctor", "-o", "json"], &["component", "--help"]] {
        let mut quintet = Command::new(env!("CARGO_BIN_EXE_quintet"));
        let output = quintet.args(words).stdout(nobody()).output().unwrap();
        assert_eq!((&*output.stderr, output.status.code()), (&b""[..], Some(141)), "{words:?}");
    }
}

#[test]
fn help_that_cannot_be_printed_is_a_failure() {
    for program in [env!("CARGO_BIN_EXE_quintet"), env!("CARGO_BIN_EXE_quintetd")] {
        for word in ["--help", "--version"] {
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
            let output = Command::new(program).arg(word).stdout(full).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{program} {word}: {said}");
            assert!(said.starts_with("error: cannot print: "), "{said}");
        }
        let wrong = Command::new(program).arg("--nonsense").output().unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    }
}

/// The upload is under way and the daemon goes: the person is told, though the system's signal would end the program.
#[test]
fn a_daemon_that_goes_in_the_middle_of_an_upload_is_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "name = \"large\"\nlibrary = \"liblarge.so\"\n";
    std::fs::write(dir.path().join("component.toml"), manifest).unwrap();
    // More than any socket takes unread.
    std::fs::write(dir.path().join("liblarge.so"), vec![0; 16 << 20]).unwrap();
    let layout = Layout::new(1);
    let real = Daemon::start(&layout, 1);
    real.wait_member();
    let status = real.get("/v1/status").unwrap().to_string();
    let socket = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let daemon = std::thread::spawn(move || {
        // It is asked whether it serves, first.
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", status.len());
        stream.write_all((head + &status).as_bytes()).unwrap();
        let (mut upload, _) = listener.accept().unwrap();
        upload.read_exact(&mut [0; 1000]).unwrap();
        drop((stream, upload));
    });
    let mut quintet = Command::new(env!("CARGO_BIN_EXE_quintet"));
    quintet.env_remove("QUINTET_ADMIN").arg("--admin").arg(&socket);
    let output = quintet.args(["component", "deploy"]).arg(dir.path()).output().unwrap();
    daemon.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{:?}: {said}", output.status);
    assert!(said.contains("broke off") && said.contains("the outcome is unknown"), "{said}");
}
