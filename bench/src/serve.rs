//! Measurements between two hosts: `quintet-perf serve` on one, `--host` with the measurement on the other.
//!
//! All options are the client's. Over one TCP connection for each process the server says where that will receive, is
//! told what to do, starts a process that does it, and passes on what that prints; it ends the process when the connection
//! ends. It serves one host at a time, and only does what answers a measurement, towards the host that asked. Nothing of
//! this is encrypted or authenticated: keep it on a network you trust.

use crate::agreement::{Answer, Injury, Offer, Order, PATIENCE, VERSION, hear, say};
use crate::children::{Peer, Reach};
use crate::task;
use serde_json::Value;
use std::error::Error;
use std::io::{self, BufReader};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Processes at a time: as many as the greatest measurement has.
const PROCESSES_MAX: usize = 32;

/// Flags of `serve`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Where clients come to. Whoever can reach it can make this host work.
    #[arg(long, default_value = "127.0.0.1:7399")]
    listen: SocketAddr,
}

/// Serves for ever.
pub(crate) fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(arguments.listen)?;
    println!("listening on {}", listener.local_addr()?);
    let desk = Arc::new(Desk::default());
    for connection in listener.incoming() {
        let begun = connection.map_err(Into::into).and_then(|stream| begin(stream, &desk));
        begun.unwrap_or_else(|error| eprintln!("{error}"));
    }
    Ok(())
}

/// Whom it serves.
#[derive(Default)]
struct Desk {
    places: Mutex<Places>,
    changed: Condvar,
}

#[derive(Default)]
struct Places {
    client: Option<IpAddr>,
    /// Where processes for it receive.
    offered: Vec<SocketAddr>,
}

impl Desk {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else is served and there is room for another process.
    fn admit(&self, client: IpAddr, receives: SocketAddr) {
        let has_to_wait = |places: &mut Places| {
            let is_another = places.client.is_some_and(|served| served != client);
            is_another || places.offered.len() >= PROCESSES_MAX
        };
        let waited = self.changed.wait_while(self.places(), has_to_wait);
        let mut places = waited.unwrap_or_else(PoisonError::into_inner);
        places.client = Some(client);
        places.offered.push(receives);
    }

    fn dismiss(&self, receives: SocketAddr) {
        let mut places = self.places();
        places.offered.retain(|at| *at != receives);
        if places.offered.is_empty() {
            places.client = None;
        }
        self.changed.notify_all();
    }
}

/// One task of the client that is served, on a thread of its own.
fn begin(stream: TcpStream, desk: &Arc<Desk>) -> Result<(), Box<dyn Error>> {
    let (own, client) = (stream.local_addr()?.ip(), stream.peer_addr()?.ip());
    // Held until its process starts, so that nothing else is offered there.
    let socket = UdpSocket::bind((own, 0))?;
    let receives = socket.local_addr()?;
    desk.admit(client, receives);
    let desk = desk.clone();
    std::thread::spawn(move || {
        if let Err(error) = attend(&stream, client, socket, &desk) {
            eprintln!("{error}");
        }
        desk.dismiss(receives);
    });
    Ok(())
}

fn attend(
    stream: &TcpStream,
    client: IpAddr,
    socket: UdpSocket,
    desk: &Desk,
) -> Result<(), Box<dyn Error>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let receives = socket.local_addr()?;
    say(stream, &Offer { version: VERSION, receives })?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let order: Order = hear(&mut lines)?;
    let permitted = permitted(&order.task, receives, client, &desk.places().offered);
    if let Err(why) = permitted {
        say(stream, &Answer::Refused(why.clone()))?;
        return Err(format!("{client} was refused: {why}").into());
    }
    drop(socket);
    let mut peer = Peer::start_told(&order.task, order.core)?;
    say(stream, &Answer::Begun)?;
    let mut to_client = stream.try_clone()?;
    let output = peer.output()?;
    std::thread::spawn(move || {
        let mut output = output;
        let _ = io::copy(&mut output, &mut to_client);
        // It has ended: so does the client's wait for another line.
        let _ = to_client.shutdown(Shutdown::Write);
    });
    stream.set_read_timeout(None)?;
    // When the client is done or gone the connection ends.
    while let Ok(injury) = hear(&mut lines) {
        match injury {
            Injury::Kill => peer.kill()?,
            Injury::Freeze => peer.freeze()?,
        }
    }
    // A frozen one would not hear that it shall end.
    peer.kill()?;
    peer.end()?;
    Ok(())
}

/// Only what answers a measurement, between what was offered and the host that asks.
fn permitted(
    task: &Value,
    receives: SocketAddr,
    client: IpAddr,
    offered: &[SocketAddr],
) -> Result<(), String> {
    let Some(Reach { own, others }) = task::reach(task)? else {
        return Err("that is not measured between hosts".into());
    };
    let is_ours = |other: &SocketAddr| other.ip() == client || offered.contains(other);
    if own != receives || !others.iter().all(is_ours) {
        return Err(format!("packets go between {receives} and {client} only"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stranger_cannot_aim_at_others() {
        let task = |first: &str, second: &str| -> Value {
            let text = format!(
                r#"{{"pong":{{"size":64,"answer":"word","ends":{{"provider":"udp","wait":"block","cluster":"c",
                   "dead":null,"devices":[],"network":{{"loss":0.0,"duplicate":0.0,"reorder":0.0,"network_seed":1}},
                   "addresses":["{first}","{second}"]}}}}}}"#
            );
            serde_json::from_str(&text).expect("a task")
        };
        let (ours, client) = ("10.0.0.1:7000", "10.0.0.2:5");
        let judged = |task: &Value| {
            permitted(task, ours.parse().unwrap(), client.parse::<SocketAddr>().unwrap().ip(), &[])
        };
        assert_eq!(judged(&task(client, ours)), Ok(()));
        assert!(judged(&task("10.0.0.9:5", ours)).is_err(), "another host");
        assert!(judged(&task(client, "10.0.0.1:7001")).is_err(), "another port of ours");
        let raw = |first: &str, second: &str| -> Value {
            let text = format!(
                r#"{{"raw_udp_sink":{{"reader":{{"addresses":["{first}","{second}"],"segment":1400,"sealed":true}},
                   "counter":{{"warm_up":{{"secs":0,"nanos":0}},"duration":{{"secs":1,"nanos":0}},"wanted":null,"from":null,
                   "messages":0,"bytes":0}}}}}}"#
            );
            serde_json::from_str(&text).expect("a task")
        };
        assert_eq!(judged(&raw(client, ours)), Ok(()));
        assert!(judged(&raw("10.0.0.9:5", ours)).is_err(), "another host");
        assert!(judged(&raw(client, "10.0.0.1:53")).is_err(), "another port of ours");
        let memory =
            r#"{"raw_shm_pong":{"memory":"/dev/shm/x","size":8,"rounds":9,"wait":"Look"}}"#;
        assert!(judged(&serde_json::from_str(memory).expect("JSON")).is_err());
        assert!(judged(&json!({ "nonsense": 1 })).is_err() && judged(&json!(7)).is_err());
    }
}
