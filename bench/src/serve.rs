//! Measurements between two hosts: `quintet-perf serve` on one, `--host` with the measurement on the other.
//!
//! All options are the client's. Over one TCP connection per run the server says where it will receive, is told what to
//! do, starts a process that does it, and passes on what that prints; it ends the process when the connection ends. It
//! serves one client at a time, and only does what answers a measurement, towards the host that asked. Nothing of this
//! is encrypted or authenticated: keep it on a network you trust.

use crate::children::Peer;
use crate::task::Task;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Both sides must be of the same version.
const VERSION: u32 = 4;
/// Bytes of a line, at most.
const LINE_MAX: u64 = 16 << 10;
/// How long either side may take for its part of the agreement.
const PATIENCE: Duration = Duration::from_secs(10);

/// Flags of `serve`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Where clients come to. Whoever can reach it can make this host work.
    #[arg(long, default_value = "127.0.0.1:7399")]
    listen: SocketAddr,
}

/// What the server says first.
#[derive(Debug, Deserialize, Serialize)]
struct Offer {
    version: u32,
    receives: SocketAddr,
}

/// What the client says then.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    task: Task,
    core: Option<usize>,
}

/// What the server says to that.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Begun,
    Refused(String),
}

/// Serves for ever.
pub(crate) fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(arguments.listen)?;
    println!("listening on {}", listener.local_addr()?);
    for connection in listener.incoming() {
        if let Err(error) = connection.map_err(Into::into).and_then(attend) {
            eprintln!("{error}");
        }
    }
    Ok(())
}

/// One client, one task.
fn attend(stream: TcpStream) -> Result<(), Box<dyn Error>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (own, client) = (stream.local_addr()?.ip(), stream.peer_addr()?.ip());
    let receives = free_port(own)?;
    say(&stream, &Offer { version: VERSION, receives })?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let order: Order = hear(&mut lines)?;
    if let Err(why) = permitted(&order.task, receives, client) {
        say(&stream, &Answer::Refused(why.clone()))?;
        return Err(format!("{client} was refused: {why}").into());
    }
    let mut peer = Peer::start(&order.task, order.core)?;
    say(&stream, &Answer::Begun)?;
    let mut to_client = stream.try_clone()?;
    let output = peer.output()?;
    std::thread::spawn(move || {
        let mut output = output;
        let _ = io::copy(&mut output, &mut to_client);
        // It has ended: so does the client's wait for another line.
        let _ = to_client.shutdown(std::net::Shutdown::Write);
    });
    stream.set_read_timeout(None)?;
    // The client says no more; when it is done or gone the connection ends.
    let _ = io::copy(&mut lines, &mut io::sink());
    peer.end()?;
    Ok(())
}

/// Only what answers a measurement, between the address that was offered and the host that asks.
fn permitted(task: &Task, receives: SocketAddr, client: IpAddr) -> Result<(), String> {
    let Some([first, second]) = task.addresses() else {
        return Err("that is not measured between hosts".into());
    };
    if second != receives || first.ip() != client {
        return Err(format!("packets go between {receives} and {client} only"));
    }
    Ok(())
}

/// A connection to a server; what it has said and nobody has read yet belongs to it.
pub(crate) type Server = BufReader<TcpStream>;

/// Agrees with the server there where both sides receive.
pub(crate) fn ask(host: &str) -> Result<(Server, [SocketAddr; 2]), Box<dyn Error>> {
    let stream = TcpStream::connect(host).map_err(|error| {
        format!("{host}: {error}; is `quintet-perf serve --listen {host}` running there?")
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let own = free_port(stream.local_addr()?.ip())?;
    let mut server = BufReader::new(stream);
    let offer: Offer = hear(&mut server)?;
    if offer.version != VERSION {
        return Err(format!("{host} is another version of quintet-perf").into());
    }
    Ok((server, [own, offer.receives]))
}

/// Has the server do it. What its process prints comes next.
pub(crate) fn order(
    server: &mut Server,
    task: &Task,
    core: Option<usize>,
) -> Result<(), Box<dyn Error>> {
    say(server.get_ref(), &Order { task: task.clone(), core })?;
    match hear(server)? {
        Answer::Begun => Ok(server.get_ref().set_read_timeout(None)?),
        Answer::Refused(why) => Err(format!("the server refuses: {why}").into()),
    }
}

fn free_port(own: IpAddr) -> io::Result<SocketAddr> {
    UdpSocket::bind((own, 0))?.local_addr()
}

fn say(mut stream: &TcpStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn hear<T: serde::de::DeserializeOwned>(lines: &mut impl BufRead) -> Result<T, Box<dyn Error>> {
    let mut line = String::new();
    lines.take(LINE_MAX).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err("the other side does not speak as quintet-perf does".into());
    }
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_cannot_aim_at_others() {
        let task = |first: &str, second: &str| -> Task {
            let text = format!(
                r#"{{"pong":{{"size":64,"answer":"word","ends":{{"provider":"udp","wait":"block","cluster":"c",
                   "dead":null,"devices":[],"network":{{"loss":0.0,"duplicate":0.0,"reorder":0.0,"network_seed":1}},
                   "addresses":["{first}","{second}"]}}}}}}"#
            );
            text.parse().expect("a task")
        };
        let (ours, client) = ("10.0.0.1:7000", "10.0.0.2:5");
        let judged = |task: &Task| {
            permitted(task, ours.parse().unwrap(), client.parse::<SocketAddr>().unwrap().ip())
        };
        assert_eq!(judged(&task(client, ours)), Ok(()));
        assert!(judged(&task("10.0.0.9:5", ours)).is_err(), "another host");
        assert!(judged(&task(client, "10.0.0.1:7001")).is_err(), "another port of ours");
        let raw = |first: &str, second: &str| -> Task {
            let text = format!(
                r#"{{"raw_udp_sink":{{"reader":{{"addresses":["{first}","{second}"],"segment":1400,"sealed":true}},
                   "counter":{{"warm_up":{{"secs":0,"nanos":0}},"duration":{{"secs":1,"nanos":0}},"wanted":null,"from":null,
                   "messages":0,"bytes":0}}}}}}"#
            );
            text.parse().expect("a task")
        };
        assert_eq!(judged(&raw(client, ours)), Ok(()));
        assert!(judged(&raw("10.0.0.9:5", ours)).is_err(), "another host");
        assert!(judged(&raw(client, "10.0.0.1:53")).is_err(), "another port of ours");
        let memory =
            r#"{"raw_shm_pong":{"memory":"/dev/shm/x","size":8,"rounds":9,"wait":"Look"}}"#;
        assert!(memory.parse::<Task>().map_or(true, |task| judged(&task).is_err()));
    }

    #[test]
    fn a_line_has_an_end_and_a_bound() {
        assert!(hear::<u32>(&mut &b"12\n"[..]).is_ok_and(|heard| heard == 12));
        assert!(hear::<u32>(&mut &b"12"[..]).is_err());
        assert!(hear::<u32>(&mut &b"twelve\n"[..]).is_err());
        let long = [b'1'; 2 * LINE_MAX as usize];
        assert!(hear::<u32>(&mut &long[..]).is_err());
    }
}
