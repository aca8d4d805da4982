//! Death told by the kernel: robust futexes.
//!
//! A pidfd becomes readable only after the dead process's memory is torn down: 54 ms for a gigabyte. The
//! kernel walks a thread's *robust list* before that: in every word on it that holds the thread's id it
//! sets FUTEX_OWNER_DIED and wakes one waiter. So each segment has one word per possible watcher.
//!
//! The list belongs to a thread, and pollers may move between threads; and glibc keeps a list of its own
//! in each. Hence a thread of its own, the sentinel: it registers the list, and sleeps. However the
//! process dies, the sentinel dies with it. When the poller is dropped in a process that lives on, the
//! sentinel takes its list back first: that is not a death.

use std::io;
use std::os::raw::c_long;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use super::layout::{ROBUST_STRIDE, robust};
use super::thread::own_thread;
use crate::limits::NODES_MAX;
use crate::memory::Memory;

/// Set in a futex word by whoever waits on it; without it the kernel would not wake.
const WAITERS: u32 = libc::FUTEX_WAITERS;

/// The list as the kernel reads it: `next` pointers, and words at a fixed distance from each node.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Node {
    next: *const Node,
}

#[repr(C)]
struct Head {
    /// Also the list's end: a pointer to this field.
    first: *const Node,
    futex_offset: c_long,
    pending: *const Node,
}

const _: () = assert!(size_of::<Node>() == ROBUST_STRIDE && size_of::<Head>() == 24);

/// The thread that dies when we do.
pub(super) struct Sentinel {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    /// Whose thread it is.
    process: u32,
}

impl Sentinel {
    /// Marks the robust words of `memory` as held, for as long as this process lives or the result does.
    pub(super) fn start(memory: Arc<Memory>) -> io::Result<Sentinel> {
        let (stop, stopped) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel::<bool>();
        let thread = thread::Builder::new()
            .name("quintet-sentinel".into())
            .stack_size(128 << 10)
            .spawn(move || watch(&memory, &ready, &stopped))?;
        match is_ready.recv() {
            Ok(true) => {
                let process = std::process::id();
                Ok(Sentinel { stop: Some(stop), thread: Some(thread), process })
            }
            _ => Err(io::Error::other("set_robust_list failed")),
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            // A child made by fork has no such thread to wait for.
            && self.process == std::process::id()
        {
            let _ = thread.join();
        }
    }
}

fn watch(memory: &Memory, ready: &mpsc::Sender<bool>, stopped: &mpsc::Receiver<()>) {
    let tid = own_thread();
    for i in 0..NODES_MAX {
        // The u32 futex is the low half of its (little-endian) word.
        memory.word(robust(i)).store((tid | WAITERS) as u64, Ordering::Release);
    }
    let mut nodes = vec![Node { next: std::ptr::null() }; NODES_MAX];
    let first = nodes.as_ptr();
    let words: *const AtomicU64 = memory.word(robust(0));
    let head = Box::new(Head {
        first,
        futex_offset: words as c_long - first as c_long,
        pending: std::ptr::null(),
    });
    let end: *const Node = (&raw const head.first).cast();
    for (i, node) in nodes.iter_mut().enumerate() {
        node.next = if i + 1 < NODES_MAX { first.wrapping_add(i + 1) } else { end };
    }
    let registered = register(&*head);
    let _ = ready.send(registered);
    let _ = stopped.recv();
    // Taken back before the list is freed: at the thread's end the kernel finds none.
    register(std::ptr::null());
}

/// Null: no list.
fn register(head: *const Head) -> bool {
    // SAFETY: (1) `head` and the nodes it leads to live until null is registered in its place; (2) nodes and words
    // keep one distance: both arrays have the same stride; (3) the words stay mapped until then: the thread holds the
    // memory.
    unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<Head>()) == 0 }
}
