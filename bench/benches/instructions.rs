//! The way of a message through shared memory, for counting instructions: what a timing hides in noise, this shows.
//!
//! One thread is the sender and its readers in turn, and hands them a time of its own, so that a run repeats. Two runs
//! of different length differ by what their messages cost, not by what the start does: `scripts/instructions` runs
//! them under callgrind and compares with what is recorded in `instructions.txt`.
//!
//! `instructions word|log|batch READERS ROUNDS`

use quintet_transport::{
    Config, Event, GROUP, Incarnation, LinkId, LogWriter, Member, NodeId, PathPolicy, PeerConfig,
    Poller, Time, clock,
};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// Nothing goes over the network.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
/// Payload of a message.
const SIZE: usize = 64;
/// Messages of a round of `batch`.
const BATCH: u64 = 64;
/// What a round takes, by the time that is handed in.
const ROUND: Duration = Duration::from_micros(1);
/// Rounds after which the sender takes back what was read.
const GIVE_BACK: u64 = 16;

/// A poller, the links that it was told of, and how far it has read the log of the first.
struct End {
    poller: Poller,
    log: LogWriter,
    links: Vec<LinkId>,
    cursor: u64,
    index: u64,
}

impl End {
    fn turn(&mut self, now: Time) {
        self.poller.poll(now);
        while let Some(event) = self.poller.poll_event() {
            match event {
                Event::Up { link, .. } => {
                    self.poller.attach(link, GROUP, 0);
                    self.poller.open(link, GROUP, 0);
                    self.links.push(link);
                }
                Event::Dead { evidence, .. } => panic!("the link died: {evidence}"),
                _ => {}
            }
        }
    }

    fn send(&mut self) {
        let mut slot = self.log.reserve(SIZE).expect("reclaimed in time");
        slot.copy_from_slice(&[7; SIZE]);
        slot.commit_quietly();
        self.poller.committed(GROUP).expect("just committed");
        self.poller.publish(GROUP, self.index);
        self.index += 1;
    }

    /// Takes what is visible of the sender's log, and says how much that was.
    fn take(&mut self) -> u64 {
        let mut taken = 0;
        while let Some(record) = self.poller.peek(self.links[0], GROUP, self.cursor) {
            std::hint::black_box(record.payload);
            self.cursor = record.end;
            taken += 1;
        }
        self.poller.release(self.links[0], GROUP, self.cursor);
        taken
    }
}

/// A sender and that many readers, linked.
fn linked(readers: u16) -> Vec<End> {
    let peer = |node: u16| PeerConfig { node: NodeId(node), addr: NOWHERE };
    let mut ends: Vec<End> = (1..=readers + 1)
        .map(|node| {
            let me = Member { node: NodeId(node), incarnation: Incarnation(1) };
            let cluster = format!("instructions-{}", std::process::id());
            let mut config = Config::new(&cluster, me, NOWHERE);
            config.peers =
                if node == 1 { (2..=readers + 1).map(peer).collect() } else { vec![peer(1)] };
            config.path = PathPolicy::Shm;
            // Under callgrind everything takes long.
            config.timing.suspect = Duration::from_secs(30);
            config.timing.dead = Duration::from_secs(60);
            let poller = Poller::new(config).expect("a poller");
            let log = poller.log(GROUP);
            End { poller, log, links: Vec::new(), cursor: 0, index: 0 }
        })
        .collect();
    while ends.iter().any(|end| end.links.is_empty()) || ends[0].links.len() < readers as usize {
        for end in &mut ends {
            let now = clock::now();
            end.turn(now);
            end.poller.flush(now);
        }
    }
    ends
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, readers, rounds] = &arguments[..] else {
        return println!("word|log|batch READERS ROUNDS; scripts/instructions runs this");
    };
    let rounds: u64 = rounds.parse().expect("a number of rounds");
    let mut ends = linked(readers.parse().expect("a number of readers"));
    let (sender, readers) = ends.split_first_mut().expect("a sender");
    let mut now = clock::now();
    for round in 1..=rounds {
        now += ROUND;
        sender.turn(now);
        match what.as_str() {
            "word" => sender.poller.set_word(GROUP, 0, round),
            "log" => sender.send(),
            _ => (0..BATCH).for_each(|_| sender.send()),
        }
        if round % GIVE_BACK == 0 {
            sender.poller.reclaim(GROUP, u64::MAX);
        }
        sender.poller.flush(now);
        for reader in readers.iter_mut() {
            reader.turn(now);
            let seen = match what.as_str() {
                "word" => reader.poller.peer_word(reader.links[0], GROUP, 0),
                _ => {
                    reader.index += reader.take();
                    reader.index
                }
            };
            let due = if what == "batch" { round * BATCH } else { round };
            assert_eq!(seen, due, "visible in the turn after its flush");
            reader.poller.flush(now);
        }
    }
}
