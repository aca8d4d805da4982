//! 8: every send ends in exactly one outcome, and the outcome that the library reports is the true one.
//!
//! The engine makes its reports from a few answers of the core: its deliveries, what is undelivered when a view begins
//! ([`ViewChange::resent`](quintet_vsync::ViewChange::resent)) and what is when the incarnation is over
//! ([`Unresolved`](quintet_vsync::Unresolved)). A process here reports the same from the same answers, and each
//! report is held against what was seen from outside:
//!
//! * *delivered*: every member that goes on to the next view delivers it too;
//! * *re-sent*: all that was published and has no outcome, in order, and nobody delivers it in an earlier view;
//! * *not delivered*: nobody has delivered it and nobody ever does;
//! * *indeterminate*: it was published, and the node did not see the end of its last view;
//! * what has no outcome at the end is in the last two lists, once, in the order in which it was sent.
//!
//! A crash reports nothing: nobody is left to be told.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use quintet_transport::Member;

use super::{Boot, Verdict, Violation, show, view_of};

/// A send without an outcome.
#[derive(Clone, Copy, Debug)]
struct Open {
    message: u64,
    published: bool,
    /// The core has delivered it; the application was not told yet.
    delivered: bool,
}

/// What became of one sender's messages.
#[derive(Debug, Default)]
struct Sends {
    open: VecDeque<Open>,
    /// The incarnation was told that it is over.
    over: bool,
    /// Its outcomes are all reported, or nobody is left to report them.
    closed: bool,
}

/// What is known of one message, over all processes.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// Where it was delivered, and by whom first.
    delivered: Option<(u64, Member)>,
    /// The last view that it was reported to be re-sent in.
    resent: u64,
    /// It was reported as not delivered.
    denied: bool,
}

/// What an incarnation that is over reports of its messages that it did not get.
#[derive(Clone, Debug, Default)]
pub struct LastReport {
    /// The view that its messages belong to has ended before its eyes: it left and delivered up to the trim.
    pub saw_the_end: bool,
    /// Reported as indeterminate.
    pub indeterminate: Vec<u64>,
    /// Reported as not delivered.
    pub not_delivered: Vec<u64>,
}

/// How many sends came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Delivered to their senders.
    pub delivered: u64,
    /// Reported as re-sent; they have another outcome later.
    pub resent: u64,
    /// Reported as not delivered.
    pub not_delivered: u64,
    /// Reported as indeterminate.
    pub indeterminate: u64,
    /// Their sender crashed first.
    pub untold: u64,
}

/// The sends of all processes.
#[derive(Debug, Default)]
pub struct Outcomes {
    senders: BTreeMap<Boot, Sends>,
    fates: HashMap<u64, Fate>,
    /// What a process delivered in the view it is in.
    seen: HashMap<Boot, HashSet<u64>>,
    /// Per view: what all who went on from it delivered in it.
    kept: BTreeMap<u64, HashSet<u64>>,
    /// Per view: own messages that were reported as delivered in it.
    told: BTreeMap<u64, Vec<(u64, Member)>>,
    totals: Totals,
}

fn wrong(text: String) -> Verdict {
    Err(Violation::new(8, text))
}

impl Outcomes {
    /// A process committed a message.
    pub fn send(&mut self, boot: Boot, message: u64) {
        let open = Open { message, published: false, delivered: false };
        self.senders.entry(boot).or_default().open.push_back(open);
    }

    /// A process published a message of its own.
    pub fn publish(&mut self, boot: Boot, message: u64) {
        let open = self.senders.get_mut(&boot).map(|s| &mut s.open);
        if let Some(open) = open.and_then(|o| o.iter_mut().find(|o| o.message == message)) {
            open.published = true;
        }
    }

    /// A core delivered a message, its own or another's.
    pub fn deliver(
        &mut self,
        boot: Boot,
        me: Member,
        sender: Member,
        message: u64,
        position: u64,
    ) -> Verdict {
        let at = show(position);
        let sends = self.senders.entry(boot).or_default();
        if sends.over || sends.closed {
            return wrong(format!("{me} delivered {at} after its end"));
        }
        if sender == me {
            match sends.open.iter_mut().find(|o| o.message == message) {
                Some(open) if !open.delivered => open.delivered = true,
                _ => {
                    return wrong(format!("message {message} of {me} has had its outcome already"));
                }
            }
        }
        self.seen.entry(boot).or_default().insert(message);
        let fate = self.fates.entry(message).or_default();
        fate.delivered.get_or_insert((position, me));
        if fate.denied {
            let text = format!("{me} delivered message {message} at {at}, not delivered by report");
            return wrong(text);
        }
        if view_of(position) < fate.resent {
            let text = format!(
                "{me} delivered message {message} at {at}, re-sent in view {}",
                fate.resent
            );
            return wrong(text);
        }
        Ok(())
    }

