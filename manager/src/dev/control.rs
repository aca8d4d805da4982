//! How another shell tells a running `quintet dev` what to do: one JSON line there, one back.

use crate::cli::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// A line is short; more is not from us.
const LINE: u64 = 4096;
/// Stopping a whole cluster takes the longest.
const PATIENCE: Duration = Duration::from_secs(40);

/// One process of the cluster.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// A node, by its id.
    Node(u16),
    /// The proxy.
    Proxy,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Target, &'static str> {
        match text {
            "proxy" => Ok(Target::Proxy),
            id => id.parse().map(Target::Node).map_err(|_| "neither the id of a node nor `proxy`"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Node(id) => write!(f, "node {id}"),
            Target::Proxy => f.write_str("the proxy"),
        }
    }
}

/// What may be asked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "do", content = "to")]
pub(crate) enum Order {
    /// SIGKILL, to all of them at once.
    Kill(Vec<Target>),
    /// Start those that are not running.
    Start(Vec<Target>),
    /// SIGSTOP.
    Pause(Vec<Target>),
    /// SIGCONT.
    Resume(Vec<Target>),
    /// Take their network cables out.
    Cut(Vec<Target>),
    /// Put them back.
    Heal(Vec<Target>),
    /// SIGTERM: a clean leave.
    Terminate(Vec<Target>),
    /// End the whole cluster.
    Stop,
}

/// An order and where its answer goes.
pub(crate) type Asked = (Order, oneshot::Sender<Answer>);

/// What became of an order: a line for the person, or what went wrong.
pub(crate) type Answer = Result<String, String>;

/// Takes orders until the receiver is gone.
pub(crate) async fn listen(listener: UnixListener, orders: mpsc::Sender<Asked>) {
    while let Ok((stream, _)) = listener.accept().await {
        let orders = orders.clone();
        tokio::spawn(async move {
            let (reader, mut writer) = stream.into_split();
            let mut line = String::new();
            if BufReader::new(reader.take(LINE)).read_line(&mut line).await.is_err() {
                return;
            }
            let answer: Answer = match serde_json::from_str(&line) {
                Ok(order) => {
                    let (sender, receiver) = oneshot::channel();
                    let ended = || Err("the cluster is ending".to_owned());
                    if orders.send((order, sender)).await.is_err() {
                        ended()
                    } else {
                        receiver.await.unwrap_or_else(|_| ended())
                    }
                }
                Err(error) => Err(format!("not an order: {error}")),
            };
            if let Ok(text) = serde_json::to_string(&answer) {
                let _ = writer.write_all(format!("{text}\n").as_bytes()).await;
            }
        });
    }
}

/// Gives an order to the `quintet dev` behind `socket`.
pub(crate) async fn order(socket: &Path, order: Order) -> Result<String, Error> {
    let gone = |error: &dyn std::fmt::Display| {
        Error::new(format!("`quintet dev` does not answer at {}: {error}", socket.display()))
            .hint("start a cluster with `quintet dev --nodes 3`")
    };
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        let text = serde_json::to_string(&order).map_err(std::io::Error::other)?;
        stream.write_all(format!("{text}\n").as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream.take(LINE)).read_line(&mut line).await?;
        serde_json::from_str::<Answer>(&line).map_err(std::io::Error::other)
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(answer)) => answer.map_err(Error::new),
        Ok(Err(error)) => Err(gone(&error)),
        Err(error) => Err(gone(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_answered_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (sender, mut receiver) = mpsc::channel::<Asked>(1);
        tokio::spawn(listen(UnixListener::bind(&path).unwrap(), sender));
        tokio::spawn(async move {
            while let Some((order, answer)) = receiver.recv().await {
                let _ =
                    answer.send(if order == Order::Kill(vec![Target::Node(2), Target::Proxy]) {
                        Ok("done".into())
                    } else {
                        Err("no".into())
                    });
            }
        });
        let both = vec![Target::Node(2), Target::Proxy];
        assert_eq!(order(&path, Order::Kill(both)).await.unwrap(), "done");
        assert_eq!(order(&path, Order::Stop).await.unwrap_err().to_string(), "no");

        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"nonsense\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("not an order"), "{text}");
    }
}
