//! Deploying: on all members or on none, and refusals that say why.

mod common;

use common::{Daemon, Layout, cluster};
use quintet_manager::package::{Manifest, Package};

fn package(library: &[u8]) -> Vec<u8> {
    let manifest = Manifest {
        name: "odd".into(),
        version: "1".into(),
        library: "libodd.so".into(),
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
