//! One client's connection: frames in, calls out, answers and views back.
//!
//! Nothing here waits for the client's pleasure: what it does not read stays queued up to a bound,
//! beyond which nothing more is taken from it or for it, and [`Patience`] ends what does not move.

use super::deadlines::Deadlines;
use super::patience::{Patience, Sign};
use crate::admin::types::{EventKind, NodeState};
use crate::calls::{self, Incoming};
use crate::package::Digest;
use crate::replica::Message;
use crate::runtime::{Answer, Delivered, Shared, Slots, Standing, Waiter};
use quintet_client::wire::{
    self, Body, Call, Code, Farewell, Frame, FrameReader, FrameWriter, Goodbye, Hello, Late,
    Member, Package, Purpose, QueueFull, ReadError, Reason, Refuse, Reply, Status, Text, View,
    ViewMember, Welcome, limits::CHUNK_BYTES,
};
use quintet_transport::{Time, clock};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

#[cfg(test)]
mod tests;

/// How long a new connection may take to say Hello.
const HELLO: Duration = Duration::from_secs(5);
/// While so much waits for a client, neither its frames nor its answers are taken.
const ENOUGH_BYTES: usize = 4 << 20;
/// What may wait at all, with what is queued unasked (views); a client that lets it grow so far is disconnected.
const QUEUE_BYTES: usize = 2 * ENOUGH_BYTES;
/// How long a farewell may take to leave.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Frames taken before answers get their turn.
const TURN: usize = 64;

/// Why a connection ends.
enum Over {
    /// The client closed it, or said goodbye.
    Closed,
    /// The network failed.
    Io(io::Error),
    /// The client is told why.
    Farewell(Farewell, String),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Over {
        Over::Io(error)
    }
}

impl From<ReadError> for Over {
    fn from(error: ReadError) -> Over {
        match error {
            ReadError::Io(error) => Over::Io(error),
            other => Over::Farewell(Farewell::Protocol, other.to_string()),
        }
    }
}

impl From<QueueFull> for Over {
    fn from(error: QueueFull) -> Over {
        let reason = match error {
            QueueFull::Full { .. } => Farewell::Silent,
            QueueFull::Unencodable(_) => Farewell::Protocol,
        };
        Over::Farewell(reason, error.to_string())
    }
}

struct Connection<R, W> {
    shared: Arc<Shared>,
    reader: FrameReader<R>,
    writer: FrameWriter<W>,
    patience: Patience,
    deadlines: Deadlines,
    answers: (UnboundedSender<Delivered>, UnboundedReceiver<Delivered>),
    standing: watch::Receiver<Standing>,
    slots: Slots,
    client: u128,
    /// It has called something through this connection: its session may need to be renewed.
    called: bool,
    /// The incarnation the client was told of.
    incarnation: u64,
    said_draining: bool,
}

