//! Mapped memory: the only file that calls mmap.
//!
//! A [`Memory`] is a range of pages that stays mapped for as long as somebody holds it. Everything
//! shared between threads or processes is accessed through it as atomic words, or as byte ranges whose
//! safety the callers (`log::ring`) argue from the protocol of the log.
//!
//! Children made by fork do not get it. What is shared would be written by two, what a device or the kernel reads
//! would be copied under its eyes, and copying the page tables of gigabytes would stop the node at every fork.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Bytes of a huge page.
pub(crate) const HUGE: usize = 2 << 20;

/// Where a lane lies in a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LanePlace {
    pub(crate) words_at: usize,
    pub(crate) words: usize,
    pub(crate) log_at: usize,
    pub(crate) log_bytes: usize,
}

/// A mapping. Shared by `Arc` wherever borrowed bytes must outlive a link.
pub(crate) struct Memory {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    /// Who mapped it, and alone has it.
    process: u32,
}

// SAFETY: a `Memory` is plain memory without thread affinity; all access goes through atomics or through
// unsafe functions whose callers promise exclusion.
unsafe impl Send for Memory {}
// SAFETY: as for Send.
unsafe impl Sync for Memory {}

impl Memory {
    /// Private, zeroed memory of this process, populated as it is touched.
    pub(crate) fn anonymous(len: usize) -> io::Result<Memory> {
        Memory::map(
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
        )
    }

    /// The same for adapters, which know the addresses of few pages by heart: of huge pages, where the host has set enough
    /// of them aside and not much of one would be wasted.
    #[cfg(feature = "verbs")]
    pub(crate) fn for_adapters(len: usize) -> io::Result<Memory> {
        let large = (len >= HUGE / 2).then(|| {
            // All of them are reserved by the call, so none can be missing when it is touched.
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let huge = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
            let whole = len.next_multiple_of(HUGE);
            Memory::map(whole, libc::PROT_READ | libc::PROT_WRITE, flags | huge, -1).ok()
        });
        large.flatten().map_or_else(|| Memory::anonymous(len), Ok)
    }

    /// The first `len` bytes of a file shared with other processes.
    pub(crate) fn shared(file: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Memory> {
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // The owner meets no page fault when it first writes somewhere. A reader meets one for many pages at a time.
        let populate = if writable { libc::MAP_POPULATE } else { 0 };
        Memory::map(len, prot, libc::MAP_SHARED | populate, file.as_raw_fd())
    }

    fn map(len: usize, prot: i32, flags: i32, fd: i32) -> io::Result<Memory> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a null hint makes the kernel choose a range that nothing else uses; `len` is not zero;
        // the result is checked before use.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let writable = prot & libc::PROT_WRITE != 0;
        let memory = Memory { base, len, writable, process: std::process::id() };
        // SAFETY: exactly our mapping; the advice changes nothing in this process.
        match unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTFORK) } {
            0 => Ok(memory),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The word at byte `offset`. Writing through it is for owners only: a replica's page is read-only
    /// and a store would fault, hence [`Memory::writable`].
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(8) && offset + 8 <= self.len,
            "word {offset} outside {}",
            self.len
        );
        // SAFETY: (1) in bounds and aligned by the assertion, the base being page-aligned; (2) mapped for
        // as long as `self` lives, which the borrow enforces; (3) never accessed non-atomically while it
        // is shared: words and log payloads are disjoint except in a ring, where the log's protocol
        // separates them in time.
        unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// The first `N` words, for what looks at them all the time.
    pub(crate) fn first<const N: usize>(self: &Arc<Memory>) -> FirstWords<N> {
        let base = NonNull::new(self.at(0, 8 * N)).expect("mapped memory is not at 0").cast();
        FirstWords { _memory: self.clone(), base }
    }

    /// `count` words from byte `offset` on, as [`Memory::word`] gives one.
    pub(crate) fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let first = self.at(offset, 8 * count).cast::<AtomicU64>();
        assert!(first.is_aligned(), "words at {offset}");
        // SAFETY: (1) in bounds by `at` and aligned by the assertion; (2) and (3) as in `word`.
        unsafe { std::slice::from_raw_parts(first, count) }
    }

    /// False in a child made by fork, which does not have it.
    pub(crate) fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    #[inline]
    pub(crate) fn writable(&self) -> bool {
        self.writable
    }

    /// Address of byte `offset`, which with `len` bytes after it is in bounds.
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "{offset}+{len} outside {}",
            self.len
        );
        // SAFETY: stays within the mapping by the assertion.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

/// The words at the beginning of a mapping: that they are there was checked once. Keeps the memory mapped.
pub(crate) struct FirstWords<const N: usize> {
    _memory: Arc<Memory>,
    base: NonNull<[AtomicU64; N]>,
}

// SAFETY: as for `Memory`, of which these are words that may be used by all threads at once.
unsafe impl<const N: usize> Send for FirstWords<N> {}
// SAFETY: as for Send.
unsafe impl<const N: usize> Sync for FirstWords<N> {}

impl<const N: usize> Deref for FirstWords<N> {
    type Target = [AtomicU64; N];
    #[inline]
    fn deref(&self) -> &[AtomicU64; N] {
        // SAFETY: (1) in bounds: `Memory::at` checked all `N` words, the base being page-aligned; (2) mapped for as long
        // as `_memory` is held; (3) as in `Memory::word`.
        unsafe { self.base.as_ref() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // In a child the range is not ours, and may have become somebody else's.
        if !self.is_here() {
            return;
        }
        // SAFETY: exactly the range that `map` obtained; nobody holds a borrow of it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Starts to fetch the cache line at `at`, in order to read it or (`OWN`) to write to it.
#[inline]
pub(crate) fn prefetch<const OWN: bool>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads and writes nothing that the program could see, and faults nowhere.
        unsafe {
            if OWN {
                _mm_prefetch::<_MM_HINT_ET0>(at.cast());
            } else {
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// `n` rounded up to whole pages.
pub(crate) fn pages(n: usize) -> usize {
    n.next_multiple_of(4096)
}
