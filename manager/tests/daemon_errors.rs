//! What a person sees when a daemon cannot start: what happened, what it means, what to do; exit code 1.

mod common;

use common::{Daemon, Layout, config_text};
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

fn refused(config: &str) -> String {
    let layout = Layout::new(1);
    std::fs::write(layout.file(1), config.replace("{dir}", &layout.dir())).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_quintetd"))
        .args(["--config", layout.file(1).to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_unknown_key_is_named_with_line_and_nearest_key() {
    let layout = Layout::new(1);
    let said = refused(&config_text(&layout, 1).replace("cluster =", "clutser ="));
    assert!(said.contains("clutser") && said.contains("did you mean `cluster`?"), "{said}");
    assert!(said.contains("n1.toml:"), "{said}");
}

#[test]
fn config_check_says_good_or_what_is_wrong() {
    let layout = Layout::new(1);
    let check = || {
        let file = layout.file(1);
        Command::new(env!("CARGO_BIN_EXE_quintetd"))
            .args(["config", "check"])
            .arg(file)
            .output()
            .unwrap()
    };
    let good = check();
    assert!(good.status.success(), "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).contains("good"));
    std::fs::write(layout.file(1), "node = 1\nnode = 2\n").unwrap();
    let bad = check();
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("duplicate key"), "{bad:?}");
}

#[test]
fn an_occupied_client_port_is_said() {
    let layout = Layout::new(1);
    let taken = TcpListener::bind(layout.client(1)).unwrap();
    let said = refused(&config_text(&layout, 1));
    assert!(said.contains(&taken.local_addr().unwrap().to_string()), "{said}");
    assert!(said.contains("occupied") && said.contains("choose another port"), "{said}");
}

#[test]
fn an_occupied_transport_port_is_said() {
    let layout = Layout::new(1);
    let taken = UdpSocket::bind(layout.transport(1)).unwrap();
    let said = refused(&config_text(&layout, 1));
    assert!(said.contains(&taken.local_addr().unwrap().to_string()), "{said}");
}

#[test]
fn a_data_directory_that_cannot_be_one_is_said() {
    let layout = Layout::new(1);
    let text = config_text(&layout, 1);
    let line = text.lines().find(|l| l.starts_with("data_dir")).unwrap();
    // /proc cannot be written to, not even by root.
    let said = refused(&text.replace(line, "data_dir = \"/proc/quintet\""));
    assert!(said.contains("data_dir /proc/quintet"), "{said}");
}

#[test]
fn a_second_daemon_on_the_same_data_directory_is_refused() {
    let layout = Layout::new(1);
    let first = Daemon::start(&layout, 1);
    first.wait_member();
    let output = Command::new(env!("CARGO_BIN_EXE_quintetd"))
        .args(["--config", layout.file(1).to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("in use by another quintetd"), "{said}");
    assert!(said.contains(&first.pid().to_string()), "{said}");
}
