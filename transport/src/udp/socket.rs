//! Sockets: the system calls of the UDP driver, and the only `unsafe` for them.
//!
//! A node receives on *one* port, with two sockets. Both are bound to it (SO_REUSEPORT) and a three-instruction
//! program in the kernel sorts: packets with the heartbeat flag go to the *quiet* socket, all others to the
//! *main* one. Only the main socket wakes a sleeping poller; heartbeats wait until the poller's own heartbeat
//! is due, and cost no wake-up. Where that is refused everything arrives on the main socket, which is
//! right too, just not as cheap.
//!
//! The main socket is bound first and *without* SO_REUSEPORT, so that an occupied port is noticed.
//!
//! Sending uses one connected socket per peer. A peer whose packets pile up (ARP unanswered) then fills its own
//! buffer only, and "port unreachable" comes back as ECONNREFUSED on the socket of just that peer.
//!
//! UDP_SEGMENT lets one call send many datagrams, UDP_GRO lets one receive many: the kernel crosses the
//! stack once instead of forty times (floors: 18 times the messages).

mod batch;
mod calls;

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::filter::{self, Filter};
use crate::error::Error;
use crate::limits::{RECEIVE_BUFFER, SEND_BUFFER};
use crate::reliable::FLAG_QUIET;
pub(crate) use batch::{BATCH, Batch};
pub use calls::UdpCalls;

/// Most datagrams in one send.
pub(crate) const SEGMENTS_MAX: usize = 60;

/// What net.core.busy_read recommends.
const BUSY_POLL_US: i32 = 50;

/// ECN-capable transport (RFC 3168).
const ECT_0: i32 = 2;
/// Congestion experienced.
pub(super) const CE: i32 = 3;

/// Where a node sends from: an address of its own, or an interface with whatever address that has.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    ip: IpAddr,
    interface: Option<String>,
}

impl Origin {
    /// By `interface`, if one is named: then the address only says which family.
    pub(crate) fn new(ip: IpAddr, interface: Option<&str>) -> Origin {
        let anywhere = match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let ip = if interface.is_some() { anywhere } else { ip };
        Origin { ip, interface: interface.map(str::to_owned) }
    }
}

impl From<IpAddr> for Origin {
    fn from(ip: IpAddr) -> Origin {
        Origin::new(ip, None)
    }
}

/// A non-blocking UDP socket.
#[derive(Debug)]
pub(crate) struct Socket(UdpSocket);

/// The sockets of one port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) main: Socket,
    /// Receives heartbeats, where the kernel sorts them.
    pub(crate) quiet: Option<Socket>,
}

impl Port {
    /// Takes the port for this process alone; of all addresses of `interface`, if one is named.
    pub(crate) fn bind(addr: SocketAddr, interface: Option<&str>) -> Result<Port, Error> {
        let failed = |source: io::Error| {
            let hint = match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "another process receives on this port (`ss -lunp` shows which): stop it, or give this node another port"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "no interface of this machine has that address: `ip addr` lists those that exist"
                }
                io::ErrorKind::NotFound => {
                    "this machine has no such interface: `ip link` lists them"
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one"
                }
                _ => "check the address in the configuration",
            };
            Error::Bind { addr, source, hint }
        };
        let origin = Origin::new(addr.ip(), interface);
        let open = || Socket::open(&origin, addr.port());
        let main = crate::wait::patiently(open).map_err(failed)?;
        main.enlarge(libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER);
        main.join(true).ok();
        main.tell_marks().ok();
        let quiet = main.local().and_then(|addr| main.sort_heartbeats(&origin, addr.port())).ok();
        Ok(Port { main, quiet })
    }

    /// From now on the kernel drops what the filter does not let through; nothing without one.
    pub(crate) fn filter(&self, filter: Option<&Filter>) -> io::Result<()> {
        let mut sockets = std::iter::once(&self.main).chain(&self.quiet);
        sockets.try_for_each(|socket| match filter {
            Some(filter) => socket.attach(libc::SO_ATTACH_FILTER, &filter.program()),
            None => socket.option(libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0),
        })
    }
}

