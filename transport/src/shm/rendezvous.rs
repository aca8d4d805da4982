//! How two processes of one host find each other: an abstract Unix socket named after cluster and node.
//!
//! The node with the higher id initiates. Abstract names belong to a network namespace, so whoever is
//! reachable under the name is on this host and in this namespace; its user is checked on top. A name
//! nobody listens to answers at once, which makes trying cheap.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::hello::{Greeting, Message, Refusal};
use super::link::{ShmLink, Terms};
use super::replica::Replica;
use super::segment::Segment;
use super::socket;
use super::trust::Trust;
use crate::config::Config;
use crate::error::Error;
use crate::id::{Incarnation, Member, NodeId};
use crate::limits::HANDSHAKES_MAX;
use crate::time::Time;
use crate::wait::{Bell, patiently};

/// How long a hello may stay unanswered.
const PATIENCE: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Trying costs some microseconds.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_millis(100);
/// Connections accepted in one turn.
const ACCEPTS: usize = 16;

/// What the poller knows about a peer that matters for meeting it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// This and earlier incarnations are fenced.
    pub(crate) refused: Incarnation,
    /// The incarnation of the live link.
    pub(crate) live: Option<Incarnation>,
    /// No further link may be made before one is forgotten.
    pub(crate) full: bool,
}

/// What came of it.
pub(crate) enum Meeting {
    /// A link to peer number `.0`, and where its CONTROL log begins for us.
    Up(usize, Box<ShmLink>, u64),
    /// Peer number `.0` says that we are fenced.
    Refused(usize),
}

/// Whether shared memory reaches a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Not tried yet, or it is the peer's part to try.
    Unknown,
    /// It is there.
    Here,
    /// It is not, for this reason.
    Absent(String),
}

struct Attempt {
    next: Time,
    backoff: Duration,
    reach: Reach,
    /// It does not share memory with our user.
    turned_away: bool,
}

struct Pending {
    socket: OwnedFd,
    deadline: Time,
    stage: Stage,
}

enum Stage {
    /// Accepted; a hello is to come.
    Hello,
    /// We said hello to that peer; its welcome is to come.
    Welcome { peer: usize, session: u64, control_from: u64 },
    /// We welcomed it; its ready is to come.
    Ready { peer: usize, link: Box<ShmLink>, theirs: u64, control_from: u64 },
}

/// Meets peers.
pub(crate) struct Rendezvous {
    me: Member,
    cluster: String,
    lanes: usize,
    peers: Vec<NodeId>,
    trust: Trust,
    listener: OwnedFd,
    pidfd: OwnedFd,
    attempts: Vec<Attempt>,
    pending: Vec<Pending>,
    sessions: u64,
    /// No peer is looked for.
    #[cfg(feature = "faults")]
    pub(crate) hidden: bool,
}

/// The rest of the node, as far as a rendezvous needs it.
pub(crate) struct Scene<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) bell: &'a Bell,
    pub(crate) control_head: u64,
    pub(crate) standings: &'a [Standing],
}

fn name_of(cluster: &str, node: NodeId) -> String {
    format!("quintet/{cluster}/{}", node.0)
}

