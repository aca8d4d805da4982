//! One end of a link between two pollers, each alone in its process: what the measurements of the transport use.

use crate::policy::{Provider, Waiting};
use crate::setup::{Network, Setup};
use quintet_transport::{
    Authority, Config, Event, GROUP, Incarnation, LinkId, LinkStatus, LogWriter, Member, NodeId,
    PeerConfig, Poller, ReserveError, Time, VerbsConfig, clock,
};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long the two may take to find each other.
const CONNECT: Duration = Duration::from_secs(10);

/// Log space is given back in pieces of this many bytes while there is enough of it.
pub(crate) const STEP: u64 = 64 << 10;

/// How long one may be silent, where its death is not what is measured.
const PATIENCE: Duration = Duration::from_secs(10);

/// What both sides must agree on.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Ends {
    /// What carries the bytes.
    pub(crate) provider: Provider,
    /// How both sides wait.
    pub(crate) wait: Waiting,
    /// Name of the measurement's own cluster.
    pub(crate) cluster: String,
    /// Silence after which a link is dead, if not as the transport has it. A measurement on a busy machine shall not
    /// fail because one side had to wait for a core.
    pub(crate) dead: Option<Duration>,
    /// Adapters of nodes with odd and with even numbers, if some were chosen.
    pub(crate) devices: Vec<String>,
    /// What happens to datagrams once the link is up.
    pub(crate) network: Network,
    /// Where the first and the second side receive.
    pub(crate) addresses: [SocketAddr; 2],
}

impl Ends {
    /// Of a measurement of its own.
    pub(crate) fn new(setup: &Setup, addresses: [SocketAddr; 2]) -> Ends {
        let cluster = format!("perf-{}", std::process::id());
        let dead = Some(PATIENCE);
        let Setup { provider, wait, network, .. } = *setup;
        let devices = setup.device.clone();
        Ends { provider, wait, cluster, dead, devices, network, addresses }
    }

    /// What the poller of that node is made of, which receives there.
    pub(crate) fn config(
        &self,
        node: u16,
        own: SocketAddr,
        peers: Vec<PeerConfig>,
    ) -> Result<Config, Box<dyn Error>> {
        let me =
            Member { node: NodeId(node), incarnation: Incarnation(u64::from(std::process::id())) };
        let mut config = Config::new(&self.cluster, me, own);
        config.peers = peers;
        config.path = self.provider.policy();
        // Whoever measures over an adapter has chosen to: nothing of what is sent is secret.
        let device = self.devices.get(usize::from(node - 1) % 2).cloned();
        config.verbs = VerbsConfig { trusted_fabric: true, device, ..VerbsConfig::default() };
        config.wait = self.wait.wait();
        config.offload = self.network.offload();
        config.timing.dead = self.dead.unwrap_or(config.timing.dead);
        // Not secret: a measurement has nothing to hide, and all sides must have the same authority.
        let authority = Authority::new(&self.cluster, [1; 32])?;
        config.identity = Some(Arc::new(authority.admit(me.node, [node as u8; 32])));
        Ok(config)
    }
}

/// Waits until as many links are up, and opens both directions of each.
pub(crate) fn meet(poller: &mut Poller, count: usize) -> Result<Vec<LinkId>, Box<dyn Error>> {
    let deadline = clock::now() + CONNECT;
    let mut links = Vec::new();
    while links.len() < count {
        let now = clock::now();
        poller.poll(now);
        while let Some(event) = poller.poll_event() {
            if let Event::Up { link, .. } = event {
                poller.attach(link, GROUP, 0);
                poller.open(link, GROUP, 0);
                links.push(link);
            }
        }
        if now > deadline {
            let seconds = CONNECT.as_secs();
            return Err(format!("the sides did not meet within {seconds} s").into());
        }
        poller.flush(now);
        poller.park(now, Some(deadline), &mut || links.len() == count);
    }
    poller.flush(clock::now());
    Ok(links)
}

/// One end.
pub(crate) struct Side {
    pub(crate) poller: Poller,
    pub(crate) log: LogWriter,
    pub(crate) link: LinkId,
    index: u64,
    cursor: u64,
    /// What of the peer's log was released, and of the own was reclaimed.
    released: u64,
    reclaimed: u64,
    /// When the last turn was.
    now: Time,
}

impl Side {
    /// The first or the second side, linked to the other.
    pub(crate) fn connect(ends: &Ends, node: u16) -> Result<Side, Box<dyn Error>> {
        let [first, second] = ends.addresses;
        let (own, peer) = if node == 1 { (first, second) } else { (second, first) };
        let peer = PeerConfig { node: NodeId(3 - node), addr: peer };
        let mut side = Side::link(ends.config(node, own, vec![peer])?)?;
        ends.network.spoil(node, &mut side.poller)?;
        Ok(side)
    }

