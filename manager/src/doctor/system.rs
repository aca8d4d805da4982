//! The system calls of the doctor, and its only `unsafe`.

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// What the kernel says of the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// Somebody keeps it right.
    pub(super) synchronised: bool,
    /// By how much it may be wrong, at most, µs.
    pub(super) error_us: u64,
}

/// A limit of this process and whoever it starts: the soft one. `u64::MAX` is no limit.
pub(super) fn limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable for the call's whole time.
    let done = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (done == 0).then_some(limit.rlim_cur)
}

/// Makes shared memory as the lanes are made: allocated whole, then sealed. It is gone on return.
pub(super) fn sealed_memory(bytes: u64) -> io::Result<()> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is NUL-terminated and static.
    let fd = check(unsafe { libc::memfd_create(c"quintet-doctor".as_ptr(), flags) })?;
    // SAFETY: a descriptor just made, owned by nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let size = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: no pointers.
    check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size) })?;
    let seals =
        libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }).map(drop)
}

/// Opens a pidfd of this process.
pub(super) fn pidfd() -> io::Result<()> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
    let fd = check(i32::try_from(fd).unwrap_or(-1))?;
    // SAFETY: a descriptor just made, owned by nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// What the kernel says of the time of day.
pub(super) fn clock() -> io::Result<Clock> {
    // SAFETY: all-zero is a valid value of these plain numbers: nothing is to be changed.
    let mut told: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `told` is writable for the call's whole time.
    check(unsafe { libc::adjtimex(&raw mut told) })?;
    Ok(Clock {
        synchronised: told.status & libc::STA_UNSYNC == 0,
        error_us: u64::try_from(told.maxerror).unwrap_or(u64::MAX),
    })
}

/// Whether a library can be loaded; what the loader says if not.
pub(super) fn loadable(library: &CStr) -> Result<(), String> {
    // SAFETY: the name is NUL-terminated; the initialisers of a library that the system's packages installed do nothing
    // that concerns us. It stays loaded, for drivers may leave threads behind.
    if unsafe { !libc::dlopen(library.as_ptr(), libc::RTLD_NOW).is_null() } {
        return Ok(());
    }
    // SAFETY: what dlerror returns is null or a NUL-terminated text, valid until this thread's next call to the loader.
    let said = unsafe {
        let said = libc::dlerror();
        if said.is_null() { None } else { Some(CStr::from_ptr(said)) }
    };
    Err(said.map_or_else(|| "it cannot be loaded".into(), |said| said.to_string_lossy().into()))
}

/// From now on nothing of this connected socket is fragmented, whatever the kernel believes of the path.
pub(super) fn never_fragment(socket: &UdpSocket) -> io::Result<()> {
    let (level, name, value) = if socket.local_addr()?.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    };
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` is readable for `len` bytes during the call.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), len)
    })
    .map(drop)
}

/// The MTU that the kernel knows of a connected socket's path.
pub(super) fn mtu(socket: &UdpSocket) -> io::Result<usize> {
    let (level, name) = if socket.local_addr()?.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    };
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` is writable for `len` bytes, and `len` for its own size.
    check(unsafe {
        let value = ptr::from_mut(&mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), level, name, value, &raw mut len)
    })?;
    usize::try_from(value).map_err(io::Error::other)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_gives_what_is_asked_for() {
        sealed_memory(1 << 20).unwrap();
        pidfd().unwrap();
        clock().unwrap();
        assert!(limit(libc::RLIMIT_NOFILE).unwrap() > 0);
        assert!(loadable(c"libc.so.6").is_ok());
        assert!(loadable(c"libquintet-none.so").unwrap_err().contains("libquintet-none.so"));
    }

    #[test]
    fn a_datagram_larger_than_the_link_is_refused_and_the_mtu_known() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to.local_addr().unwrap()).unwrap();
        never_fragment(&socket).unwrap();
        let mtu = mtu(&socket).unwrap();
        assert!(mtu >= 1280);
        if mtu < 65_536 {
            let error = socket.send(&vec![0; mtu - 27]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        }
    }
}
