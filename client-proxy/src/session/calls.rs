//! The table of unanswered calls: a queue indexed by `seq`, whose front is always unanswered.
//!
//! Calls are numbered without gaps, so a slot's place gives its `seq`, and the number of the front slot *is*
//! `first_incomplete`. The span from front to back is bounded: it is what managers have to remember answers for.

use std::collections::VecDeque;

use super::{LinkId, Time};
use crate::wire::{Body, Text};

#[derive(Debug)]
pub(super) struct Pending<T> {
    pub(super) waiter: T,
    pub(super) path: Text,
    pub(super) body: Body,
    pub(super) issued: Time,
    pub(super) deadline: Option<Time>,
    /// Where the latest copy was sent.
    pub(super) on: Option<LinkId>,
    /// Copies sent that were not refused: while it is zero, the call certainly was not executed.
    pub(super) copies: u32,
    /// Times the call was refused for overload.
    pub(super) overloads: u32,
    /// Not to be sent before (back-off).
    pub(super) resend_at: Option<Time>,
}

#[derive(Debug)]
pub(super) struct Calls<T> {
    table: VecDeque<Option<Pending<T>>>,
    first: u64,
    live: usize,
    bytes: usize,
}

impl<T> Calls<T> {
    pub(super) fn new() -> Self {
        Self { table: VecDeque::new(), first: 1, live: 0, bytes: 0 }
    }

    /// Unanswered calls.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Length of the span of numbers from the first unanswered call to the last one made.
    pub(super) fn span(&self) -> usize {
        self.table.len()
    }

    /// Bytes of messages held for replay.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn first_incomplete(&self) -> u64 {
        self.first
    }

    pub(super) fn insert(&mut self, pending: Pending<T>) -> u64 {
        let seq = self.first + self.table.len() as u64;
        self.bytes += pending.body.len();
        self.live += 1;
        self.table.push_back(Some(pending));
        seq
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Pending<T>> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.table.get(at)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Pending<T>> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.table.get_mut(at)?.as_mut()
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Pending<T>> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        let pending = self.table.get_mut(at)?.take()?;
        self.live -= 1;
        self.bytes -= pending.body.len();
        while let Some(None) = self.table.front() {
            self.table.pop_front();
            self.first += 1;
        }
        assert!(self.live <= self.table.len());
        Some(pending)
    }

    /// Unanswered calls in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Pending<T>)> {
        self.table
            .iter()
            .zip(self.first..)
            .filter_map(|(slot, seq)| slot.as_ref().map(|pending| (seq, pending)))
    }
}
