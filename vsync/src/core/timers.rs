//! Timers as data: what a core waits for, and until when.
//!
//! Every wait of the protocol ends with an event or with one of these; a wait with neither would be a lost
//! wake-up. A timer that fires is disarmed before anything is concluded from it, so that a driver that asks
//! for the next time-out never gets one that has been dealt with.

use quintet_transport::Time;

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Somebody else should be changing the view; when this fires, we do.
    Takeover,
    /// Promises or acceptances of our own attempt are missing.
    Attempt,
    /// Our last attempt failed; the next may begin.
    Backoff,
    /// Read leases of those we vote out run out.
    Lease,
    /// A quorum stands outside together; the others have had their chance.
    Settle,
    /// We have stood outside for so long that people should know why.
    Patience,
    /// A quorum has met outside; who is in it may not have said yet what state it has.
    Meeting,
    /// Loaded learners waited long enough for those still loading.
    Batch,
    /// A learner we found a donor for has not said that it knows; or those left out may try again.
    Donate,
}

const COUNT: usize = 9;

/// The armed timers.
#[derive(Debug, Default)]
pub(super) struct Timers([Option<Time>; COUNT]);

impl Timers {
    /// Arms or moves a timer.
    pub(super) fn set(&mut self, timer: Timer, at: Time) {
        self.0[timer as usize] = Some(at);
    }

    /// Arms a timer that is not armed.
    pub(super) fn arm(&mut self, timer: Timer, at: Time) {
        self.0[timer as usize].get_or_insert(at);
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn armed(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// Whether `timer` is due; disarms it if so.
    pub(super) fn fired(&mut self, timer: Timer, now: Time) -> bool {
        let due = self.0[timer as usize].is_some_and(|at| at <= now);
        if due {
            self.cancel(timer);
        }
        due
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.0.iter().flatten().min().copied()
    }

    pub(super) fn clear(&mut self) {
        *self = Timers::default();
    }
}
