//! 8: every send ends in exactly one outcome.
//!
//! A send is delivered to its sender (once), or its sender's incarnation ended first (evicted, left, crashed: then
//! it is `Indeterminate` or `NotDelivered`, and its id tells). Nothing may be delivered to a sender whose
//! incarnation has been told that it is over.

use std::collections::BTreeMap;

use quintet_transport::Member;

use super::{Boot, Verdict, Violation, show};

/// What became of one sender's messages.
#[derive(Debug, Default)]
struct Sends {
    member: Member,
    open: BTreeMap<u64, u64>,
    over: bool,
}

/// The sends of all processes.
#[derive(Debug, Default)]
pub struct Outcomes {
    senders: BTreeMap<Boot, Sends>,
    delivered: u64,
    indeterminate: u64,
}

impl Outcomes {
    /// A process committed a message at time `now`.
    pub fn send(&mut self, boot: Boot, me: Member, message: u64, now: u64) {
        let sends = self.senders.entry(boot).or_default();
        sends.member = me;
        sends.open.insert(message, now);
    }

    /// A delivery, anywhere; only the sender's own closes a send.
    pub fn deliver(
        &mut self,
        boot: Boot,
        me: Member,
        sender: Member,
        message: u64,
        position: u64,
    ) -> Verdict {
        let Some(sends) = self.senders.get_mut(&boot) else { return Ok(()) };
        if sends.over {
            return Err(Violation::new(
                8,
                format!("{me} delivered {} after its end", show(position)),
            ));
        }
        if sender != me {
            return Ok(());
        }
        self.delivered += 1;
        match sends.open.remove(&message) {
            Some(_) => Ok(()),
            None => Err(Violation::new(
                8,
                format!("message {message} of {me} has had its outcome already"),
            )),
        }
    }

    /// The incarnation is over: what is open stays indeterminate.
    pub fn end(&mut self, boot: Boot) {
        if let Some(sends) = self.senders.get_mut(&boot)
            && !std::mem::replace(&mut sends.over, true)
        {
            self.indeterminate += sends.open.len() as u64;
        }
    }

    /// Sends of a living process that have no outcome yet.
    pub fn open(&self, boot: Boot) -> usize {
        self.senders.get(&boot).map_or(0, |s| if s.over { 0 } else { s.open.len() })
    }

    /// Delivered to their senders, and open when their senders ended.
    pub fn totals(&self) -> (u64, u64) {
        (self.delivered, self.indeterminate)
    }
}
