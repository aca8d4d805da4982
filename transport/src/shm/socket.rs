//! Abstract Unix sockets that carry short messages and descriptors.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors in one message: segment, doorbell, process.
pub(super) const FDS: usize = 3;
/// Bytes of the longest message.
pub(super) const MESSAGE_MAX: usize = 256;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass a descriptor that the kernel has just given to us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) }).map(owned)
}

/// The abstract address `name` (without the leading NUL).
fn address(name: &str) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut addr: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if name.len() + 1 > addr.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in addr.sun_path[1..].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok((addr, (size_of::<libc::sa_family_t>() + 1 + name.len()) as libc::socklen_t))
}

/// Listens under an abstract name; EADDRINUSE if somebody does already.
pub(super) fn listen(name: &str) -> io::Result<OwnedFd> {
    let (addr, len) = address(name)?;
    let socket = socket()?;
    // SAFETY: `addr` is a sockaddr_un of which `len` bytes are meant.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), 128) })?;
    Ok(socket)
}

/// Connects to an abstract name, at once or not at all.
pub(super) fn connect(name: &str) -> io::Result<OwnedFd> {
    let (addr, len) = address(name)?;
    let socket = socket()?;
    // SAFETY: `addr` is a sockaddr_un of which `len` bytes are meant.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const addr).cast(), len) })?;
    Ok(socket)
}

/// The next connection, if one waits.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let null = std::ptr::null_mut();
    // SAFETY: null address pointers are allowed.
    check(unsafe { libc::accept4(listener.as_raw_fd(), null, null.cast(), flags) }).map(owned)
}

/// A descriptor for this process, readable once it has exited.
pub(super) fn own_pidfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    check(fd as libc::c_int).map(owned)
}

/// Whether a descriptor is readable or hung up, now.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    unsafe { libc::poll(&mut poll, 1, 0) > 0 }
}

#[repr(C, align(8))]
struct Control([u8; 64]);

/// Sends one message, with descriptors if there are any.
pub(super) fn send(socket: &OwnedFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    assert!(message.len() <= MESSAGE_MAX && fds.len() <= FDS);
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec { iov_base: message.as_ptr() as *mut _, iov_len: message.len() };
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &mut iov;
    header.msg_iovlen = 1;
    if !fds.is_empty() {
        let bytes = size_of_val(fds) as u32;
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE computes; FDS descriptors need 32 of the 64 bytes.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
        // SAFETY: `msg_control` points to an aligned, zeroed buffer of `msg_controllen` bytes, so the
        // first header exists and its data has room for the descriptors.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(bytes) as _;
            let data = libc::CMSG_DATA(first).cast::<RawFd>();
            for (i, fd) in fds.iter().enumerate() {
                data.add(i).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    // SAFETY: header, iovec, message and control live through the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A received message.
pub(super) struct Received {
    buffer: [u8; MESSAGE_MAX],
    len: usize,
    pub(super) fds: Vec<OwnedFd>,
}

impl Received {
    pub(super) fn message(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// Receives one message; `Ok(None)` once the peer has closed. Superfluous descriptors are closed.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<Received>> {
    let mut received = Received { buffer: [0; MESSAGE_MAX], len: 0, fds: Vec::new() };
    let mut control = Control([0; 64]);
    let mut iov =
        libc::iovec { iov_base: received.buffer.as_mut_ptr().cast(), iov_len: MESSAGE_MAX };
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: header, iovec, buffer and control live through the call.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel filled `control` with whole control messages and set `msg_controllen`; the
    // CMSG macros stay inside; descriptors in SCM_RIGHTS are ours from here on, each taken once.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(&header);
        while !at.is_null() {
            if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
                let bytes = ((*at).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(at).cast::<RawFd>();
                for i in 0..bytes / size_of::<RawFd>() {
                    received.fds.push(owned(data.add(i).read_unaligned()));
                }
            }
            at = libc::CMSG_NXTHDR(&header, at);
        }
    }
    received.len = n as usize;
    Ok((n > 0).then_some(received))
}
