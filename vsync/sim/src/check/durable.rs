//! 19: what was acknowledged (delivered to its sender and reported persisted by a quorum) survives every restart.

use super::{Verdict, ViewInfo, Violation, show};
use quintet_transport::Member;

/// A message that a client was told is durable.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    position: u64,
    message: u64,
    /// The view in which it was told.
    view: u64,
}

/// Acknowledged messages in the order of their positions.
#[derive(Debug, Default)]
pub struct Durable {
    acked: Vec<Acknowledged>,
    sorted: bool,
}

impl Durable {
    /// A sender in `view` told its client that `message` at `position` is durable.
    pub fn acknowledge(&mut self, position: u64, message: u64, view: u64) {
        self.sorted &= self.acked.last().is_none_or(|a| a.position < position);
        self.acked.push(Acknowledged { position, message, view });
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.acked.len()
    }

    fn sort(&mut self) {
        if !self.sorted {
            self.acked.sort_unstable_by_key(|a| (a.position, a.message));
            self.sorted = true;
        }
    }

    /// A primary's member holds `history` (position, message; messages only): all that was acknowledged below
    /// `below` must be in it.
    pub fn holds(&mut self, me: Member, history: &[(u64, u64)], below: u64) -> Verdict {
        self.sort();
        let mut held = history.iter().peekable();
        for &Acknowledged { position, message, .. } in
            self.acked.iter().take_while(|a| a.position < below)
        {
            while held.next_if(|h| h.0 < position).is_some() {}
            if held.peek().is_none_or(|&&h| h != (position, message)) {
                let text = format!(
                    "{me} goes on without message {message} at {}, which was acknowledged",
                    show(position)
                );
                return Err(Violation::new(19, text));
            }
        }
        Ok(())
    }

    /// Disks have lost what they had, and the group begins again with `history`; `founded` are the views, decided so far,
    /// that began so. Nobody could know what was acknowledged in the view just before such a one: that may be gone. What was
    /// acknowledged earlier, the nodes had agreed to owe: it is there, or a view says that it was given up.
    pub fn forgive(&mut self, history: &[(u64, u64)], founded: &[&ViewInfo]) {
        self.acked.retain(|a| {
            let held = || history.binary_search_by_key(&a.position, |h| h.0).is_ok();
            let lost = |v: &&ViewInfo| {
                let given_up =
                    v.given_up.is_some_and(|(from, to)| (from..to).contains(&a.position));
                v.id == a.view + 1 || v.id > a.view && given_up
            };
            !founded.iter().any(lost) || held()
        });
    }
}
