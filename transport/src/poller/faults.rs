//! Faults on demand, at every link that is there or comes.

use super::Poller;
use crate::faults::FaultPolicy;
use crate::id::LinkId;
use crate::roster::Wire;

impl Poller {
    /// Makes the network as bad as `policy` says, for what arrives here, over every path. For tests and measurements.
    pub fn set_faults(&mut self, policy: FaultPolicy) {
        self.faults = policy;
        // Datagrams meet the policy before it is known whose they are.
        if let Some(udp) = &mut self.udp {
            udp.set_faults(policy);
        }
        for link in self.links() {
            self.spoil(link.link);
        }
    }

    /// Looks for no peer in shared memory, as if all were on other hosts. Of two nodes both must be told, before they met.
    pub fn hide_shared_memory(&mut self) {
        if let Some(rendezvous) = &mut self.rendezvous {
            rendezvous.hidden = true;
        }
    }

    /// The policy is that link's, too.
    pub(super) fn spoil(&mut self, link: LinkId) {
        match self.roster.get_mut(link).map(|link| &mut link.wire) {
            Some(Wire::Shm(shm)) => shm.gate.set(&self.faults),
            Some(Wire::Verbs(_, verbs)) => verbs.set_faults(&self.faults),
            Some(Wire::Udp(_)) | None => {}
        }
    }
}
