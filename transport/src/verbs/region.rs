//! Registered memory, and the protection domain that says whose it is.
//!
//! Every queue pair of a domain may use every key of it. So each peer has a domain of its own: what a peer can write
//! is the inbox that was made for it, and nothing else of this process.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::*;

use super::device::Device;
use crate::memory::Memory;

/// A protection domain.
pub(super) struct Domain {
    pub(super) device: Arc<Device>,
    raw: NonNull<ibv_pd>,
}

// SAFETY: any thread may use a domain; the pointer is freed by `drop` alone.
unsafe impl Send for Domain {}
// SAFETY: as for Send.
unsafe impl Sync for Domain {}

impl Domain {
    pub(super) fn new(device: Arc<Device>) -> io::Result<Arc<Domain>> {
        // SAFETY: the context is live.
        let raw = unsafe { (device.library.alloc_pd)(device.context()) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        Ok(Arc::new(Domain { device, raw }))
    }

    pub(super) fn raw(&self) -> *mut ibv_pd {
        self.raw.as_ptr()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        if !self.device.is_here() {
            return;
        }
        // SAFETY: regions and queue pairs of the domain hold an `Arc` of it and are gone.
        unsafe { (self.device.library.dealloc_pd)(self.raw()) };
    }
}

/// Who may write to a region. Reading by the adapter is always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nobody: it is only sent from.
    Source,
    /// The peer whose domain it is in.
    Inbox,
}

/// Memory that the adapter may use, pinned.
pub(super) struct Region {
    raw: NonNull<ibv_mr>,
    domain: Arc<Domain>,
    memory: Arc<Memory>,
}

// SAFETY: as of `Domain`; the memory is `Sync` itself.
unsafe impl Send for Region {}
// SAFETY: shared, only its keys are read, which do not change.
unsafe impl Sync for Region {}

impl Region {
    pub(super) fn new(
        domain: Arc<Domain>,
        memory: Arc<Memory>,
        access: Access,
    ) -> io::Result<Region> {
        let flags = match access {
            Access::Source => 0,
            Access::Inbox => {
                (ibv_access_flags::IBV_ACCESS_LOCAL_WRITE
                    | ibv_access_flags::IBV_ACCESS_REMOTE_WRITE)
                    .0
            }
        };
        let (at, len) = (memory.at(0, memory.len()).cast(), memory.len());
        // SAFETY: exactly the mapping, which stays mapped until the region is deregistered: `memory` is dropped after
        // `drop` has run. What the adapter writes there is read as atomic words and as log bytes below a visible end.
        let raw = unsafe { (domain.device.library.reg_mr)(domain.raw(), at, len, flags as i32) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        Ok(Region { raw, domain, memory })
    }

    /// Address of the first byte.
    pub(super) fn address(&self) -> u64 {
        self.memory.at(0, 0) as u64
    }

    pub(super) fn local_key(&self) -> u32 {
        // SAFETY: live until `drop`.
        unsafe { self.raw.as_ref().lkey }
    }

    pub(super) fn remote_key(&self) -> u32 {
        // SAFETY: live until `drop`.
        unsafe { self.raw.as_ref().rkey }
    }
}

/// What is registered for one peer: it outlives the queue pairs, since registering takes as long as memory is large.
pub(super) struct Held {
    pub(super) inbox: Region,
    pub(super) source: Region,
    pub(super) domain: Arc<Domain>,
}

impl Held {
    pub(super) fn new(
        device: &Arc<Device>,
        inbox: &Arc<Memory>,
        source: &Arc<Memory>,
    ) -> io::Result<Arc<Held>> {
        let domain = Domain::new(device.clone())?;
        let inbox = Region::new(domain.clone(), inbox.clone(), Access::Inbox)?;
        let source = Region::new(domain.clone(), source.clone(), Access::Source)?;
        Ok(Arc::new(Held { inbox, source, domain }))
    }

    /// Whether it serves an address of that adapter.
    pub(super) fn is_of(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.domain.device, device)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if !self.domain.device.is_here() {
            return;
        }
        // SAFETY: made here, freed once; the queue pair that could use it was destroyed before (`VerbsLink`).
        unsafe { (self.domain.device.library.dereg_mr)(self.raw.as_ptr()) };
    }
}
