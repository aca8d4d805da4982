//! What a person sees when a daemon cannot start: what happened, what it means, what to do; exit code 1.

mod common;

use common::{Daemon, Layout, config_text};
use quintet_manager::config::{Config, PathChoice};
use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

/// What `command` says of the file of node 1; it must be refused.
fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn daemon(layout: &Layout) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintetd"));
    command.arg("--config").arg(layout.file(1));
    command
}

fn check(layout: &Layout) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintetd"));
    command.args(["config", "check"]).arg(layout.file(1));
    command
}

fn refused(config: &str) -> String {
    let layout = Layout::new(1);
    std::fs::write(layout.file(1), config).unwrap();
    said(daemon(&layout))
}

/// What both `config check` and the daemon say of node 1's configuration after `edit`; it must be the same.
fn refused_by_both(layout: &Layout, edit: impl FnOnce(&mut Config)) -> String {
    let mut config = layout.config(1);
    edit(&mut config);
    std::fs::write(layout.file(1), toml::to_string_pretty(&config).unwrap()).unwrap();
    let checked = said(check(layout));
    assert_eq!(checked, said(daemon(layout)), "config check and the daemon agree");
    assert!(checked.contains("n1.toml"), "it names the file: {checked}");
    checked
}

#[test]
fn config_check_and_the_daemon_refuse_the_same_in_the_same_words() {
    let at = |text: &str| text.parse().unwrap();
    type Edit<'a> = &'a dyn Fn(&mut Config);
    let identity = |dir: &str| Some(PathBuf::from(dir));
    let edits: [(Edit<'_>, &[&str]); 19] = [
        (
            &|c| c.bind = "127.0.0.1:9".parse().unwrap(),
            &["`bind`: 127.0.0.1:9", "nodes.transport", "the same in both places"],
        ),
        (
            &|c| c.client.listen = at("127.0.0.1:9"),
            &["`client.listen`: 127.0.0.1:9", "nodes.client"],
        ),
        (&|c| c.admin.http = Some(at("0.0.0.0:9")), &["`admin.http`: 0.0.0.0:9", "use 127.0.0.1"]),
        (
            &|c| c.limits.request_bytes = 4 << 20,
            &["`limits.request_bytes`: 4194304", "use at most"],
        ),
        (&|c| c.limits.calls = 0, &["`limits.calls`: 0 would stop", "use 1 or more"]),
        (&|c| c.timing.suspect_ms = 1, &["`timing`", "suspect_ms 1", "at least twice"]),
        (&|c| c.node = 7, &["`node`: node 7", "add a [[nodes]] entry"]),
        (&|c| c.nodes[1].id = 1, &["`nodes.id`: node 1 is listed twice", "an id of its own"]),
        (&|c| c.nodes[1].client = c.nodes[0].client, &["`nodes.client`", "share the address"]),
        (&|c| c.cluster = "a b".into(), &["`cluster`: `a b`", "letters, digits"]),
        // Documentation's addresses: no machine has them.
        (
            &|c| {
                for (node, at) in c.nodes.iter_mut().zip(["192.0.2.1:7100", "192.0.2.2:7100"]) {
                    node.transport = at.parse().unwrap();
                }
                c.bind = c.nodes[0].transport.clone();
            },
            &["`bind`: this machine does not have the address 192.0.2.1", "ip address"],
        ),
        (
            &|c| c.transport.interface = "nosuch0".parse().unwrap(),
            &[
                "`transport.interface`: this machine has no interface nosuch0; it has",
                "lo (127.0.0.1",
            ],
        ),
        (
            &|c| c.transport.interface = "203.0.113.0/24".parse().unwrap(),
            &[
                "`transport.interface`: no interface has an address in 203.0.113.0/24",
                "lo (127.0.0.1",
            ],
        ),
        (
            &|c| c.transport.interface = "lo".parse().unwrap(),
            &[
                "the others look for this node at 127.",
                "lo has 127.0.0.1",
                "correct nodes.transport",
            ],
        ),
        (
            &|c| c.transport.shm_gid = Some(987_654_321),
            &["`transport.shm_gid`", "not in it", "SupplementaryGroups=987654321"],
        ),
        (
            &|c| c.identity.dir = identity("/nowhere"),
            &["`identity`: /nowhere/node.key does not exist", "quintet cluster join"],
        ),
        (
            &|c| c.cluster = "other".into(),
            &["`identity`", "another cluster than \"other\"", "quintet cluster token"],
        ),
        (
            &|c| {
                c.client.listen = at("192.0.2.1:7200");
                c.nodes[0].client = c.client.listen;
            },
            &["`client.listen`: this machine does not have the address 192.0.2.1", "ip address"],
        ),
        (
            &|c| c.admin.socket = "/dev/null".into(),
            &["`admin.socket`: /dev/null is there already, and is no socket"],
        ),
    ];
    let layout = Layout::new(2);
    for (edit, expected) in edits {
        let said = refused_by_both(&layout, edit);
        for part in expected {
            assert!(said.contains(part), "{part} is missing: {said}");
        }
    }
    assert!(std::fs::metadata("/dev/null").is_ok(), "what lay in the way was left alone");
}

#[test]
fn an_identity_of_another_node_or_open_to_others_is_refused_by_both() {
    let layout = Layout::new(2);
    let other = layout.config(2).identity.dir;
    let said = refused_by_both(&layout, |c| c.identity.dir = other.clone());
    assert!(said.contains("for node n2, and this is node n1"), "{said}");
    assert!(said.contains("quintet cluster token"), "{said}");
    let key = layout.config(1).identity.dir.unwrap().join("node.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refused_by_both(&layout, |_| {});
    assert!(said.contains("may be read by others") && said.contains("chmod 600"), "{said}");
    // Who never leaves shared memory needs none.
    let mut config = layout.config(1);
    config.transport.path = PathChoice::Shm;
    std::fs::write(layout.file(1), toml::to_string_pretty(&config).unwrap()).unwrap();
    assert!(check(&layout).status().unwrap().success());
}

#[test]
fn a_node_is_admitted_by_hand_with_the_command_line() {
    let layout = Layout::new(1);
    let config = layout.config(1);
    let dir = tempfile::tempdir().unwrap();
    let (authority, own) = (dir.path().join("authority"), config.identity.dir.unwrap());
    std::fs::remove_dir_all(&own).unwrap();
    let quintet = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
        let output = command.arg("cluster").args(words).output().unwrap();
        let text = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.success(), String::from_utf8(text).unwrap().trim().to_owned())
    };
    let (at, own) = (authority.to_str().unwrap(), own.to_str().unwrap());
    let (odd, why) = quintet(&["init", at, "--name", "bad name!"]);
    assert!(!odd && why.contains("not a cluster name") && !authority.exists(), "{why}");
    let (made, said) = quintet(&["init", at, "--name", &config.cluster]);
    let public = said.split_whitespace().find(|word| word.starts_with("quintet-cluster-1."));
    let public = public.filter(|_| made).expect("what to compare on the nodes");
    let (again, why) = quintet(&["init", at, "--name", &config.cluster]);
    assert!(!again && why.contains("is there already"), "{why}");
    let (asked, key) = quintet(&["join", "--dir", own]);
    assert!(asked && key.starts_with("quintet-node-1."), "{key}");
    let (_, wrong) = quintet(&["token", "--authority", at, "--node", "1", "--key", "rubbish"]);
    assert!(wrong.contains("no node's public key") && wrong.contains("cluster join"), "{wrong}");
    let (made, token) = quintet(&["token", "--authority", at, "--node", "1", "--key", &key]);
    assert!(made, "{token}");
    let (joined, said) = quintet(&["join", "--dir", own, &token]);
    assert!(joined && said.contains("node 1") && said.contains(public), "{said}");
    assert!(check(&layout).status().unwrap().success());
}

