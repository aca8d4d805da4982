//! Receiving: what has come to the sockets, to whom it belongs, and how long it may have lain there.

use super::*;

/// Calls of recvmmsg in one turn: a flood cannot keep the poller from its other work.
const RECEIVES_PER_TURN: usize = 8;

impl Udp {
    /// Whether something has come, for one who looks again and again without taking turns; the next turn takes it.
    pub(crate) fn look(&mut self) -> bool {
        for (index, door) in self.doors.iter().enumerate() {
            if let (None, Some(batch)) = (self.looked, &mut self.batch) {
                let (count, more) = batch.receive(&door.port.main, false);
                self.looked = (count > 0).then_some((index, count, more));
            }
        }
        self.looked.is_some()
    }

    /// Takes what came to the main or to the quiet sockets. `all`: whether or not much came of late; a node that comes to
    /// its turn once a tick would else fall behind.
    pub(super) fn receive(&mut self, now: Time, own: &Own, quiet: bool, all: bool) -> bool {
        let mut happened = false;
        let Some(mut batch) = self.batch.take() else { return false };
        // What was looked at is in the batch: it comes first, or another door's packets would be written over it.
        let first = self.looked.as_ref().filter(|_| !quiet).map_or(0, |looked| looked.0);
        for door in (first..self.doors.len()).chain(0..first) {
            self.door = door;
            for _ in 0..RECEIVES_PER_TURN {
                let port = &self.doors[door].port;
                let socket = if quiet { port.quiet.as_ref() } else { Some(&port.main) };
                let Some(socket) = socket else { break };
                let looked = self.looked.take_if(|looked| looked.0 == door && !quiet);
                let (count, more) = looked
                    .map_or_else(|| batch.receive(socket, all), |(_, count, more)| (count, more));
                // Not the turn's time: had we been descheduled since, a peer would seem heard before it even sent,
                // and its read lease would outlive the silence we count.
                let now = if count > 0 { clock::now().max(now) } else { now };
                let emptied = &mut self.doors[door].emptied[usize::from(quiet)];
                let waited = now.since(*emptied);
                if !more {
                    *emptied = now;
                }
                self.taken += count;
                for index in 0..count {
                    let (congested, from) = (batch.congested(index), batch.from(index));
                    self.arrival = Arrival { congested, waited, from };
                    for datagram in batch.datagrams(index) {
                        happened |= self.take_in(now, datagram, own);
                    }
                }
                if !more || batch.is_calm() && !all {
                    break;
                }
            }
        }
        self.batch = Some(batch);
        happened
    }

    #[cfg(not(feature = "faults"))]
    pub(super) fn take_in_late(&mut self, _: Time, _: &Own) -> bool {
        false
    }

    /// Datagrams that were put off until now.
    #[cfg(feature = "faults")]
    pub(super) fn take_in_late(&mut self, now: Time, own: &Own) -> bool {
        let mut happened = false;
        while let Some(mut datagram) = self.faults.pop_due(now) {
            self.arrival = Arrival::default();
            happened |= self.on_datagram(now, &mut datagram, own);
        }
        happened
    }

    #[cfg(not(feature = "faults"))]
    pub(super) fn next_late(&self) -> Option<Time> {
        None
    }

    #[cfg(feature = "faults")]
    pub(super) fn next_late(&self) -> Option<Time> {
        self.faults.next_timeout()
    }

    #[cfg(not(feature = "faults"))]
    fn take_in(&mut self, now: Time, datagram: &mut [u8], own: &Own) -> bool {
        self.on_datagram(now, datagram, own)
    }

    /// As without faults, but through a network that is as bad as was asked for.
    #[cfg(feature = "faults")]
    fn take_in(&mut self, now: Time, datagram: &mut [u8], own: &Own) -> bool {
        let mut faults = std::mem::take(&mut self.faults);
        let mut happened = false;
        faults.pass(now, datagram, |datagram| happened |= self.on_datagram(now, datagram, own));
        self.faults = faults;
        happened
    }

    /// What has no link is dropped before any key is touched; what has one is opened once.
    pub(super) fn on_datagram(&mut self, now: Time, datagram: &mut [u8], own: &Own) -> bool {
        let header = match Header::parse(datagram) {
            Ok(header) => header,
            Err(error) => return self.on_unreadable(error),
        };
        if header.flags & FLAG_HANDSHAKE != 0 {
            return self.on_handshake(now, datagram, own);
        }
        let id = header.connection;
        let owner = |slot: &Slot| slot.link.as_ref().is_some_and(|link| link.id == id);
        // Packets come in runs of the same link.
        let same = owner(&self.slots[self.recent]).then_some(self.recent);
        let Some(index) = same.or_else(|| self.slots.iter().position(owner)) else {
            self.strays += 1;
            return false;
        };
        self.recent = index;
        let Some(link) = self.slots[index].link.as_deref_mut() else { return false };
        let Some(change) = link.receive(now, datagram, self.arrival) else {
            self.strays += 1;
            return false;
        };
        if let Some(token) = link.roaming.challenge.take() {
            self.answer_challenge(index, token, now);
            self.attend(index, now, true);
        }
        self.roam(index, now);
        let happened = self.apply(index, change);
        self.hear(index) || happened
    }
}
