//! Notes between the drivers of two nodes, beside the lanes: by these they come to paths other than UDP.

use super::*;
use crate::limits::EVENTS_MAX;

impl Udp {
    /// Says something to the peer's driver, with the next flush. It may be lost.
    pub(crate) fn say(&mut self, link: UdpLink, note: Note) {
        if let Some(link) = self.get_mut(link) {
            link.connection.say(note);
        }
    }

    /// Passes on what the peer of a link that is up said.
    pub(super) fn hear(&mut self, index: usize) -> bool {
        let Some(link) = self.slots[index].link.as_deref_mut() else { return false };
        if !link.connection.has_note() {
            return false;
        }
        let up = link.phase == Phase::Up;
        match link.connection.take_note() {
            Some(note) if up && self.events.len() < EVENTS_MAX => {
                self.events.push_back(UdpEvent::Note { link: self.handle(index), note });
                true
            }
            _ => false,
        }
    }
}