#[test]
fn a_data_directory_that_cannot_be_one_is_refused_by_both() {
    let layout = Layout::new(1);
    let file = layout.data(9);
    std::fs::write(&file, "").unwrap();
    for (path, expected) in [
        // /proc cannot be written to, not even by root.
        (PathBuf::from("/proc/quintet"), "/proc/quintet cannot be created"),
        (file.clone(), "something that is no directory lies there"),
        (file.join("below"), "something that is no directory lies there"),
    ] {
        let said = refused_by_both(&layout, |c| c.data_dir = path.clone());
        assert!(said.contains("`data_dir`") && said.contains(expected), "{said}");
        let said = refused_by_both(&layout, |c| c.admin.socket = path.join("admin.sock"));
        assert!(said.contains("`admin.socket`") && said.contains("its directory"), "{said}");
    }
}

#[test]
fn a_data_directory_without_permission_is_refused_by_both() {
    let layout = Layout::new(1);
    let dir = layout.data(1);
    std::fs::create_dir(&dir).unwrap();
    // Root may write everywhere, unless it gives that up and the directory is somebody else's.
    let root = std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).is_ok();
    let mode = std::fs::Permissions::from_mode(if root { 0o700 } else { 0o500 });
    std::fs::set_permissions(&dir, mode).unwrap();
    for mut command in [check(&layout), daemon(&layout)] {
        if root {
            let mut bare = Command::new("setpriv");
            bare.args(["--bounding-set=-dac_override,-dac_read_search", "--"]);
            bare.arg(command.get_program()).args(command.get_args());
            command = bare;
        }
        let said = said(command);
        assert!(
            said.contains(&format!("`data_dir`: {} cannot be written", dir.display())),
            "{said}"
        );
        assert!(said.contains("Permission denied") && said.contains("chown"), "{said}");
    }
}

