//! What a measurement and a server on another host say to each other before it begins: a line of JSON each.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Both sides must be of the same version.
pub(crate) const VERSION: u32 = 5;
/// Bytes of a line, at most.
const LINE_MAX: u64 = 16 << 10;
/// How long either side may take for its part of the agreement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What the server says first.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Offer {
    pub(crate) version: u32,
    pub(crate) receives: SocketAddr,
}

/// What the client says then.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) task: Value,
    pub(crate) core: Option<usize>,
}

/// What the server says to that.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Begun,
    Refused(String),
}

/// What the client may say later.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Injury {
    /// The process ends without a word.
    Kill,
    /// It stops where it is.
    Freeze,
}

/// A connection to a server; what it has said and nobody has read yet belongs to it.
pub(crate) type Server = BufReader<TcpStream>;

/// Asks the server there for one process. Returns where that receives.
pub(crate) fn ask(host: &str) -> Result<(Server, SocketAddr), Box<dyn Error>> {
    let stream = TcpStream::connect(host).map_err(|error| {
        format!("{host}: {error}; is `quintet-perf serve --listen {host}` running there?")
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut server = BufReader::new(stream);
    let offer: Offer = hear(&mut server)?;
    if offer.version != VERSION {
        return Err(format!("{host} is another version of quintet-perf").into());
    }
    Ok((server, offer.receives))
}

/// Has the server do it. What its process prints comes next.
pub(crate) fn order(
    server: &mut Server,
    task: &Value,
    core: Option<usize>,
) -> Result<(), Box<dyn Error>> {
    say(server.get_ref(), &Order { task: task.clone(), core })?;
    match hear(server)? {
        Answer::Begun => Ok(server.get_ref().set_read_timeout(None)?),
        Answer::Refused(why) => Err(format!("the server refuses: {why}").into()),
    }
}

pub(crate) fn say(mut stream: &TcpStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line)
}

pub(crate) fn hear<T: serde::de::DeserializeOwned>(
    lines: &mut impl BufRead,
) -> Result<T, Box<dyn Error>> {
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
    fn a_line_has_an_end_and_a_bound() {
        assert!(hear::<u32>(&mut &b"12\n"[..]).is_ok_and(|heard| heard == 12));
        assert!(hear::<u32>(&mut &b"12"[..]).is_err());
        assert!(hear::<u32>(&mut &b"twelve\n"[..]).is_err());
        let long = [b'1'; 2 * LINE_MAX as usize];
        assert!(hear::<u32>(&mut &long[..]).is_err());
    }
}