impl Socket {
    /// A socket bound to that port of where it sends from, or to any (0).
    fn open(from: &Origin, port: u16) -> io::Result<Socket> {
        let socket = Socket::unbound(from)?;
        socket.bind(SocketAddr::new(from.ip, port))?;
        Ok(socket)
    }

    fn unbound(from: &Origin) -> io::Result<Socket> {
        let family = if from.ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the result is checked.
        let fd = check(unsafe { libc::socket(family, kind, 0) })?;
        // SAFETY: `fd` was just opened and nobody else knows it.
        let socket = Socket(UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        if let Some(interface) = &from.interface {
            socket.bind_to_interface(interface)?;
        }
        Ok(socket)
    }

    fn bind(&self, addr: SocketAddr) -> io::Result<()> {
        let (name, len) = raw_address(addr);
        // SAFETY: `name` holds an address of `len` bytes and lives through the call, which only reads it.
        check(unsafe { libc::bind(self.fd(), ptr::from_ref(&name).cast(), len) }).map(drop)
    }

    /// Neither sends nor receives by another one from now on.
    fn bind_to_interface(&self, interface: &str) -> io::Result<()> {
        let mut name = [0u8; libc::IFNAMSIZ];
        let bytes = interface.as_bytes();
        if bytes.len() >= name.len() {
            return Err(io::ErrorKind::NotFound.into());
        }
        name[..bytes.len()].copy_from_slice(bytes);
        match self.raw_option(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &name) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("no interface {interface}")))
            }
            other => other,
        }
    }

    /// A socket for sending to `peer` only, from any port of where this node sends from.
    pub(crate) fn connect(from: &Origin, peer: SocketAddr) -> io::Result<Socket> {
        let ip = match (from.ip, peer) {
            (IpAddr::V6(ip), SocketAddr::V4(_)) if ip.is_unspecified() => {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            }
            (IpAddr::V4(ip), SocketAddr::V6(_)) if ip.is_unspecified() => {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            }
            (ip, _) => ip,
        };
        let socket = Socket::open(&Origin { ip, interface: from.interface.clone() }, 0)?;
        socket.0.connect(peer)?;
        socket.enlarge(libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, SEND_BUFFER);
        // Nobody reads what might arrive here.
        socket.option(libc::SOL_SOCKET, libc::SO_RCVBUF, 0).ok();
        // Switches may mark instead of dropping.
        socket.mark(peer, ECT_0).ok();
        // Nobody fragments, and no message from the network says what the path carries: the link finds out itself.
        let (level, name) = match peer {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
        };
        socket.option(level, name, libc::IP_PMTUDISC_PROBE).ok();
        Ok(socket)
    }

    pub(crate) fn local(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The peer that it is connected to.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }

    /// Becomes another socket. The descriptor keeps its number, which pollers know.
    pub(crate) fn replace(&mut self, other: &Socket) -> io::Result<()> {
        // SAFETY: no pointers; both descriptors are open and owned by these sockets, which own what they refer to afterwards
        // just the same.
        check(unsafe { libc::dup3(other.fd(), self.fd(), libc::O_CLOEXEC) }).map(drop)
    }

    /// Whether this machine has lost the address that this socket sends from.
    pub(crate) fn is_stranded(&self) -> bool {
        let gone = |error: io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
        self.local().is_ok_and(|local| UdpSocket::bind((local.ip(), 0)).is_err_and(gone))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What a datagram to the connected peer may hold without being fragmented at the first link.
    pub(crate) fn datagram_max(&self) -> usize {
        let (level, name, headers) = match self.0.peer_addr() {
            Ok(SocketAddr::V6(_)) => (libc::IPPROTO_IPV6, libc::IPV6_MTU, 48),
            _ => (libc::IPPROTO_IP, libc::IP_MTU, 28),
        };
        let mtu = self.get_option(level, name).unwrap_or(1280);
        usize::try_from(mtu).unwrap_or(0).saturating_sub(headers)
    }

    /// Whether "port unreachable" came back to this connected socket since the last call. Throws away what
    /// somebody may have sent to it: nobody reads there, and it must not stay readable.
    pub(crate) fn take_refusal(&self) -> bool {
        let mut nothing = [0; 1];
        (0..16)
            .map_while(|_| match self.0.recv(&mut nothing) {
                Ok(_) => Some(false),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(true),
                Err(_) => None,
            })
            .fold(false, |any, refused| any | refused)
    }

    /// Opens the quiet socket on the same port and tells the kernel what belongs to it.
    fn sort_heartbeats(&self, origin: &Origin, port: u16) -> io::Result<Socket> {
        self.option(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        let quiet = Socket::unbound(origin)?;
        quiet.option(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        quiet.bind(SocketAddr::new(origin.ip, port))?;
        self.attach(libc::SO_ATTACH_REUSEPORT_CBPF, &filter::sorting(FLAG_QUIET))?;
        Ok(quiet)
    }

    /// Gives the kernel a program about packets that arrive.
    fn attach(&self, option: i32, program: &[libc::sock_filter]) -> io::Result<()> {
        let program =
            libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        self.raw_option(libc::SOL_SOCKET, option, &program)
    }

    /// Each message tells whether the network marked it as having met congestion.
    fn tell_marks(&self) -> io::Result<()> {
        if self.local()?.is_ipv4() {
            self.option(libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
        } else {
            self.option(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)
        }
    }

    /// From now on looking for packets makes the adapter's driver look, too (NAPI busy polling), for so many microseconds where
    /// it may wait. Nothing but the interrupt is saved, so it is for who looks all the time. Some kernels
    /// refuse it without CAP_NET_ADMIN.
    pub(super) fn poll_adapter(&self) -> io::Result<()> {
        self.option(libc::SOL_SOCKET, libc::SO_BUSY_POLL, BUSY_POLL_US)
    }

    /// Whether the last packet came by an adapter that can be polled; loopback cannot.
    pub(super) fn has_adapter(&self) -> bool {
        self.get_option(libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID).is_ok_and(|id| id != 0)
    }

    /// Sets the two bits of ECN of what is sent from now on.
    pub(super) fn mark(&self, peer: SocketAddr, ecn: i32) -> io::Result<()> {
        match peer {
            SocketAddr::V4(_) => self.option(libc::IPPROTO_IP, libc::IP_TOS, ecn),
            SocketAddr::V6(_) => self.option(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, ecn),
        }
    }

    fn enlarge(&self, plain: i32, forced: i32, bytes: i32) {
        // Privileged processes may exceed the system's limit; others get what it allows.
        if self.option(libc::SOL_SOCKET, forced, bytes).is_err() {
            self.option(libc::SOL_SOCKET, plain, bytes).ok();
        }
    }

    fn option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        self.raw_option(level, name, &value)
    }

    fn raw_option<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        // SAFETY: `value` is readable for `len` bytes; a pointer inside it (of a filter program) lives in the
        // caller's frame, which outlives the call, and the kernel copies what it points to.
        check(unsafe { libc::setsockopt(self.fd(), level, name, ptr::from_ref(value).cast(), len) })
            .map(drop)
    }

    fn get_option(&self, level: i32, name: i32) -> io::Result<i32> {
        let mut value = 0i32;
        let mut len = size_of::<i32>() as libc::socklen_t;
        // SAFETY: `value` is writable for `len` bytes, and `len` for its own size.
        check(unsafe {
            libc::getsockopt(self.fd(), level, name, ptr::from_mut(&mut value).cast(), &raw mut len)
        })?;
        Ok(value)
    }

    /// Sends to the connected peer: one datagram, or with `segment` as many of that size as `bytes` holds (the
    /// last may be shorter).
    pub(crate) fn send(&self, bytes: &[u8], segment: Option<u16>) -> io::Result<()> {
        #[cfg(test)]
        if let Some(errno) = refusal::ask(self, bytes, segment.into()) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        match segment {
            None => self.0.send(bytes).map(drop),
            Some(segment) => self.send_cut(bytes, segment),
        }
    }

    fn send_cut(&self, bytes: &[u8], segment: u16) -> io::Result<()> {
        let mut iov =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = Control::new();
        // SAFETY: an all-zero msghdr is a valid one: null pointers with lengths of zero.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: a pure computation.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as _;
        // SAFETY: (1) the control buffer is aligned for cmsghdr and long enough for the space set above, so the
        // first header is not null and lies within; (2) its data has room for a u16, written unaligned.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_UDP;
            (*header).cmsg_type = libc::UDP_SEGMENT;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(header).cast::<u16>().write_unaligned(segment);
        }
        // SAFETY: `message` points to `iov` and `control`, which live through the call; the kernel reads
        // `bytes` only.
        let sent = unsafe { libc::sendmsg(self.fd(), &raw const message, libc::MSG_NOSIGNAL) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Whether this process may have adapters polled (`wait = "spin"`), as `quintet doctor` asks.
pub fn probe_busy_poll() -> io::Result<()> {
    Socket::unbound(&IpAddr::V4(Ipv4Addr::LOCALHOST).into())?.poll_adapter()
}

/// A kernel that refuses what a test wants refused: see the table in [`send`](super::send).
#[cfg(test)]
pub(crate) mod refusal {
    use std::cell::RefCell;
    use std::net::SocketAddr;

    use super::Socket;

    /// How bytes are handed over: as one datagram, to be cut, or as several.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Call {
        Alone,
        Cut(usize),
        Many(usize),
    }

    impl Call {
        /// Size of the largest datagram in these bytes.
        pub(crate) fn size(self, bytes: &[u8]) -> usize {
            match self {
                Call::Alone => bytes.len(),
                Call::Cut(size) | Call::Many(size) => size.min(bytes.len()),
            }
        }
    }

    impl From<Option<u16>> for Call {
        fn from(segment: Option<u16>) -> Call {
            segment.map_or(Call::Alone, |size| Call::Cut(size.into()))
        }
    }

    /// Told the peer, the bytes and the call of each send of this thread; answers with an errno to refuse it.
    type Policy = Box<dyn FnMut(SocketAddr, &[u8], Call) -> Option<i32>>;

    thread_local! {
        static POLICY: RefCell<Option<Policy>> = const { RefCell::new(None) };
    }

    /// From now on, on this thread.
    pub(crate) fn set(policy: impl FnMut(SocketAddr, &[u8], Call) -> Option<i32> + 'static) {
        POLICY.set(Some(Box::new(policy)));
    }

    pub(super) fn ask(socket: &Socket, bytes: &[u8], call: Call) -> Option<i32> {
        POLICY.with_borrow_mut(|policy| policy.as_mut()?(socket.0.peer_addr().ok()?, bytes, call))
    }
}

/// Ancillary data of one message, aligned for `cmsghdr`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

impl Control {
    const fn new() -> Self {
        Control([0; 64])
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An address as the kernel wants it, and its length.
fn raw_address(addr: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
    // SAFETY: plain integers; all-zero is a valid value.
    let mut raw: libc::sockaddr_in6 = unsafe { zeroed() };
    match addr {
        SocketAddr::V4(v4) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_in6 is at least as large and as aligned as sockaddr_in; both are plain integers.
            unsafe { ptr::from_mut(&mut raw).cast::<libc::sockaddr_in>().write(v4) };
            (raw, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(v6) => {
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_scope_id = v6.scope_id();
            (raw, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

#[cfg(test)]
mod tests;