/// Resolves when that time has come, if there is one.
async fn passed(time: Option<Time>) {
    match time {
        Some(time) => tokio::time::sleep(time.since(clock::now())).await,
        None => std::future::pending().await,
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    serve_halves(read, write, peer, shared).await;
}

async fn serve_halves<R, W>(read: R, write: W, peer: SocketAddr, shared: Arc<Shared>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let most = shared.config.limits.request_bytes + (64 << 10);
    let mut connection = Connection {
        reader: FrameReader::new(read, most),
        writer: FrameWriter::new(write, QUEUE_BYTES),
        patience: Patience::default(),
        deadlines: Deadlines::default(),
        answers: unbounded_channel(),
        standing: shared.standing.subscribe(),
        slots: Slots::new(shared.config.limits.calls_per_connection),
        client: 0,
        called: false,
        incarnation: 0,
        said_draining: false,
        shared,
    };
    let Err(over) = connection.run().await else { return };
    match over {
        Over::Closed => {}
        Over::Io(why) => tracing::debug!("client {peer}: {why}"),
        Over::Farewell(reason, message) => {
            let Connection { shared, mut writer, answers, .. } = connection;
            // What waits for it gives its places back at once.
            drop(answers);
            if reason == Farewell::Protocol {
                shared.counters.malformed_frames.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(reason, Farewell::Protocol | Farewell::Silent) {
                let what = format!("client {peer} disconnected: {message}");
                shared.events.note(EventKind::Client, what);
            }
            let goodbye = Frame::Goodbye(Goodbye { reason, message: Text::from(message) });
            let _ = timeout(LAST_WORD, writer.write_frame(&goodbye)).await;
        }
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    async fn run(&mut self) -> Result<(), Over> {
        let shared = self.shared.clone();
        let hello = self.hello().await?;
        let Some(_slot) = shared.connections.take() else {
            let what = format!(
                "{} clients are connected, the most there may be",
                shared.connections.taken()
            );
            return Err(Over::Farewell(Farewell::Full, what));
        };
        self.client = hello.client.0;
        let standing = self.standing.borrow_and_update().clone();
        self.incarnation = standing.incarnation;
        let member = Member { node: shared.config.node, incarnation: standing.incarnation };
        let welcome = Welcome { member, view: self.view(&standing) };
        self.say(&Frame::Welcome(welcome)).await?;
        match hello.purpose {
            Purpose::Calls => self.calls().await,
            Purpose::Packages => self.packages().await,
        }
    }

    async fn hello(&mut self) -> Result<Hello, Over> {
        let protocol = |what: &str| Over::Farewell(Farewell::Protocol, what.to_owned());
        let frame = timeout(HELLO, self.reader.read_frame()).await;
        let frame = frame.map_err(|_| protocol("no Hello came"))??;
        let hello = match frame {
            Some(Frame::Hello(hello)) => hello,
            Some(_) => return Err(protocol("the first frame must be a Hello")),
            None => return Err(Over::Closed),
        };
        if hello.version != wire::VERSION {
            let what =
                format!("this manager speaks version {}, not {}", wire::VERSION, hello.version);
            return Err(Over::Farewell(Farewell::Version, what));
        }
        if *hello.cluster != *self.shared.config.cluster {
            let what =
                format!("this is cluster {}, not {}", self.shared.config.cluster, hello.cluster);
            return Err(Over::Farewell(Farewell::Cluster, what));
        }
        Ok(hello)
    }

    /// A connection for calls.
    async fn calls(&mut self) -> Result<(), Over> {
        let renew = Duration::from_secs(self.shared.config.limits.session_idle_s) / 4;
        let mut renewal = interval_at(Instant::now() + renew, renew);
        let mut looks = interval_at(Instant::now() + self.patience(), self.patience());
        // After a pause of this very process, one look is due, not all that were missed.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let enough = self.writer.queued() >= ENOUGH_BYTES;
            tokio::select! {
                biased;
                changed = self.standing.changed() => {
                    changed.map_err(|_| Over::Closed)?;
                    self.tell_standing()?;
                }
                flushed = self.writer.flush(), if self.writer.queued() > 0 => flushed?,
                _ = looks.tick() => self.look()?,
                () = passed(self.deadlines.next()) => self.tell_late()?,
                // Only the sessions of absent clients end. If the log is full, the next time will do.
                _ = renewal.tick(), if self.called => {
                    let _ = self.shared.try_send(&Message::Renew { client: self.client });
                }
                Some(delivered) = self.answers.1.recv(), if !enough => self.answer(delivered)?,
                frame = self.reader.read_frame(), if !enough => {
                    let frame = frame?.ok_or(Over::Closed)?;
                    self.frame(frame)?;
                }
            }
            for _ in 0..TURN {
                if self.writer.queued() >= ENOUGH_BYTES {
                    break;
                }
                let Some(frame) = self.reader.buffered_frame().map_err(ReadError::from)? else {
                    break;
                };
                self.frame(frame)?;
            }
            while self.writer.queued() < ENOUGH_BYTES
                && let Ok(delivered) = self.answers.1.try_recv()
            {
                self.answer(delivered)?;
            }
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.shared.config.limits.client_patience_s)
    }

    /// Now and then: is the client still there, and does it take what it is sent?
    fn look(&mut self) -> Result<(), Over> {
        let (written, queued) = (self.writer.written(), self.writer.queued());
        let over = |what: String| Err(Over::Farewell(Farewell::Silent, what));
        let patience_s = self.shared.config.limits.client_patience_s;
        match self.patience.look(written, queued, queued < ENOUGH_BYTES) {
            Sign::Fine => Ok(()),
            Sign::Ask => Ok(self.writer.queue(&Frame::Ping(written))?),
            Sign::Stalled => over(format!(
                "it does not read: {queued} bytes wait for it, and too few left within {patience_s} s"
            )),
            Sign::Gone => {
                over("it does not answer: nothing was heard of it, not even a Pong".into())
            }
        }
    }

    /// Writes a frame to a client that waits for nothing else.
    async fn say(&mut self, frame: &Frame) -> Result<(), Over> {
        let patience = self.patience();
        let written = timeout(patience, self.writer.write_frame(frame)).await;
        let deaf = |_| Over::Farewell(Farewell::Silent, "it does not read".into());
        Ok(written.map_err(deaf)??)
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Over> {
        self.patience.heard();
        match frame {
            Frame::Call(call) => self.call(call),
            Frame::Ping(token) => Ok(self.writer.queue(&Frame::Pong(token))?),
            Frame::Pong(_) => Ok(()),
            Frame::Goodbye(goodbye) => {
                if goodbye.reason == Farewell::Finished && self.called {
                    // If it cannot be ordered now, the session ends by being idle.
                    let _ = self.shared.try_send(&Message::Finish { client: self.client });
                }
                Err(Over::Closed)
            }
            _ => {
                Err(Over::Farewell(Farewell::Protocol, "a frame that only a manager sends".into()))
            }
        }
    }

    fn call(&mut self, call: Call) -> Result<(), Over> {
        let seq = call.seq;
        let (Some(own), Some(all)) = (self.slots.take(), self.shared.calls.take()) else {
            let message = Text::from("too many calls wait here");
            self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            let refuse = Refuse { seq, reason: Reason::Overloaded, message };
            return Ok(self.writer.queue(&Frame::Refuse(refuse))?);
        };
        let waiter = Waiter { to: self.answers.0.clone(), seq, slots: [own, all] };
        let incoming = Incoming {
            client: self.client,
            seq,
            first_incomplete: call.first_incomplete,
            min_position: call.min_position,
            deadline: (call.deadline_ms > 0)
                .then(|| clock::now() + Duration::from_millis(call.deadline_ms.into())),
            path: Arc::from(&*call.path),
            body: call.body.message(),
        };
        self.called = true;
        if let Some(deadline) = calls::submit(&self.shared, incoming, waiter) {
            self.deadlines.insert(seq, deadline);
        }
        Ok(())
    }

    fn answer(&mut self, delivered: Delivered) -> Result<(), Over> {
        let seq = delivered.seq;
        self.deadlines.remove(seq);
        let frame = match &delivered.answer {
            Answer::Reply(reply) => Frame::Reply(Reply {
                seq,
                status: Status {
                    code: Code::from_number(reply.code).unwrap_or(Code::Unknown),
                    message: Text::from(reply.message.as_str()),
                },
                position: reply.position,
                body: Body::from(&reply.body[..]),
            }),
            Answer::Refuse(reason, why) => {
                Frame::Refuse(Refuse { seq, reason: *reason, message: Text::from(why.as_str()) })
            }
        };
        self.writer.queue(&frame)?;
        delivered.free();
        Ok(())
    }

    /// Calls have taken longer than their methods allow. They go on, and keep their places; who waits is told.
    fn tell_late(&mut self) -> Result<(), Over> {
        while let Some(seq) = self.deadlines.pop(clock::now()) {
            let message = "no answer before the deadline of the method; the outcome is unknown";
            let late = Late { seq, message: Text::from_static(message) };
            self.writer.queue(&Frame::Late(late))?;
        }
        Ok(())
    }

    /// The node's standing has changed: the client hears of it at once.
    fn tell_standing(&mut self) -> Result<(), Over> {
        let standing = self.standing.borrow_and_update().clone();
        let gone =
            matches!(standing.state, NodeState::Evicted | NodeState::Failed | NodeState::Starting);
        if gone || (self.incarnation != 0 && standing.incarnation != self.incarnation) {
            let why = standing.reason.unwrap_or_else(|| "this incarnation is over".into());
            return Err(Over::Farewell(Farewell::Removed, why));
        }
        if self.incarnation == 0 && standing.incarnation != 0 {
            // It was welcomed by no incarnation: it connects again and is welcomed by one.
            return Err(Over::Farewell(Farewell::Removed, "the manager has started".into()));
        }
        if self.shared.is_stopping() && !self.said_draining {
            self.said_draining = true;
            let message = Text::from("this manager is stopping");
            self.writer.queue(&Frame::Goodbye(Goodbye { reason: Farewell::Draining, message }))?;
        }
        let view = self.view(&standing);
        Ok(self.writer.queue(&Frame::View(view))?)
    }

    /// The view as clients see it.
    fn view(&self, standing: &Standing) -> View {
        let nodes = &self.shared.config.nodes;
        let view = standing.view.as_ref();
        let members = view.map_or(&[][..], |v| &v.members).iter().map(|m| {
            let address = nodes.iter().find(|n| n.id == m.node).map(|n| n.client.to_string());
            let member = Member { node: m.node, incarnation: m.incarnation };
            ViewMember { member, address: Text::from(address.unwrap_or_default()) }
        });
        View {
            id: view.map_or(0, |v| v.id),
            primary: standing.serves() && !self.shared.is_stopping(),
            members: members.collect(),
        }
    }

    /// A connection for packages.
    async fn packages(&mut self) -> Result<(), Over> {
        loop {
            let frame = timeout(self.patience(), self.reader.read_frame()).await;
            let silent = |_| Over::Farewell(Farewell::Silent, "it asks for nothing".into());
            match frame.map_err(silent)?? {
                Some(Frame::Fetch(digest)) => self.send_package(digest).await?,
                Some(Frame::Ping(token)) => self.say(&Frame::Pong(token)).await?,
                Some(Frame::Goodbye(_)) | None => return Err(Over::Closed),
                Some(_) => {
                    let what = "this connection is for packages only".to_owned();
                    return Err(Over::Farewell(Farewell::Protocol, what));
                }
            }
        }
    }

    async fn send_package(&mut self, digest: wire::Digest) -> Result<(), Over> {
        let path = self.shared.packages.path(&Digest(digest.0));
        let Ok(bytes) = tokio::fs::read(&path).await else {
            return self.say(&Frame::NoPackage(digest)).await;
        };
        let (total, bytes) = (bytes.len() as u64, bytes::Bytes::from(bytes));
        let mut offset = 0;
        while offset < bytes.len() {
            let end = (offset + CHUNK_BYTES).min(bytes.len());
            let piece =
                Package { digest, total, offset: offset as u64, bytes: bytes.slice(offset..end) };
            self.say(&Frame::Package(piece)).await?;
            offset = end;
        }
        Ok(())
    }
}
