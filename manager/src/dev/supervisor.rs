//! Starts the processes of a development cluster, watches them, carries out orders, and ends them all.

use super::control::{self, Asked, Order, Target};
use super::layout::{Layout, NodeLayout, Place};
use super::netns::Namespaces;
use super::process::{Program, beside, signal};
use super::{StartArguments, Transport};
use crate::cli::error::Error;
use crate::config::{
    AdminConfig, ClientConfig, Config, IdentityConfig, JournalConfig, NodeConfig, PathChoice,
    TimingConfig, TransportConfig,
};
use crate::identity;
use crate::limits::Limits;
use crate::print::mention;
use quintet_transport::{Authority, NodeId};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal as on_signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(15);
/// How long a start waits for a child that may just be ending.
const DYING: Duration = Duration::from_millis(300);
/// How often the children are looked at. A wake-up costs microseconds; nobody waits for this.
const WATCH: Duration = Duration::from_millis(250);

/// Runs a cluster until it is told to stop.
pub(super) async fn run(arguments: &StartArguments, dir: &Path) -> Result<(), Error> {
    // Before anything is made that has to be removed again.
    let endings = Endings::watch()?;
    let dir = absolute(dir)?;
    let _lock = lock(&dir)?;
    let namespaces = arguments.netns.then(|| Namespaces::create(arguments.nodes)).transpose()?;
    let layout = lay_out(arguments, &dir, namespaces.as_ref())?;
    let mut supervisor = Supervisor::new(layout, namespaces, arguments, &dir)?;
    let (sender, orders) = mpsc::channel(16);
    let _ = std::fs::remove_file(&supervisor.layout.control);
    let listener = UnixListener::bind(&supervisor.layout.control)
        .map_err(|error| cannot("listen at", &supervisor.layout.control, &error))?;
    supervisor.start_all()?;
    supervisor
        .layout
        .save(&dir)
        .map_err(|error| cannot("write", &dir.join("cluster.json"), &error))?;
    tokio::spawn(control::listen(listener, sender));
    supervisor.welcome(arguments, &dir);
    let ended = supervisor.watch(orders, endings).await;
    let _ = std::fs::remove_file(dir.join("cluster.json"));
    ended
}

fn lay_out(
    arguments: &StartArguments,
    dir: &Path,
    namespaces: Option<&Namespaces>,
) -> Result<Layout, Error> {
    let mut free = FreePorts::default();
    let mut places = Vec::new();
    for id in 1..=arguments.nodes {
        places.push(match namespaces {
            Some(namespaces) => {
                let ip = namespaces.node_address(id);
                Place {
                    id,
                    transport: SocketAddr::new(ip, 7100),
                    client: SocketAddr::new(ip, 7200),
                }
            }
            None => Place { id, transport: free.udp()?, client: free.tcp()? },
        });
    }
    let proxy = match (namespaces, arguments.port) {
        (Some(namespaces), 0) => SocketAddr::new(namespaces.proxy_address(), 50051),
        (Some(namespaces), port) => SocketAddr::new(namespaces.proxy_address(), port),
        (None, 0) => free.tcp()?,
        (None, port) => SocketAddr::new(LOOPBACK, port),
    };
    let layout = Layout::new(dir, cluster_name(dir), places, proxy);
    layout.make_directories(dir).map_err(|error| cannot("make directories in", dir, &error))?;
    Ok(layout)
}

