//! Receiving: one message or several with one call, and what the kernel tells of each.

use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use super::{CE, Control, Socket};

/// Messages taken by one system call.
pub(crate) const BATCH: usize = 8;
/// Bytes of one message: what the kernel joins at most.
const MESSAGE: usize = 65_536;
/// Receives in a row after which a message is not thought to be alone.
const LONE: u8 = 2;

/// Receive buffers for [`BATCH`] messages, allocated once.
#[derive(Debug)]
pub(crate) struct Batch {
    buffer: Box<[u8]>,
    received: [(usize, usize); BATCH],
    congested: [bool; BATCH],
    from: [Option<IpAddr>; BATCH],
    /// Receives in a row that found something.
    busy: u8,
    /// One call may take several messages.
    many: bool,
}

impl Batch {
    /// `many`: one call may take several.
    pub(crate) fn new(many: bool) -> Self {
        Batch {
            buffer: vec![0; BATCH * MESSAGE].into_boxed_slice(),
            received: [(0, 0); BATCH],
            congested: [false; BATCH],
            from: [None; BATCH],
            busy: 0,
            many,
        }
    }

    /// Takes what has arrived, without waiting. Returns the number of messages, and whether there may be more; an error
    /// that the kernel reports in place of data counts as nothing received.
    ///
    /// A lone message is the rule where latency counts, and looking for a second one would cost as much as a tenth of
    /// receiving the first. So more than one are asked for only while one receive after the other finds something, or if
    /// `all` shall come.
    pub(crate) fn receive(&mut self, socket: &Socket, all: bool) -> (usize, bool) {
        let lone = !self.many || self.is_calm() && !all;
        let count = if lone { self.receive_one(socket) } else { self.receive_many(socket) };
        if !all {
            self.busy = if count == 0 { 0 } else { self.busy.saturating_add(1) };
        }
        (count, count == if lone { 1 } else { BATCH })
    }

    /// What one who spins does all the time: nothing is prepared that is not used.
    fn receive_one(&mut self, socket: &Socket) -> usize {
        let mut control = Control::new();
        let mut iov = libc::iovec { iov_base: self.buffer.as_mut_ptr().cast(), iov_len: MESSAGE };
        // SAFETY: plain integers; all-zero is a valid value.
        let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
        // SAFETY: an all-zero header is a valid one: null pointers with lengths of zero.
        let mut header: libc::msghdr = unsafe { zeroed() };
        prepare(&mut header, &mut iov, &mut name, &mut control);
        // SAFETY: the header points to an iovec over the first chunk of the buffer, to a name and to control space; all of
        // them live and are not touched otherwise through the call.
        let len = unsafe { libc::recvmsg(socket.fd(), &raw mut header, libc::MSG_DONTWAIT) };
        let Ok(len) = usize::try_from(len) else { return 0 };
        self.keep(0, &header, len, &name);
        1
    }

    fn receive_many(&mut self, socket: &Socket) -> usize {
        let mut controls = [const { Control::new() }; BATCH];
        let mut iovs = [libc::iovec { iov_base: ptr::null_mut(), iov_len: MESSAGE }; BATCH];
        // SAFETY: plain integers; all-zero is a valid value.
        let mut names: [libc::sockaddr_in6; BATCH] = unsafe { zeroed() };
        // SAFETY: all-zero headers are valid ones: null pointers with lengths of zero.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        for (index, chunk) in self.buffer.chunks_exact_mut(MESSAGE).enumerate() {
            iovs[index].iov_base = chunk.as_mut_ptr().cast();
            let (iov, name) = (&mut iovs[index], &mut names[index]);
            prepare(&mut messages[index].msg_hdr, iov, name, &mut controls[index]);
        }
        // SAFETY: every header points to one iovec over its own chunk of the buffer, to its own name and to its own
        // control space; all of them live and are not touched otherwise through the call.
        let count = unsafe {
            let flags = libc::MSG_DONTWAIT;
            libc::recvmmsg(socket.fd(), messages.as_mut_ptr(), BATCH as u32, flags, ptr::null_mut())
        };
        let count = usize::try_from(count).unwrap_or(0);
        for (index, message) in messages.iter().take(count).enumerate() {
            self.keep(index, &message.msg_hdr, message.msg_len as usize, &names[index]);
        }
        count
    }

    /// Notes what is known of a message whose bytes are in the buffer.
    fn keep(&mut self, index: usize, header: &libc::msghdr, len: usize, name: &libc::sockaddr_in6) {
        let len = len.min(MESSAGE);
        let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
        let (segment, ecn) = ancillary(header);
        let segment = segment.unwrap_or(len);
        self.received[index] = if truncated { (0, 1) } else { (len, segment.max(1)) };
        self.congested[index] = ecn & CE == CE;
        self.from[index] = address(name);
    }

    /// Whether few datagrams came of late, so that the last reception is thought to have emptied the socket.
    pub(crate) fn is_calm(&self) -> bool {
        self.busy < LONE
    }

    /// Whether message `index` met congestion on its way. The kernel joins only datagrams that are alike in that.
    pub(crate) fn congested(&self, index: usize) -> bool {
        self.congested[index]
    }

    /// Where message `index` came from. Anybody can write anything there.
    pub(crate) fn from(&self, index: usize) -> Option<IpAddr> {
        self.from[index]
    }

    /// The datagrams of message `index`: the kernel joined those of one sender that have the same size.
    pub(crate) fn datagrams(&mut self, index: usize) -> impl Iterator<Item = &mut [u8]> {
        let (len, segment) = self.received[index];
        self.buffer[index * MESSAGE..index * MESSAGE + len].chunks_mut(segment)
    }
}

/// Tells the kernel where a message and what is known of it belong.
fn prepare(
    header: &mut libc::msghdr,
    iov: &mut libc::iovec,
    name: &mut libc::sockaddr_in6,
    control: &mut Control,
) {
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = size_of::<Control>() as _;
}

/// The size of the joined datagrams, if the kernel joined any, and the octet of the IP header that holds the marks of ECN.
fn ancillary(message: &libc::msghdr) -> (Option<usize>, i32) {
    let (mut segment, mut ecn) = (None, 0);
    // SAFETY: (1) the kernel has filled the control buffer and set its length; the iteration macros stay
    // within it; (2) messages of UDP_GRO and IPV6_TCLASS hold an int, one of IP_TOS a byte, read unaligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = data.cast::<i32>().read_unaligned();
                    segment = usize::try_from(size).ok().filter(|&size| size > 0);
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => ecn = i32::from(data.read()),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    ecn = data.cast::<i32>().read_unaligned();
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    (segment, ecn)
}

/// The address in what the kernel filled in.
fn address(name: &libc::sockaddr_in6) -> Option<IpAddr> {
    match i32::from(name.sin6_family) {
        libc::AF_INET6 => Some(Ipv6Addr::from(name.sin6_addr.s6_addr).to_canonical()),
        // In place of the flow label of IPv6.
        libc::AF_INET => Some(Ipv4Addr::from(name.sin6_flowinfo.to_ne_bytes()).into()),
        _ => None,
    }
}
