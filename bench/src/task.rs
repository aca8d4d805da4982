//! What another process of a measurement is to do. It is told in one argument, so that both sides mean the same.

use crate::{children, cpu, detect, floor, incast, mesh, multicast, pingpong, stream};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::net::SocketAddr;

/// One per kind of process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Answers round trips over the transport.
    Pong(pingpong::Pong),
    /// Answers round trips through raw memory.
    RawShmPong(floor::shm_pingpong::Pong),
    /// Answers round trips of raw datagrams.
    RawUdpPong(floor::udp_pingpong::Pong),
    /// Receives a stream over the transport.
    Sink(stream::Sink),
    /// Receives a stream through raw memory.
    RawShmSink(stream::RawSink<floor::copy_stream::Reader>),
    /// Receives a stream of raw datagrams.
    RawUdpSink(stream::RawSink<floor::gso_stream::Reader>),
    /// Pings all others, and answers them.
    Node(mesh::Part),
    /// Sends to one who receives from many.
    Source(incast::Source),
    /// Is killed or frozen.
    Victim(detect::Victim),
    /// Is a member of a group.
    Member(multicast::Arguments),
}

impl Task {
    /// Where the two sides receive, of what can be measured between hosts.
    pub(crate) fn addresses(&self) -> Option<[SocketAddr; 2]> {
        match self {
            Task::Pong(pong) => Some(pong.ends.addresses),
            Task::Sink(sink) => Some(sink.ends.addresses),
            Task::RawUdpPong(pong) => Some(pong.addresses),
            Task::RawUdpSink(sink) => Some(sink.reader.addresses),
            _ => None,
        }
    }
}

impl std::str::FromStr for Task {
    type Err = serde_json::Error;
    fn from_str(text: &str) -> Result<Task, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// Does it, until it is done or the process that started this one is.
pub(crate) fn perform(task: &Task, core: Option<usize>) -> Result<(), Box<dyn Error>> {
    children::end_with_parent();
    core.map_or(Ok(()), cpu::pin)?;
    match task {
        Task::Pong(pong) => pingpong::answer(pong)?,
        Task::RawShmPong(pong) => floor::shm_pingpong::answer(pong)?,
        Task::RawUdpPong(pong) => floor::udp_pingpong::answer(pong, ready)?,
        Task::Sink(sink) => stream::sink(sink)?,
        Task::RawShmSink(sink) => {
            let counted = floor::copy_stream::read(&sink.reader, sink.counter.clone())?;
            println!("{}", serde_json::to_string(&counted)?);
        }
        Task::RawUdpSink(sink) => {
            let counted = floor::gso_stream::read(&sink.reader, sink.counter.clone(), ready)?;
            println!("{}", serde_json::to_string(&counted)?);
        }
        Task::Node(part) => mesh::take_part(part)?,
        Task::Source(source) => incast::send(source)?,
        Task::Victim(victim) => detect::suffer(victim)?,
        Task::Member(arguments) => multicast::take_part(arguments)?,
    }
    Ok(())
}

/// Says so to the side that has to wait for it.
fn ready() {
    println!("ready");
}
