//! The least that a round trip by UDP can cost: one plain datagram there and one back.

use super::{Wait, touch};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{SocketAddr, UdpSocket};

/// Greatest message: what one datagram holds.
pub(crate) const SIZE_MAX: usize = 65_507;

/// What the answering process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Pong {
    /// Where the asking side receives, and the answering one.
    pub(crate) addresses: [SocketAddr; 2],
    size: usize,
    rounds: u64,
    wait: Wait,
}

/// One side.
pub(crate) struct Side {
    socket: UdpSocket,
    message: Vec<u8>,
    buffer: Vec<u8>,
    wait: Wait,
}

impl Side {
    /// The asking side, and what the other must be told. It asks only when the other has said that it is there.
    pub(crate) fn first(
        addresses: [SocketAddr; 2],
        size: usize,
        rounds: u64,
        wait: Wait,
    ) -> io::Result<(Side, Pong)> {
        let [own, other] = addresses;
        Ok((Side::new(own, other, size, wait)?, Pong { addresses, size, rounds, wait }))
    }

    fn new(own: SocketAddr, other: SocketAddr, size: usize, wait: Wait) -> io::Result<Side> {
        if size > SIZE_MAX {
            return Err(io::Error::other(format!("a datagram holds {SIZE_MAX} bytes, not {size}")));
        }
        let socket = UdpSocket::bind(own)?;
        socket.connect(other)?;
        socket.set_nonblocking(wait == Wait::Look)?;
        // A datagram that is lost ends a measurement, not never.
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        Ok(Side { socket, message: vec![7; size], buffer: vec![0; SIZE_MAX], wait })
    }

    /// One round trip.
    pub(crate) fn exchange(&mut self) -> io::Result<()> {
        self.socket.send(&self.message)?;
        self.receive()
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            match self.socket.recv(&mut self.buffer) {
                Ok(len) => {
                    touch(&self.buffer[..len]);
                    return Ok(());
                }
                Err(error)
                    if self.wait == Wait::Look && error.kind() == io::ErrorKind::WouldBlock =>
                {
                    std::hint::spin_loop()
                }
                // A time-out makes calls interruptible, by what the transport's io_uring leaves behind for instance.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Says that it is there, then answers all rounds.
pub(crate) fn answer(pong: &Pong, ready: impl FnOnce()) -> io::Result<()> {
    let [asker, own] = pong.addresses;
    let mut side = Side::new(own, asker, pong.size, pong.wait)?;
    // Who asks may be silent for long; this process ends with it.
    side.socket.set_read_timeout(None)?;
    ready();
    for _ in 0..pong.rounds {
        side.receive()?;
        side.socket.send(&side.message)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children::two_addresses;
    use std::sync::mpsc;

    #[test]
    fn every_round_is_answered_however_the_sides_wait() {
        for wait in [Wait::Look, Wait::Sleep] {
            let addresses = two_addresses().expect("two ports");
            let (mut side, pong) = Side::first(addresses, 100, 50, wait).expect("a socket");
            let (say, hear) = mpsc::channel();
            let other = std::thread::spawn(move || answer(&pong, || say.send(()).unwrap()));
            hear.recv().expect("it is there");
            for _ in 0..50 {
                side.exchange().expect("a round trip");
            }
            other.join().expect("the answering side").expect("its socket");
        }
    }

    #[test]
    fn what_no_datagram_holds_is_refused() {
        let addresses = two_addresses().expect("two ports");
        let error = Side::first(addresses, SIZE_MAX + 1, 1, Wait::Look).err().expect("too long");
        assert!(error.to_string().contains("65507"), "{error}");
    }
}
