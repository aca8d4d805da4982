//! Which way into the kernel is the cheapest for much data: `sendmsg`, io_uring with a registered buffer that the kernel
//! copies (WRITE_FIXED), or one that it sends from where it is (SEND_ZC). Bytes that arrive at another core, in datagrams
//! of 1,400 B that the kernel cuts and joins, and in the largest there are; over loopback, and over a cable between two
//! namespaces. Nothing is sealed and what is sent never changes, which is as good as it gets for the last two.
//!
//! `cargo bench -p quintet-bench --bench sends`. The cable needs root and the package iproute2; without them it is left out.

use io_uring::{IoUring, opcode, types};
use quintet_transport::clock;
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const SPAN: Duration = Duration::from_millis(400);
const REPEAT: usize = 7;
/// Sends that the kernel may not have finished.
const IN_FLIGHT: usize = 16;
const RECEIVE_BUFFER: i32 = 4 << 20;

#[derive(Clone, Copy)]
enum Way {
    SendMsg,
    Registered,
    ZeroCopy,
}

const WAYS: [(Way, &str); 3] =
    [(Way::SendMsg, "sendmsg"), (Way::Registered, "registered buffer"), (Way::ZeroCopy, "SEND_ZC")];

/// Where the two sides are: addresses, and namespaces if they have their own.
struct Place {
    name: &'static str,
    addresses: [&'static str; 2],
    spaces: Option<[String; 2]>,
    mtu: usize,
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).output().is_ok_and(|done| done.status.success())
}

impl Place {
    fn loopback() -> Place {
        let addresses = ["127.0.0.1", "127.0.0.2"];
        Place { name: "loopback", addresses, spaces: None, mtu: 1 << 16 }
    }

    fn cable(name: &'static str, mtu: usize) -> Option<Place> {
        let id = std::process::id();
        let spaces = ["a", "b"].map(|end| format!("qs{id}-{mtu}{end}"));
        let place = Place { name, addresses: ["10.231.99.1", "10.231.99.2"], spaces: None, mtu };
        if !spaces.iter().all(|space| ip(&format!("netns add {space}"))) {
            return None;
        }
        let [a, b] = &spaces;
        let mut good = ip(&format!("link add cable netns {a} type veth peer name cable netns {b}"));
        for (space, address) in spaces.iter().zip(place.addresses) {
            good &= ip(&format!("-n {space} addr add {address}/24 dev cable"));
            good &= ip(&format!("-n {space} link set cable mtu {mtu} up"));
        }
        let place = Place { spaces: Some(spaces), ..place };
        good.then_some(place)
    }

