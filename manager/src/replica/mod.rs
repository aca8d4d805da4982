//! The replicated state of the managers: what every node computes alike from the same messages.
//!
//! Pure: messages and views in, [`Effect`]s out. No I/O, no clock, no threads, no randomness, no
//! map whose order differs between two processes. The rest of the daemon carries the effects out;
//! whatever it learns by doing so (a library that does not load) comes back as another ordered
//! message. So replicas that have applied the same prefix are equal, and a snapshot of one is a
//! snapshot of all.
//!
//! The state of the instances themselves is not here: it belongs to the executors, with the reply
//! records ([`Records`]) that make their updates exactly once.

mod catalogue;
mod message;
mod records;
mod sessions;
#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, Entry, Instance, Phase};
pub use message::{Call, Deploy, Message, call_len, write_call};
pub use records::{Records, Reply, Verdict};
pub use sessions::{IDLE_ROUNDS, Sessions};

use crate::codec::{Malformed, Reader, Writer};
use crate::limits::{PACKAGES, SESSIONS};
use crate::package::Digest;
use sessions::Standing;

/// Version of the encoded state.
const VERSION: u8 = 2;

/// The state. See the module's header.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Replica {
    /// The ordered time: the greatest stamp of any message so far. Never goes back.
    time_ns: u64,
    /// First position not applied yet.
    upto: u64,
    /// The view installed last, and its nodes in rank order.
    view: u64,
    members: Vec<u16>,
    sessions: Sessions,
    catalogue: Catalogue,
}

/// What the daemon has to do because of a message or a view.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect<'a> {
    /// Hand the update to its instance.
    Update {
        /// The call.
        call: Call<'a>,
        /// Ordered time of the update.
        time_ns: u64,
    },
    /// The call's session has ended: if its client waits here, this is the answer, the same for
    /// every copy.
    Answer {
        /// Whose call.
        client: u128,
        /// Its number.
        seq: u64,
        /// The answer; nothing was executed now.
        reply: Reply,
    },
    /// This copy of the call is not executed. Nothing remembers that: another copy may be.
    Refuse {
        /// Whose call.
        client: u128,
        /// Its number.
        seq: u64,
        /// Why.
        refusal: Refusal,
    },
    /// Sessions are over: instances forget their replies.
    Forget {
        /// Whose.
        clients: Vec<u128>,
    },
    /// Fetch and load this package, then order a `Loaded`.
    Load {
        /// Which.
        digest: Digest,
        /// Who has it.
        source: u16,
    },
    /// Create these instances.
    Activated {
        /// The package.
        digest: Digest,
        /// (number, class).
        instances: Vec<(u32, String)>,
    },
    /// A deployment came to nothing.
    Rejected {
        /// The package.
        digest: Digest,
        /// Which node could not use it.
        node: u16,
        /// Why.
        problem: String,
    },
    /// Drop these instances.
    Removed {
        /// Its package.
        digest: Digest,
        /// The component.
        name: String,
        /// Their numbers.
        instances: Vec<u32>,
    },
    /// Hash every instance, at this very position.
    Audit {
        /// Names the audit.
        token: u64,
    },
    /// A node's hashes arrived.
    Audited {
        /// Names the audit.
        token: u64,
        /// Whose.
        node: u16,
        /// (instance, hash or reason).
        hashes: Vec<(u32, Result<[u8; 32], String>)>,
    },
    /// Nobody understands this message; it changes nothing anywhere.
    Ignored(Malformed),
    /// Done within the replica.
    Nothing,
}

/// Why a copy of a call is not executed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// There are as many sessions as there may be.
    Sessions,
    /// The client keeps more replies unacknowledged than it may.
    Replies,
    /// The instance was removed.
    Removed,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Sessions => {
                write!(f, "{SESSIONS} clients have a session, the most there may be")
            }
            Refusal::Replies => {
                f.write_str("too many replies wait for this client's acknowledgement")
            }
            Refusal::Removed => f.write_str("the instance was removed"),
        }
    }
}

