//! The admin API over loopback TCP: open to tools, closed to web pages, and changes for who holds the token only.

mod common;

use common::{Daemon, Layout, counter_package, exchange};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

/// One daemon whose admin API is on TCP too.
struct Open {
    layout: Layout,
    daemon: Daemon,
    http: SocketAddr,
}

impl Open {
    fn start() -> Open {
        let layout = Layout::new(1);
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = layout.config(1);
        config.admin.http = Some(http);
        std::fs::write(layout.file(1), toml::to_string_pretty(&config).unwrap()).unwrap();
        let daemon = Daemon::start(&layout, 1);
        daemon.wait_member();
        Open { layout, daemon, http }
    }

    fn token_file(&self) -> PathBuf {
        self.layout.data(1).join("admin.token")
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.token_file()).unwrap().trim().to_owned()
    }

    fn request(&self, method: &str, path: &str, head: &str, body: &[u8]) -> (u16, Value) {
        let stream = TcpStream::connect(self.http).unwrap();
        exchange(stream, method, path, head, body).expect("it answers")
    }

    fn components(&self) -> usize {
        self.daemon.get("/v1/components").unwrap().as_array().unwrap().len()
    }

    fn quintet(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
        command.env_remove("QUINTET_TOKEN_FILE").env_remove("QUINTET_ADMIN");
        command.args(["--admin", &format!("http://{}", self.http)]).args(words);
        command
    }
}

#[test]
fn a_web_page_gets_nothing_and_changes_nothing() {
    let open = Open::start();
    let (own, token) = (format!("host: {}\r\n", open.http), open.token());
    let bearer = format!("authorization: Bearer {token}\r\n");
    let tar = "content-type: application/x-tar\r\n";
    // All that a page could send, even one that had stolen the token.
    for (method, path, head) in [
        ("GET", "/v1/status", "host: evil.example\r\n".to_owned()),
        ("GET", "/v1/status", format!("host: evil.example:{}\r\n", open.http.port())),
        ("GET", "/v1/status", format!("{own}host: evil.example\r\n")),
        ("GET", "/v1/events/stream", format!("{own}origin: https://evil.example\r\n")),
        ("POST", "/v1/components", format!("host: evil.example\r\n{bearer}{tar}")),
        ("POST", "/v1/components", format!("{own}{bearer}{tar}origin: null\r\n")),
    ] {
        let (status, problem) = open.request(method, path, &head, &counter_package());
        assert_eq!(status, 403, "{method} {path} {head}: {problem}");
        assert!(problem["what"].is_string() && problem["do"].is_string(), "{problem}");
    }
    let (status, _) = open.request("GET", "/v1/status", "", &[]);
    assert!(status == 400 || status == 403, "a request without Host: {status}");
    assert_eq!(open.components(), 0);
}

#[test]
fn a_change_needs_the_token_and_its_content_type_and_a_look_needs_neither() {
    let open = Open::start();
    let mode = std::fs::metadata(open.token_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (own, token) = (format!("host: localhost:{}\r\n", open.http.port()), open.token());
    let tar = "content-type: application/x-tar\r\n";
    let wrong = format!("authorization: Bearer {}\r\n", token.replace(['0', '1'], "2"));
    let right = format!("authorization: Bearer {token}\r\n");

    for (method, path) in [
        ("POST", "/v1/components"),
        ("POST", "/v1/call"),
        ("POST", "/v1/audit"),
        ("POST", "/v1/recover"),
        ("DELETE", "/v1/components/counter"),
    ] {
        for bearer in ["", &wrong] {
            let head = format!("{own}{bearer}{tar}");
            let (status, problem) = open.request(method, path, &head, &counter_package());
            assert_eq!(status, 401, "{method} {path}: {problem}");
            assert!(problem["do"].as_str().unwrap().contains("admin.token"), "{problem}");
        }
    }
    for kind in ["", "content-type: text/plain\r\n", "content-type: application/json\r\n"] {
        let head = format!("{own}{right}{kind}");
        let (status, problem) = open.request("POST", "/v1/components", &head, &counter_package());
        assert_eq!(status, 415, "{kind}: {problem}");
        assert!(problem["do"].as_str().unwrap().contains("application/x-tar"), "{problem}");
    }
    assert_eq!(open.components(), 0);

    let (status, answer) = open.request("GET", "/v1/status", &own, &[]);
    assert_eq!((status, &answer["state"]), (200, &"member".into()));
    let head = format!("{own}{right}{tar}");
    let (status, answer) = open.request("POST", "/v1/components", &head, &counter_package());
    assert_eq!(status, 201, "{answer}");
    assert_eq!(open.components(), 1);
}

/// Succeeds, and what it printed.
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_command_works_over_http_with_the_token_file() {
    let open = Open::start();
    let file = open.token_file().display().to_string();
    let with = |words: &[&str]| open.quintet(words).args(["--token-file", &file]).output().unwrap();
    let counter = "linked:counter";

    let refused = open.quintet(&["component", "deploy", counter]).output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("--token-file") && said.contains(&file), "{said}");

    assert!(printed(&with(&["component", "deploy", counter])).contains("is active"));
    assert!(printed(&with(&["component", "list"])).contains("counter"));
    assert!(printed(&with(&["call", "counter", "Add", r#"{"amount":3}"#])).contains('3'));
    assert!(printed(&with(&["instance", "list"])).contains("counter.Counter"));
    assert!(printed(&with(&["instance", "list", "--audit"])).contains("all replicas are equal"));
    // Those that only look need no token.
    let status = printed(&open.quintet(&["status"]).output().unwrap());
    assert!(status.contains("members 1") && status.contains("node 1: waiting in "), "{status}");
    assert!(status.contains("io_uring") || status.contains("ppoll ("), "{status}");
    let limits = printed(&open.quintet(&["status", "--limits"]).output().unwrap());
    assert!(limits.contains("request_bytes") && limits.contains(" 65536"), "{limits}");
    assert!(printed(&open.quintet(&["node", "list"]).output().unwrap()).contains("member"));
    let links = printed(&open.quintet(&["links"]).output().unwrap());
    for said in [&status, &links] {
        for way in ["sending packets: ", "receiving packets: ", "socket filter: "] {
            assert!(said.contains(way), "{said}");
        }
    }
    assert!(printed(&open.quintet(&["events"]).output().unwrap()).contains("view 1"));
    let refused = with(&["component", "remove", "counter"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("counter.Counter, updated up to 1:"),
        "{said}"
    );
    assert!(said.contains("--yes"), "{said}");
    assert_eq!(open.components(), 1);
    let mut remove = open.quintet(&["component", "remove", "counter", "--yes"]);
    assert!(printed(&remove.env("QUINTET_TOKEN_FILE", &file).output().unwrap()).contains("gone"));
}

#[test]
fn a_command_that_finds_no_daemon_says_so_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = dir.path().join("nobody.sock");
    for words in [
        &["status"][..],
        &["status", "-o", "json"],
        &["node", "list"],
        &["links"],
        &["instance", "list"],
        &["events"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
        let done = command.arg("--admin").arg(&nobody).args(words).output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{words:?}: {done:?}");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.contains("no daemon of the cluster answers"), "{words:?}: {said}");
    }
}
