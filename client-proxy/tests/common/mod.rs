//! A cluster of managers played by the test: real sockets, real frames, one shared ledger in place of replication.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

pub mod grpc;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use quintet_client::wire::{
    Body, Call, ClientId, Code, Digest, Farewell, Frame, FrameReader, FrameWriter, Goodbye, Late,
    Member, Package, Reason, Refuse, Reply, Status, View, ViewMember, Welcome, limits,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

/// What a manager does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Serve,
    Refuse(Reason),
    /// Executes and says nothing.
    Swallow,
    /// Executes and breaks the connection instead of answering.
    Break,
    /// Answers with bytes that are no frame.
    Garbage,
}

struct Node {
    address: SocketAddr,
    incarnation: u64,
    behaviour: Behaviour,
    primary: bool,
    paused: watch::Sender<bool>,
    listener: Option<AbortHandle>,
    connections: Vec<AbortHandle>,
}

/// The state that the managers would replicate.
#[derive(Default)]
pub struct Ledger {
    pub view: u64,
    pub in_view: Vec<u16>,
    position: u64,
    answers: HashMap<(ClientId, u64), (Vec<u8>, Reply)>,
    first_incomplete: HashMap<ClientId, u64>,
    /// Every execution, in order.
    pub executed: Vec<(ClientId, u64, Vec<u8>)>,
    /// Copies of calls that were answered from memory.
    pub repeated: u64,
    /// Calls that came after they had been given up.
    pub late: u64,
    pub finished: Vec<ClientId>,
    pub deadlines: Vec<u32>,
    /// What a client did that it must not.
    pub faults: Vec<String>,
    pub packages: HashMap<Digest, Vec<u8>>,
}

struct Shared {
    ledger: Mutex<Ledger>,
    nodes: Mutex<BTreeMap<u16, Node>>,
    changed: watch::Sender<u64>,
}

#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

pub const CLUSTER: &str = "test";

impl Cluster {
    /// Managers 1 to `count`, all in view 1.
    pub async fn start(count: u16) -> Self {
        let nodes: Vec<u16> = (1..=count).collect();
        let ledger = Ledger { view: 1, in_view: nodes.clone(), ..Ledger::default() };
        let cluster = Self(Arc::new(Shared {
            ledger: Mutex::new(ledger),
            nodes: Mutex::new(BTreeMap::new()),
            changed: watch::Sender::new(0),
        }));
        for node in nodes {
            cluster.run(node, SocketAddr::from(([127, 0, 0, 1], 0)), 1).await;
        }
        cluster
    }

