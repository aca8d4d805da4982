//! Deploying: on all members or on none, and refusals that say why.

mod common;

use common::{Daemon, Layout, cluster};
use quintet_manager::package::{Manifest, Package};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn package(library: &[u8]) -> Vec<u8> {
    let manifest = Manifest {
        name: "odd".into(),
        version: "1".into(),
        library: "libodd.so".into(),
        linked: None,
        descriptor: None,
        class: None,
        proto: None,
        description: None,
    };
    Package { manifest, library: library.to_vec() }.to_bytes()
}

#[test]
fn what_is_no_component_is_refused_in_words_and_changes_nothing() {
    let layout = Layout::new(1);
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    for (package, expected) in [
        (b"not a tar at all".to_vec(), "not a package"),
        (package(b"not a library"), "shared library"),
    ] {
        let (status, problem) = daemon.request("POST", "/v1/components", &package).unwrap();
        assert_eq!(status, 422, "{problem}");
        assert!(problem["what"].as_str().unwrap().contains(expected), "{problem}");
        assert!(problem["do"].is_string());
    }
    assert_eq!(daemon.get("/v1/components").unwrap().as_array().unwrap().len(), 0);
}

#[test]
fn a_component_comes_to_all_goes_from_all_and_the_same_again_changes_nothing() {
    let (_layout, daemons) = cluster();
    daemons[1].call("Add", r#"{"amount":4}"#);
    daemons[2].deploy_counter();
    assert_eq!(daemons[2].value(), 4, "deploying it again did not begin it again");
    let (status, _) = daemons[1].request("DELETE", "/v1/components/counter", &[]).unwrap();
    assert_eq!(status, 204);
    for daemon in &daemons {
        daemon.wait_until("its end", |d| {
            d.get("/v1/instances").unwrap().as_array().unwrap().is_empty()
        });
    }
    let (status, problem) = daemons[0].call("Get", "{}");
    assert_eq!(status, 404, "{problem}");
    daemons[0].deploy_counter();
    assert_eq!(daemons[0].value(), 0, "a new instance begins from nothing");
}

#[test]
fn a_wrong_call_says_what_would_be_right() {
    let layout = Layout::new(1);
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    daemon.deploy_counter();
    let (status, problem) = daemon.call("Ad", "{}");
    assert!(status == 404 && problem["what"].as_str().unwrap().contains("Add"), "{problem}");
    let (status, problem) = daemon.call("Add", r#"{"ammount":1}"#);
    assert!(status == 400 && problem["what"].as_str().unwrap().contains("amount"), "{problem}");
    let call = br#"{"class":"counter","method":"Add","body":{"amount":1},"deadline_ms":0}"#;
    let (status, problem) = daemon.request("POST", "/v1/call", call).unwrap();
    assert!(status == 400 && problem["what"].as_str().unwrap().contains("is 0"), "{problem}");
    assert_eq!(daemon.value(), 0);
}

/// At one daemon it is deployed, at another removed as soon as it is there: whoever deploys is told one or the other.
#[test]
fn a_deployment_that_a_removal_overtakes_is_answered() {
    let (_layout, daemons) = cluster();
    let package = common::counter_package();
    let remove = || daemons[1].request("DELETE", "/v1/components/counter", &[]).unwrap().0;
    assert_eq!(remove(), 204);
    let mut overtaken = 0;
    for _ in 0..100 {
        let (status, answer) = std::thread::scope(|scope| {
            let deploys =
                scope.spawn(|| daemons[0].request("POST", "/v1/components", &package).unwrap());
            while remove() != 204 && !deploys.is_finished() {}
            deploys.join().unwrap()
        });
        match status {
            200..300 => {}
            409 => {
                assert!(answer["what"].as_str().unwrap().contains("was removed"), "{answer}");
                overtaken += 1;
            }
            _ => panic!("{status} {answer}"),
        }
        if overtaken == 3 {
            return;
        }
    }
    panic!("a hundred times, and overtaken {overtaken} times");
}

/// `quintet component deploy what`, at one daemon.
fn deploy(layout: &Layout, node: u16, what: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    command.arg("--admin").arg(layout.socket(node)).args(["component", "deploy", what]);
    command.output().unwrap()
}

#[test]
fn a_linked_component_lives_through_the_death_of_one_and_of_all() {
    let layout = Layout::new(3);
    let start = |node| Daemon::start(&layout, node);
    let whole = |daemons: &[Daemon]| {
        for daemon in daemons {
            daemon.wait_until("a view of three", |d| d.is_member(3));
        }
    };
    let mut daemons: Vec<_> = (1..=3).map(start).collect();
    whole(&daemons);
    for note in ["is active on nodes 1 2 3", "was active already on nodes 1 2 3"] {
        let done = deploy(&layout, 1, "linked:counter");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains(note), "{done:?}");
    }
    let (status, reply) = daemons[1].call("Add", r#"{"amount":4}"#);
    assert_eq!(status, 200, "{reply}");

    // Its disk is empty when it comes back: the package and the state come from the others.
    daemons.remove(1).kill();
    daemons[0].wait_until("a view of two", |d| d.is_member(2));
    std::fs::remove_dir_all(layout.data(2)).unwrap();
    daemons.insert(1, start(2));
    whole(&daemons);
    daemons[1].wait_value(4);

    Daemon::kill_at_once(daemons);
    let daemons: Vec<_> = (1..=3).map(start).collect();
    whole(&daemons);
    daemons[2].wait_value(4);
    assert_eq!(daemons[0].audit()["equal"], true);
}

#[test]
fn a_component_that_is_not_linked_is_refused_with_those_that_are() {
    let layout = Layout::new(1);
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    let refused = deploy(&layout, 1, "linked:conter");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(said.contains("`conter`") && said.contains("linked are: counter"), "{said}");
    assert_eq!(daemon.get("/v1/components").unwrap().as_array().unwrap().len(), 0);
}

#[test]
fn the_list_comes_from_a_member_and_else_says_how_much_it_is_worth() {
    let (layout, alone) = (Layout::new(1), Layout::new(3));
    let member = Daemon::start(&layout, 1);
    member.wait_member();
    member.deploy_counter();
    let outside = Daemon::start(&alone, 1);
    outside.wait_until("the search", |d| d.status()["state"] == "outside");
    // Said before it has waited for anybody.
    let events = outside.get("/v1/events").unwrap().to_string();
    assert!(events.contains("with state up to 0:0; looking for the group: for n2 n3"), "{events}");
    let list = |daemons: &[&Daemon]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
        for daemon in daemons {
            command.arg("--admin").arg(daemon.socket());
        }
        let done = command.args(["component", "list"]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&done.stdout), text(&done.stderr))
    };
    let (table, said) = list(&[&outside, &member]);
    assert!(table.contains("counter") && said.is_empty(), "{table}{said}");
    let (table, said) = list(&[&outside]);
    assert!(!table.contains("counter"), "{table}");
    for part in ["no daemon of the cluster serves", "node 1 is outside", "knew last"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    // What a node outside does not know may well exist: it refuses for what it is, not for what it knows.
    let (status, problem) = outside.call("Get", "{}");
    assert_eq!(status, 503, "{problem}");
    assert!(problem["what"].as_str().unwrap().contains("outside"), "{problem}");
}

/// Compiles a C source to the library of a component in `dir`, and writes its `component.toml`.
fn component_in_c(dir: &Path, source: &str) {
    std::fs::write(dir.join("odd.c"), source).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", "libodd.so", "odd.c"])
        .current_dir(dir)
        .status()
        .expect("cc runs: it is what rustc links with");
    assert!(compiled.success());
    std::fs::write(dir.join("component.toml"), "name = \"odd\"\nlibrary = \"libodd.so\"\n")
        .unwrap();
}

#[test]
fn a_library_of_another_version_of_the_interface_is_refused_and_the_daemons_live_on() {
    let (layout, daemons) = cluster();
    let dir = tempfile::tempdir().unwrap();
    for (version, cure) in [(2, "upgrade Quintet"), (0, "build the component again")] {
        // Size and version are all that another version promises.
        let source = format!(
            "static const unsigned table[2] = {{8, {version}}};\n\
             const void *quintet_component_library(void) {{ return table; }}\n"
        );
        component_in_c(dir.path(), &source);
        let refused = deploy(&layout, 1, dir.path().to_str().unwrap());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{refused:?}");
        for part in [&*format!("version {version} of the component interface"), "version 1", cure] {
            assert!(said.contains(part), "{part} is missing: {said}");
        }
        assert!(said.contains("nothing was deployed"), "{said}");
    }
    let deployed = daemons[0].get("/v1/components").unwrap();
    assert_eq!(deployed.as_array().unwrap().len(), 1, "the counter alone: {deployed}");
    let (status, reply) = daemons[0].call("Add", r#"{"amount":2}"#);
    assert_eq!((status, &reply["status"]), (200, &"OK".into()), "{reply}");
    assert_eq!(daemons[0].audit()["equal"], true);
}

#[test]
fn a_node_whose_daemon_lacks_a_linked_component_refuses_it_for_all_in_words() {
    let layout = Layout::new(3);
    let mut bare = Command::new(own_daemon());
    bare.arg(layout.file(3));
    let daemons =
        [Daemon::start(&layout, 1), Daemon::start(&layout, 2), Daemon::start_by(&layout, 3, bare)];
    for daemon in &daemons {
        daemon.wait_until("a view of three", |d| d.is_member(3));
    }
    let refused = deploy(&layout, 1, "linked:counter");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{refused:?}");
    for part in ["n3: no component `counter` is linked", "linked are: none", "no member runs it"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    for daemon in &daemons {
        daemon.wait_until("the rejection", |d| {
            d.get("/v1/components").unwrap()[0]["state"] == "rejected"
        });
        assert_eq!(daemon.status()["state"], "member");
        assert_eq!(daemon.get("/v1/instances").unwrap().as_array().unwrap().len(), 0);
    }
}

/// The example daemon, which has nothing linked in.
fn own_daemon() -> PathBuf {
    let built = common::program_dir().join("examples/own_daemon");
    // Built along with all tests of this crate, not with one of them.
    if !built.exists() {
        common::build(&["-p", "quintet-manager", "--example", "own_daemon"]);
    }
    built
}

/// Ctrl-C on `quintet call`, or the time-out of whoever asked.
#[test]
fn a_call_that_nobody_waits_for_any_more_keeps_no_replies_of_later_ones() {
    let layout = Layout::new(1);
    let daemon = Daemon::start(&layout, 1);
    daemon.wait_member();
    daemon.deploy_specimen();
    let call = r#"{"class":"specimen","method":"Dawdle","body":{"ms":50}}"#;
    for _ in 0..3 {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        let (kind, len) = ("application/json", call.len());
        let head = format!("host: n1\r\ncontent-type: {kind}\r\ncontent-length: {len}\r\n\r\n");
        write!(stream, "POST /v1/call HTTP/1.1\r\n{head}{call}").unwrap();
        // Begun, and far from done.
        daemon.wait_until("the call to be ordered", |d| d.get("/v1/instances").is_some());
    }
    for _ in 0..60 {
        let (status, reply) = daemon.call_of("specimen", "Add", r#"{"amount":1}"#);
        assert!(status == 200 && reply["status"] == "OK", "{status} {reply}");
    }
    let instances = daemon.get("/v1/instances").unwrap();
    let kept = instances[0]["records"].as_u64().unwrap();
    assert!(kept < 10, "{instances}");
}

/// Makes everything below a directory look old; gives what there is.
fn aged(packages: &Path) -> Vec<PathBuf> {
    let all: Vec<PathBuf> =
        std::fs::read_dir(packages).unwrap().map(|entry| entry.unwrap().path()).collect();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    for path in &all {
        std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    }
    all
}

/// A journal holds a component from its deployment to its removal, and is read at every start until a snapshot replaces it.
#[test]
fn the_package_of_a_removed_component_stays_as_long_as_the_journal_needs_it() {
    let layout = Layout::new(1);
    let packages = layout.data(1).join("packages");
    let start = || {
        let daemon = Daemon::start(&layout, 1);
        daemon.wait_member();
        daemon
    };
    let mut daemon = start();
    daemon.deploy_counter();
    daemon.call("Add", r#"{"amount":4}"#);
    daemon.deploy_specimen();
    daemon.call_of("specimen.Specimen", "Add", r#"{"amount":1}"#);
    let (status, _) = daemon.request("DELETE", "/v1/components/specimen", &[]).unwrap();
    assert_eq!(status, 204);
    let deployed = aged(&packages).len();
    for _ in 0..3 {
        daemon.kill();
        daemon = start();
        assert_eq!((daemon.value(), aged(&packages).len()), (4, deployed));
    }
    // A snapshot ends what the journal needs.
    daemon.signal(15);
    assert!(daemon.wait().success());
    let mut config = layout.config(1);
    config.journal.snapshot_every_bytes = 65536;
    std::fs::write(layout.file(1), toml::to_string_pretty(&config).unwrap()).unwrap();
    let daemon = start();
    let has_snapshot = || {
        let state = std::fs::read_dir(layout.data(1).join("state")).unwrap();
        state.map(|e| e.unwrap().file_name()).any(|n| n.to_string_lossy().starts_with("snapshot-"))
    };
    for _ in 0..5000 {
        daemon.call("Add", r#"{"amount":0}"#);
        if has_snapshot() {
            break;
        }
    }
    assert!(has_snapshot());
    daemon.kill();
    aged(&packages);
    let daemon = start();
    assert_eq!(daemon.value(), 4);
    assert!(aged(&packages).len() < deployed);
}

#[test]
fn a_package_that_is_damaged_on_one_disk_comes_from_another() {
    let (layout, mut daemons) = cluster();
    daemons[0].call("Add", r#"{"amount":4}"#);
    daemons.remove(2).kill();
    let package = aged(&layout.data(3).join("packages"));
    let package = package.iter().find(|path| path.extension().is_some()).unwrap();
    let mut bytes = std::fs::read(package).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(package, bytes).unwrap();
    let again = Daemon::start(&layout, 3);
    again.wait_until("it is a member again", |d| d.is_member(3));
    again.wait_value(4);
}