    /// A socket of that side, connected to the other one.
    fn socket(&self, side: usize, ports: [u16; 2]) -> io::Result<UdpSocket> {
        if let Some(spaces) = &self.spaces {
            let space = File::open(format!("/run/netns/{}", spaces[side]))?;
            // SAFETY: no pointers; moves only this thread, which is made for this side.
            if unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let socket = UdpSocket::bind((self.addresses[side], ports[side]))?;
        socket.connect((self.addresses[1 - side], ports[1 - side]))?;
        Ok(socket)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for space in self.spaces.iter().flatten() {
            ip(&format!("netns del {space}"));
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

fn pin(core: usize) {
    // SAFETY: an all-zero set is an empty one, `core` is far below its size, and the kernel only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// Sends `data` until `done`.
fn send(socket: &UdpSocket, way: Way, data: &[u8], done: &AtomicBool) -> io::Result<()> {
    if let Way::SendMsg = way {
        while !done.load(Ordering::Relaxed) {
            socket.send(data)?;
        }
        return Ok(());
    }
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(2 * IN_FLIGHT as u32)?;
    let buffer = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: `data` outlives the ring, which is drained before this returns; the kernel only reads it.
    unsafe { ring.submitter().register_buffers(&[buffer])? };
    let (fd, len) = (types::Fd(socket.as_raw_fd()), data.len() as u32);
    let (mut in_flight, mut failed) = (0, None);
    loop {
        let ends = failed.is_some() || done.load(Ordering::Relaxed);
        while in_flight < IN_FLIGHT && !ends {
            let entry = match way {
                Way::ZeroCopy => {
                    opcode::SendZc::new(fd, data.as_ptr(), len).buf_index(Some(0)).build()
                }
                _ => opcode::WriteFixed::new(fd, data.as_ptr(), len, 0).build(),
            };
            // SAFETY: the buffer is registered and lives, see above.
            unsafe { ring.submission().push(&entry).map_err(io::Error::other)? };
            in_flight += 1;
        }
        if in_flight == 0 {
            return failed.map_or(Ok(()), Err);
        }
        ring.submit_and_wait(1)?;
        for entry in ring.completion() {
            if entry.result() < 0 {
                failed = Some(io::Error::from_raw_os_error(-entry.result()));
            }
            // Of one that is followed by a notice the memory is still being read.
            in_flight -= usize::from(!io_uring::cqueue::more(entry.flags()));
        }
    }
}

/// Megabytes per second that arrive.
fn measure(place: &Place, segment: usize, way: Way) -> io::Result<f64> {
    // Free ones: nothing else is in the namespaces, and on loopback these addresses are rare.
    let ports = [17_399, 17_398];
    let (arrived, ready, done) =
        (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| -> io::Result<UdpSocket> {
            pin(1);
            let socket = place.socket(1, ports)?;
            option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
            option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)
                .or_else(|_| option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER))?;
            socket.set_read_timeout(Some(SPAN))?;
            ready.store(true, Ordering::Relaxed);
            let mut buffer = vec![0; 1 << 16];
            while !done.load(Ordering::Relaxed) {
                let len = match socket.recv(&mut buffer) {
                    Ok(len) => len,
                    // The sender has something to tell.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                let sum = buffer[..len].iter().step_by(64).fold(0u8, |sum, b| sum.wrapping_add(*b));
                std::hint::black_box(sum);
                arrived.fetch_add(len as u64, Ordering::Relaxed);
            }
            // It stays open while somebody sends there.
            Ok(socket)
        });
        let sender = scope.spawn(|| -> io::Result<()> {
            pin(0);
            let socket = place.socket(0, ports)?;
            let data = vec![7; 65_488 / segment * segment];
            if segment < data.len() {
                option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, segment as i32)?;
            }
            while !ready.load(Ordering::Relaxed) && !done.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            send(&socket, way, &data, &done)
        });
        std::thread::sleep(SPAN / 4);
        let (began, before) = (clock::now(), arrived.load(Ordering::Relaxed));
        std::thread::sleep(SPAN);
        let bytes = arrived.load(Ordering::Relaxed) - before;
        let seconds = clock::now().since(began).as_secs_f64();
        done.store(true, Ordering::Relaxed);
        let received = receiver.join().expect("no panic");
        sender.join().expect("no panic")?;
        received?;
        Ok(bytes as f64 / 1e6 / seconds)
    })
}

fn main() {
    // Asked for its tests it has none.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let cables = [("cable", 1500), ("cable, MTU 65,535", 65_535)];
    let cables = cables.map(|(name, mtu)| Place::cable(name, mtu));
    if cables.iter().any(Option::is_none) {
        println!(
            "no cable: `ip netns add` does not work here, it needs root and the package iproute2"
        );
    }
    println!("MB/s that arrive, median of {REPEAT} (least to most), and its ratio to sendmsg");
    for place in std::iter::once(Place::loopback()).chain(cables.into_iter().flatten()) {
        for segment in [1400, 65_488].into_iter().filter(|segment| segment + 28 <= place.mtu) {
            let mut rates = WAYS.map(|_| Vec::new());
            // In turns: the machine is not the same from one second to the next.
            for _ in 0..REPEAT {
                for (rates, (way, name)) in rates.iter_mut().zip(WAYS) {
                    match measure(&place, segment, way) {
                        Ok(rate) => rates.push(rate),
                        Err(error) => println!("{}, {segment} B, {name}: {error}", place.name),
                    }
                }
            }
            let mut base = None;
            for (mut rates, (_, name)) in rates.into_iter().zip(WAYS) {
                rates.sort_by(f64::total_cmp);
                let (Some(least), Some(most)) = (rates.first(), rates.last()) else { continue };
                let median = rates[rates.len() / 2];
                let ratio = median / *base.get_or_insert(median);
                println!(
                    "{:18} {segment:6} B  {name:18} {median:7.0} ({least:.0} to {most:.0})  {ratio:.2}",
                    place.name
                );
            }
        }
    }
}
