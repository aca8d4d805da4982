//! How two nodes that are linked by UDP come to verbs: one tries addresses, the other follows, data decides.
//!
//! The node with the higher id makes offers; the other one connects at once, answers, and waits. Each writes into the
//! other's inbox what it read in the other's offer, with a doorbell. Who got that write, and knows its own to have been
//! carried out, is done: then data flows in both directions, whatever tables and configurations say. A pair of addresses
//! that does not get there in time is given up, and the next one tried.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::course::{Course, PAIRS_MAX};
use super::discover::Place;
use super::link::{Kept, VerbsLink};
use super::offer::{Ask, Message, NOTE_MAX, Offer};
use super::{Outcome, Verbs};
use crate::id::Member;
use crate::lane::{CONTROL, LaneSpec};
use crate::memory::Memory;
use crate::time::Time;
use crate::udp::UdpLink;

/// Notes are repeated at this pace.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a pair of addresses may take for each step: to be connected, and to carry data.
const TRY: Duration = Duration::from_millis(700);
/// How long the other side may take for all of it.
const PATIENCE: Duration = Duration::from_secs(6);
const _: () = assert!(PATIENCE.as_millis() > TRY.as_millis() * PAIRS_MAX as u128);
/// How long it may take to replace a queue pair of a link: the peer lives, and a cable may come back.
const MEND: Duration = Duration::from_secs(10);
/// Distance of the tries meanwhile.
const MEND_STEP: Duration = Duration::from_millis(250);
/// The same while UDP carries the lanes: twice as long after each, up to the last.
const RARELY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// After a failure of everything, where there is no other path to fall back to.
const PAUSE: Duration = Duration::from_secs(1);

/// A try under way.
struct Try {
    place: usize,
    link: Box<VerbsLink>,
    own: Offer,
    connected: bool,
    /// Our proof is on its way.
    shown: bool,
    until: Time,
}

/// A peer that is linked by UDP and not yet by verbs, or not any more: its queue pair is to be replaced.
pub(super) struct Talk {
    pub(super) handle: UdpLink,
    member: Member,
    udp_from: u64,
    offers: bool,
    /// Number of the latest try.
    attempt: u8,
    course: Course,
    current: Option<Try>,
    theirs: Option<Offer>,
    next: Time,
    until: Time,
    last_why: String,
    /// Of the link that shall go on.
    kept: Option<Kept>,
    /// An answer to a peer whose offer we could not connect to: it finds out for itself, and tries the next.
    refusal: Option<Offer>,
    /// Of such a link: no try before that.
    pause: Time,
    /// UDP carries its lanes: there is no hurry, and no end. How long the next pause is.
    rarely: Option<Duration>,
}

/// What a talk needs of its surroundings.
pub(super) struct Ground<'a> {
    pub(super) places: &'a [Place],
    pub(super) source: &'a Arc<Memory>,
    pub(super) lanes: &'a [LaneSpec],
    pub(super) control_head: u64,
    pub(super) psn: u32,
    /// Lanes may go by UDP here.
    pub(super) by_udp: bool,
}

impl Ground<'_> {
    /// How many addresses we have, as the peer is told.
    fn count(&self) -> u8 {
        self.places.len().min(usize::from(u8::MAX)) as u8
    }
}

impl Talk {
    pub(super) fn new(
        handle: UdpLink,
        (me, member): (Member, Member),
        udp_from: u64,
        now: Time,
    ) -> Talk {
        Talk {
            handle,
            member,
            udp_from,
            offers: me.node > member.node,
            attempt: 0,
            course: Course::default(),
            current: None,
            theirs: None,
            next: now,
            until: now + PATIENCE,
            last_why: "no pair of addresses was tried".into(),
            kept: None,
            refusal: None,
            pause: now,
            rarely: None,
        }
    }

    /// The queue pair of a link failed, and another shall take its place.
    pub(super) fn mend(handle: UdpLink, ids: (Member, Member), kept: Kept, now: Time) -> Talk {
        // What was good before may be good again.
        let course = kept.course;
        Talk { kept: Some(kept), course, until: now + MEND, ..Talk::new(handle, ids, 0, now) }
    }

    /// The lanes of the link go by UDP meanwhile. `failures`: queue pairs of it that failed lately; after many of them the
    /// next is not tried soon.
    pub(super) fn go_rarely(&mut self, failures: u32, now: Time) {
        let [first, last] = RARELY;
        let pause = (first * (1 << failures.saturating_sub(1).min(8))).min(last);
        (self.rarely, self.until) = (Some(pause), Time::MAX);
        if self.offers {
            self.pause = now + pause;
        }
    }

    /// An adapter has reported something: what was missing may be there.
    pub(super) fn hurry(&mut self, now: Time) {
        if let Some(pause) = &mut self.rarely {
            (*pause, self.pause, self.next) = (RARELY[0], now, now);
        }
    }

