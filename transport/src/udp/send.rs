//! Sending: batches of equal datagrams, and what to do when the kernel does not take one.
//!
//! | the kernel says | it means | what happens |
//! |---|---|---|
//! | EAGAIN, ENOBUFS | this peer's buffer is full (unanswered ARP, or a burst) | the batch is kept and sent a little later; other peers are not affected |
//! | ECONNREFUSED | an earlier packet met a closed port; this one was *not* sent | probes begin; the batch is sent again |
//! | EINVAL, and the own address is gone | this machine has another one now | a new socket; the batch is sent again |
//! | EIO, EINVAL on a segmented send | this device cannot segment | never again; the batch leaves by sendmmsg (`means`) |
//! | ENOSYS on sendmmsg | somebody forbids it by now | never again; what is left of the batch leaves one by one |
//! | EMSGSIZE | larger than the first link takes by now | smaller datagrams from now on; loss detection repairs |
//! | EHOSTUNREACH, ENETUNREACH, EPERM, … | no way at the moment | as if lost in the network; other rails are asked, else silence decides |

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::means::Sending;
use super::*;
use crate::secure::UsedUp;

/// After how long a batch that was not taken is tried again.
const RETRY: Duration = Duration::from_micros(500);
/// Batches sent to one peer in one turn.
const BATCHES_PER_TURN: usize = 4;

impl Udp {
    /// Packs and sends what a link has, in batches. Returns what time it is when much was sent.
    pub(super) fn transmit(&mut self, index: usize, mut now: Time, own: &Own) -> Time {
        if !self.send_stash(index, now) {
            return now;
        }
        let Some(link) = self.slots[index].link.as_deref_mut() else { return now };
        if !link.is_dead() && !link.detach_what_was_reclaimed(own) {
            self.kill(index, Evidence::Fenced);
            return now;
        }
        let lost = link.connection.counters().lost;
        if lost != link.lost {
            probe::probe!(quintet, retransmit, link.member.node.0, lost - link.lost);
            link.lost = lost;
        }
        let mut out = std::mem::take(&mut self.out);
        self.probe_mtu(index, now, &mut out);
        let mut unfinished = true;
        for _ in 0..BATCHES_PER_TURN {
            let Some(link) = self.slots[index].link.as_deref_mut() else { break };
            link.keys.renew(now, link.connection.confirmed());
            let Ok((len, segment, more)) = fill(link, now, own, &mut out) else {
                // Nothing was ever acknowledged under this key: the peer is not there.
                self.kill(index, Evidence::HeartbeatMissed);
                break;
            };
            unfinished = more;
            if len == 0 || !self.send_batch(index, &out[..len], segment, now) || !more {
                break;
            }
            // What leaves next has not been on its way while this was sealed and sent.
            now = clock::now().max(now);
        }
        self.out = out;
        if let Some(link) = self.slots[index].link.as_deref_mut() {
            link.unfinished = unfinished && link.stash.bytes.is_empty() && !link.is_dead();
        }
        now
    }

