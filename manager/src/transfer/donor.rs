//! The giving side: a snapshot at a cut, then everything delivered after it, on a thread of its own.
//!
//! The delivery thread only queues; a slow learner cannot slow it down. What is queued is bounded:
//! a learner that is too slow for the load is given up, and begins again.

use super::stream;
use crate::admin::types::EventKind;
use crate::events::Events;
use crate::runtime::Cut;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use quintet_vsync::{BulkWriter, Donation, Member, ViewId};
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often a donor with nothing to send looks whether its learner still lives.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One transfer under way.
#[derive(Debug)]
pub struct Donor {
    learner: Member,
    queue: Option<Sender<Step>>,
    queued: Arc<AtomicUsize>,
    limit: usize,
    events: Arc<Events>,
}

#[derive(Debug)]
enum Step {
    /// An entry delivered after the cut, encoded.
    Tail(Vec<u8>),
    /// The learner is a member from this view on.
    Finish(ViewId),
}

impl Donor {
    /// Begins to send the state at `cut`; at most `limit` bytes of tail may wait.
    pub fn start(donation: Donation, cut: Cut, limit: usize, events: Arc<Events>) -> Donor {
        let Donation { learner, writer } = donation;
        let (tx, rx) = unbounded();
        let queued = Arc::new(AtomicUsize::new(0));
        let (waiting, log) = (queued.clone(), events.clone());
        let spawned = std::thread::Builder::new().name("donor".into()).spawn(move || {
            let sent = send(writer, cut, &rx, &waiting);
            match sent {
                Ok(bytes) => log.note(
                    EventKind::Transfer,
                    format!("state sent to {}: {bytes} bytes", learner.node),
                ),
                Err(why) => log.note(
                    EventKind::Transfer,
                    format!(
                        "state transfer to {} ended early: {why}; it begins again",
                        learner.node
                    ),
                ),
            }
        });
        let queue = spawned.is_ok().then_some(tx);
        events.note(EventKind::Transfer, format!("sending state to {}", learner.node));
        Donor { learner, queue, queued, limit, events }
    }

    /// Something was delivered after the cut.
    pub fn tail(&mut self, entry: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let waiting = self.queued.fetch_add(entry.len(), Ordering::Relaxed) + entry.len();
        if waiting > self.limit {
            let learner = self.learner.node;
            let what = format!("{learner} is too slow for the load: {waiting} bytes wait for it");
            self.events.note(EventKind::Transfer, what);
            self.queue = None;
        } else if queue.send(Step::Tail(entry.to_vec())).is_err() {
            self.queue = None;
        }
    }

    /// A view was installed; true if this transfer is over.
    pub fn installed(&mut self, view: ViewId, joined: &[Member], members: &[Member]) -> bool {
        if joined.contains(&self.learner) {
            if let Some(queue) = self.queue.take() {
                let _ = queue.send(Step::Finish(view));
            }
            return true;
        }
        self.queue.is_none() || members.contains(&self.learner)
    }
}

/// Sends everything; bytes sent. Dropping the writer early tells the learner to begin again.
fn send(
    writer: BulkWriter,
    cut: Cut,
    steps: &Receiver<Step>,
    queued: &AtomicUsize,
) -> io::Result<u64> {
    let mut out = Counted { out: BufWriter::with_capacity(64 << 10, writer), bytes: 0 };
    cut.write(&mut out)?;
    out.flush()?;
    loop {
        let step = match steps.recv_timeout(LOOK_AGAIN) {
            Ok(step) => step,
            // Nothing is written in a quiet group, so the end of the learner has to be asked for. As long as this
            // writer lives, nobody else is sent anything.
            Err(RecvTimeoutError::Timeout) if out.out.get_ref().is_aborted() => {
                return Err(io::Error::other("the learner is gone"));
            }
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match step {
            Step::Tail(entry) => {
                queued.fetch_sub(entry.len(), Ordering::Relaxed);
                stream::write_tail(&mut out, &entry)?;
                // What is small would otherwise wait in the buffer while the view waits for it.
                if queued.load(Ordering::Relaxed) == 0 {
                    out.flush()?;
                }
            }
            Step::Finish(view) => {
                let writer = out.out.into_inner().map_err(io::IntoInnerError::into_error)?;
                writer.finish(view)?;
                return Ok(out.bytes);
            }
        }
    }
    Err(io::Error::other("the learner did not join in time"))
}

struct Counted {
    out: BufWriter<BulkWriter>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
