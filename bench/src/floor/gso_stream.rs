//! The most that plain datagrams can carry: the kernel cuts what one call sends, and joins what one call receives.
//!
//! Nothing is acknowledged, and what the receiver has no room for is lost: only what arrives is counted. Either as they
//! are, or each sealed by the sender and opened by the receiver, as everybody must who wants it encrypted; or without
//! the kernel's copy on the way out, to see whether that pays (`MSG_ZEROCOPY`: where the network is this host, the
//! kernel copies after all).

use super::sealing::Cipher;
use crate::counter::{Counted, Counter};
use quintet_transport::{Time, clock};
use serde::{Deserialize, Serialize};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

/// What one call sends at most.
const CALL: usize = 65_507;
/// Datagrams of one call at most.
const SEGMENTS_MAX: usize = 64;
/// The receiver's buffer, as the transport's.
const BUFFER: i32 = 4 << 20;
/// `SO_EE_ORIGIN_ZEROCOPY` of linux/errqueue.h.
const ORIGIN_ZEROCOPY: u8 = 5;
/// Calls whose memory the kernel may still be reading.
const IN_FLIGHT: u32 = 32;
/// How long the receiver waits for a stream that has ended.
const SILENCE: Duration = Duration::from_secs(10);

/// What becomes of a datagram between the program and the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The kernel copies it.
    Copied,
    /// It is sealed, and the kernel copies that.
    Sealed,
    /// The kernel sends it from where it is.
    InPlace,
}

/// What the receiving process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Reader {
    /// Where the sending side is, and this one.
    pub(crate) addresses: [SocketAddr; 2],
    segment: u16,
    sealed: bool,
}

/// The sending side.
pub(crate) struct Sender {
    socket: UdpSocket,
    segment: u16,
    data: Vec<u8>,
    cipher: Option<Cipher>,
    /// Calls whose memory the kernel has not given back; none are counted where it copies.
    in_flight: Option<u32>,
}

impl Sender {
    /// A sender of datagrams of that size, and what the other side must be told. Sealed ones hold less payload: number
    /// and tag are part of them.
    pub(crate) fn new(
        addresses: [SocketAddr; 2],
        segment: u16,
        way: Way,
    ) -> io::Result<(Sender, Reader)> {
        let [own, other] = addresses;
        let socket = UdpSocket::bind(own)?;
        socket.connect(other)?;
        option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(segment))?;
        let in_flight = match way {
            Way::Copied | Way::Sealed => None,
            Way::InPlace => {
                option(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
                Some(0)
            }
        };
        let segments = (CALL / usize::from(segment)).min(SEGMENTS_MAX);
        let data = vec![7; segments * usize::from(segment)];
        let sealed = way == Way::Sealed;
        let cipher = sealed.then(Cipher::new);
        let sender = Sender { socket, segment, data, cipher, in_flight };
        Ok((sender, Reader { addresses, segment, sealed }))
    }

    /// Sends until nobody receives any more, or until then, or until that is true.
    pub(crate) fn run(&mut self, end: Time, mut done: impl FnMut() -> bool) -> io::Result<()> {
        while clock::now() < end && !done() {
            if let Some(cipher) = &mut self.cipher {
                let mut packets = self.data.chunks_exact_mut(usize::from(self.segment));
                packets.try_for_each(|packet| cipher.seal(packet))?;
            }
            match self.send() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // What is sent is to be what was to be sent: until the kernel has read it, the memory stays.
        let patience = clock::now() + SILENCE;
        while let Some(in_flight @ 1..) = &mut self.in_flight
            && clock::now() < patience
        {
            *in_flight = in_flight.saturating_sub(given_back(&self.socket)?);
            std::thread::yield_now();
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(in_flight) = &mut self.in_flight else {
            return self.socket.send(&self.data).map(|_| ());
        };
        if *in_flight >= IN_FLIGHT / 2 {
            *in_flight = in_flight.saturating_sub(given_back(&self.socket)?);
        }
        if *in_flight >= IN_FLIGHT {
            return Ok(());
        }
        // What is sent never changes, so it does not matter that it is sent again before it is given back.
        // SAFETY: `data` is readable. The kernel only reads it, and keeps its pages for as long as it does.
        let sent = unsafe {
            let (data, len) = (self.data.as_ptr().cast(), self.data.len());
            libc::send(self.socket.as_raw_fd(), data, len, libc::MSG_ZEROCOPY)
        };
        match io::Error::last_os_error() {
            _ if sent >= 0 => *in_flight += 1,
            // More than the kernel keeps account of, or locked memory allows: some must come back first.
            full if full.raw_os_error() == Some(libc::ENOBUFS) && *in_flight > 0 => {
                *in_flight = in_flight.saturating_sub(given_back(&self.socket)?);
            }
            error => return Err(error),
        }
        Ok(())
    }
}

/// Calls whose memory the kernel has given back since it was last asked.
fn given_back(socket: &UdpSocket) -> io::Result<u32> {
    let mut control = MaybeUninit::<[u64; 16]>::uninit();
    let mut calls = 0;
    loop {
        // SAFETY: all-zero is a valid msghdr: null pointers with lengths of zero.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: a live header whose control space is writable for the length that it names.
        if unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) } < 0 {
            let error = io::Error::last_os_error();
            let none = error.kind() == io::ErrorKind::WouldBlock;
            return if none { Ok(calls) } else { Err(error) };
        }
        // SAFETY: the kernel has written `msg_controllen` bytes of whole control messages, each with the data that its
        // length says; one of an error begins with the error.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(&header);
            while !message.is_null() {
                let kind = ((*message).cmsg_level, (*message).cmsg_type);
                if [(libc::SOL_IP, libc::IP_RECVERR), (libc::SOL_IPV6, libc::IPV6_RECVERR)]
                    .contains(&kind)
                {
                    let told = libc::CMSG_DATA(message).cast::<libc::sock_extended_err>();
                    let told = told.read_unaligned();
                    if told.ee_origin == ORIGIN_ZEROCOPY {
                        calls += 1 + told.ee_data.wrapping_sub(told.ee_info);
                    }
                }
                message = libc::CMSG_NXTHDR(&header, message);
            }
        }
    }
}

