//! The one task that owns a client's session, its connections and its timer.
//!
//! Everything that a call touches between the caller's channel and the manager's socket lives in this task, so there is
//! no lock and no hand-over between tasks on the way. A turn takes all that callers and managers have said, lets the
//! session think, and then writes once to each connection: under load, many calls share a system call.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Sleep,
};

use super::{
    Outcome,
    requests::{Admission, Requests},
    stream::{self, Reader, Writer},
};
use crate::{
    session::{Action, LinkId, Report, Session, SessionStatus, Time},
    wire::{Body, FrameReader, FrameWriter, Text, limits::FRAME_BYTES_MAX},
};

/// Frames or commands taken from one source before the others have their turn.
const BUDGET: usize = 256;
/// Bytes queued on a connection beyond the messages held for replay.
const QUEUE_MARGIN: usize = 4 << 20;
/// Time for the last words of a client to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// From callers to the task.
#[derive(Debug)]
pub(super) enum Command {
    Call {
        path: Text,
        body: Body,
        deadline: Option<Time>,
        reply: oneshot::Sender<Outcome>,
    },
    /// A call that the caller named; see [`super::requests`].
    Named {
        id: Text,
        path: Text,
        body: Body,
        reply: oneshot::Sender<Outcome>,
    },
    /// Answered when there is a manager to give calls to.
    Ready(oneshot::Sender<()>),
    Status(oneshot::Sender<SessionStatus>),
    /// Finish what is under way until that time, then end.
    Close {
        until: Time,
        done: oneshot::Sender<()>,
    },
}

#[derive(Debug)]
pub(super) enum Waiter {
    Caller(oneshot::Sender<Outcome>),
    Named(Text),
}

/// Converts the operating system's clock to the session's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now() }
    }

    pub(super) fn now(self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn instant(self, time: Time) -> tokio::time::Instant {
        (self.origin + Duration::from_nanos(time.as_nanos())).into()
    }
}

type Dial = Pin<Box<dyn Future<Output = io::Result<(Reader, Writer)>> + Send>>;

enum Connection {
    Dialing(Dial),
    Open { reader: FrameReader<Reader>, writer: FrameWriter<Writer> },
}

pub(super) struct Driver {
    session: Session<Waiter>,
    clock: Clock,
    commands: mpsc::Receiver<Command>,
    commands_open: bool,
    connections: Vec<(LinkId, Connection)>,
    requests: Requests<oneshot::Sender<Outcome>>,
    ready: Vec<oneshot::Sender<()>>,
    sleep: Pin<Box<Sleep>>,
    armed: Time,
    queue_bytes_max: usize,
    closing: Option<(Time, Vec<oneshot::Sender<()>>)>,
}

