//! The clean end: no new calls, those in flight finish, the group is told.

use crate::admin::types::EventKind;
use crate::runtime::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

/// How long the group may take to agree on a view without this node.
const LEAVE: Duration = Duration::from_secs(5);

/// Waits for SIGTERM or SIGINT and hands over. A second signal ends the process at once.
pub(super) fn on_signal(
    shared: Arc<Shared>,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    // Registering needs the runtime.
    let (mut term, mut int) = {
        let _inside = shared.tokio.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tokio::select! {
            () = hand_over(&shared) => {}
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        // The main thread ends the process when the incarnation has ended; it has not in time.
        tracing::error!("the group did not let this node go in time; stopping anyway");
        end(&shared, 1);
    })
}

async fn hand_over(shared: &Shared) {
    let waiting = shared.calls.taken();
    shared.events.note(EventKind::Node, format!("stopping; {waiting} calls are in flight"));
    shared.stopping.store(true, Ordering::Release);
    // Wakes every connection: clients are told, and go elsewhere with new calls.
    shared.standing.send_modify(|_| {});
    let until = Instant::now() + Duration::from_secs(shared.config.limits.drain_s);
    // A little longer than the clients need to hear it, so that what they had sent is answered.
    sleep(Duration::from_millis(50)).await;
    while shared.calls.taken() > 0 && Instant::now() < until {
        sleep(Duration::from_millis(2)).await;
    }
    let left = shared.calls.taken();
    if left > 0 {
        tracing::warn!("{left} calls have no answer yet; their clients will ask another manager");
    }
    // Answers that were handed to the sockets get there before the process ends.
    sleep(Duration::from_millis(20)).await;
    let mut standing = shared.standing.subscribe();
    match &*shared.live.load() {
        Some(live) if shared.standing.borrow().serves() => live.node.leave(),
        // Not a member: there is nobody to tell.
        _ => end(shared, 0),
    }
    let gone = async { while standing.changed().await.is_ok() {} };
    let _ = timeout(LEAVE, gone).await;
}

/// Ends the process here and now; what the main thread removes at a regular end is removed all the same.
fn end(shared: &Shared, code: i32) -> ! {
    let _ = std::fs::remove_file(&shared.config.admin.socket);
    std::process::exit(code);
}
