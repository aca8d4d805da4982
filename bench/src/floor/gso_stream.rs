//! The most that plain datagrams can carry: the kernel cuts what one call sends, and joins what one call receives.
//!
//! Nothing is acknowledged, and what the receiver has no room for is lost: only what arrives is counted.

use crate::stream::{Counted, Counter};
use quintet_transport::{Time, clock};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

/// What one call sends at most.
const CALL: usize = 65_507;
/// Datagrams of one call at most.
const SEGMENTS_MAX: usize = 64;
/// The receiver's buffer, as the transport's.
const BUFFER: i32 = 4 << 20;
/// How long the receiver waits for a stream that has ended.
const SILENCE: Duration = Duration::from_secs(10);

/// What the receiving process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Reader {
    segment: u16,
}

/// The sending side.
pub(crate) struct Sender {
    socket: UdpSocket,
    data: Vec<u8>,
}

impl Sender {
    /// A sender of datagrams of that size, and what the other side must be told.
    pub(crate) fn new(segment: u16) -> io::Result<(Sender, Reader)> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(segment))?;
        let segments = (CALL / usize::from(segment)).min(SEGMENTS_MAX);
        let data = vec![7; segments * usize::from(segment)];
        Ok((Sender { socket, data }, Reader { segment }))
    }

    /// Where the other side is.
    pub(crate) fn connect(&self, other: SocketAddr) -> io::Result<()> {
        self.socket.connect(other)
    }

    /// Sends until nobody receives any more, or until then.
    pub(crate) fn run(&self, end: Time) -> io::Result<()> {
        while clock::now() < end {
            match self.socket.send(&self.data) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Says where it is, then receives until it has counted.
pub(crate) fn read(
    reader: &Reader,
    mut counter: Counter,
    say: impl FnOnce(SocketAddr),
) -> io::Result<Counted> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    if option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER).is_err() {
        option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER)?;
    }
    socket.set_read_timeout(Some(SILENCE))?;
    say(socket.local_addr()?);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        super::touch(&buffer[..len]);
        let messages = len.div_ceil(usize::from(reader.segment)) as u64;
        if let Some(counted) = counter.arrived(messages, len as u64, clock::now()) {
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
    use std::sync::mpsc;

    #[test]
    fn a_stream_ends_when_it_has_been_counted() {
        for segment in [64, 1400, 8192] {
            let (sender, reader) = Sender::new(segment).expect("a socket");
            let counter = Counter::new(Duration::ZERO, Duration::from_millis(20));
            let (said, heard) = mpsc::channel();
            let other =
                std::thread::spawn(move || read(&reader, counter, |at| said.send(at).unwrap()));
            sender.connect(heard.recv().expect("an address")).expect("connected");
            sender.run(Time::MAX).expect("until nobody receives");
            let counted = other.join().expect("the receiver").expect("its socket");
            assert!(counted.messages > 0, "{counted:?}");
            assert_eq!(counted.bytes, counted.messages * u64::from(segment));
        }
    }
}