impl Rendezvous {
    /// Takes the node's name.
    pub(crate) fn new(config: &Config, now: Time) -> Result<Rendezvous, Error> {
        let trust = Trust::new(config.shm_gid).map_err(Error::Config)?;
        let name = name_of(&config.cluster, config.me.node);
        let listener =
            patiently(|| socket::listen(&name)).map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => Error::AlreadyRunning {
                    cluster: config.cluster.clone(),
                    node: config.me.node,
                    name: format!("@{name}"),
                },
                _ => Error::System { what: "abstract Unix socket", source },
            })?;
        let pidfd = socket::own_pidfd().map_err(Error::system("pidfd_open"))?;
        let peers: Vec<NodeId> = config.peers.iter().map(|p| p.node).collect();
        let attempt = || Attempt {
            next: now,
            backoff: BACKOFF_MIN,
            reach: Reach::Unknown,
            turned_away: false,
        };
        Ok(Rendezvous {
            me: config.me,
            cluster: config.cluster.clone(),
            lanes: config.lanes.len(),
            attempts: peers.iter().map(|_| attempt()).collect(),
            peers,
            trust,
            listener,
            pidfd,
            pending: Vec::new(),
            sessions: 0,
            #[cfg(feature = "faults")]
            hidden: false,
        })
    }

    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Whether shared memory reaches that peer, as far as we know.
    pub(crate) fn reach(&self, peer: usize) -> &Reach {
        &self.attempts[peer].reach
    }

    /// Below this no CONTROL bytes may be reclaimed: somebody was told to read from here.
    pub(crate) fn control_floor(&self) -> u64 {
        let promised = |p: &Pending| match p.stage {
            Stage::Hello => None,
            Stage::Welcome { control_from, .. } | Stage::Ready { control_from, .. } => {
                Some(control_from)
            }
        };
        self.pending.iter().filter_map(promised).min().unwrap_or(u64::MAX)
    }

    /// When to be called again at the latest; handshakes in progress are looked after often, since they
    /// are rare and short.
    pub(crate) fn next_timeout(&self, now: Time, standings: &[Standing]) -> Time {
        let attempts = (0..self.peers.len())
            .filter(|&p| self.initiates(p, standings))
            .map(|p| self.attempts[p].next.max(now));
        let pending = self.pending.iter().map(|_| now + Duration::from_millis(1));
        attempts.chain(pending).min().unwrap_or(Time::MAX)
    }

    /// Whether it is our turn to say hello to that peer.
    fn initiates(&self, peer: usize, standings: &[Standing]) -> bool {
        let s = &standings[peer];
        let greeted = |p: &Pending| matches!(p.stage, Stage::Welcome { peer: q, .. } if q == peer);
        self.peers[peer] < self.me.node
            && s.live.is_none()
            && !s.full
            && !self.pending.iter().any(greeted)
    }

    /// A link to that peer ended: try again soon.
    pub(crate) fn lost(&mut self, peer: usize, now: Time) {
        self.attempts[peer].backoff = BACKOFF_MIN;
        self.attempts[peer].next = now + BACKOFF_MIN;
    }

    /// Tries, accepts, answers.
    pub(crate) fn poll(&mut self, now: Time, scene: &Scene<'_>, out: &mut Vec<Meeting>) {
        for peer in 0..self.peers.len() {
            if now >= self.attempts[peer].next && self.initiates(peer, scene.standings) {
                self.attempt(peer, now, scene);
            }
        }
        for _ in 0..ACCEPTS {
            if self.pending.len() >= HANDSHAKES_MAX {
                break;
            }
            let Ok(socket) = socket::accept(&self.listener) else { break };
            if let Err(why) = self.trust.judge(&socket) {
                tracing::debug!(why, "memory is not shared with a process that");
                // What it has said is taken, or it would not hear the answer.
                let _ = socket::receive(&socket);
                let _ = socket::send(&socket, &Message::Refused(Refusal::User).encode(), &[]);
                continue;
            }
            let deadline = now + PATIENCE;
            self.pending.push(Pending { socket, deadline, stage: Stage::Hello });
        }
        let mut i = 0;
        while i < self.pending.len() {
            let keep = self.advance(i, scene, out) && now < self.pending[i].deadline;
            if keep {
                i += 1;
                continue;
            }
            if let Stage::Welcome { peer, .. } = self.pending[i].stage {
                self.retreat(peer, now);
            }
            self.pending.swap_remove(i);
        }
    }

    fn retreat(&mut self, peer: usize, now: Time) {
        let attempt = &mut self.attempts[peer];
        attempt.next = now + attempt.backoff;
        attempt.backoff = (attempt.backoff * 2).min(BACKOFF_MAX);
    }

    fn attempt(&mut self, peer: usize, now: Time, scene: &Scene<'_>) {
        let name = name_of(&self.cluster, self.peers[peer]);
        #[cfg(feature = "faults")]
        if self.hidden {
            self.attempts[peer].reach = Reach::Absent(format!("nobody looks for @{name}"));
            return self.retreat(peer, now);
        }
        let socket = match socket::connect(&name) {
            Ok(socket) => socket,
            Err(e) => {
                if e.kind() == io::ErrorKind::ConnectionRefused {
                    self.attempts[peer].reach = Reach::Absent(format!(
                        "nobody listens at @{name} in this network namespace"
                    ));
                }
                return self.retreat(peer, now);
            }
        };
        if let Err(why) = self.trust.judge(&socket) {
            self.attempts[peer].reach = Reach::Absent(format!("the process at @{name} {why}"));
            return self.retreat(peer, now);
        }
        if !self.attempts[peer].turned_away {
            self.attempts[peer].reach = Reach::Here;
        }
        let (session, control_from) = (self.next_session(), scene.control_head);
        let hello = Message::Hello(self.greeting(peer, session, control_from));
        scene.segment.open_row(peer, session);
        let fds = [scene.segment.file(), scene.bell.fd(), self.pidfd.as_fd()];
        if socket::send(&socket, &hello.encode(), &fds).is_err() {
            // It may have said why.
            if let Ok(Some(said)) = socket::receive(&socket)
                && Message::decode(said.message()) == Ok(Message::Refused(Refusal::User))
            {
                self.turn_away(peer);
            }
            return self.retreat(peer, now);
        }
        let stage = Stage::Welcome { peer, session, control_from };
        self.pending.push(Pending { socket, deadline: now + PATIENCE, stage });
    }

    /// That peer does not share memory with our user.
    fn turn_away(&mut self, peer: usize) {
        let name = name_of(&self.cluster, self.peers[peer]);
        let attempt = &mut self.attempts[peer];
        attempt.turned_away = true;
        attempt.reach = Reach::Absent(format!(
            "the process at @{name} does not share memory with this user: both nodes must name one group"
        ));
    }

    fn next_session(&mut self) -> u64 {
        self.sessions += 1;
        self.sessions
    }

    fn greeting(&self, peer: usize, session: u64, control_from: u64) -> Greeting {
        Greeting {
            from: self.me,
            to: self.peers[peer],
            row: peer as u16,
            session,
            control_from,
            cluster: self.cluster.clone(),
        }
    }

    /// Takes one handshake as far as it goes. False: it is over.
    fn advance(&mut self, i: usize, scene: &Scene<'_>, out: &mut Vec<Meeting>) -> bool {
        let received = match socket::receive(&self.pending[i].socket) {
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            Ok(None) => return false,
            Ok(Some(received)) => received,
        };
        let message = match Message::decode(received.message()) {
            Ok(message) => message,
            Err(refusal) => return self.refuse(i, refusal),
        };
        let stage = std::mem::replace(&mut self.pending[i].stage, Stage::Hello);
        match (stage, message) {
            (Stage::Hello, Message::Hello(hello)) => self.welcome(i, hello, received.fds, scene),
            (Stage::Welcome { peer, session, control_from }, Message::Welcome(welcome)) => {
                if self.peers[peer] != welcome.from.node {
                    return self.refuse(i, Refusal::Stranger);
                }
                // From here on the attempt counts as made: next time it is a new one.
                self.attempts[peer].backoff = BACKOFF_MIN;
                (self.attempts[peer].turned_away, self.attempts[peer].reach) = (false, Reach::Here);
                match self.judge(&welcome, received.fds, (session, control_from), i, scene) {
                    Err(refusal) => {
                        let now = self.pending[i].deadline.saturating_sub(PATIENCE);
                        self.attempts[peer].next = now + PATIENCE;
                        self.refuse(i, refusal)
                    }
                    Ok((_, link)) => {
                        if socket::send(&self.pending[i].socket, &Message::Ready.encode(), &[])
                            .is_ok()
                        {
                            out.push(Meeting::Up(peer, link, welcome.control_from));
                        }
                        false
                    }
                }
            }
            (Stage::Ready { peer, link, theirs, .. }, Message::Ready) => {
                out.push(Meeting::Up(peer, link, theirs));
                false
            }
            (Stage::Welcome { peer, .. }, Message::Refused(why)) => {
                match why {
                    Refusal::Fenced => out.push(Meeting::Refused(peer)),
                    Refusal::User => self.turn_away(peer),
                    Refusal::Version | Refusal::Stranger | Refusal::Busy => {}
                }
                let now = self.pending[i].deadline.saturating_sub(PATIENCE);
                self.attempts[peer].next = now + PATIENCE;
                false
            }
            (Stage::Ready { peer, .. }, Message::Refused(Refusal::Fenced)) => {
                out.push(Meeting::Refused(peer));
                false
            }
            _ => false,
        }
    }

    fn refuse(&mut self, i: usize, why: Refusal) -> bool {
        let _ = socket::send(&self.pending[i].socket, &Message::Refused(why).encode(), &[]);
        false
    }

    fn welcome(&mut self, i: usize, hello: Greeting, fds: Vec<OwnedFd>, scene: &Scene<'_>) -> bool {
        if hello.from.node <= self.me.node {
            return self.refuse(i, Refusal::Stranger);
        }
        let (session, control_from) = (self.next_session(), scene.control_head);
        let (peer, link) = match self.judge(&hello, fds, (session, control_from), i, scene) {
            Err(refusal) => return self.refuse(i, refusal),
            Ok(both) => both,
        };
        if socket::readable(self.pending[i].socket.as_fd()) {
            return false; // It gave up meanwhile, and may have been welcomed again: its row is not this one's.
        }
        let welcome = Message::Welcome(self.greeting(peer, session, control_from));
        let fds = [scene.segment.file(), scene.bell.fd(), self.pidfd.as_fd()];
        // Before it is spoken of: whoever is welcomed looks at once.
        scene.segment.open_row(peer, session);
        if socket::send(&self.pending[i].socket, &welcome.encode(), &fds).is_err() {
            scene.segment.close_row(peer, session);
            return false;
        }
        self.attempts[peer].reach = Reach::Here;
        let theirs = hello.control_from;
        self.pending[i].stage = Stage::Ready { peer, link, theirs, control_from };
        true
    }

    /// Whether a link to that process may be, and the link.
    fn judge(
        &self,
        it: &Greeting,
        fds: Vec<OwnedFd>,
        (session, promised): (u64, u64),
        i: usize,
        scene: &Scene<'_>,
    ) -> Result<(usize, Box<ShmLink>), Refusal> {
        let peer = self.peers.iter().position(|&n| n == it.from.node).ok_or(Refusal::Stranger)?;
        if it.cluster != self.cluster || it.to != self.me.node {
            return Err(Refusal::Stranger);
        }
        let standing = &scene.standings[peer];
        if it.from.incarnation <= standing.refused {
            return Err(Refusal::Fenced);
        }
        if standing.full || standing.live.is_some_and(|live| it.from.incarnation < live) {
            return Err(Refusal::Busy);
        }
        let [file, bell, pidfd] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| Refusal::Version)?;
        let replica = Replica::map(&file, self.lanes, it.row as usize).map_err(|why| {
            tracing::warn!(peer = %it.from, why, "its shared memory is refused");
            Refusal::Version
        })?;
        if replica.member() != it.from {
            return Err(Refusal::Stranger);
        }
        let socket = self.pending[i].socket.try_clone().map_err(|_| Refusal::Busy)?;
        let bell = Bell::from_fd(bell);
        let terms = Terms { peer, session, their_session: it.session, promised };
        Ok((peer, Box::new(ShmLink::new(replica, socket, bell, pidfd, terms))))
    }
}
