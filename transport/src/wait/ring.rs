//! Sleeping in one `io_uring_enter` that covers sockets, doorbell, deaths and the time-out.
//!
//! Polls are one-shot and level-triggered: whoever fired is armed again on the next sleep, in the same
//! system call. The doorbell is different: multishot and edge-triggered, so it is armed once for ever
//! and never read. Completions are only looked at when we sleep (DEFER_TASKRUN: the kernel leaves them
//! alone until then), so a busy poller pays nothing for them.
//!
//! A child made by fork does not get the ring's memory: with it would live the ring, and with the ring all that it
//! polls, the node's sockets among them, long after the node.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::time::Duration;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};

use super::source::{Class, Source, Woken};

/// Submissions per call; more sources are submitted in several.
const ENTRIES: u32 = 128;
/// user_data of requests whose completion means nothing.
const IGNORE: u64 = u64::MAX;
/// futex2: a u32, shared between processes, any wake-up.
const FUTEX2_SIZE_U32: u32 = 2;
const ANY: u64 = 0xffff_ffff;

/// A ring, used by one thread after its first sleep.
pub(super) struct Uring {
    ring: ManuallyDrop<IoUring>,
    /// Who made it, and alone has its memory.
    process: u32,
    enabled: bool,
    deferred: bool,
    futexes: bool,
    /// Slots whose source is not armed.
    unarmed: VecDeque<usize>,
    /// Per slot: bumped at removal, so that a late completion of its predecessor is recognised.
    generations: Vec<u32>,
    armed: Vec<bool>,
    cancel: Vec<u64>,
}

impl Uring {
    pub(super) fn new() -> io::Result<Uring> {
        let (ring, deferred) = build()?;
        let mut probe = Probe::new();
        let futexes = ring.submitter().register_probe(&mut probe).is_ok()
            && probe.is_supported(opcode::FutexWait::CODE);
        Ok(Uring {
            ring: ManuallyDrop::new(ring),
            process: std::process::id(),
            enabled: false,
            deferred,
            futexes,
            unarmed: VecDeque::new(),
            generations: Vec::new(),
            armed: Vec::new(),
            cancel: Vec::new(),
        })
    }

    pub(super) fn describe(&self) -> String {
        let mode = if self.deferred { "SINGLE_ISSUER, DEFER_TASKRUN" } else { "plain" };
        let futexes =
            if self.futexes { "with futexes" } else { "without futexes (kernel before 6.7)" };
        format!("io_uring ({mode}, {futexes})")
    }

    pub(super) fn added(&mut self, slot: usize) {
        if slot >= self.generations.len() {
            self.generations.resize(slot + 1, 0);
            self.armed.resize(slot + 1, false);
        }
        self.unarmed.push_back(slot);
    }

    pub(super) fn removed(&mut self, slot: usize) {
        if self.armed[slot] {
            self.cancel.push(self.tag(slot));
        }
        self.unarmed.retain(|&s| s != slot);
        self.armed[slot] = false;
        self.generations[slot] = self.generations[slot].wrapping_add(1);
    }

    fn tag(&self, slot: usize) -> u64 {
        (self.generations[slot] as u64) << 32 | slot as u64
    }

    pub(super) fn sleep(
        &mut self,
        sources: &[Option<Source>],
        at_most: Duration,
    ) -> io::Result<Woken> {
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        self.submit_all(sources)?;
        let timeout = types::Timespec::from(at_most);
        let args = types::SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(e) => match e.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                // The poller has moved to another thread: the ring belongs to the old one.
                Some(libc::EEXIST) => return self.rebuild(sources, at_most),
                _ => return Err(e),
            },
        }
        Ok(self.reap(sources))
    }

    fn rebuild(&mut self, sources: &[Option<Source>], at_most: Duration) -> io::Result<Woken> {
        let (ring, deferred) = build()?;
        *self.ring = ring;
        self.deferred = deferred;
        self.ring.submitter().register_enable_rings()?;
        self.cancel.clear();
        self.unarmed = (0..sources.len()).filter(|&s| sources[s].is_some()).collect();
        self.armed.fill(false);
        self.submit_all(sources)?;
        let timeout = types::Timespec::from(at_most);
        let args = types::SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {
            }
            Err(e) => return Err(e),
        }
        Ok(self.reap(sources))
    }

    fn submit_all(&mut self, sources: &[Option<Source>]) -> io::Result<()> {
        while let Some(tag) = self.cancel.pop() {
            self.push(opcode::AsyncCancel::new(tag).build().user_data(IGNORE))?;
        }
        while let Some(slot) = self.unarmed.pop_front() {
            let Some(source) = &sources[slot] else { continue };
            let request = match source {
                Source::Fd { fd, class } => {
                    let bell = *class == Class::Bell;
                    let edge = if bell { libc::EPOLLET as u32 } else { 0 };
                    let events = class.events() as u32 | edge;
                    opcode::PollAdd::new(types::Fd(*fd), events).multi(bell).build()
                }
                #[cfg(feature = "faults")]
                Source::Muffled => continue,
                Source::Futex { .. } if !self.futexes => continue,
                Source::Futex { memory, offset, value } => {
                    let word: *const u32 = memory.at(*offset, 4).cast::<u32>();
                    opcode::FutexWait::new(word, *value as u64, ANY, FUTEX2_SIZE_U32).build()
                }
            };
            self.armed[slot] = true;
            let tag = self.tag(slot);
            self.push(request.user_data(tag))?;
        }
        Ok(())
    }

    fn push(&mut self, request: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: polls name descriptors, which need not stay valid for memory safety; a futex's
            // memory is mapped while its source is registered, and afterwards the kernel only keeps a
            // key, not the address.
            if unsafe { self.ring.submission().push(&request) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    fn reap(&mut self, sources: &[Option<Source>]) -> Woken {
        let mut woken = Woken::default();
        let (generations, armed, unarmed) = (&self.generations, &mut self.armed, &mut self.unarmed);
        for completion in self.ring.completion() {
            let tag = completion.user_data();
            let (slot, generation) = (tag as u32 as usize, (tag >> 32) as u32);
            if tag == IGNORE || generations.get(slot) != Some(&generation) {
                continue;
            }
            let Some(Some(source)) = sources.get(slot) else { continue };
            let again = !cqueue::more(completion.flags());
            match source {
                Source::Fd { class, .. } => woken.mark(*class),
                // Woken, or the value has changed already: dead either way, and looked after by the
                // poller; waiting again would return at once for ever.
                Source::Futex { .. } => {
                    woken.control = true;
                    armed[slot] = false;
                    continue;
                }
                #[cfg(feature = "faults")]
                Source::Muffled => continue,
            }
            if again {
                armed[slot] = false;
                // A descriptor that can't be polled must not make us spin.
                if completion.result() >= 0 {
                    unarmed.push_back(slot);
                }
            }
        }
        woken
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // In a child its range is not ours, and may have become somebody else's.
        if self.process == std::process::id() {
            // SAFETY: once, and nothing touches it after.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }
}

/// The best ring the kernel gives, disabled until its thread is known.
fn build() -> io::Result<(IoUring, bool)> {
    let best = IoUring::builder()
        .dontfork()
        .setup_r_disabled()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(ENTRIES);
    match best {
        Ok(ring) => Ok((ring, true)),
        Err(_) => {
            let ring = IoUring::builder().dontfork().setup_r_disabled().build(ENTRIES)?;
            if ring.params().is_feature_ext_arg() && ring.params().is_feature_nodrop() {
                Ok((ring, false))
            } else {
                Err(io::Error::other("kernel older than 5.11"))
            }
        }
    }
}