    /// Sends a datagram that finds out whether the path carries larger ones, if it is time for that.
    fn probe_mtu(&mut self, index: usize, now: Time, out: &mut [u8]) {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return };
        let room = out.len() - TAG_LEN;
        let Some(packed) = link.connection.poll_mtu_probe(now, &mut out[..room]) else { return };
        let packet = &mut out[..packed.len + TAG_LEN];
        let Some(socket) = self.peers[link.peer].socket() else { return };
        // Whatever else happens to it: it was a probe, and others follow.
        if link.keys.seal(packet).is_ok()
            && socket
                .send(packet, None)
                .is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE))
        {
            link.connection.refuse_mtu_probe();
        }
    }

    /// Sends what was kept; true if nothing is left of it.
    fn send_stash(&mut self, index: usize, now: Time) -> bool {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return false };
        if link.stash.bytes.is_empty() {
            return true;
        }
        if now < link.stash.retry {
            return false;
        }
        let stash = std::mem::take(&mut link.stash);
        self.send_batch(index, &stash.bytes, stash.segment, now)
    }

    /// Sends one batch; false if the peer's socket is full and the rest of the batch was kept.
    fn send_batch(&mut self, index: usize, bytes: &[u8], segment: usize, now: Time) -> bool {
        let Some(link) = self.slots[index].link.as_deref() else { return false };
        let (peer, mut rest, mut failures) = (link.peer, bytes, 0);
        while !rest.is_empty() && failures < 4 {
            let Some(socket) = self.peers[peer].socket() else { return true };
            let joined = segment < rest.len();
            let sending = if joined { self.means.sending } else { Sending::Alone };
            let (now_sent, result) = match sending {
                Sending::Cut => (rest.len(), socket.send(rest, Some(segment as u16))),
                Sending::Alone => {
                    let one = segment.min(rest.len());
                    (one, socket.send(&rest[..one], None))
                }
                Sending::Many => {
                    let mut left = rest;
                    let result = socket.send_many(&mut left, segment);
                    (rest.len() - left.len(), result)
                }
            };
            let Err(error) = result else {
                rest = &rest[now_sent..];
                continue;
            };
            failures += 1;
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS) => {
                    self.keep(index, rest, segment, now);
                    return false;
                }
                Some(libc::ECONNREFUSED) => self.on_refused(peer, now),
                Some(libc::EINVAL) if self.reopen_if_stranded(peer) => {}
                Some(libc::EIO | libc::EINVAL) if sending == Sending::Cut => {
                    self.means.cannot_cut(&error);
                    tracing::warn!("packets leave by {}", self.means.told.sending);
                }
                Some(libc::ENOSYS) if sending == Sending::Many => {
                    self.means.cannot_send_many(&error);
                    tracing::warn!("packets leave by {}", self.means.told.sending);
                }
                Some(libc::EMSGSIZE) => {
                    self.shrink(index);
                    return true;
                }
                _ => {
                    self.doubt_rail(index, now);
                    return true;
                }
            }
        }
        true
    }

    fn keep(&mut self, index: usize, bytes: &[u8], segment: usize, now: Time) {
        if let Some(link) = self.slots[index].link.as_deref_mut()
            && !link.is_dead()
        {
            link.stash.bytes.clear();
            link.stash.bytes.extend_from_slice(bytes);
            link.stash.segment = segment;
            link.stash.retry = now + RETRY;
        }
    }

    fn shrink(&mut self, index: usize) {
        if let Some(link) = self.slots[index].link.as_deref_mut() {
            link.connection.shrink_datagram();
        }
    }

    /// The same by one of the rails that the peer has; `way` counts on beyond the last.
    pub(super) fn send_by(&self, peer: usize, way: usize, bytes: &[u8]) {
        let ways = &self.peers[peer].ways;
        ways[way % ways.len()].send(bytes).ok();
    }

    /// Sends one packet outside of a link, over all rails; whether it arrives is up to the caller's repetitions.
    pub(super) fn send_alone(&self, peer: usize, bytes: &[u8]) {
        self.peers[peer].ways.iter().for_each(|way| drop(way.send(bytes)));
    }
}

/// Packs and seals datagrams of one size (the last may be shorter) until the buffer is full or there is nothing more.
/// Returns their bytes, their size, and whether there may be more.
fn fill(
    link: &mut Link,
    now: Time,
    own: &Own,
    out: &mut [u8],
) -> Result<(usize, usize, bool), UsedUp> {
    let (mut len, mut segment) = (0, 0);
    let max = link.connection.packet_max() + TAG_LEN;
    for _ in 0..SEGMENTS_MAX {
        // The first datagram decides the size; those after it must not be larger.
        let room = if segment == 0 { max } else { segment };
        if out.len() - len < room {
            return Ok((len, segment, true));
        }
        let Some(packed) =
            link.connection.poll_transmit(now, &mut out[len..len + room - TAG_LEN], own)
        else {
            return Ok((len, segment, false));
        };
        let sealed = packed.len + TAG_LEN;
        let tail = packed.tail.map_or(&[][..], |tail| own.tail(tail));
        link.keys.seal_with(&mut out[len..len + sealed], tail)?;
        len += sealed;
        if segment == 0 {
            segment = sealed;
        }
        if sealed < segment || sealed < max {
            return Ok((len, segment, true));
        }
    }
    Ok((len, segment, true))
}