#[test]
fn a_check_leaves_nothing_behind_and_works_beside_a_running_daemon() {
    let layout = Layout::new(1);
    let names = || {
        let files = std::fs::read_dir(layout.dir()).unwrap().map(|file| file.unwrap().file_name());
        files.collect::<BTreeSet<_>>()
    };
    let before = names();
    assert!(check(&layout).status().unwrap().success());
    assert_eq!(names(), before);
    let running = Daemon::start(&layout, 1);
    running.wait_member();
    let good = check(&layout).output().unwrap();
    assert!(good.status.success(), "{good:?}");
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
    let good = check(&layout).output().unwrap();
    assert!(good.status.success(), "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).contains("good"));
    std::fs::write(layout.file(1), "node = 1\nnode = 2\n").unwrap();
    let bad = said(check(&layout));
    assert!(bad.contains("duplicate key"), "{bad}");
    std::fs::copy(env!("CARGO_BIN_EXE_quintetd"), layout.file(1)).unwrap();
    let binary = said(check(&layout));
    assert!(binary.contains("a text file in TOML"), "{binary}");
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let layout = Layout::new(1);
    let mut command = daemon(&layout);
    command.env("QUINTET_LOG", "a=b=c");
    let refused = said(command);
    assert!(refused.contains("QUINTET_LOG") && refused.contains("write a level"), "{refused}");
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

/// As in `quintetd … 2>&1 | head -1`.
#[test]
fn a_daemon_whose_log_nobody_reads_any_more_serves_and_ends_when_told() {
    let layout = Layout::new(1);
    let mut command = Command::new("sh");
    let script =
        r#"mkfifo "$1" && { head -n 1 "$1" >/dev/null & } && exec "$2" --config "$3" 2>"$1""#;
    command.args(["-c", script, "sh"]);
    command.arg(layout.file(1).with_extension("fifo")).arg(env!("CARGO_BIN_EXE_quintetd"));
    command.arg(layout.file(1));
    let daemon = Daemon::start_by(&layout, 1, command);
    daemon.wait_member();
    daemon.deploy_counter();
    daemon.call("Add", r#"{"amount":3}"#);
    assert_eq!(daemon.value(), 3);
    daemon.signal(15);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_second_daemon_on_the_same_data_directory_is_refused() {
    let layout = Layout::new(1);
    let first = Daemon::start(&layout, 1);
    first.wait_member();
    let said = said(daemon(&layout));
    assert!(said.contains("in use by another quintetd"), "{said}");
    assert!(said.contains(&first.pid().to_string()), "{said}");
}
