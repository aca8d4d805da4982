//! What registering descriptors with io_uring saves a sleep that a packet ends: a datagram is sent over loopback, the socket is
//! watched by a ring as the transport has it (SINGLE_ISSUER, DEFER_TASKRUN), by descriptor or as a registered file, and the datagram
//! is taken. All on one thread, so that no scheduler is measured: what registering saves is the same when one sleeps in
//! between, and the rest is more.
//!
//! `cargo bench -p quintet-bench --bench parks`.

use io_uring::{IoUring, opcode, types};
use quintet_transport::clock;
use std::error::Error;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

const ROUNDS: u32 = 20_000;
const REPEAT: usize = 25;

/// Nanoseconds of a round.
fn measure(
    ring: &mut IoUring,
    socket: &UdpSocket,
    registered: bool,
) -> Result<f64, Box<dyn Error>> {
    let events = libc::POLLIN as u32;
    let began = clock::now();
    for _ in 0..ROUNDS {
        socket.send(&[0; 64])?;
        let poll = if registered {
            opcode::PollAdd::new(types::Fixed(0), events).build()
        } else {
            opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), events).build()
        };
        // SAFETY: it names a descriptor, and no memory.
        unsafe { ring.submission().push(&poll) }?;
        ring.submit_and_wait(1)?;
        let watched = ring.completion().next().ok_or("nothing happened")?.result();
        assert!(watched > 0, "{}", std::io::Error::from_raw_os_error(-watched));
        socket.recv(&mut [0; 64])?;
    }
    Ok(clock::now().since(began).as_nanos() as f64 / f64::from(ROUNDS))
}

fn main() -> Result<(), Box<dyn Error>> {
    // Asked for its tests it has none.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    let mut ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8)?;
    ring.submitter().register_files(&[socket.as_raw_fd()])?;
    let mut times = [Vec::new(), Vec::new()];
    // In turns: the machine is not the same from one second to the next.
    for _ in 0..REPEAT {
        for (times, registered) in times.iter_mut().zip([false, true]) {
            times.push(measure(&mut ring, &socket, registered)?);
        }
    }
    for (times, name) in times.iter_mut().zip(["descriptor", "registered file"]) {
        times.sort_by(f64::total_cmp);
        let [least, median, most] = [0, REPEAT / 2, REPEAT - 1].map(|at| times[at]);
        println!("{name:16} {median:6.0} ns a round ({least:.0} to {most:.0})");
    }
    println!("ratio of medians {:.3}", times[1][REPEAT / 2] / times[0][REPEAT / 2]);
    Ok(())
}
