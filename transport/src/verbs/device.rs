//! An opened adapter, what it says about a port, and what it reports by itself.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::*;

use super::library::Library;

/// An adapter.
pub(super) struct Device {
    pub(super) library: &'static Library,
    pub(super) name: String,
    context: NonNull<ibv_context>,
    /// Who opened it. A child made by fork has inherited the way to the kernel's objects, and must not end them.
    process: u32,
}

// SAFETY: libibverbs lets any thread use a context; the pointer is freed by `drop` alone.
unsafe impl Send for Device {}
// SAFETY: as for Send.
unsafe impl Sync for Device {}

/// The library's list of adapters, freed at the end.
struct List(&'static Library, *mut *mut ibv_device, usize);

impl List {
    fn get(library: &'static Library) -> io::Result<List> {
        let mut count: c_int = 0;
        // SAFETY: `count` is live and writable.
        let list = unsafe { (library.get_device_list)(&mut count) };
        if list.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(List(library, list, count.max(0) as usize))
    }

    fn find(&self, name: &str) -> Option<*mut ibv_device> {
        (0..self.2).find_map(|i| {
            // SAFETY: the list has `self.2` entries; a device's name is a string that lives as long as the list.
            unsafe {
                let device = *self.1.add(i);
                let is = CStr::from_ptr((self.0.get_device_name)(device));
                (is.to_bytes() == name.as_bytes()).then_some(device)
            }
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: obtained from the library, freed once. Opened contexts do not need it.
        unsafe { (self.0.free_device_list)(self.1) };
    }
}

/// Why an adapter cannot be used.
pub(super) enum Trouble {
    /// The kernel's part of the library's interface is missing.
    Kernel(io::Error),
    /// The library does not know the adapter.
    Unknown,
    /// It cannot be opened.
    Open(io::Error),
}

impl Device {
    pub(super) fn open(library: &'static Library, name: &str) -> Result<Arc<Device>, Trouble> {
        let list = List::get(library).map_err(Trouble::Kernel)?;
        let device = list.find(name).ok_or(Trouble::Unknown)?;
        // SAFETY: an entry of the list, which is still there.
        let context = unsafe { (library.open_device)(device) };
        let context =
            NonNull::new(context).ok_or_else(|| Trouble::Open(io::Error::last_os_error()))?;
        let process = std::process::id();
        let device = Device { library, name: name.to_owned(), context, process };
        // Reports are looked for, never waited for.
        set_nonblocking(device.events());
        Ok(Arc::new(device))
    }

    /// False in a child made by fork, where what it made is nobody's.
    pub(super) fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    pub(super) fn context(&self) -> *mut ibv_context {
        self.context.as_ptr()
    }

    pub(super) fn port(&self, port: u8) -> io::Result<ibv_port_attr> {
        // SAFETY: all-zero is a valid value of these plain numbers.
        let mut attributes: ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: live context; the function fills at most this structure.
        let result = unsafe { (self.library.query_port)(self.context(), port, &mut attributes) };
        if result == 0 { Ok(attributes) } else { Err(io::Error::from_raw_os_error(result)) }
    }

    pub(super) fn gid(&self, port: u8, index: u8) -> io::Result<[u8; 16]> {
        let mut gid = ibv_gid { raw: [0; 16] };
        // SAFETY: live context, live buffer.
        let result =
            unsafe { (self.library.query_gid)(self.context(), port, index.into(), &mut gid) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both halves of the union are the same 16 bytes.
        Ok(unsafe { gid.raw })
    }

    /// Entry of a port's table of partitions.
    pub(super) fn partition(&self, port: u8, index: u16) -> io::Result<u16> {
        let mut key = 0u16;
        let query = self.library.query_pkey;
        // SAFETY: live context, live place for the key.
        match unsafe { query(self.context(), port, index.into(), &mut key) } {
            0 => Ok(u16::from_be(key)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where reports wait to be read.
    pub(super) fn events(&self) -> RawFd {
        // SAFETY: the context is live.
        unsafe { self.context.as_ref().async_fd }
    }

    /// The next report about the device, a port or a queue pair: its number in `ibv_event_type`.
    pub(super) fn event(&self) -> Option<i32> {
        let mut event = MaybeUninit::<ibv_async_event>::zeroed();
        let at: *mut c_void = event.as_mut_ptr().cast();
        // SAFETY: room for an event, freshly zeroed. A report is acknowledged as soon as it is read: nothing it names
        // is destroyed between the two calls, for this thread owns all of it. The kind is read as a number, since the
        // library may know more kinds than the enumeration has.
        unsafe {
            if (self.library.get_async_event)(self.context(), at) != 0 {
                return None;
            }
            let kind = (&raw const (*event.as_ptr()).event_type).cast::<i32>().read();
            (self.library.ack_async_event)(at);
            Some(kind)
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !self.is_here() {
            return;
        }
        // SAFETY: everything made from the context holds an `Arc` of this and is gone.
        unsafe { (self.library.close_device)(self.context()) };
    }
}

pub(super) fn set_nonblocking(fd: RawFd) {
    // SAFETY: no pointers. If it fails, reading might wait: but we read only what is ready, or was asked for.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
    }
}