/// The same directory is the same cluster, also after everything was ended and started again.
fn cluster_name(dir: &Path) -> String {
    format!("dev-{:08x}", crc32fast::hash(dir.as_os_str().as_encoded_bytes()))
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Finds ports the kernel gives out. They are held until all are found, so that no two are the same.
#[derive(Default)]
struct FreePorts {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl FreePorts {
    fn udp(&mut self) -> Result<SocketAddr, Error> {
        let socket = UdpSocket::bind((LOOPBACK, 0)).map_err(no_port)?;
        let address = socket.local_addr().map_err(no_port)?;
        self.udp.push(socket);
        Ok(address)
    }

    fn tcp(&mut self) -> Result<SocketAddr, Error> {
        let socket = TcpListener::bind((LOOPBACK, 0)).map_err(no_port)?;
        let address = socket.local_addr().map_err(no_port)?;
        self.tcp.push(socket);
        Ok(address)
    }
}

fn no_port(error: io::Error) -> Error {
    Error::new(format!("no free port on {LOOPBACK}: {error}"))
}

/// One process of the cluster.
struct Process {
    name: String,
    program: Program,
    child: Option<Child>,
    /// Ended by an order, so its end is no news.
    expected: bool,
}

impl Process {
    fn start(&mut self) -> Result<u32, Error> {
        let child = self.program.start().map_err(|error| {
            Error::new(format!("cannot start {}: {error}", self.program.binary.display()))
        })?;
        let pid = child.id().unwrap_or(0);
        self.child = Some(child);
        self.expected = false;
        Ok(pid)
    }

    /// Notes the end of the process, if it has ended.
    fn reap(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        (!self.expected).then(|| {
            format!("{} ended ({status}); its log: {}", self.name, self.program.log.display())
        })
    }

    fn signal(&self, number: i32) -> Result<u32, String> {
        let child = self.child.as_ref().ok_or_else(|| format!("{} is not running", self.name))?;
        signal(child, number).map_err(|error| format!("{}: {error}", self.name))?;
        Ok(child.id().unwrap_or(0))
    }
}

/// The signals that end a cluster, remembered from the moment they are watched.
struct Endings([Signal; 3]);

impl Endings {
    fn watch() -> Result<Endings, Error> {
        let on = |kind| on_signal(kind).map_err(no_signal);
        Ok(Endings([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
        ]))
    }

    async fn come(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn no_signal(error: io::Error) -> Error {
    Error::new(format!("cannot watch signals: {error}"))
}

struct Supervisor {
    layout: Layout,
    namespaces: Option<Namespaces>,
    nodes: Vec<Process>,
    proxy: Process,
}

impl Supervisor {
    fn new(
        layout: Layout,
        namespaces: Option<Namespaces>,
        arguments: &StartArguments,
        dir: &Path,
    ) -> Result<Supervisor, Error> {
        let missing = |error: io::Error| Error::new(error.to_string());
        let (daemon, proxy) =
            (beside("quintetd").map_err(missing)?, beside("quintet-proxy").map_err(missing)?);
        let authority = Authority::new(&layout.cluster, random()?)
            .map_err(|error| Error::new(error.to_string()))?;
        let mut nodes = Vec::new();
        for node in &layout.nodes {
            identity::store(&node.identity, &authority.admit(NodeId(node.id), random()?))
                .map_err(|error| Error::new(error.to_string()))?;
            let config = configuration(&layout, node, arguments);
            let text =
                toml::to_string_pretty(&config).map_err(|error| Error::new(error.to_string()))?;
            std::fs::write(&node.config, text)
                .map_err(|error| cannot("write", &node.config, &error))?;
            let program = Program {
                binary: daemon.clone(),
                arguments: vec!["--config".into(), node.config.display().to_string()],
                log: node.log.clone(),
                network: namespaces.as_ref().map(|namespaces| namespaces.node(node.id)),
            };
            nodes.push(Process {
                name: format!("node {}", node.id),
                program,
                child: None,
                expected: false,
            });
        }
        let mut words = vec![
            "--cluster".into(),
            layout.cluster.clone(),
            "--listen".into(),
            layout.proxy.listen.to_string(),
        ];
        for node in &layout.nodes {
            words.extend(["--manager".into(), node.client.to_string()]);
        }
        words.extend(["--status".into(), format!("unix:{}", layout.proxy.status.display())]);
        let program = Program {
            binary: proxy,
            arguments: words,
            log: dir.join("proxy.log"),
            network: namespaces.as_ref().map(Namespaces::proxy),
        };
        let proxy = Process { name: "the proxy".into(), program, child: None, expected: false };
        Ok(Supervisor { layout, namespaces, nodes, proxy })
    }

    fn start_all(&mut self) -> Result<(), Error> {
        for process in self.nodes.iter_mut().chain([&mut self.proxy]) {
            process.start()?;
        }
        Ok(())
    }

    fn welcome(&self, arguments: &StartArguments, dir: &Path) {
        mention!(
            "cluster {} of {} nodes, data and logs in {}\n",
            self.layout.cluster,
            self.nodes.len(),
            dir.display()
        );
        mention!("  {:<7} {:<8} {:<22} {:<22} log", "", "pid", "transport", "clients");
        for (process, node) in self.nodes.iter().zip(&self.layout.nodes) {
            let pid = process.child.as_ref().and_then(Child::id).unwrap_or(0);
            mention!(
                "  {:<7} {pid:<8} {:<22} {:<22} {}",
                process.name,
                node.transport,
                node.client,
                node.log.display()
            );
        }
        let pid = self.proxy.child.as_ref().and_then(Child::id).unwrap_or(0);
        let proxy = &self.layout.proxy;
        mention!(
            "  {:<7} {pid:<8} {:<22} {:<22} {}\n",
            "proxy",
            "",
            proxy.listen,
            proxy.log.display()
        );
        let scope = arguments
            .dir
            .as_ref()
            .map_or(String::new(), |_| format!(" --cluster-dir {}", dir.display()));
        mention!("In another shell:");
        mention!("  quintet{scope} status");
        mention!("  quintet{scope} component deploy examples/bank");
        mention!("  quintet{scope} call bank Transfer '{{\"from\":1,\"to\":2,\"amount\":5}}'");
        mention!("  quintet{scope} dev kill 2; quintet{scope} events; quintet{scope} dev start 2");
        mention!("gRPC clients connect to {}. Ctrl-C ends it.\n", proxy.listen);
    }

    async fn watch(
        mut self,
        mut orders: mpsc::Receiver<Asked>,
        mut endings: Endings,
    ) -> Result<(), Error> {
        let mut child_ended = on_signal(SignalKind::child()).map_err(no_signal)?;
        let mut tick = interval(WATCH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = endings.come() => break,
                _ = child_ended.recv() => self.reap(),
                _ = tick.tick(), if self.all().any(|process| process.expected && process.child.is_some()) => self.reap(),
                Some((order, answer)) = orders.recv() => {
                    self.reap();
                    if order == Order::Stop {
                        self.stop_all().await;
                        let _ = answer.send(Ok("the cluster has ended".into()));
                        // Give the answer its way out before the process ends.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        return Ok(());
                    }
                    let done = self.carry_out(order).await;
                    if let Ok(text) = &done {
                        mention!("{text}");
                    }
                    let _ = answer.send(done);
                }
            }
        }
        mention!("ending the cluster");
        self.stop_all().await;
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Process> {
        self.nodes.iter().chain([&self.proxy])
    }

    fn reap(&mut self) {
        for process in self.nodes.iter_mut().chain([&mut self.proxy]) {
            if let Some(news) = process.reap() {
                mention!("{news}");
            }
        }
    }

    async fn carry_out(&mut self, order: Order) -> Result<String, String> {
        if let Order::Start(targets) = &order {
            self.let_die(targets).await;
        }
        match order {
            Order::Kill(targets) => self.kill(&targets).await,
            Order::Pause(targets) => {
                self.each(&targets, |s, target| s.signal(target, libc::SIGSTOP, "frozen"))
            }
            Order::Resume(targets) => {
                self.each(&targets, |s, target| s.signal(target, libc::SIGCONT, "going on"))
            }
            Order::Terminate(targets) => {
                let what = "asked to hand over and leave";
                self.each(&targets, |s, target| s.signal(target, libc::SIGTERM, what))
            }
            Order::Cut(targets) => self.each(&targets, |s, target| s.cable(target, false)),
            Order::Heal(targets) => self.each(&targets, |s, target| s.cable(target, true)),
            Order::Start(targets) => self.each(&targets, Supervisor::start),
            Order::Stop => Err("not an order for one of them".into()),
        }
    }

    /// What has just been killed may be started: its end takes the kernel some time.
    async fn let_die(&mut self, targets: &[Target]) {
        for target in targets {
            if let Ok(Process { child: Some(child), .. }) = self.process(*target) {
                let _ = tokio::time::timeout(DYING, child.wait()).await;
            }
        }
        self.reap();
    }

    /// One after the other; what was done before one that fails is said too.
    fn each(
        &mut self,
        targets: &[Target],
        mut act: impl FnMut(&mut Supervisor, Target) -> Result<String, String>,
    ) -> Result<String, String> {
        let mut done = Vec::new();
        for target in targets {
            match act(self, *target) {
                Ok(line) => done.push(line),
                Err(why) => {
                    done.push(why);
                    return Err(done.join("\n"));
                }
            }
        }
        Ok(done.join("\n"))
    }

    fn start(&mut self, target: Target) -> Result<String, String> {
        let process = self.process(target)?;
        if let Some(child) = &process.child {
            return Err(format!("{target} is running (pid {})", child.id().unwrap_or(0)));
        }
        process
            .start()
            .map(|pid| format!("{target} started (pid {pid})"))
            .map_err(|error| error.to_string())
    }

    /// All first, so that they die at once; gone when this returns, so that `dev start` may follow.
    async fn kill(&mut self, targets: &[Target]) -> Result<String, String> {
        let done = self.each(targets, |s, target| s.signal(target, libc::SIGKILL, "killed"));
        for target in targets {
            let process = self.process(*target).ok().filter(|process| process.expected);
            if let Some(child) = process.and_then(|process| process.child.as_mut()) {
                let _ = timeout(GRACE, child.wait()).await;
            }
        }
        self.reap();
        done
    }

    fn signal(&mut self, target: Target, number: i32, what: &str) -> Result<String, String> {
        let process = self.process(target)?;
        let pid = process.signal(number)?;
        process.expected = number == libc::SIGKILL || number == libc::SIGTERM;
        Ok(format!("{target} {what} (pid {pid})"))
    }

    fn cable(&mut self, target: Target, up: bool) -> Result<String, String> {
        self.process(target)?;
        let namespaces = self
            .namespaces
            .as_ref()
            .ok_or("only a cluster started with --netns has cables to cut")?;
        namespaces.set_link(target, up).map_err(|error| error.to_string())?;
        Ok(format!("{target} {}", if up { "has its cable back" } else { "has lost its cable" }))
    }

    fn process(&mut self, target: Target) -> Result<&mut Process, String> {
        let node = match target {
            Target::Proxy => return Ok(&mut self.proxy),
            Target::Node(node) => node,
        };
        let last = self.nodes.len();
        let index = usize::from(node).checked_sub(1).filter(|index| *index < last);
        index
            .map(|index| &mut self.nodes[index])
            .ok_or(format!("there is no node {node}: nodes are 1 to {last}"))
    }

    /// The proxy first, so that its calls still find answers; then the daemons, each handing over to the rest.
    async fn stop_all(&mut self) {
        for process in [&mut self.proxy].into_iter().chain(&mut self.nodes) {
            process.expected = true;
            // A frozen process would not see the request.
            let _ = process.signal(libc::SIGCONT);
            let _ = process.signal(libc::SIGTERM);
        }
        for process in [&mut self.proxy].into_iter().chain(&mut self.nodes) {
            let Some(child) = &mut process.child else { continue };
            if timeout(GRACE, child.wait()).await.is_err() {
                mention!("{} did not end within {} s: killed", process.name, GRACE.as_secs());
                let _ = child.kill().await;
            }
        }
    }
}

fn configuration(layout: &Layout, node: &NodeLayout, arguments: &StartArguments) -> Config {
    let path = match arguments.transport {
        _ if arguments.netns => PathChoice::Udp,
        Transport::Auto => PathChoice::Auto,
        Transport::Shm => PathChoice::Shm,
        Transport::Udp => PathChoice::Udp,
        Transport::Verbs => PathChoice::Verbs,
    };
    let known = |node: &NodeLayout| NodeConfig {
        id: node.id,
        transport: node.transport.into(),
        client: node.client,
    };
    Config {
        node: node.id,
        cluster: layout.cluster.clone(),
        data_dir: node.data.clone(),
        bind: node.transport.into(),
        nodes: layout.nodes.iter().map(known).collect(),
        client: ClientConfig { listen: node.client },
        admin: AdminConfig { socket: node.admin.clone(), http: None },
        transport: TransportConfig {
            path,
            trusted_fabric: path == PathChoice::Verbs,
            ..TransportConfig::default()
        },
        identity: IdentityConfig { dir: Some(node.identity.clone()) },
        timing: TimingConfig::default(),
        journal: JournalConfig::default(),
        limits: Limits::default(),
    }
}

fn absolute(dir: &Path) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(dir).map_err(|error| cannot("make", dir, &error))?;
    dir.canonicalize().map_err(|error| cannot("use", dir, &error))
}

/// Holds the directory for this process; the kernel lets go of it when the process ends.
fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|error| cannot("write", &path, &error))?;
    file.try_lock().map_err(|_| {
        Error::new(format!("a cluster runs in {} already", dir.display()))
            .hint("end it with `quintet dev stop`, or start another with --dir")
    })?;
    Ok(file)
}

/// Keys of a development cluster are made anew at each start; its authority is forgotten when all nodes are admitted.
fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(format!("the kernel gives no entropy: {error}")))?;
    Ok(bytes)
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(format!("cannot {what} {}: {error}", path.display()))
}
