//! What another process of a measurement is to do. It is told in one argument, so that both sides mean the same.

use crate::{children, cpu, floor, multicast, pingpong};
use serde::{Deserialize, Serialize};
use std::error::Error;

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
    /// Is a member of a group.
    Member(multicast::Arguments),
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
        Task::RawUdpPong(pong) => floor::udp_pingpong::answer(pong, |at| println!("{at}"))?,
        Task::Member(arguments) => multicast::take_part(arguments)?,
    }
    Ok(())
}
