//! Message bytes, borrowed from where the network put them. The only `unsafe` of this crate.

use quintet_transport::LogBytes;

use super::ring::Descriptor;

/// The payload that `d` describes, in `log`.
///
/// The lifetime is that of the borrow of `log`; the caller (`Deliveries::next`) ties it to `&mut self`, so that the
/// slice is gone before the entry is reported consumed.
pub(crate) fn payload(log: &LogBytes, d: Descriptor) -> &[u8] {
    // SAFETY: `LogBytes::get` asks that the record be visible and not released while the slice lives.
    // 1. Visible: the poller makes a descriptor only from a record that `Poller::peek` (a peer's log) or
    //    `Poller::publish` (the own log) showed it, in this very memory; the ring's Release/Acquire pair brings the
    //    bytes along. Visible bytes never change before the release.
    // 2. Not released: the poller releases (and for the own log reclaims) at most up to `Source::consumed`, which
    //    `Deliveries` raises past this record only when the next event is asked for, which needs `&mut Deliveries` and so
    //    ends the borrow. When a link is gone, its replica is frozen, and a sender never reuses what a member of its
    //    view has not released. A sender whose view does not hold this node any more may: `LogBytes::intact` is the
    //    guard for that (see `Deliveries` and `Message::intact`).
    // 3. Mapped: `LogBytes` shares ownership of the memory, and `log` is borrowed for the slice's whole life.
    unsafe { log.get(d.position, d.len as usize) }
}
