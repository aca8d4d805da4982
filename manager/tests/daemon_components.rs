//! Deploying: on all members or on none, and refusals that say why.

mod common;

use common::{Daemon, Layout, cluster};
use quintet_manager::package::{Manifest, Package};
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
    for daemon in &daemons {
        daemon.wait_until("the counter", |d| {
            d.get("/v1/components").unwrap()[0]["state"] == "active"
        });
    }
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