    /// A side with one peer, linked to it.
    pub(crate) fn link(config: Config) -> Result<Side, Box<dyn Error>> {
        let mut poller = Poller::new(config)?;
        let log = poller.log(GROUP);
        let link = meet(&mut poller, 1)?[0];
        let now = clock::now();
        Ok(Side { poller, log, link, index: 0, cursor: 0, released: 0, reclaimed: 0, now })
    }

    /// Publishes one message as soon as there is room, and makes it visible.
    pub(crate) fn send(&mut self, payload: &[u8]) -> Result<(), Box<dyn Error>> {
        let mut now = self.now;
        while !self.commit(payload)? {
            self.turn(now)?;
            self.give_back(1);
            self.poller.flush(now);
            now = self.poller.park(now, None, &mut || false);
        }
        self.poller.flush(self.now);
        Ok(())
    }

    /// Publishes one message for the next flush; false while the log has no room.
    pub(crate) fn commit(&mut self, payload: &[u8]) -> Result<bool, Box<dyn Error>> {
        let mut slot = match self.log.reserve(payload.len()) {
            Ok(slot) => slot,
            Err(ReserveError::Full) => return Ok(false),
            Err(error) => return Err(format!("a message of {} B: {error}", payload.len()).into()),
        };
        slot.copy_from_slice(payload);
        slot.commit_quietly();
        self.poller.committed(GROUP).ok_or("a committed record is not there")?;
        self.poller.publish(GROUP, self.index);
        self.index += 1;
        Ok(true)
    }

    /// Publishes what other threads have committed, for the next flush, at most that many. Returns how many.
    pub(crate) fn publish_committed(&mut self, most: u32) -> u32 {
        let mut published = 0;
        while published < most && self.poller.committed(GROUP).is_some() {
            self.poller.publish(GROUP, self.index);
            self.index += 1;
            published += 1;
        }
        published
    }

    /// Waits for a message, as the policy says: what was sent before is flushed, and of what the last turn showed
    /// nothing is left.
    pub(crate) fn receive(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            if self.take(|_| ()).is_some() {
                self.give_back(STEP);
                return Ok(());
            }
            self.poller.flush(self.now);
            let now = self.poller.park(self.now, None, &mut || false);
            self.turn(now)?;
        }
    }

    /// Waits until the other's word says so many, as the policy says.
    pub(crate) fn await_word(&mut self, count: u64) -> Result<(), Box<dyn Error>> {
        loop {
            let now = clock::now();
            self.turn(now)?;
            self.give_back(STEP);
            if self.poller.peer_word(self.link, GROUP, 0) >= count {
                return Ok(());
            }
            self.poller.flush(now);
            self.poller.park(now, None::<Time>, &mut || false);
        }
    }

    /// Tells the other in a word.
    pub(crate) fn say_word(&mut self, count: u64) {
        self.poller.set_word(GROUP, 0, count);
        self.poller.flush(self.now);
    }

    /// Sends nothing for so long; signs of life go on.
    pub(crate) fn rest(&mut self, span: Duration) -> Result<(), Box<dyn Error>> {
        let until = clock::now() + span;
        while clock::now() < until {
            let now = clock::now();
            self.turn(now)?;
            self.poller.flush(now);
            self.poller.park(now, Some(until), &mut || false);
        }
        Ok(())
    }

    /// Looks what there is. An end of the link is an error.
    pub(crate) fn turn(&mut self, now: Time) -> Result<bool, Box<dyn Error>> {
        self.now = now;
        let progress = self.poller.poll(now);
        while let Some(event) = self.poller.poll_event() {
            if let Event::Dead { evidence, .. } = event {
                return Err(format!("the link died: {evidence}").into());
            }
        }
        Ok(progress)
    }

    /// The next message, if one is visible; all its cache lines are looked at.
    pub(crate) fn take<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let record = self.poller.peek(self.link, GROUP, self.cursor)?;
        crate::floor::touch(record.payload);
        let value = read(record.payload);
        self.cursor = record.end;
        Some(value)
    }

    /// What was taken is no longer needed; nor is of the own log what the other has released. Both in pieces of `step`
    /// bytes at least: each time costs both sides a cache line.
    pub(crate) fn give_back(&mut self, step: u64) {
        if self.cursor >= self.released + step {
            self.released = self.cursor;
            self.poller.release(self.link, GROUP, self.cursor);
        }
        if self.poller.head(GROUP) >= self.reclaimed + step {
            self.reclaimed = self.poller.released(self.link, GROUP);
            self.poller.reclaim(GROUP, self.reclaimed);
        }
    }

    /// The link.
    pub(crate) fn status(&self) -> Result<LinkStatus, Box<dyn Error>> {
        Ok(self.poller.links().into_iter().next().ok_or("the link is gone")?)
    }
}