    pub(super) fn mends(&self) -> bool {
        self.kept.is_some()
    }

    /// The link that it is about, as we call it and as the peer does; 0 if it is a new one.
    fn name(&self) -> (u32, u32) {
        self.kept.as_ref().map_or((0, 0), |kept| kept.name)
    }

    /// Which of its queue pairs failed, as the peer knows it.
    fn after(&self) -> u32 {
        self.kept.as_ref().map_or(0, |kept| kept.after)
    }

    /// Our CONTROL log from here on is promised to the peer.
    pub(super) fn promised(&self) -> u64 {
        let current = self.current.as_ref().filter(|_| !self.mends());
        current.map_or(u64::MAX, |current| current.own.control_from)
    }

    /// When [`Talk::poll`] wants to be called. While data is awaited, often: its doorbell is not waited for.
    pub(super) fn next_timeout(&self) -> Time {
        self.next
    }

    /// The pair of addresses that is tried is of no use: the next one's turn.
    fn fail(&mut self, why: String) {
        tracing::debug!(peer = %self.member, attempt = self.attempt, why, "verbs attempt failed");
        self.current = None;
        self.last_why = why;
        self.course.advance();
    }

    /// Memory and queue pair for another try. `wanted`: at which of our addresses, and as which try, if the peer chose.
    fn begin(&mut self, ground: &Ground<'_>, wanted: Option<&Offer>, now: Time) -> Option<()> {
        if self.mends() {
            self.pause = now + MEND_STEP;
        }
        if let Some(pause) = &mut self.rarely
            && self.offers
            && self.course.ends_round(ground.places.len())
        {
            // All pairs have had their turn: which of them carries is not known before.
            *pause = (*pause * 2).min(RARELY[1]);
            self.pause = now + *pause;
        }
        let count = ground.places.len();
        let (place, wants) = match wanted {
            Some(theirs) => (usize::from(theirs.wants) % count.max(1), 0),
            None => self.course.pair(count),
        };
        self.attempt = wanted.map_or(self.attempt.wrapping_add(1), |theirs| theirs.attempt);
        let at = &ground.places[place];
        let made = match &self.kept {
            None => VerbsLink::new(at, ground.source, ground.lanes),
            Some(kept) => VerbsLink::going_on(kept, at, ground.source, ground.lanes),
        };
        match made {
            Ok(mut link) => {
                if self.kept.is_none() {
                    link.attach(CONTROL, ground.control_head);
                }
                let mut own = link.offer(at, self.attempt, ground.psn, ground.control_head);
                (own.resumes, own.after) = (self.name().0, self.after());
                (own.places, own.wants) = (ground.count(), wants as u8);
                own.by_udp = ground.by_udp;
                link.course = self.course;
                self.current = Some(Try {
                    place,
                    link: Box::new(link),
                    own,
                    connected: false,
                    shown: false,
                    until: now + TRY,
                });
                Some(())
            }
            Err(error) => {
                self.fail(format!("{at}: {error}{}", hint(&error)));
                None
            }
        }
    }

    fn connect(&mut self, ground: &Ground<'_>, theirs: &Offer) -> bool {
        let Some(current) = &mut self.current else { return false };
        let place = &ground.places[current.place];
        match current.link.connect(place, &current.own, theirs) {
            Ok(()) => {
                current.connected = true;
                self.theirs = Some(*theirs);
                true
            }
            Err(error) => {
                let gid = std::net::Ipv6Addr::from(theirs.gid);
                let why = format!("from {place} to {gid}: {error}");
                self.fail(why);
                false
            }
        }
    }

    /// A note came.
    pub(super) fn note(&mut self, ground: &Ground<'_>, message: Message<'_>, now: Time) {
        // Of another link: said before that one ended, or by a peer that does not know this one any more.
        let about = match message {
            Message::Offer(theirs) | Message::Answer(theirs) => theirs.resumes,
            Message::Ask(ask) => ask.resumes,
            Message::Decline(_) => self.name().1,
        };
        if about != self.name().1 {
            return;
        }
        if let Message::Offer(Offer { places, .. })
        | Message::Answer(Offer { places, .. })
        | Message::Ask(Ask { places, .. }) = message
        {
            self.course.learn(places);
        }
        match message {
            Message::Offer(theirs) if !self.offers => {
                if self.theirs == Some(theirs) && self.current.is_some() {
                    self.next = now; // Our answer was lost: again.
                    return;
                }
                if now < self.pause {
                    return;
                }
                self.current = None;
                self.next = now;
                self.refusal = None;
                if self.begin(ground, Some(&theirs), now).is_some() {
                    let own = self.current.as_ref().map(|current| current.own);
                    if !self.connect(ground, &theirs) {
                        self.refusal = own;
                    }
                }
            }
            Message::Answer(theirs) if self.offers => {
                let fits = self.current.as_ref().is_some_and(|current| {
                    !current.connected && current.own.attempt == theirs.attempt
                });
                if fits {
                    self.next = now;
                    if self.connect(ground, &theirs) {
                        self.show(now);
                    }
                }
            }
            Message::Ask(_) if self.offers => self.next = now,
            _ => {}
        }
    }

