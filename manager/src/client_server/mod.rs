//! The door for clients and proxies: native frames over TCP.
//!
//! Few tokio threads, bounded everything. A client that sends what is no frame loses its own
//! connection, with the reason said and logged; nobody else notices.

mod connection;
mod deadlines;
mod patience;

use crate::runtime::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Accepts connections until the daemon stops.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&shared) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let shared = shared.clone();
                tokio::spawn(connection::serve(stream, peer, shared));
            }
            Err(why) => {
                // Out of file descriptors, mostly: it passes when connections close.
                tracing::warn!("cannot accept a client: {why}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Resolves when the daemon begins to stop.
async fn stopped(shared: &Shared) {
    let mut standing = shared.standing.subscribe();
    while !shared.is_stopping() {
        if standing.changed().await.is_err() {
            return;
        }
    }
}
