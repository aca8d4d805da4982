//! Memory of two processes: made by one, found by the other through /proc. All `unsafe` of the raw programs for it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// A shared mapping.
pub(crate) struct Memory {
    at: NonNull<u8>,
    len: usize,
    file: File,
}

// SAFETY: the memory is reached through atomics, and through `write` and `read`, whose callers take turns.
unsafe impl Send for Memory {}

impl Memory {
    /// Zeroed memory, all of it allocated.
    pub(crate) fn create(len: usize) -> io::Result<Memory> {
        // SAFETY: the name is NUL-terminated and static.
        let fd = unsafe { libc::memfd_create(c"quintet-perf".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made, owned by nobody else.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len as u64)?;
        Memory::map(file)
    }

    /// The memory that another process of this user made, by its [`Memory::name`].
    pub(crate) fn open(name: &str) -> io::Result<Memory> {
        Memory::map(OpenOptions::new().read(true).write(true).open(name)?)
    }

    /// Where others find it, while this process lives.
    pub(crate) fn name(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    fn map(file: File) -> io::Result<Memory> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, file.as_raw_fd(), 0) };
        match NonNull::new(at.cast()) {
            Some(at) if at.as_ptr() as isize != -1 => Ok(Memory { at, len, file }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// # Panics
    /// If `len` bytes from `offset` are not all inside.
    fn place(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside the memory");
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.at.add(offset) }
    }

    /// A word of 64 bits.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: (1) in bounds, by `place`; (2) aligned: a page and a multiple of eight; (3) mapped as long as
        // `self`; (4) used as an atomic by everybody, for offsets of words are never those of messages.
        unsafe { self.place(offset, 8).cast().as_ref() }
    }

    /// The low half of a word, for the kernel.
    pub(crate) fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: as `word`.
        unsafe { self.place(offset, 4).cast().as_ref() }
    }

    /// Copies a message in. The caller's protocol gives it the turn to write there.
    pub(crate) fn write(&self, offset: usize, message: &[u8]) {
        let at = self.place(offset, message.len());
        // SAFETY: (1) in bounds, by `place`; (2) nobody reads or writes there meanwhile: it is the caller's turn,
        // which passes on by a Release store that the other side loads with Acquire.
        unsafe { at.copy_from_nonoverlapping(NonNull::from(message).cast(), message.len()) };
    }

    /// The message there. The caller's protocol keeps it unchanged while it is looked at.
    pub(crate) fn read(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: (1) in bounds, by `place`; (2) the other side wrote it before the Release store that the caller
        // has seen, and does not write again before the caller passes the turn on.
        unsafe { std::slice::from_raw_parts(self.place(offset, len).as_ptr(), len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of it outlives `self`.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// Sleeps while the word holds `value`; may return at any time.
pub(crate) fn sleep(word: &AtomicU32, value: u32) {
    let no_time_out = std::ptr::null::<libc::timespec>();
    // SAFETY: the word lives through the call, which only reads it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, no_time_out) };
}

/// Wakes who sleeps there.
pub(crate) fn wake(word: &AtomicU32) {
    // SAFETY: the call uses the address only.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_mapping_writes_the_other_reads() {
        let ours = Memory::create(4096).expect("memory");
        let theirs = Memory::open(&ours.name()).expect("the same memory");
        ours.write(64, b"message");
        ours.word(0).store(7, Ordering::Release);
        assert_eq!(theirs.word(0).load(Ordering::Acquire), 7);
        assert_eq!(theirs.half(0).load(Ordering::Acquire), 7);
        assert_eq!(theirs.read(64, 7), b"message");
    }

    #[test]
    #[should_panic(expected = "outside the memory")]
    fn nothing_is_read_outside() {
        Memory::create(4096).expect("memory").read(4090, 7);
    }
}