    /// Writes our proof. From here on the peer may find everything in order and be done, so this side does not give up
    /// at once, however late it came to this.
    fn show(&mut self, now: Time) {
        if let Some(current) = &mut self.current
            && !current.shown
        {
            current.shown = true;
            current.until = now + TRY;
            self.until = self.until.max(current.until);
            current.link.prove();
        }
    }

    /// Does what is due. `say` carries a note to the peer.
    pub(super) fn poll(
        &mut self,
        ground: &Ground<'_>,
        now: Time,
        say: &mut dyn FnMut(Message<'_>),
    ) -> Option<Outcome> {
        if let Some(current) = &mut self.current {
            current.link.refresh();
            let (seen, done) = current.link.proven(current.own.psn);
            if seen && !self.offers {
                self.show(now);
            }
            let current = self.current.as_ref()?;
            if seen && done && current.shown {
                return self.done();
            }
            let place = &ground.places[current.place];
            if current.link.failure().is_some() {
                self.fail(format!("{place}: data did not arrive"));
            } else if now >= current.until && (current.connected || self.course.is_answered()) {
                let what = match (seen, done) {
                    (true, _) => "ours did not arrive",
                    (_, true) => "the peer's did not arrive",
                    _ => "none went either way",
                };
                self.fail(format!("{place}: data did not go both ways within {TRY:?}: {what}"));
            } else if now >= current.until {
                // Nothing was heard of the peer, which says nothing of addresses.
                self.current = None;
                self.last_why = format!("{place}: no answer within {TRY:?}");
            }
            if self.current.is_none() {
                self.next = now;
            }
        }
        if now >= self.until {
            return Some(self.given_up(format!("it took too long; last: {}", self.last_why)));
        }
        if now < self.next {
            return None;
        }
        self.next = now + AGAIN;
        if !self.offers {
            match &self.current {
                Some(current) if current.connected => {
                    say(Message::Answer(current.own));
                }
                None if self.refusal.is_some() => {
                    if let Some(own) = self.refusal.take() {
                        say(Message::Answer(own));
                    }
                }
                _ => {
                    let (resumes, after) = (self.name().0, self.after());
                    say(Message::Ask(Ask { resumes, after, places: ground.count() }));
                    self.next = now + self.rarely.map_or(AGAIN, |_| RARELY[0]);
                }
            }
            return None;
        }
        // As often as there is time for, but not in a row: what is missing may come back.
        if self.mends() && self.current.is_none() && now >= self.pause {
            self.begin(ground, None, now);
        }
        while self.current.is_none() && !self.mends() {
            if self.course.is_over(ground.places.len()) {
                let why = format!("no pair of addresses carried data; last: {}", self.last_why);
                say(Message::Decline(&why));
                return Some(self.given_up(why));
            }
            self.begin(ground, None, now);
        }
        match &self.current {
            Some(current) if !current.connected => say(Message::Offer(current.own)),
            _ => {}
        }
        None
    }

    fn done(&mut self) -> Option<Outcome> {
        let (current, theirs) = (self.current.take()?, self.theirs?);
        Some(Outcome::Up {
            handle: self.handle,
            member: self.member,
            control_from: theirs.control_from,
            link: current.link,
        })
    }

    pub(super) fn given_up(&mut self, why: String) -> Outcome {
        self.current = None;
        Outcome::Down { handle: self.handle, member: self.member, udp_from: self.udp_from, why }
    }

    /// We stood still: that time is nobody's fault.
    pub(super) fn excuse(&mut self, stall: Duration) {
        self.until += stall;
    }

    /// Begins anew after a pause: for a policy that knows no other path.
    pub(super) fn restart(&mut self, now: Time) {
        self.current = None;
        self.theirs = None;
        self.course = Course::default();
        self.next = now + PAUSE;
        self.until = now + PAUSE + PATIENCE;
    }
}

/// What usually causes it.
fn hint(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "; the limit on locked memory may be too low: set LimitMEMLOCK=infinity (ulimit -l unlimited)"
        }
        _ => "",
    }
}

/// A note as bytes.
pub(super) fn emit(message: &Message<'_>) -> ([u8; NOTE_MAX], usize) {
    let mut bytes = [0; NOTE_MAX];
    let len = message.emit(&mut bytes);
    (bytes, len)
}

impl Verbs {
    /// A packet number to start from, which also serves as proof that the peer read our offer (SplitMix64).
    pub(super) fn fresh_psn(&mut self) -> u32 {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.entropy;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 40) as u32).max(1)
    }
}
