//! Timers as data: which there are, when each is due, and which is next.

use crate::time::Time;

/// A reason to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Acks or credit that waited for data to ride on.
    Ack,
    /// A packet overtaken by acked ones becomes lost.
    Loss,
    /// Nothing was acked for a probe time-out.
    Probe,
    /// A sign of life is due. The only timer of an idle link.
    Heartbeat,
}

const COUNT: usize = 4;

/// When each timer is due.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timers([Option<Time>; COUNT]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Option<Time>) {
        self.0[timer as usize] = at;
    }
    /// Arms `timer` unless it is due earlier already.
    pub(crate) fn set_earliest(&mut self, timer: Timer, at: Time) {
        let slot = &mut self.0[timer as usize];
        *slot = Some(slot.map_or(at, |old| old.min(at)));
    }
    /// Whether `timer` is due; it is disarmed by asking.
    pub(crate) fn take_due(&mut self, timer: Timer, now: Time) -> bool {
        let due = self.0[timer as usize].is_some_and(|at| at <= now);
        if due {
            self.0[timer as usize] = None;
        }
        due
    }
    pub(crate) fn next(&self) -> Option<Time> {
        self.0.iter().flatten().min().copied()
    }
    pub(crate) fn clear(&mut self) {
        self.0 = [None; COUNT];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_next_and_fires_once() {
        let at = Time::from_nanos;
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::Heartbeat, Some(at(50)));
        timers.set_earliest(Timer::Ack, at(30));
        timers.set_earliest(Timer::Ack, at(40));
        assert_eq!(timers.next(), Some(at(30)));
        assert!(!timers.take_due(Timer::Ack, at(29)));
        assert!(timers.take_due(Timer::Ack, at(30)));
        assert!(!timers.take_due(Timer::Ack, at(31)));
        assert_eq!(timers.next(), Some(at(50)));
    }
}
