//! A replicated ledger for tests: every node applies messages in the order it is told, gives its state to learners, and
//! starts over as a new incarnation when it is evicted. What the tests compare is the ledger.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod process;
#[path = "../../../scripts/tidy/skip.rs"]
mod skip;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quintet_transport::{Authority, VerbsConfig};
use quintet_vsync::{
    BulkWriter, Config, Deliveries, Donation, Event, Group, Member, MessageId, Node, NodeId,
    PathPolicy, PeerConfig, Position, SendError, Unresolved, ViewChange, ViewId,
};

/// Runs a behaviour over every path.
#[macro_export]
macro_rules! on_every_path {
    ($($name:ident),* $(,)?) => {
        mod shm { $( #[test] fn $name() { super::$name(quintet_vsync::PathPolicy::Shm) } )* }
        mod udp { $( #[test] fn $name() { super::$name(quintet_vsync::PathPolicy::Udp) } )* }
        #[cfg(feature = "verbs")]
        mod verbs {
            $( #[test] fn $name() {
                if $crate::cluster::has_adapters() { super::$name(quintet_vsync::PathPolicy::Verbs) }
            } )*
        }
    };
}

/// Whether this is the guest of scripts/soft-roce-vm, with an adapter for every other node.
pub fn has_adapters() -> bool {
    let there = std::env::var_os("QUINTET_RXE").is_some();
    if !there {
        skip::skip("no adapters: run it with scripts/soft-roce-vm");
    }
    there
}

/// Generous: a test that waits this long has failed, whatever the machine does. The guest's processors are emulated.
pub fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os("QUINTET_RXE").is_some() { 240 } else { 30 })
}

/// One applied message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub at: Position,
    pub sender: NodeId,
    pub bytes: Vec<u8>,
}

/// What a node's application knows.
#[derive(Debug, Default)]
pub struct Ledger {
    pub entries: Vec<Entry>,
    /// Everything before it is applied.
    pub state: Position,
    pub views: Vec<Arc<ViewChange>>,
    /// How many entries there were when each view came.
    pub entries_at_view: Vec<usize>,
    pub blocked: bool,
    pub blocked_count: usize,
    pub evictions: usize,
    /// Own messages delivered in this incarnation.
    pub own: Vec<(Position, MessageId)>,
    /// Incarnations that ended: own messages delivered, and those that were not.
    pub ended: Vec<(Vec<(Position, MessageId)>, Unresolved)>,
    pub left: bool,
    pub failed: Option<String>,
    /// Loaded by state transfer in this incarnation.
    pub loaded: usize,
}

impl Ledger {
    pub fn members(&self) -> Vec<NodeId> {
        self.views.last().map_or(Vec::new(), |v| v.view.members.iter().map(|m| m.node).collect())
    }

    pub fn view(&self) -> ViewId {
        self.views.last().map_or(ViewId(0), |v| v.view.id)
    }

    pub fn texts(&self) -> Vec<String> {
        self.entries.iter().map(|e| String::from_utf8_lossy(&e.bytes).into_owned()).collect()
    }
}

/// Knobs of a node in a test.
#[derive(Clone)]
pub struct Options {
    pub cluster: String,
    pub path: PathPolicy,
    pub addresses: Vec<SocketAddr>,
    pub data: Option<PathBuf>,
    pub group_log: usize,
    pub queue: usize,
}

impl Options {
    pub fn config(&self, index: usize) -> Config {
        let id = |i: usize| NodeId(i as u16 + 1);
        let peers = (0..self.addresses.len())
            .filter(|i| *i != index)
            .map(|i| PeerConfig { node: id(i), addr: self.addresses[i] })
            .collect();
        let mut config = Config::new(self.cluster.clone(), id(index), self.addresses[index], peers);
        config.path = self.path;
        if self.path == PathPolicy::Verbs {
            config.verbs = VerbsConfig {
                trusted_fabric: true,
                device: Some(format!("rxe{}", index % 2)),
                ..VerbsConfig::default()
            };
            config.timing.suspect = Duration::from_secs(1);
            config.timing.dead = Duration::from_secs(3);
        }
        let authority = Authority::new(&self.cluster, [1; 32]).unwrap();
        config.identity = Some(Arc::new(authority.admit(id(index), [index as u8; 32])));
        config.data_dir = self.data.as_ref().map(|d| d.join(format!("n{}", index + 1)));
        config.limits.group_log = self.group_log;
        config.limits.queue = self.queue;
        config.limits.bulk_log = 1 << 18;
        config
    }
}

