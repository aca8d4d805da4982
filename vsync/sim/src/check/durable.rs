//! 19: what was acknowledged (delivered to its sender and reported persisted by a quorum) survives every restart.

use super::{Verdict, Violation, show};
use quintet_transport::Member;

/// Acknowledged messages in the order of their positions.
#[derive(Debug, Default)]
pub struct Durable {
    acked: Vec<(u64, u64)>,
    sorted: bool,
}

impl Durable {
    /// A sender told its client that `message` at `position` is durable.
    pub fn acknowledge(&mut self, position: u64, message: u64) {
        self.sorted &= self.acked.last().is_none_or(|&(p, _)| p < position);
        self.acked.push((position, message));
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.acked.len()
    }

    /// A primary's member holds `history` (position, message; messages only): all that was acknowledged below
    /// `below` must be in it.
    pub fn holds(&mut self, me: Member, history: &[(u64, u64)], below: u64) -> Verdict {
        if !self.sorted {
            self.acked.sort_unstable();
            self.sorted = true;
        }
        let mut held = history.iter().peekable();
        for &(position, message) in self.acked.iter().take_while(|a| a.0 < below) {
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
}
