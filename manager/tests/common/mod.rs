//! Real daemons for the tests: at addresses of their own, killed by pid when dropped.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several test programs, each of which uses a part"
)]

use quintet_client::wire::{
    Body, Call, ClientId, Frame, FrameReader, FrameWriter, Hello, Purpose, VERSION, limits,
};
use quintet_manager::config::{
    AdminConfig, ClientConfig, Config, IdentityConfig, JournalConfig, NodeConfig, TimingConfig,
};
use quintet_transport::{Authority, NodeId};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Generous: a loaded machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An address that nothing else on this machine has or will get: a test kills daemons and starts them again, and a port
/// that the kernel chose may be somebody else's by then. All of 127.0.0.0/8 is this machine's, and a process id fits
/// into it.
fn address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(7100);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 + a, b, c);
    SocketAddr::from((own, NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A cluster's files and addresses.
pub struct Layout {
    dir: tempfile::TempDir,
    nodes: Vec<NodeConfig>,
}

impl Layout {
    pub fn new(count: u16) -> Layout {
        let dir = tempfile::tempdir().unwrap();
        let nodes =
            (1..=count).map(|id| NodeConfig { id, transport: address().into(), client: address() });
        let layout = Layout { nodes: nodes.collect(), dir };
        let authority = Authority::new(&layout.config(1).cluster, [1; 32]).unwrap();
        for node in &layout.nodes {
            let dir = layout.config(node.id).identity.dir.unwrap();
            let identity = authority.admit(NodeId(node.id), [node.id as u8; 32]);
            quintet_manager::identity::store(&dir, &identity).unwrap();
            std::fs::write(layout.file(node.id), config_text(&layout, node.id)).unwrap();
        }
        layout
    }

    pub fn dir(&self) -> String {
        self.dir.path().display().to_string()
    }

    pub fn file(&self, node: u16) -> PathBuf {
        self.dir.path().join(format!("n{node}.toml"))
    }

    pub fn data(&self, node: u16) -> PathBuf {
        self.dir.path().join(format!("n{node}"))
    }

    pub fn socket(&self, node: u16) -> PathBuf {
        self.dir.path().join(format!("n{node}.sock"))
    }

    pub fn client(&self, node: u16) -> SocketAddr {
        self.nodes[usize::from(node) - 1].client
    }

    pub fn transport(&self, node: u16) -> SocketAddr {
        self.nodes[usize::from(node) - 1].transport.first()
    }

    pub fn config(&self, node: u16) -> Config {
        let own = &self.nodes[usize::from(node) - 1];
        let cluster = self.dir.path().file_name().unwrap().to_str().unwrap();
        Config {
            node,
            cluster: format!("t{}", cluster.trim_start_matches('.')),
            data_dir: self.data(node),
            bind: own.transport.clone(),
            nodes: self.nodes.clone(),
            client: ClientConfig { listen: own.client },
            admin: AdminConfig { socket: self.socket(node), http: None },
            transport: Default::default(),
            identity: IdentityConfig { dir: Some(self.dir.path().join(format!("identity{node}"))) },
            // A loaded machine must not lose members by being slow.
            timing: TimingConfig { heartbeat_ms: 20, suspect_ms: 300, dead_ms: 1500 },
            journal: JournalConfig { snapshot_every_bytes: 64 << 10, ..Default::default() },
            limits: Default::default(),
        }
    }
}

pub fn config_text(layout: &Layout, node: u16) -> String {
    toml::to_string_pretty(&layout.config(node)).unwrap()
}

/// One running daemon.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    pub fn start(layout: &Layout, node: u16) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quintetd"));
        command.arg("--config").arg(layout.file(node));
        Daemon::start_by(layout, node, command)
    }

    /// Started by a command that becomes the daemon.
    pub fn start_by(layout: &Layout, node: u16, mut command: Command) -> Daemon {
        let log = layout.dir.path().join(format!("n{node}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Daemon { child, socket: layout.socket(node), log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let done = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status();
        assert!(done.unwrap().success());
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// kill -9 of several, so close together that no view lies between.
    pub fn kill_at_once(mut daemons: Vec<Daemon>) {
        // Stopped first, all their threads: one that outlived another by a millisecond could agree with a survivor on a
        // view without that other, and would be the one that has to come back.
        daemons.iter().for_each(|daemon| daemon.signal(libc::SIGSTOP));
        for daemon in &daemons {
            let until = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
            // SAFETY: an all-zero siginfo is a valid value, live and writable; it is our own child.
            let waited = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                libc::waitid(libc::P_PID, daemon.child.id(), &mut info, until)
            };
            assert_eq!(waited, 0, "{}", std::io::Error::last_os_error());
        }
        daemons.iter_mut().for_each(|daemon| daemon.child.kill().unwrap());
        for daemon in &mut daemons {
            daemon.child.wait().unwrap();
        }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for it to end by itself.
    pub fn wait(mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One request to its admin API: status code and body.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Option<(u16, Value)> {
        let stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let kind = if path == "/v1/components" { "x-tar" } else { "json" };
        let head = format!("host: quintet\r\ncontent-type: application/{kind}\r\n");
        exchange(stream, method, path, &head, body)
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.request("GET", path, &[]).map(|(_, body)| body)
    }

    pub fn status(&self) -> Value {
        self.get("/v1/status").unwrap_or(Value::Null)
    }

    pub fn is_member(&self, members: usize) -> bool {
        let status = self.status();
        let view = status["view"]["members"].as_array().map_or(0, Vec::len);
        status["state"] == "member" && view == members
    }

    pub fn wait_until(&self, what: &str, mut condition: impl FnMut(&Daemon) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !condition(self) {
            let log = self.log();
            assert!(Instant::now() < until, "waited in vain for {what}: {}\n{log}", self.status());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_member(&self) {
        self.wait_until("membership", |d| d.status()["state"] == "member");
    }

    /// Deploys the counter; its library is built with these tests.
    pub fn deploy_counter(&self) {
        self.deploy(&counter_package());
    }

    /// Deploys the component that crashes and dawdles when it is asked to.
    pub fn deploy_specimen(&self) {
        self.deploy(&package_of("specimen"));
    }

    fn deploy(&self, package: &[u8]) {
        let (status, body) = self.request("POST", "/v1/components", package).unwrap();
        assert!(status < 300, "{status} {body}");
    }

    /// Calls a method of the counter.
    pub fn call(&self, method: &str, body: &str) -> (u16, Value) {
        self.call_of("counter", method, body)
    }

    pub fn call_of(&self, class: &str, method: &str, body: &str) -> (u16, Value) {
        let request = format!(r#"{{"class":"{class}","method":"{method}","body":{body}}}"#);
        self.request("POST", "/v1/call", request.as_bytes()).expect("the daemon answers")
    }

    pub fn value(&self) -> i64 {
        let (status, reply) = self.call("Get", "{}");
        assert_eq!(status, 200, "{reply}");
        reply["body"]["value"].as_str().unwrap().parse().unwrap()
    }

    /// Reads until this replica has caught up with what another acknowledged: a read without a session may be answered
    /// from the state before. A member whose read lease has not begun refuses with 503 until then: the lease of a new view
    /// begins when a quorum of it has said that it is there too, and a machine may take its time over that.
    pub fn wait_value(&self, value: i64) {
        self.wait_until(&format!("the value {value}"), |d| {
            let (status, reply) = d.call("Get", "{}");
            if status == 503 {
                return false;
            }
            assert_eq!(status, 200, "{reply}");
            let now: i64 = reply["body"]["value"].as_str().unwrap().parse().unwrap();
            assert!(now <= value, "{now} is more than {value}: something happened twice");
            now == value
        });
    }

    pub fn audit(&self) -> Value {
        self.request("POST", "/v1/audit", &[]).unwrap().1
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP exchange over a fresh connection, with these lines in its head: status code and body.
pub fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    head: &str,
    body: &[u8],
) -> Option<(u16, Value)> {
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{head}connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .ok()?;
    // Who is refused by its head may find the door closed before it has said everything.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// Three daemons in one view, with the counter deployed on each.
pub fn cluster() -> (Layout, Vec<Daemon>) {
    let layout = Layout::new(3);
    let daemons: Vec<_> = (1..=3).map(|node| Daemon::start(&layout, node)).collect();
    for daemon in &daemons {
        daemon.wait_until("a view of three", |d| d.is_member(3));
    }
    daemons[0].deploy_counter();
    for daemon in &daemons {
        daemon.wait_until("the counter", |d| {
            d.get("/v1/components").unwrap()[0]["state"] == "active"
        });
    }
    (layout, daemons)
}

pub fn counter_package() -> Vec<u8> {
    package_of("counter")
}

/// The package of a component of this workspace that has its library as an example.
fn package_of(name: &str) -> Vec<u8> {
    use quintet_manager::package::Package;
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!("name = \"{name}\"\nversion = \"1\"\nlibrary = \"{name}_library\"\n");
    std::fs::write(dir.path().join("component.toml"), manifest).unwrap();
    Package::from_dir(dir.path(), &[library_dir(name)]).unwrap().to_bytes()
}

/// Where cargo puts a component's library; built on demand, for `cargo test -p` does not.
fn library_dir(name: &str) -> PathBuf {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut built = BUILT.lock().unwrap();
    if !built.iter().any(|known| known == name) {
        build(&["-p", name, "--example", &format!("{name}_library")]);
        built.push(name.to_owned());
    }
    program_dir().join("examples")
}

/// The proxy, beside the other programs; built along with all tests, not with those of this crate.
pub fn build_proxy() {
    if !program_dir().join("quintet-proxy").exists() {
        build(&["-p", "quintet-client", "--bin", "quintet-proxy"]);
    }
}

/// Where cargo puts the programs of this build.
pub fn program_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_quintetd")).parent().unwrap().to_owned()
}

/// Has cargo build something more into the place where the programs of this build are.
pub fn build(words: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet"]).args(words);
    build.env("CARGO_TARGET_DIR", program_dir().parent().unwrap());
    if program_dir().ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
}

/// A client that speaks frames.
pub struct Native {
    pub reader: FrameReader<OwnedReadHalf>,
    pub writer: FrameWriter<OwnedWriteHalf>,
}

impl Native {
    /// Connects and says Hello; the Welcome is still to be read.
    pub async fn connect(layout: &Layout, node: u16, client: u128) -> Native {
        let cluster = layout.config(node).cluster;
        Native::connect_named(layout, node, client, &cluster).await
    }

    /// As [`Native::connect`], to a cluster that may have another name.
    pub async fn connect_named(layout: &Layout, node: u16, client: u128, cluster: &str) -> Native {
        let stream = TcpStream::connect(layout.client(node)).await.unwrap();
        let (read, write) = stream.into_split();
        let reader = FrameReader::new(read, limits::FRAME_BYTES_MAX);
        let mut writer = FrameWriter::new(write, 1 << 20);
        let hello = Hello {
            version: VERSION,
            cluster: cluster.into(),
            client: ClientId(client),
            purpose: Purpose::Calls,
        };
        writer.write_frame(&Frame::Hello(hello)).await.unwrap();
        Native { reader, writer }
    }

    pub async fn next(&mut self) -> Option<Frame> {
        let frame =
            tokio::time::timeout(PATIENCE, self.reader.read_frame()).await.expect("in time");
        frame.ok().flatten()
    }

    /// Adds to the counter.
    pub async fn add(&mut self, seq: u64, first_incomplete: u64, amount: u8) {
        // protobuf: field 1, varint
        self.call(seq, first_incomplete, "Add", &[8, amount]).await;
    }

    /// Asks the counter for its value.
    pub async fn get(&mut self, seq: u64) {
        self.call(seq, seq, "Get", &[]).await;
    }

    async fn call(&mut self, seq: u64, first_incomplete: u64, method: &str, body: &[u8]) {
        let call = Call {
            seq,
            first_incomplete,
            deadline_ms: 0,
            min_position: 0,
            path: format!("/counter.Counter/{method}").into(),
            body: Body::from(body),
        };
        self.writer.write_frame(&Frame::Call(call)).await.unwrap();
    }

    /// The next answer to a call, passing over everything else; `None` if the connection ended.
    pub async fn answer(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if matches!(frame, Frame::Reply(_) | Frame::Refuse(_)) {
                return Some(frame);
            }
        }
    }
}