/// Says that it is there, then receives until it has counted.
pub(crate) fn read(
    reader: &Reader,
    mut counter: Counter,
    ready: impl FnOnce(),
) -> io::Result<Counted> {
    let [sender, own] = reader.addresses;
    let socket = UdpSocket::bind(own)?;
    // Nothing of strangers.
    socket.connect(sender)?;
    option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    if option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER).is_err() {
        option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER)?;
    }
    socket.set_read_timeout(Some(SILENCE))?;
    ready();
    let mut buffer = vec![0; 1 << 16];
    let cipher = reader.sealed.then(Cipher::new);
    loop {
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let (mut messages, mut bytes) = (0, 0);
        for packet in buffer[..len].chunks_mut(usize::from(reader.segment)) {
            let payload = match &cipher {
                Some(cipher) => cipher.open(packet)?,
                None => packet,
            };
            super::touch(payload);
            messages += 1;
            bytes += payload.len() as u64;
        }
        if let Some(counted) = counter.arrived(messages, bytes, clock::now()) {
            return Ok(counted);
        }
    }
}

fn option(socket: &UdpSocket, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` is readable for `len` bytes and lives through the call.
    let failed = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) < 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children::two_addresses;
    use crate::floor::sealing::OVERHEAD;
    use std::sync::mpsc;

    #[test]
    fn a_stream_ends_when_it_has_been_counted() {
        for (segment, way) in [
            (64, Way::Copied),
            (1400, Way::Copied),
            (8192, Way::Copied),
            (1400, Way::Sealed),
            (8192, Way::Sealed),
            (8192, Way::InPlace),
        ] {
            let (mut sender, reader) =
                Sender::new(two_addresses().expect("two ports"), segment, way).expect("a socket");
            let counter = Counter::new(Duration::ZERO, Duration::from_millis(20));
            let (say, hear) = mpsc::channel();
            let other =
                std::thread::spawn(move || read(&reader, counter, || say.send(()).unwrap()));
            hear.recv().expect("it is there");
            sender.run(Time::MAX, || false).expect("until nobody receives");
            let counted = other.join().expect("the receiver").expect("its socket");
            assert!(counted.messages > 0, "{counted:?}");
            let payload = usize::from(segment) - if way == Way::Sealed { OVERHEAD } else { 0 };
            assert_eq!(counted.bytes, counted.messages * payload as u64);
        }
    }

    #[test]
    fn what_nobody_sealed_is_not_counted() {
        let (mut sender, mut reader) =
            Sender::new(two_addresses().expect("two ports"), 1400, Way::Copied).expect("a socket");
        reader.sealed = true;
        let counter = Counter::new(Duration::ZERO, Duration::ZERO);
        let (say, hear) = mpsc::channel();
        let other = std::thread::spawn(move || read(&reader, counter, || say.send(()).unwrap()));
        hear.recv().expect("it is there");
        sender.run(Time::MAX, || false).expect("until nobody receives");
        let error = other.join().expect("the receiver").expect_err("not sealed");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