/// A node with its application thread.
pub struct App {
    shared: Arc<AppShared>,
    thread: Option<JoinHandle<()>>,
}

struct AppShared {
    ledger: Mutex<Ledger>,
    group: Mutex<Option<Group>>,
    stop: AtomicBool,
    leave: AtomicBool,
    /// Milliseconds the application sleeps for each message: a slow consumer.
    slow_ms: AtomicU64,
    status: Mutex<Option<Arc<quintet_vsync::Status>>>,
}

impl App {
    pub fn start(config: Config) -> App {
        if std::env::var_os("QUINTET_LOG").is_some() {
            let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).try_init();
        }
        let shared = Arc::new(AppShared {
            ledger: Mutex::default(),
            group: Mutex::default(),
            stop: AtomicBool::new(false),
            leave: AtomicBool::new(false),
            slow_ms: AtomicU64::new(0),
            status: Mutex::default(),
        });
        let thread = thread::spawn({
            let shared = shared.clone();
            move || run(&shared, config)
        });
        let app = App { shared, thread: Some(thread) };
        wait_for("the node to start", || app.shared.group.lock().unwrap().is_some());
        app
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().unwrap()
    }

    /// Id and size of the latest view.
    pub fn view(&self) -> (ViewId, usize) {
        let ledger = self.ledger();
        (ledger.view(), ledger.members().len())
    }

    pub fn group(&self) -> Group {
        self.shared.group.lock().unwrap().clone().expect("started")
    }

    pub fn status(&self) -> Arc<quintet_vsync::Status> {
        self.group().status()
    }

    /// Sends, waiting for room.
    pub fn send(&self, text: &str) {
        self.send_id(text);
    }

    /// As [`Self::send`], and says what `commit` said.
    pub fn send_id(&self, text: &str) -> MessageId {
        let mut id = None;
        wait_for("room in the log", || match self.group().send(text.as_bytes()) {
            Ok(sent) => {
                id = Some(sent);
                true
            }
            Err(SendError::Full | SendError::Closed) => false,
            Err(e) => panic!("{e}"),
        });
        id.expect("sent")
    }

    pub fn set_slow(&self, ms: u64) {
        self.shared.slow_ms.store(ms, Ordering::Relaxed);
    }

    pub fn leave(&self) {
        self.shared.leave.store(true, Ordering::Relaxed);
    }

    /// Stops the node as if its process ended.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            t.join().expect("the application thread");
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.halt();
        } else {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Waits for something; panics with `what` when it does not come.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < patience(), "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Addresses that nothing else on this machine has or will get: a test gives them up and takes them again, and a port that
/// the kernel chose may be somebody else's by then. All of 127.0.0.0/8 is this machine's, and a process id fits into it.
pub fn addresses(n: usize) -> Vec<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(7100);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 + a, b, c);
    (0..n).map(|_| SocketAddr::from((own, NEXT.fetch_add(1, Ordering::Relaxed)))).collect()
}

pub fn options(n: usize, path: PathPolicy) -> Options {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Options {
        cluster: format!("test-{}-{count}", std::process::id()),
        path,
        addresses: addresses(n),
        data: None,
        group_log: 1 << 20,
        queue: 1 << 12,
    }
}

pub fn start_all(options: &Options) -> Vec<App> {
    (0..options.addresses.len()).map(|i| App::start(options.config(i))).collect()
}

/// Waits until all of `apps` are in one view with exactly `members` members.
pub fn wait_for_view(apps: &[&App], members: usize) {
    wait_for(&format!("one view of {members}"), || {
        let ids: Vec<_> = apps.iter().map(|a| a.view()).collect();
        ids.iter().all(|i| *i == ids[0] && i.1 == members)
    });
}

