//! Errands by name: what another process of a measurement is asked to do, in one argument.

use crate::children::{self, Errand, Reach};
use crate::floor::{copy_stream, gso_stream, shm_pingpong, udp_pingpong};
use crate::{cpu, detect, incast, mesh, multicast, pingpong, stream};
use serde_json::Value;
use std::error::Error;

/// A kind of errand.
struct Kind {
    name: &'static str,
    reach: fn(&Value) -> Result<Option<Reach>, String>,
    run: fn(&Value) -> Result<(), Box<dyn Error>>,
}

const KINDS: [Kind; 10] = [
    kind::<pingpong::Pong>(),
    kind::<shm_pingpong::Pong>(),
    kind::<udp_pingpong::Pong>(),
    kind::<stream::Sink>(),
    kind::<stream::RawSink<copy_stream::Reader>>(),
    kind::<stream::RawSink<gso_stream::Reader>>(),
    kind::<mesh::Part>(),
    kind::<incast::Source>(),
    kind::<detect::Victim>(),
    kind::<multicast::Arguments>(),
];

const fn kind<T: Errand>() -> Kind {
    Kind {
        name: T::NAME,
        reach: |told| Ok(understood::<T>(told)?.reach()),
        run: |told| understood::<T>(told)?.run(),
    }
}

fn understood<T: Errand>(told: &Value) -> Result<T, String> {
    T::deserialize(told).map_err(|error| format!("{}: {error}", T::NAME))
}

/// The kind, and what is told of it.
fn find(task: &Value) -> Result<(&'static Kind, &Value), String> {
    KINDS
        .iter()
        .find_map(|kind| Some((kind, task.get(kind.name)?)))
        .ok_or_else(|| "nobody here can do that".into())
}

/// Whom the process that does it talks to, if it may be done for another host.
pub(crate) fn reach(task: &Value) -> Result<Option<Reach>, String> {
    find(task).and_then(|(kind, told)| (kind.reach)(told))
}

/// Does it, until it is done or the process that started this one is.
pub(crate) fn perform(task: &str, core: Option<usize>) -> Result<(), Box<dyn Error>> {
    children::end_with_parent();
    core.map_or(Ok(()), cpu::pin)?;
    let task = serde_json::from_str(task)?;
    let (kind, told) = find(&task)?;
    (kind.run)(told)
}