impl Replica {
    /// Applies the message at position `at`.
    ///
    /// # Panics
    /// Positions must grow: a message applied twice or out of order would split the replicas.
    pub fn apply<'a>(&mut self, at: u64, bytes: &'a [u8]) -> Effect<'a> {
        assert!(at >= self.upto, "position {at} again: everything below {} is applied", self.upto);
        self.upto = at + 1;
        let (message, stamp_ns) = match Message::decode(bytes) {
            Ok(decoded) => decoded,
            Err(malformed) => return Effect::Ignored(malformed),
        };
        self.time_ns = self.time_ns.max(stamp_ns);
        match message {
            Message::Call(call) => self.call(at, call),
            Message::Renew { client } => {
                self.sessions.renew(client);
                Effect::Nothing
            }
            Message::Finish { client } => match self.sessions.end(client) {
                true => Effect::Forget { clients: vec![client] },
                false => Effect::Nothing,
            },
            Message::Round { round } => match self.sessions.turn(round) {
                clients if clients.is_empty() => Effect::Nothing,
                clients => Effect::Forget { clients },
            },
            Message::Deploy(deploy) => self.deploy(deploy),
            Message::Loaded { digest, node, problem } => self.loaded(digest, node, problem),
            Message::Undeploy { digest } => self.undeploy(digest),
            Message::Audit { token } => Effect::Audit { token },
            Message::Audited { token, node, hashes } => Effect::Audited {
                token,
                node,
                hashes: hashes.into_iter().map(|(i, h)| (i, h.map_err(str::to_owned))).collect(),
            },
        }
    }

    /// Applies a view, whose first message will be at or after `at`.
    pub fn install(&mut self, at: u64, view: u64, members: Vec<u16>) -> Vec<Effect<'static>> {
        assert!(at >= self.upto, "view {view} begins at {at}, below {}", self.upto);
        self.upto = at;
        self.view = view;
        self.members = members;
        let offered: Vec<Digest> = self.offered().map(|(digest, _)| *digest).collect();
        offered.into_iter().filter_map(|digest| self.activated(digest)).collect()
    }

    fn call<'a>(&mut self, at: u64, call: Call<'a>) -> Effect<'a> {
        let Call { client, seq, instance, .. } = call;
        match self.sessions.call(client, seq) {
            Standing::Open if self.catalogue.instances.contains_key(&instance) => {
                Effect::Update { call, time_ns: self.time_ns }
            }
            Standing::Open => Effect::Refuse { client, seq, refusal: Refusal::Removed },
            Standing::Full => Effect::Refuse { client, seq, refusal: Refusal::Sessions },
            Standing::Ended => {
                let message = "the outcome is unknown: its client was not heard of for so long that the replies kept for \
                               it are gone; the call was not executed now, and may have been before";
                let (message, body) = (message.to_owned(), bytes::Bytes::new());
                Effect::Answer {
                    client,
                    seq,
                    reply: Reply { code: 2, message, position: at, body },
                }
            }
        }
    }

    fn deploy(&mut self, deploy: Deploy<'_>) -> Effect<'static> {
        let digest = deploy.digest;
        let known = self.catalogue.packages.get(&digest);
        if known.is_some_and(|e| !matches!(e.phase, Phase::Rejected { .. })) {
            return Effect::Nothing;
        }
        let conflict = self
            .catalogue
            .component(deploy.name)
            .or_else(|| deploy.classes.iter().find_map(|class| self.catalogue.class(class)))
            .map(|(_, e)| {
                format!("component {} {} is deployed: undeploy it first", e.name, e.version)
            });
        if self.catalogue.packages.len() >= PACKAGES && known.is_none() {
            // Rejected ones are only kept for people to read.
            self.catalogue.packages.retain(|_, e| !matches!(e.phase, Phase::Rejected { .. }));
        }
        let phase = match conflict {
            Some(problem) => Phase::Rejected { node: deploy.source, problem },
            None if self.catalogue.packages.len() >= PACKAGES => Phase::Rejected {
                node: deploy.source,
                problem: format!("{PACKAGES} packages are deployed, the most there may be"),
            },
            None => Phase::Offered,
        };
        let effect = match &phase {
            Phase::Rejected { node, problem } => {
                Effect::Rejected { digest, node: *node, problem: problem.clone() }
            }
            _ => Effect::Load { digest, source: deploy.source },
        };
        let entry = Entry {
            name: deploy.name.to_owned(),
            version: deploy.version.to_owned(),
            classes: deploy.classes.iter().map(|c| (*c).to_owned()).collect(),
            source: deploy.source,
            ready: Default::default(),
            phase,
        };
        self.catalogue.packages.insert(digest, entry);
        effect
    }

    fn loaded(&mut self, digest: Digest, node: u16, problem: &str) -> Effect<'static> {
        let Some(entry) = self.catalogue.packages.get_mut(&digest) else { return Effect::Nothing };
        if problem.is_empty() {
            entry.ready.insert(node);
            return self.activated(digest).unwrap_or(Effect::Nothing);
        }
        if entry.phase != Phase::Offered {
            return Effect::Nothing;
        }
        entry.phase = Phase::Rejected { node, problem: problem.to_owned() };
        Effect::Rejected { digest, node, problem: problem.to_owned() }
    }

    fn activated(&mut self, digest: Digest) -> Option<Effect<'static>> {
        let created = self.catalogue.activate(digest, &self.members)?;
        let instances =
            created.iter().map(|id| (*id, self.catalogue.instances[id].class.clone())).collect();
        Some(Effect::Activated { digest, instances })
    }

    fn undeploy(&mut self, digest: Digest) -> Effect<'static> {
        let Some(entry) = self.catalogue.packages.remove(&digest) else { return Effect::Nothing };
        let of_it = self.catalogue.instances.iter().filter(|(_, i)| i.digest == digest);
        let instances: Vec<u32> = of_it.map(|(id, _)| *id).collect();
        instances.iter().for_each(|id| drop(self.catalogue.instances.remove(id)));
        Effect::Removed { digest, name: entry.name, instances }
    }

    /// First position not applied yet.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// The ordered time.
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// The view installed last and its nodes in rank order.
    pub fn view(&self) -> (u64, &[u16]) {
        (self.view, &self.members)
    }

    /// What is deployed.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Packages that wait for members to load them.
    pub fn offered(&self) -> impl Iterator<Item = (&Digest, &Entry)> {
        self.catalogue.packages.iter().filter(|(_, e)| e.phase == Phase::Offered)
    }

    /// Who has a session.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The whole state as bytes; equal states give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u8(VERSION).u64(self.time_ns).u64(self.upto).u64(self.view);
        w.u32(self.members.len() as u32);
        for node in &self.members {
            w.u16(*node);
        }
        self.sessions.encode(&mut w);
        self.catalogue.encode(&mut w);
        w.0
    }

    /// Reads what [`Replica::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Replica, Malformed> {
        let mut r = Reader(bytes);
        if r.u8()? != VERSION {
            return Err(Malformed("state of another version"));
        }
        let (time_ns, upto, view) = (r.u64()?, r.u64()?, r.u64()?);
        let members = (0..r.count(2)?).map(|_| r.u16()).collect::<Result<_, _>>()?;
        let sessions = Sessions::decode(&mut r)?;
        let catalogue = Catalogue::decode(&mut r)?;
        r.end()?;
        Ok(Replica { time_ns, upto, view, members, sessions, catalogue })
    }
}
