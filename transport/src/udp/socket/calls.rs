//! Which calls carry many datagrams, and which of them the kernel refuses.
//!
//! A kernel may be too old for one of them, a container's seccomp rules forbid it, or a system that only looks like Linux lack
//! it. All is tried out before it is used: a call that is refused later costs packets.

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr};
use std::ptr;

#[cfg(test)]
use super::refusal::{self, Call};
use super::{SEGMENTS_MAX, Socket, check};
use crate::udp::filter::Filter;

/// What the kernel said to each call that carries or keeps away many datagrams.
#[derive(Debug)]
pub struct UdpCalls {
    /// Cutting one buffer into datagrams (UDP_SEGMENT).
    pub segmentation: io::Result<()>,
    /// Joining datagrams of one sender (UDP_GRO).
    pub joining: io::Result<()>,
    /// Sending several messages with one call.
    pub sendmmsg: io::Result<()>,
    /// Taking several.
    pub recvmmsg: io::Result<()>,
    /// Dropping unwanted packets before they are queued (SO_ATTACH_FILTER).
    pub filter: io::Result<()>,
}

impl UdpCalls {
    /// Tries each, on a socket of its own.
    pub fn probe() -> io::Result<UdpCalls> {
        let socket = Socket::open(&IpAddr::V4(Ipv4Addr::LOCALHOST).into(), 0)?;
        let filter = Filter { mark: [1; 4], one_in: 1, foreign: true };
        Ok(UdpCalls {
            segmentation: socket.segments(),
            joining: socket.join(true),
            sendmmsg: socket.takes_many(),
            recvmmsg: socket.gives_many(),
            filter: socket.attach(libc::SO_ATTACH_FILTER, &filter.program()),
        })
    }
}

impl Socket {
    /// Whether the kernel joins datagrams of one sender that have the same size.
    pub(crate) fn join(&self, on: bool) -> io::Result<()> {
        self.option(libc::SOL_UDP, libc::UDP_GRO, on.into())
    }

    /// Whether one send becomes two datagrams. A system that knows the option and ignores it sends one.
    fn segments(&self) -> io::Result<()> {
        self.option(libc::SOL_UDP, libc::UDP_SEGMENT, 0)?;
        let mut received = [0; 2];
        let plain = self.0.connect(self.local()?).and_then(|()| self.0.send(&[0]));
        if plain.and_then(|_| self.0.recv(&mut received)).is_err() {
            // Without loopback nothing more can be told.
            return Ok(());
        }
        self.send_cut(&[1, 2], 1)?;
        match (self.0.recv(&mut received)?, self.0.recv(&mut received)?) {
            (1, 1) => Ok(()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn takes_many(&self) -> io::Result<()> {
        // SAFETY: no message is named, so no memory is touched.
        check(unsafe { libc::sendmmsg(self.fd(), ptr::null_mut(), 0, 0) }).map(drop)
    }

    fn gives_many(&self) -> io::Result<()> {
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: no message is named and no time-out given, so no memory is touched.
        check(unsafe { libc::recvmmsg(self.fd(), ptr::null_mut(), 0, flags, ptr::null_mut()) })
            .map(drop)
    }

    /// Sends to the connected peer as many of the datagrams of `size` that `bytes` holds (the last may be shorter) as one call
    /// takes: at least one, or there is an error. `bytes` is what remains.
    pub(crate) fn send_many(&self, bytes: &mut &[u8], size: usize) -> io::Result<()> {
        #[cfg(test)]
        if let Some(errno) = refusal::ask(self, bytes, Call::Many(size)) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let none = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let mut iovs = [none; SEGMENTS_MAX];
        // SAFETY: all-zero headers are valid ones: null pointers with lengths of zero.
        let mut messages: [libc::mmsghdr; SEGMENTS_MAX] = unsafe { zeroed() };
        let mut count = 0;
        for (datagram, (iov, message)) in bytes.chunks(size).zip(iovs.iter_mut().zip(&mut messages))
        {
            iov.iov_base = datagram.as_ptr().cast_mut().cast();
            iov.iov_len = datagram.len();
            message.msg_hdr.msg_iov = iov;
            message.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        // SAFETY: the first `count` headers point to one iovec each, over a part of `bytes` that the kernel only reads;
        // headers, iovecs and bytes live through the call.
        let sent = check(unsafe {
            libc::sendmmsg(self.fd(), messages.as_mut_ptr(), count, libc::MSG_NOSIGNAL)
        })?;
        let taken = usize::try_from(sent).unwrap_or(0) * size;
        *bytes = bytes.get(taken..).unwrap_or_default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, Port};
    use super::*;

    #[test]
    fn this_kernel_has_them_all() {
        let calls = UdpCalls::probe().unwrap();
        let all = [calls.segmentation, calls.joining, calls.sendmmsg, calls.recvmmsg, calls.filter];
        assert!(all.iter().all(Result::is_ok), "{all:?}");
    }

    #[test]
    fn one_call_takes_many_datagrams() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let port = Port::bind(addr.parse().unwrap(), None).unwrap();
            port.main.join(false).unwrap();
            let to = port.main.local().unwrap();
            let sender = Socket::connect(&to.ip().into(), to).unwrap();
            let bytes: Vec<u8> = (0..30 * 100 + 50).map(|at| (at / 100 * 2) as u8).collect();
            // Even, or the quiet socket would get them.
            let mut rest = &bytes[..];
            sender.send_many(&mut rest, 100).unwrap();
            assert!(rest.is_empty(), "{} bytes of 31 datagrams are left", rest.len());
            let (mut batch, mut came) = (Batch::new(true), Vec::new());
            while came.len() < 31 {
                let (count, _) = batch.receive(&port.main, true);
                assert!(count > 1 || came.len() == 30, "{count} with one call");
                for index in 0..count {
                    came.extend(batch.datagrams(index).map(|datagram| datagram.to_vec()));
                }
            }
            assert!(came.iter().all(|datagram| datagram.len() <= 100), "none was joined");
            assert_eq!(came.concat(), bytes);
        }
    }

    #[test]
    fn where_many_are_refused_they_are_taken_one_by_one() {
        let port = Port::bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        port.main.join(false).unwrap();
        let to = port.main.local().unwrap();
        let sender = Socket::connect(&to.ip().into(), to).unwrap();
        sender.send_many(&mut &[0; 30][..], 10).unwrap();
        let mut batch = Batch::new(false);
        let counts = [(); 4].map(|()| batch.receive(&port.main, true));
        assert_eq!(counts, [(1, true), (1, true), (1, true), (0, false)]);
    }

    #[test]
    fn what_one_call_does_not_take_remains() {
        let port = Port::bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let to = port.main.local().unwrap();
        let sender = Socket::connect(&to.ip().into(), to).unwrap();
        let bytes = vec![7; (SEGMENTS_MAX + 5) * 10];
        let mut rest = &bytes[..];
        sender.send_many(&mut rest, 10).unwrap();
        assert_eq!(rest.len(), 50);
        sender.send_many(&mut rest, 10).unwrap();
        assert!(rest.is_empty());
    }
}
