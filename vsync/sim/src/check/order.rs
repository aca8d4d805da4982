//! Order: 5 integrity, 6 no duplicates, 7 delivered in its view, 11 FIFO without gaps, 13 total order.

use std::collections::{BTreeMap, HashMap};

use quintet_transport::Member;

use super::{Boot, Verdict, ViewInfo, Violation, show, view_of};

/// What is known of a message from its sending on.
#[derive(Clone, Copy, Debug)]
struct Sent {
    sender: Member,
    /// Number among the sender's messages, from 0.
    number: u64,
    /// Where it was delivered first.
    position: Option<u64>,
}

/// Every view's one sequence, and how far each process is in it.
#[derive(Debug, Default)]
pub struct Order {
    sent: Vec<Sent>,
    per_sender: HashMap<Member, u64>,
    /// The sequence of each view, as the first who delivered it saw it.
    sequence: BTreeMap<u64, Vec<(u64, u64)>>,
    /// Place of each process: view, number of messages delivered in it.
    place: HashMap<Boot, (u64, usize)>,
    deliveries: u64,
}

impl Order {
    /// A message is committed by `sender`; returns its number, which stands for its bytes.
    pub fn send(&mut self, sender: Member) -> u64 {
        let counter = self.per_sender.entry(sender).or_insert(0);
        self.sent.push(Sent { sender, number: *counter, position: None });
        *counter += 1;
        self.sent.len() as u64
    }

    /// Deliveries counted over all processes.
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Messages committed.
    pub fn sends(&self) -> u64 {
        self.sent.len() as u64
    }

    /// A message's sender and its number there.
    pub fn origin(&self, message: u64) -> Option<(Member, u64)> {
        self.sent.get((message as usize).checked_sub(1)?).map(|s| (s.sender, s.number))
    }

    /// A process delivered a message.
    #[allow(clippy::too_many_arguments)]
    pub fn deliver(
        &mut self,
        boot: Boot,
        me: Member,
        view: &ViewInfo,
        position: u64,
        rank: usize,
        sender: Member,
        message: u64,
    ) -> Verdict {
        self.deliveries += 1;
        let at = show(position);
        if view_of(position) != view.id {
            return Err(Violation::new(
                7,
                format!("{me} delivered {at} while in view {}", view.id),
            ));
        }
        if view.members.get(rank) != Some(&sender) {
            return Err(Violation::new(
                5,
                format!("{me} delivered {at} from {sender}, not rank {rank} of {view:?}"),
            ));
        }
        let Some(sent) = (message as usize).checked_sub(1).and_then(|m| self.sent.get_mut(m))
        else {
            return Err(Violation::new(5, format!("{me} delivered {at}, which nobody sent")));
        };
        if sent.sender != sender {
            return Err(Violation::new(
                5,
                format!("{me} delivered {at} as {sender}'s, but {} sent it", sent.sender),
            ));
        }
        let first = *sent.position.get_or_insert(position);
        if first != position {
            let text = format!(
                "{me} delivered message {message} of {sender} at {at}, others at {}",
                show(first)
            );
            return Err(Violation::new(6, text));
        }
        let place = self.place.entry(boot).or_insert((view.id, 0));
        if place.0 != view.id {
            *place = (view.id, 0);
        }
        let sequence = self.sequence.entry(view.id).or_default();
        match sequence.get(place.1) {
            Some(&(p, m)) if (p, m) != (position, message) => {
                let text = format!(
                    "{me} delivered message {message} at {at} as number {} of view {}; another delivered {m} at {}",
                    place.1,
                    view.id,
                    show(p)
                );
                return Err(Violation::new(13, text));
            }
            Some(_) => {}
            None => {
                if sequence.last().is_some_and(|&(p, _)| p >= position) {
                    return Err(Violation::new(
                        13,
                        format!("{me} delivered {at} after a later position"),
                    ));
                }
                sequence.push((position, message));
            }
        }
        place.1 += 1;
        Ok(())
    }

    /// 11, seen from an application's state: `next` is the number expected from this sender.
    pub fn fifo(&self, me: Member, message: u64, next: u64) -> Verdict {
        match self.origin(message) {
            Some((_, number)) if number == next => Ok(()),
            Some((sender, number)) if number < next => {
                let text =
                    format!("{me} was given message {number} of {sender} again (expected {next})");
                Err(Violation::new(6, text))
            }
            Some((sender, number)) => Err(Violation::new(
                11,
                format!("{me} was given message {number} of {sender} before {next}"),
            )),
            None => Err(Violation::new(5, format!("{me} was given a message that nobody sent"))),
        }
    }
}