/// Waits until all of `apps` hold `n` entries, and demands that these are equal.
pub fn wait_for_entries(apps: &[&App], n: usize) {
    wait_for(&format!("{n} entries everywhere"), || {
        apps.iter().all(|a| a.ledger().entries.len() >= n)
    });
    assert_equal(apps);
}

pub fn assert_equal(apps: &[&App]) {
    let first = apps[0].ledger().entries.clone();
    for app in &apps[1..] {
        let other = app.ledger().entries.clone();
        assert_eq!(first.len(), other.len(), "ledgers of different length");
        assert!(
            first == other,
            "ledgers differ at {:?}",
            first.iter().zip(&other).position(|(a, b)| a != b)
        );
    }
    assert!(first.windows(2).all(|w| w[0].at < w[1].at), "positions grow");
}

// ---- the application itself ----

enum Tail {
    Entry(Entry),
    Finish(ViewId),
}

const ENTRY: u8 = 0;
const READY: u8 = 1;

fn frame(kind: u8, at: Position, sender: NodeId, bytes: &[u8]) -> Vec<u8> {
    let mut f = Vec::with_capacity(15 + bytes.len());
    f.extend_from_slice(&(11 + bytes.len() as u32).to_le_bytes());
    f.push(kind);
    f.extend_from_slice(&at.0.to_le_bytes());
    f.extend_from_slice(&sender.0.to_le_bytes());
    f.extend_from_slice(bytes);
    f
}

fn take_frame(buffer: &mut Vec<u8>) -> Option<(u8, Entry)> {
    let len = u32::from_le_bytes(buffer.get(..4)?.try_into().unwrap()) as usize;
    let body = buffer.get(4..4 + len)?;
    let entry = Entry {
        at: Position(u64::from_le_bytes(body[1..9].try_into().unwrap())),
        sender: NodeId(u16::from_le_bytes(body[9..11].try_into().unwrap())),
        bytes: body[11..].to_vec(),
    };
    let kind = body[0];
    buffer.drain(..4 + len);
    Some((kind, entry))
}

fn donate(mut writer: BulkWriter, snapshot: Vec<Entry>, state: Position, tail: &Receiver<Tail>) {
    let mut write = |f: Vec<u8>| writer.write(&f).is_ok();
    for e in snapshot {
        if !write(frame(ENTRY, e.at, e.sender, &e.bytes)) {
            return;
        }
    }
    if !write(frame(READY, state, NodeId(0), &[])) {
        return;
    }
    while let Ok(t) = tail.recv() {
        match t {
            Tail::Entry(e) => {
                if !write(frame(ENTRY, e.at, e.sender, &e.bytes)) {
                    return;
                }
            }
            Tail::Finish(view) => {
                let _ = writer.finish(view);
                return;
            }
        }
    }
}

/// A journal, where there is a data directory: the state survives the process, as a real application's would.
struct Journal(Option<File>);

impl Journal {
    fn open(config: &Config, ledger: &mut Ledger) -> Journal {
        let Some(dir) = &config.data_dir else { return Journal(None) };
        std::fs::create_dir_all(dir).unwrap();
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(dir.join("journal"))
            .unwrap();
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        while let Some((kind, e)) = take_frame(&mut all) {
            match kind {
                ENTRY => ledger.entries.push(e.clone()),
                _ => ledger.entries.clear(),
            }
            ledger.state = ledger.state.max(Position(e.at.0 + 1));
        }
        Journal(Some(file))
    }

    fn entry(&mut self, e: &Entry) {
        if let Some(f) = &mut self.0 {
            f.write_all(&frame(ENTRY, e.at, e.sender, &e.bytes)).unwrap();
        }
    }

    /// What follows replaces everything before.
    fn reset(&mut self) {
        if let Some(f) = &mut self.0 {
            f.write_all(&frame(READY, Position::ZERO, NodeId(0), &[])).unwrap();
        }
    }
}