    /// The application of `me` was given its own message.
    pub fn tell(&mut self, boot: Boot, me: Member, message: u64, position: u64) -> Verdict {
        let open = &mut self.senders.entry(boot).or_default().open;
        let Some(at) = open.iter().position(|o| o.message == message && o.delivered) else {
            return wrong(format!("{me} is told of message {message}, which it has not delivered"));
        };
        open.remove(at);
        self.totals.delivered += 1;
        let view = view_of(position);
        self.told.entry(view).or_default().push((message, me));
        if self.kept.get(&view).is_some_and(|kept| !kept.contains(&message)) {
            let text = format!(
                "message {message} of {me} is reported as delivered in view {view}, of which a survivor lacks it"
            );
            return wrong(text);
        }
        Ok(())
    }

    /// A process goes on from view `before` (none: it joins) to `view` and reports what it has `resent` in it.
    pub fn install(
        &mut self,
        boot: Boot,
        me: Member,
        before: Option<u64>,
        view: u64,
        resent: &[u64],
    ) -> Verdict {
        let seen = self.seen.remove(&boot).unwrap_or_default();
        if let Some(before) = before {
            let told = self.told.get(&before).into_iter().flatten();
            if let Some((message, sender)) = told.into_iter().find(|t| !seen.contains(&t.0)) {
                let text = format!(
                    "message {message} of {sender} is reported as delivered in view {before}, survivor {me} lacks it"
                );
                return wrong(text);
            }
            match self.kept.get_mut(&before) {
                Some(kept) => kept.retain(|m| seen.contains(m)),
                None => {
                    self.kept.insert(before, seen);
                }
            }
        }
        let open = self.senders.get(&boot).into_iter().flat_map(|s| &s.open);
        let due = open.filter(|o| o.published && !o.delivered).map(|o| o.message);
        if !due.clone().eq(resent.iter().copied()) {
            let due: Vec<u64> = due.collect();
            return wrong(format!("{me} reports {resent:?} re-sent in view {view}, not {due:?}"));
        }
        self.totals.resent += resent.len() as u64;
        for &message in resent {
            let fate = self.fates.entry(message).or_default();
            fate.resent = view;
            if let Some((position, other)) = fate.delivered
                && view_of(position) < view
            {
                let text = format!(
                    "{me} reports message {message} re-sent in view {view}; {other} delivered it at {}",
                    show(position)
                );
                return wrong(text);
            }
        }
        Ok(())
    }

    /// The incarnation was told that it is over: it delivers nothing more.
    pub fn over(&mut self, boot: Boot) {
        self.senders.entry(boot).or_default().over = true;
    }

    /// The process ends in good order and reports the rest.
    pub fn end(&mut self, boot: Boot, me: Member, report: &LastReport) -> Verdict {
        let sends = self.senders.entry(boot).or_default();
        sends.closed = true;
        let open = std::mem::take(&mut sends.open);
        let LastReport { saw_the_end, indeterminate, not_delivered } = report;
        self.totals.indeterminate += indeterminate.len() as u64;
        self.totals.not_delivered += not_delivered.len() as u64;
        if !open.iter().map(|o| &o.message).eq(indeterminate.iter().chain(not_delivered)) {
            let open: Vec<u64> = open.iter().map(|o| o.message).collect();
            let text = format!("{me} ends with {open:?} open, and reports {report:?}");
            return wrong(text);
        }
        if *saw_the_end && !indeterminate.is_empty() {
            return wrong(format!("{me} saw how its view ended, and reports {report:?}"));
        }
        if let Some(open) = open.iter().take(indeterminate.len()).find(|o| !o.published) {
            let text =
                format!("{me} reports {} indeterminate and never published it", open.message);
            return wrong(text);
        }
        for &message in not_delivered {
            let fate = self.fates.entry(message).or_default();
            fate.denied = true;
            if let Some((position, other)) = fate.delivered {
                let text = format!(
                    "{me} reports message {message} not delivered; {other} delivered it at {}",
                    show(position)
                );
                return wrong(text);
            }
        }
        Ok(())
    }

    /// The process crashed: nobody is left to be told.
    pub fn crash(&mut self, boot: Boot) {
        let sends = self.senders.entry(boot).or_default();
        sends.closed = true;
        self.totals.untold += std::mem::take(&mut sends.open).len() as u64;
    }

    /// Sends of a process that have no outcome yet.
    pub fn open(&self, boot: Boot) -> usize {
        self.senders.get(&boot).map_or(0, |s| s.open.len())
    }

    /// How many sends came to what.
    pub fn totals(&self) -> Totals {
        self.totals
    }
}
