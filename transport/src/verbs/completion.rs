//! The completion queue of one link, and the descriptor by which it wakes a sleeper.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rdma_sys::*;

use super::device::{Device, set_nonblocking};

/// Completions taken in one call.
pub(super) const TAKEN: usize = 32;

/// One completion, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    /// What the work request was given as its number.
    pub(super) id: u64,
    /// `None`: done. Else the `ibv_wc_status`.
    pub(super) failure: Option<u32>,
    /// What the sender's write came with; 0 if with nothing.
    pub(super) immediate: u32,
}

/// A completion queue with its channel. It cannot overflow: its owner gives it room for every request that it may
/// have posted at one time.
pub(super) struct Completions {
    device: Arc<Device>,
    queue: NonNull<ibv_cq>,
    channel: NonNull<ibv_comp_channel>,
    /// Notifications that were read; destroying the queue waits until all are acknowledged.
    read: u32,
}

// SAFETY: only reached through the link that owns it; libibverbs ties nothing to a thread.
unsafe impl Send for Completions {}

impl Completions {
    pub(super) fn new(device: Arc<Device>, entries: u32) -> io::Result<Completions> {
        // SAFETY: the context is live.
        let channel = unsafe { (device.library.create_comp_channel)(device.context()) };
        let channel = NonNull::new(channel).ok_or_else(io::Error::last_os_error)?;
        let make = device.library.create_cq;
        // SAFETY: live context and channel; no context pointer, since the channel serves one queue.
        let queue =
            unsafe { make(device.context(), entries as i32, null_mut(), channel.as_ptr(), 0) };
        let Some(queue) = NonNull::new(queue) else {
            let error = io::Error::last_os_error();
            // SAFETY: made above, used by nothing.
            unsafe { (device.library.destroy_comp_channel)(channel.as_ptr()) };
            return Err(error);
        };
        let completions = Completions { device, queue, channel, read: 0 };
        set_nonblocking(completions.fd());
        Ok(completions)
    }

    pub(super) fn raw(&self) -> *mut ibv_cq {
        self.queue.as_ptr()
    }

    /// Readable after a completion for which [`Completions::arm`] asked.
    pub(super) fn fd(&self) -> RawFd {
        // SAFETY: the channel lives as long as this.
        unsafe { self.channel.as_ref().fd }
    }

    /// Takes completions; fewer than [`TAKEN`] means that the queue is empty.
    pub(super) fn take(&mut self, mut each: impl FnMut(Completion)) -> io::Result<usize> {
        let mut entries = [const { MaybeUninit::<ibv_wc>::uninit() }; TAKEN];
        // SAFETY: a live queue, and room for as many as are asked for.
        let taken = unsafe { ibv_poll_cq(self.raw(), TAKEN as i32, entries.as_mut_ptr().cast()) };
        let Ok(taken) = usize::try_from(taken) else {
            return Err(io::Error::other("the completion queue failed"));
        };
        for entry in &entries[..taken.min(TAKEN)] {
            let entry = entry.as_ptr();
            // SAFETY: so many were filled in; a failed one has its number and its status at least.
            let (id, status) = unsafe { ((*entry).wr_id, (*entry).status) };
            if status != ibv_wc_status::IBV_WC_SUCCESS {
                each(Completion { id, failure: Some(status), immediate: 0 });
                continue;
            }
            // SAFETY: a good one has its flags, and where they say so its immediate.
            let immediate = unsafe {
                let carries = (*entry).wc_flags & ibv_wc_flags::IBV_WC_WITH_IMM.0 != 0;
                if carries { (*entry).imm_data_invalidated_rkey_union.imm_data } else { 0 }
            };
            each(Completion { id, failure: None, immediate: u32::from_be(immediate) });
        }
        Ok(taken)
    }

    /// The next completion makes the descriptor readable: any, or only one that its sender marked as worth waking for
    /// (a failure always is).
    pub(super) fn arm(&mut self, any: bool) {
        // SAFETY: a live queue.
        unsafe { ibv_req_notify_cq(self.raw(), i32::from(!any)) };
    }

    /// Makes the descriptor unreadable again.
    pub(super) fn silence(&mut self) {
        let (mut queue, mut context) = (null_mut(), null_mut());
        let get = self.device.library.get_cq_event;
        // SAFETY: a live channel and live places; the descriptor does not block.
        while unsafe { get(self.channel.as_ptr(), &mut queue, &mut context) } == 0 {
            self.read += 1;
        }
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        if !self.device.is_here() {
            return;
        }
        let library = self.device.library;
        self.silence();
        // SAFETY: the queue pair is gone (`QueuePair` is dropped first); all notifications read are acknowledged, so
        // that nothing waits; queue before channel.
        unsafe {
            (library.ack_cq_events)(self.raw(), self.read);
            (library.destroy_cq)(self.raw());
            (library.destroy_comp_channel)(self.channel.as_ptr());
        }
    }
}
