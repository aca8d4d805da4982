//! Verbs of a binary that was built without them: there is no provider, so there is no link.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::offer::Offer;
use super::{Message, Outcome};
use crate::config::Config;
use crate::event::Evidence;
use crate::id::Member;
use crate::lane::LaneId;
use crate::log::{LogBytes, Record};
use crate::memory::Memory;
use crate::own::Own;
use crate::report::{Finding, VerbsReport};
use crate::time::Time;
use crate::udp::{Lent, UdpLink};

/// What could be used: nothing.
pub(crate) fn look(_: Option<&str>, _: Option<u16>) -> VerbsReport {
    let mut report = VerbsReport::default();
    report.add(Finding::unusable(
        "binary",
        "it was built without verbs".into(),
        "build it with --features verbs",
    ));
    report
}

/// There is none.
pub(crate) enum Verbs {}

impl Verbs {
    pub(crate) fn new(_: &Config, _: &Arc<Memory>, _: u64) -> Result<Verbs, VerbsReport> {
        Err(look(None, None))
    }
    pub(crate) fn begin(&mut self, _: UdpLink, _: Member, _: u64, _: Time) {
        match *self {}
    }
    pub(crate) fn mend(&mut self, _: UdpLink, _: Member, _: Kept, _: Time) {
        match *self {}
    }
    pub(crate) fn excuse(&mut self, _: Duration) {
        match *self {}
    }
    pub(crate) fn abandon(&mut self, _: UdpLink) {
        match *self {}
    }
    pub(crate) fn talks(&self) -> std::iter::Empty<UdpLink> {
        match *self {}
    }
    pub(crate) fn note(&mut self, _: UdpLink, _: Message<'_>, _: u64, _: Time) -> Option<Outcome> {
        match *self {}
    }
    pub(crate) fn poll(
        &mut self,
        _: Time,
        _: u64,
        _: &mut dyn FnMut(UdpLink, &[u8]),
    ) -> Option<Outcome> {
        match *self {}
    }
    pub(crate) fn control_floor(&self) -> u64 {
        match *self {}
    }
    pub(crate) fn next_timeout(&self) -> Time {
        match *self {}
    }
    pub(crate) fn fds(&self) -> Vec<RawFd> {
        match *self {}
    }
    pub(crate) fn go_rarely(&mut self, _: UdpLink, _: u32, _: Time) {
        match *self {}
    }
    pub(crate) fn take_reports(&mut self, _: Time) {
        match *self {}
    }
}

/// There is none.
pub(crate) struct Kept {
    pub(crate) often: bool,
}

/// There is none.
pub(crate) enum VerbsLink {}

impl VerbsLink {
    pub(crate) fn remote(&self) -> &Offer {
        match *self {}
    }
    pub(crate) fn via(&self) -> &str {
        match *self {}
    }
    pub(crate) fn fd(&self) -> RawFd {
        match *self {}
    }
    pub(crate) fn failure(&self) -> Option<Evidence> {
        match *self {}
    }
    pub(crate) fn life(&mut self, _: Time, _: Option<Time>) -> Result<Option<Time>, Evidence> {
        match *self {}
    }
    pub(crate) fn doorbells(&self) -> u64 {
        match *self {}
    }
    pub(crate) fn refresh(&mut self) -> bool {
        match *self {}
    }
    pub(crate) fn notice(&mut self) -> bool {
        match *self {}
    }
    pub(crate) fn was_called(&self) -> bool {
        match *self {}
    }
    pub(crate) fn attach(&mut self, _: LaneId, _: u64) {
        match *self {}
    }
    pub(crate) fn detach(&mut self, _: LaneId) {
        match *self {}
    }
    pub(crate) fn released(&self, _: LaneId, _: u64) -> Option<u64> {
        match *self {}
    }
    pub(crate) fn floor(&mut self, _: LaneId, _: u64) -> u64 {
        match *self {}
    }
    pub(crate) fn has_work(&self) -> bool {
        match *self {}
    }
    pub(crate) fn flush(&mut self, _: &Own, _: bool) {
        match *self {}
    }
    pub(crate) fn arm(&mut self) -> bool {
        match *self {}
    }
    pub(crate) fn silence(&mut self) {
        match *self {}
    }
    pub(crate) fn open(&mut self, _: LaneId, _: u64) {
        match *self {}
    }
    pub(crate) fn shut(&mut self, _: LaneId) {
        match *self {}
    }
    pub(crate) fn word(&self, _: LaneId, _: usize) -> u64 {
        match *self {}
    }
    pub(crate) fn head(&self, _: LaneId) -> u64 {
        match *self {}
    }
    pub(crate) fn peek(&self, _: LaneId, _: u64) -> Option<Record<'_>> {
        match *self {}
    }
    pub(crate) fn intact(&self) -> bool {
        match *self {}
    }
    pub(crate) fn release(&mut self, _: LaneId, _: u64) {
        match *self {}
    }
    pub(crate) fn bytes(&self, _: LaneId) -> Option<LogBytes> {
        match *self {}
    }
    pub(crate) fn suspend(&mut self, _: Time) -> Kept {
        match *self {}
    }
    pub(crate) fn stalled(&self, _: Time) -> Option<Duration> {
        match *self {}
    }
    pub(crate) fn lend(&mut self) -> Lent {
        match *self {}
    }
    pub(crate) fn take_back(&mut self, _: Lent) {
        match *self {}
    }
    pub(crate) fn took(&mut self, _: LaneId, _: Option<u64>) {
        match *self {}
    }
    pub(crate) fn is_suspended(&self) -> bool {
        match *self {}
    }
    pub(crate) fn name(&self) -> (u32, u32) {
        match *self {}
    }
    pub(crate) fn psn(&self) -> u32 {
        match *self {}
    }
    pub(crate) fn failures(&self) -> u32 {
        match *self {}
    }
    pub(crate) fn inherit(&mut self, _: &mut VerbsLink) {
        match *self {}
    }
    pub(crate) fn freeze(&mut self) {
        match *self {}
    }
    #[cfg(feature = "faults")]
    pub(crate) fn set_faults(&mut self, _: &crate::faults::FaultPolicy) {
        match *self {}
    }
}