fn run(shared: &AppShared, mut config: Config) {
    let mut journal = Journal::open(&config, &mut shared.ledger.lock().unwrap());
    while !shared.stop.load(Ordering::Relaxed) {
        config.state = shared.ledger.lock().unwrap().state;
        let (node, group, deliveries) = Node::start(config.clone()).expect("start");
        *shared.group.lock().unwrap() = Some(group.clone());
        if !incarnation(shared, &mut journal, &node, &group, deliveries) {
            break;
        }
        drop(node);
    }
}

struct Donating {
    learner: Member,
    tail: Sender<Tail>,
}

/// Runs one incarnation; true if another is to follow.
fn incarnation(
    shared: &AppShared,
    journal: &mut Journal,
    node: &Node,
    group: &Group,
    mut deliveries: Deliveries,
) -> bool {
    let mut donations: Vec<Donating> = Vec::new();
    let mut buffer = Vec::new();
    let mut loading = false;
    let mut left = false;
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return false;
        }
        if shared.leave.load(Ordering::Relaxed) && !left {
            left = true;
            node.leave();
        }
        let Some(event) = deliveries.next(Duration::from_millis(10)) else {
            if deliveries.is_finished() {
                return false;
            }
            continue;
        };
        let mut ledger = shared.ledger.lock().unwrap();
        match event {
            Event::View(change) => {
                for d in donations.extract_if(.., |d| change.view.joined.contains(&d.learner)) {
                    let _ = d.tail.send(Tail::Finish(change.view.id));
                }
                ledger.state = ledger.state.max(Position::new(change.view.id, 0));
                let n = ledger.entries.len();
                ledger.views.push(change);
                ledger.entries_at_view.push(n);
            }
            Event::Message(m) => {
                let e = Entry { at: m.at, sender: m.sender.node, bytes: m.bytes.to_vec() };
                if !m.intact() {
                    continue;
                }
                assert!(e.at >= ledger.state, "delivered again: {} below {}", e.at, ledger.state);
                journal.entry(&e);
                ledger.state = Position(e.at.0 + 1);
                for d in &donations {
                    let _ = d.tail.send(Tail::Entry(e.clone()));
                }
                ledger.entries.push(e);
                if m.own {
                    ledger.own.push((m.at, m.id));
                }
                group.report_persisted(ledger.state);
                drop(ledger);
                let slow = shared.slow_ms.load(Ordering::Relaxed);
                if slow > 0 {
                    thread::sleep(Duration::from_millis(slow));
                }
            }
            Event::Donate(Donation { learner, writer }) => {
                let (snapshot, state) = (ledger.entries.clone(), ledger.state);
                let (tail, rx) = channel();
                donations.push(Donating { learner, tail });
                thread::spawn(move || donate(writer, snapshot, state, &rx));
            }
            Event::Chunk(bytes) => {
                if !loading {
                    loading = true;
                    ledger.entries.clear();
                    ledger.state = Position::ZERO;
                    ledger.loaded = 0;
                    journal.reset();
                }
                buffer.extend_from_slice(bytes);
                while let Some((kind, e)) = take_frame(&mut buffer) {
                    if kind == READY {
                        ledger.state = ledger.state.max(e.at);
                        group.ready(ledger.state);
                    } else {
                        journal.entry(&e);
                        ledger.state = Position(e.at.0 + 1);
                        ledger.entries.push(e);
                        ledger.loaded += 1;
                    }
                }
            }
            Event::Blocked(_) => {
                ledger.blocked = true;
                ledger.blocked_count += 1;
            }
            Event::Resumed => ledger.blocked = false,
            Event::Evicted(_) => {
                ended(&mut ledger, &deliveries);
                ledger.evictions += 1;
                ledger.blocked = false;
                return true;
            }
            Event::Left => {
                ended(&mut ledger, &deliveries);
                ledger.left = true;
                return false;
            }
            Event::Failed(why) => {
                ledger.failed = Some(why.to_string());
                return false;
            }
            Event::Path { .. } => {}
            other => panic!("an event this test does not know: {other:?}"),
        }
    }
}

fn ended(ledger: &mut Ledger, deliveries: &Deliveries) {
    let own = std::mem::take(&mut ledger.own);
    ledger.ended.push((own, deliveries.unresolved().expect("it has ended")));
}