impl Driver {
    pub(super) fn new(
        session: Session<Waiter>,
        clock: Clock,
        commands: mpsc::Receiver<Command>,
        requests_max: usize,
        bytes_max: usize,
    ) -> Self {
        Self {
            session,
            clock,
            commands,
            commands_open: true,
            connections: Vec::new(),
            requests: Requests::new(requests_max),
            ready: Vec::new(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: Time::ZERO,
            queue_bytes_max: bytes_max.saturating_add(QUEUE_MARGIN),
            closing: None,
        }
    }

    /// Runs until the client is closed.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        let last_words = async {
            for (_, connection) in &mut self.connections {
                if let Connection::Open { writer, .. } = connection {
                    let _ = writer.flush().await;
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        for done in self.closing.into_iter().flat_map(|(_, done)| done) {
            let _ = done.send(());
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.clock.now();
            let mut progress = self.take_commands(cx, now);
            progress |= self.take_frames(cx, now);
            if self.armed != Time::NEVER && self.sleep.as_mut().poll(cx).is_ready() {
                // Armed again below if the session is not due yet by its own clock.
                self.armed = Time::NEVER;
                self.session.handle_timeout(now);
            }
            if self.is_over(now) {
                self.session.finish(now);
                self.act(cx, now);
                return Poll::Ready(());
            }
            progress |= self.act(cx, now);
            progress |= self.flush(cx, now);
            progress |= self.arm(now);
            if !progress {
                return Poll::Pending;
            }
        }
    }

    fn take_commands(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut progress = false;
        for _ in 0..BUDGET {
            if !self.commands_open {
                break;
            }
            match self.commands.poll_recv(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(command)) => self.obey(now, command),
                Poll::Ready(None) => {
                    // Nobody is left who could call; who called before still gets an answer or has gone.
                    self.commands_open = false;
                    self.session.close();
                    self.closing.get_or_insert((now, Vec::new()));
                }
            }
            progress = true;
        }
        progress
    }

    fn obey(&mut self, now: Time, command: Command) {
        match command {
            Command::Call { path, body, deadline, reply } => {
                if let Err((waiter, status)) =
                    self.session.call(now, path, body, deadline, Waiter::Caller(reply))
                {
                    self.answer(now, waiter, Err(status));
                }
            }
            Command::Named { id, path, body, reply } => {
                self.requests.prune(&id, oneshot::Sender::is_closed);
                match self.requests.admit(now, &id, &path, &body, reply) {
                    Admission::New => {
                        if let Err((waiter, status)) =
                            self.session.call(now, path, body, None, Waiter::Named(id))
                        {
                            self.answer(now, waiter, Err(status));
                        }
                    }
                    Admission::Joined => {}
                    Admission::Answered(reply, outcome) => drop(reply.send(outcome)),
                }
            }
            Command::Ready(reply) => self.ready.push(reply),
            Command::Status(reply) => drop(reply.send(self.session.status(now))),
            Command::Close { until, done } => {
                self.session.close();
                let (end, waiting) = self.closing.get_or_insert((until, Vec::new()));
                *end = (*end).min(until);
                waiting.push(done);
            }
        }
    }

    fn take_frames(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut progress = false;
        let mut at = 0;
        while at < self.connections.len() {
            let (link, connection) = &mut self.connections[at];
            let link = *link;
            let mut lost = None;
            match connection {
                Connection::Dialing(dial) => match dial.as_mut().poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok((reader, writer))) => {
                        *connection = Connection::Open {
                            reader: FrameReader::new(reader, FRAME_BYTES_MAX),
                            writer: FrameWriter::new(writer, self.queue_bytes_max),
                        };
                        self.session.handle_connected(now, link);
                        progress = true;
                        continue; // Its readiness has to be asked for once.
                    }
                    Poll::Ready(Err(error)) => lost = Some(error.to_string()),
                },
                Connection::Open { reader, .. } => {
                    for _ in 0..BUDGET {
                        match reader.poll_frame(cx) {
                            Poll::Pending => break,
                            Poll::Ready(Ok(Some(frame))) => {
                                progress = true;
                                if let Err(violation) = self.session.handle_frame(now, link, frame)
                                {
                                    tracing::warn!(%violation, "a manager broke the protocol");
                                    break;
                                }
                            }
                            Poll::Ready(Ok(None)) => {
                                lost = Some("connection closed by the manager".into());
                                break;
                            }
                            Poll::Ready(Err(error)) => {
                                lost = Some(error.to_string());
                                break;
                            }
                        }
                    }
                }
            }
            if let Some(why) = lost {
                self.connections.swap_remove(at);
                self.session.handle_lost(now, link, &why);
                progress = true;
            } else {
                at += 1;
            }
        }
        progress
    }

    /// Does what the session asks for.
    fn act(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut progress = false;
        while let Some(action) = self.session.poll_action() {
            progress = true;
            match action {
                Action::Send { link, frame } => {
                    let queued = self.connections.iter_mut().find(|(other, _)| *other == link);
                    if let Some((_, Connection::Open { writer, .. })) = queued
                        && let Err(error) = writer.queue(&frame)
                    {
                        self.connections.retain(|(other, _)| *other != link);
                        self.session.handle_lost(now, link, &error.to_string());
                    }
                }
                Action::Answer { waiter, outcome } => self.answer(now, waiter, outcome),
                Action::Late { seq, status } => {
                    if let Some(Waiter::Named(id)) = self.session.waiter(seq) {
                        for reply in self.requests.waiting(id) {
                            let _ = reply.send(Err(status.clone()));
                        }
                    }
                }
                Action::Dial { link, address } => {
                    let dial = async move { stream::dial(&address).await };
                    self.connections.push((link, Connection::Dialing(Box::pin(dial))));
                }
                Action::Close { link } => {
                    if let Some(at) = self.connections.iter().position(|(other, _)| *other == link)
                        && let (_, Connection::Open { mut writer, .. }) =
                            self.connections.swap_remove(at)
                    {
                        // A last word, if the kernel takes it at once.
                        let _ = writer.poll_flush(cx);
                    }
                }
                Action::Report(report) => log(&report),
            }
        }
        if self.session.is_routed() {
            for ready in self.ready.drain(..) {
                let _ = ready.send(());
            }
        }
        progress
    }

    fn answer(&mut self, now: Time, waiter: Waiter, outcome: Outcome) {
        match waiter {
            Waiter::Caller(reply) => drop(reply.send(outcome)),
            Waiter::Named(id) => {
                for reply in self.requests.finish(now, &id, &outcome) {
                    let _ = reply.send(outcome.clone());
                }
            }
        }
    }

    /// Writes to each connection what was queued in this turn.
    fn flush(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut lost = Vec::new();
        for (link, connection) in &mut self.connections {
            if let Connection::Open { writer, .. } = connection
                && writer.queued() > 0
                && let Poll::Ready(Err(error)) = writer.poll_flush(cx)
            {
                lost.push((*link, error.to_string()));
            }
        }
        let progress = !lost.is_empty();
        for (link, why) in lost {
            self.connections.retain(|(other, _)| *other != link);
            self.session.handle_lost(now, link, &why);
        }
        progress
    }

    /// Sets the timer, if it would come too late; true if it has to be polled again.
    fn arm(&mut self, now: Time) -> bool {
        let closing = self.closing.as_ref().map_or(Time::NEVER, |(until, _)| *until);
        // What is overdue is due now: the timer counts milliseconds, and setting it to an instant before the one that it
        // was last set to would never end.
        let due = self.session.next_timeout().unwrap_or(Time::NEVER).min(closing).max(now);
        if due >= self.armed {
            return false;
        }
        self.armed = due;
        self.sleep.as_mut().reset(self.clock.instant(self.armed));
        true
    }

    fn is_over(&self, now: Time) -> bool {
        self.closing
            .as_ref()
            .is_some_and(|(until, _)| self.session.in_flight() == 0 || *until <= now)
    }
}

fn log(report: &Report) {
    match report {
        Report::Connected { .. } | Report::View { .. } => tracing::info!("{report}"),
        Report::Rerouted { from: None, .. } => tracing::info!("{report}"),
        Report::Disconnected { .. } | Report::Unreachable { .. } | Report::Rerouted { .. } => {
            tracing::warn!("{report}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Config;
    use crate::wire::ClientId;

    /// Otherwise one turn of the driver never ends: it goes on as long as something was armed.
    #[tokio::test]
    async fn what_is_overdue_is_armed_once() {
        let clock = Clock::new();
        let (_commands, receiver) = mpsc::channel(1);
        let session = Session::new(Time::ZERO, Config::new("c", ClientId(1), vec!["a:1".into()]));
        let mut driver = Driver::new(session, clock, receiver, 1, 1);
        let due = Time::ZERO + Duration::from_millis(5);
        driver.closing = Some((due, Vec::new()));
        driver.armed = Time::NEVER;
        let late = |micros| due + Duration::from_micros(micros);
        assert!(driver.arm(late(1)));
        assert!(!driver.arm(late(2)) && !driver.arm(late(3)));
    }
}