    async fn run(&self, node: u16, address: SocketAddr, incarnation: u64) {
        let listener = loop {
            // The listener of a killed run goes when its task is next looked at.
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let address = listener.local_addr().unwrap();
        let paused = watch::Sender::new(false);
        let is_paused = paused.subscribe();
        let entry = Node {
            address,
            incarnation,
            behaviour: Behaviour::Serve,
            primary: true,
            paused,
            listener: None,
            connections: vec![],
        };
        self.nodes().insert(node, entry);
        let cluster = self.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let task = tokio::spawn(cluster.clone().serve(
                    node,
                    incarnation,
                    stream,
                    is_paused.clone(),
                ));
                cluster.nodes().get_mut(&node).unwrap().connections.push(task.abort_handle());
            }
        });
        self.nodes().get_mut(&node).unwrap().listener = Some(task.abort_handle());
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<u16, Node>> {
        self.0.nodes.lock().unwrap()
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap()
    }

    pub fn addresses(&self) -> Vec<String> {
        self.nodes().values().map(|node| node.address.to_string()).collect()
    }

    /// The process dies: its sockets close.
    pub fn kill(&self, node: u16) {
        let mut nodes = self.nodes();
        let entry = nodes.get_mut(&node).unwrap();
        entry.listener.take().into_iter().for_each(|task| task.abort());
        entry.connections.drain(..).for_each(|task| task.abort());
    }

    /// It runs again, at the same address, as a new incarnation.
    pub async fn restart(&self, node: u16) {
        let (address, incarnation) = {
            let nodes = self.nodes();
            (nodes[&node].address, nodes[&node].incarnation + 1)
        };
        self.run(node, address, incarnation).await;
    }

    /// Its connections break, nothing else.
    pub fn cut(&self, node: u16) {
        let mut nodes = self.nodes();
        nodes.get_mut(&node).unwrap().connections.drain(..).for_each(|task| task.abort());
    }

    /// It stops doing anything; its sockets stay.
    pub fn pause(&self, node: u16, paused: bool) {
        self.nodes()[&node].paused.send_replace(paused);
    }

    pub fn behave(&self, node: u16, behaviour: Behaviour) {
        self.nodes().get_mut(&node).unwrap().behaviour = behaviour;
    }

    /// Says of a node whether it is in a primary view; told at the next change of view.
    pub fn primary(&self, node: u16, primary: bool) {
        self.nodes().get_mut(&node).unwrap().primary = primary;
    }

    /// The next view has these members; everybody who runs pushes it.
    pub fn change_view(&self, members: &[u16]) {
        let mut ledger = self.ledger();
        ledger.view += 1;
        ledger.in_view = members.to_vec();
        drop(ledger);
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn view(&self, by: u16) -> View {
        let (nodes, ledger) = (self.nodes(), self.ledger());
        let members = ledger.in_view.iter().map(|node| ViewMember {
            member: Member { node: *node, incarnation: nodes[node].incarnation },
            address: nodes[node].address.to_string().into(),
        });
        let primary = nodes[&by].primary && ledger.in_view.contains(&by);
        View { id: ledger.view, primary, members: members.collect() }
    }

    async fn serve(
        self,
        node: u16,
        incarnation: u64,
        stream: TcpStream,
        mut paused: watch::Receiver<bool>,
    ) {
        let (reader, writer) = stream.into_split();
        let mut reader = FrameReader::new(reader, limits::FRAME_BYTES_MAX);
        let mut writer = FrameWriter::new(writer, 1 << 20);
        let mut changed = self.0.changed.subscribe();
        awake(&mut paused).await;
        let Ok(Some(Frame::Hello(hello))) = reader.read_frame().await else { return };
        awake(&mut paused).await;
        if *hello.cluster != *CLUSTER {
            let goodbye =
                Goodbye { reason: Farewell::Cluster, message: format!("this is {CLUSTER}").into() };
            let _ = writer.write_frame(&Frame::Goodbye(goodbye)).await;
            return;
        }
        let welcome = Welcome { member: Member { node, incarnation }, view: self.view(node) };
        writer.write_frame(&Frame::Welcome(welcome)).await.unwrap();
        loop {
            tokio::select! {
                biased;
                _ = changed.changed() => {
                    awake(&mut paused).await;
                    if writer.queue(&Frame::View(self.view(node))).is_err() {
                        return;
                    }
                }
                frame = reader.read_frame() => {
                    awake(&mut paused).await;
                    let Ok(Some(frame)) = frame else { return };
                    let mut next = Some(frame);
                    while let Some(frame) = next {
                        if !self.answer(node, hello.client, frame, &mut writer).await {
                            return;
                        }
                        next = reader.buffered_frame().unwrap();
                    }
                }
            }
            if writer.flush().await.is_err() {
                return;
            }
        }
    }

    /// False ends the connection.
    async fn answer<W>(
        &self,
        node: u16,
        client: ClientId,
        frame: Frame,
        writer: &mut FrameWriter<W>,
    ) -> bool
    where
        W: tokio::io::AsyncWrite + Unpin,
    {
        match frame {
            Frame::Ping(token) => writer.queue(&Frame::Pong(token)).unwrap(),
            Frame::Goodbye(goodbye) => {
                if goodbye.reason == Farewell::Finished {
                    self.ledger().finished.push(client);
                }
                return false;
            }
            Frame::Fetch(digest) => {
                let package = self.ledger().packages.get(&digest).cloned();
                let Some(package) = package else {
                    writer.queue(&Frame::NoPackage(digest)).unwrap();
                    return true;
                };
                let total = package.len() as u64;
                for (index, piece) in package.chunks(1000).enumerate() {
                    let (offset, bytes) = (index as u64 * 1000, piece.to_vec().into());
                    writer
                        .write_frame(&Frame::Package(Package { digest, total, offset, bytes }))
                        .await
                        .unwrap();
                }
            }
            Frame::Call(call) => {
                let behaviour = self.nodes()[&node].behaviour;
                if let Behaviour::Refuse(reason) = behaviour {
                    let refuse = Refuse { seq: call.seq, reason, message: "told to refuse".into() };
                    writer.queue(&Frame::Refuse(refuse)).unwrap();
                    return true;
                }
                if call.path.ends_with("/Slow") {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                if call.path.ends_with("/Late") {
                    let late = Late { seq: call.seq, message: "longer than allowed".into() };
                    writer.write_frame(&Frame::Late(late)).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                let reply = self.ledger().execute(client, &call);
                match (behaviour, reply) {
                    (Behaviour::Break, _) => return false,
                    (Behaviour::Garbage, _) => {
                        use tokio::io::AsyncWriteExt;
                        let _ = writer.get_mut().write_all(b"\x05\0\0\0\xff1234HTTP").await;
                    }
                    (Behaviour::Serve, Some(reply)) => writer.queue(&Frame::Reply(reply)).unwrap(),
                    _ => {}
                }
            }
            other => self.ledger().faults.push(format!("a client said {other:?}")),
        }
        true
    }
}

async fn awake(paused: &mut watch::Receiver<bool>) {
    let _ = paused.wait_for(|paused| !paused).await;
}

impl Ledger {
    fn execute(&mut self, client: ClientId, call: &Call) -> Option<Reply> {
        self.deadlines.push(call.deadline_ms);
        let done = self.first_incomplete.entry(client).or_insert(1);
        *done = (*done).max(call.first_incomplete);
        let done = *done;
        if call.first_incomplete > call.seq {
            self.faults.push(format!("call {} is below its own first_incomplete", call.seq));
        }
        if let Some((body, reply)) = self.answers.get(&(client, call.seq)) {
            if body[..] != call.body[..] {
                self.faults.push(format!("two bodies under number {}", call.seq));
            }
            self.repeated += 1;
            return Some(reply.clone());
        }
        if call.seq < done {
            self.late += 1;
            return None;
        }
        self.position += 1;
        self.executed.push((client, call.seq, call.body.to_vec()));
        let failing = call.path.ends_with("/Fail");
        let reply = Reply {
            seq: call.seq,
            status: if failing { Status::new(Code::NotFound, "100 % müde\n") } else { Status::OK },
            position: self.position,
            body: if failing { Body::empty() } else { call.body.clone() },
        };
        self.answers.insert((client, call.seq), (call.body.to_vec(), reply.clone()));
        self.answers.retain(|(other, seq), _| *other != client || *seq >= done);
        Some(reply)
    }

    /// Each of these messages was executed exactly once, and nothing else was.
    pub fn assert_executed_once(&self, expected: impl IntoIterator<Item = Vec<u8>>) {
        assert_eq!(self.faults, [] as [String; 0]);
        let mut executed: Vec<&Vec<u8>> = self.executed.iter().map(|(_, _, body)| body).collect();
        let mut expected: Vec<Vec<u8>> = expected.into_iter().collect();
        executed.sort();
        expected.sort();
        assert_eq!(executed, expected.iter().collect::<Vec<_>>());
    }
}

/// Waits until something is so.
pub async fn until(mut so: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited for nothing");
}
