//! `pingpong --rate`: messages go out when they are meant to, answers come when they come.
//!
//! Latency counts from the instant that a message was meant to be sent at. `send_delay` tells how much of it passed
//! before it was sent: because this side had not woken, or the log was full.

use crate::side::{STEP, Side};
use crate::statistics::{histogram, record};
use hdrhistogram::Histogram;
use quintet_transport::{Time, clock};
use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

/// Messages that are sent before the next look for answers.
const BURST: usize = 64;

/// What came of it.
pub(crate) struct Measured {
    /// From the intended instant to the answer.
    pub(crate) latencies: Histogram<u64>,
    /// From the intended instant to the sending.
    pub(crate) send_delay: Histogram<u64>,
    /// Most messages under way at a time.
    pub(crate) under_way_max: usize,
}

/// Sends as many messages as the schedule has instants, of which the first `warm_up` do not count, and waits for all
/// answers. `begin` is called before the first one that counts, `sample` for the latency of each.
pub(crate) fn run(
    side: &mut Side,
    payload: &[u8],
    schedule: impl Iterator<Item = Duration>,
    warm_up: u64,
    mut begin: impl FnMut(),
    mut sample: impl FnMut(Duration),
) -> Result<Measured, Box<dyn Error>> {
    let mut measured =
        Measured { latencies: histogram(), send_delay: histogram(), under_way_max: 0 };
    let mut under_way = VecDeque::<Time>::with_capacity(1024);
    let (mut sent, mut answered) = (0, 0);
    let start = clock::now();
    let mut instants = schedule.map(|after| start + after).peekable();
    while !under_way.is_empty() || instants.peek().is_some() {
        let now = clock::now();
        let mut moved = side.turn(now)?;
        while side.take(|_| ()).is_some() {
            let intended = under_way.pop_front().ok_or("an answer to no message")?;
            if answered >= warm_up {
                let latency = clock::now().since(intended);
                record(&mut measured.latencies, latency);
                sample(latency);
            }
            answered += 1;
            moved = true;
        }
        side.give_back(STEP);
        for _ in 0..BURST {
            let Some(intended) = instants.next_if(|at| *at <= now) else { break };
            if sent == warm_up {
                begin();
            }
            side.send(payload)?;
            if sent >= warm_up {
                record(&mut measured.send_delay, clock::now().since(intended));
            }
            under_way.push_back(intended);
            measured.under_way_max = measured.under_way_max.max(under_way.len());
            sent += 1;
            moved = true;
        }
        side.poller.flush(now);
        if !moved {
            side.poller.park(now, instants.peek().copied(), &mut || false);
        }
    }
    Ok(measured)
}
