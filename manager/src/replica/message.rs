//! What managers tell each other in the total order, and its bytes.
//!
//! ```text
//! u8 version │ u8 kind │ u64 sender's wall clock, ns │ fields of the kind
//! ```
//!
//! The clock rides along because replicas may not look at their own: the ordered time is the
//! greatest stamp so far ([`super::Replica`]). A message nobody can decode changes nothing, on
//! every replica alike, so a newer manager in the group cannot split the state of older ones.

use crate::codec::{Malformed, Reader, Writer};
use crate::package::Digest;

/// Version of this format.
const VERSION: u8 = 1;
/// Version, kind and clock.
const HEAD: usize = 10;

/// One ordered message; borrows from the delivered bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// An update of an instance.
    Call(Call<'a>),
    /// A client is there, though it calls nothing: its session goes on.
    Renew {
        /// Who.
        client: u128,
    },
    /// A client has said that it is finished: its session ends.
    Finish {
        /// Who.
        client: u128,
    },
    /// A round of the sessions is over: those of clients not heard of for some end.
    Round {
        /// The number of the round that ends; if another ran already, nothing happens.
        round: u64,
    },
    /// A package is offered to everybody.
    Deploy(Deploy<'a>),
    /// A node holds a package and has loaded it, or cannot.
    Loaded {
        /// Which package.
        digest: Digest,
        /// Who says so.
        node: u16,
        /// Why it cannot; empty if it can.
        problem: &'a str,
    },
    /// A component goes, with its instances and their state.
    Undeploy {
        /// Which.
        digest: Digest,
    },
    /// Everybody: hash every instance's state here.
    Audit {
        /// Names this audit.
        token: u64,
    },
    /// The hashes of one node.
    Audited {
        /// Which audit.
        token: u64,
        /// Whose.
        node: u16,
        /// (instance, hash, or why there is none).
        hashes: Vec<(u32, Result<[u8; 32], &'a str>)>,
    },
}

/// An update of an instance, named by (client, seq).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Call<'a> {
    /// Whose call.
    pub client: u128,
    /// Its number.
    pub seq: u64,
    /// The lowest number whose answer the client still wants.
    pub first_incomplete: u64,
    /// Which instance.
    pub instance: u32,
    /// Which method of its class.
    pub method: u32,
    /// The request message.
    pub body: &'a [u8],
}

/// A package and what it brings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deploy<'a> {
    /// sha-256 of the package.
    pub digest: Digest,
    /// The node that has it.
    pub source: u16,
    /// Component name.
    pub name: &'a str,
    /// Component version.
    pub version: &'a str,
    /// Full names of its classes.
    pub classes: Vec<&'a str>,
}

const CALL: u8 = 1;
const RENEW: u8 = 2;
const FINISH: u8 = 3;
const DEPLOY: u8 = 4;
const LOADED: u8 = 5;
const UNDEPLOY: u8 = 6;
const AUDIT: u8 = 7;
const AUDITED: u8 = 8;
const ROUND: u8 = 9;

/// Bytes of an encoded call, so that it can be written in place.
pub fn call_len(body: usize) -> usize {
    HEAD + 16 + 8 + 8 + 4 + 4 + body
}

/// Writes a call into exactly [`call_len`] bytes, without an allocation.
pub fn write_call(out: &mut [u8], time_ns: u64, call: &Call<'_>) {
    let mut at = 0;
    let mut put = |field: &[u8]| {
        out[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(&[VERSION, CALL]);
    put(&time_ns.to_le_bytes());
    put(&call.client.to_le_bytes());
    put(&call.seq.to_le_bytes());
    put(&call.first_incomplete.to_le_bytes());
    put(&call.instance.to_le_bytes());
    put(&call.method.to_le_bytes());
    put(call.body);
    debug_assert_eq!(at, call_len(call.body.len()));
}

impl<'a> Message<'a> {
    /// The message's bytes, stamped with the sender's wall clock.
    pub fn encode(&self, time_ns: u64) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(64));
        let kind = match self {
            Message::Call(call) => {
                let mut out = vec![0; call_len(call.body.len())];
                write_call(&mut out, time_ns, call);
                return out;
            }
            Message::Renew { .. } => RENEW,
            Message::Finish { .. } => FINISH,
            Message::Round { .. } => ROUND,
            Message::Deploy(_) => DEPLOY,
            Message::Loaded { .. } => LOADED,
            Message::Undeploy { .. } => UNDEPLOY,
            Message::Audit { .. } => AUDIT,
            Message::Audited { .. } => AUDITED,
        };
        w.u8(VERSION).u8(kind).u64(time_ns);
        match self {
            Message::Call(_) => unreachable!("returned above"),
            Message::Renew { client } | Message::Finish { client } => w.u128(*client),
            Message::Round { round } => w.u64(*round),
            Message::Deploy(deploy) => {
                w.raw(&deploy.digest.0).u16(deploy.source).text(deploy.name).text(deploy.version);
                w.u32(deploy.classes.len() as u32);
                deploy.classes.iter().fold(&mut w, |w, class| w.text(class))
            }
            Message::Loaded { digest, node, problem } => w.raw(&digest.0).u16(*node).text(problem),
            Message::Undeploy { digest } => w.raw(&digest.0),
            Message::Audit { token } => w.u64(*token),
            Message::Audited { token, node, hashes } => {
                w.u64(*token).u16(*node).u32(hashes.len() as u32);
                for (instance, hash) in hashes {
                    w.u32(*instance);
                    match hash {
                        Ok(hash) => w.u8(1).raw(hash),
                        Err(why) => w.u8(0).text(why),
                    };
                }
                &mut w
            }
        };
        w.0
    }

    /// The message in `bytes`, and its sender's wall clock.
    pub fn decode(bytes: &'a [u8]) -> Result<(Message<'a>, u64), Malformed> {
        let mut r = Reader(bytes);
        if r.u8()? != VERSION {
            return Err(Malformed("message of another version"));
        }
        let kind = r.u8()?;
        let time_ns = r.u64()?;
        let message = match kind {
            CALL => Message::Call(Call {
                client: r.u128()?,
                seq: r.u64()?,
                first_incomplete: r.u64()?,
                instance: r.u32()?,
                method: r.u32()?,
                body: r.rest(),
            }),
            RENEW => Message::Renew { client: r.u128()? },
            FINISH => Message::Finish { client: r.u128()? },
            ROUND => Message::Round { round: r.u64()? },
            DEPLOY => {
                let (digest, source) = (Digest(r.digest()?), r.u16()?);
                let (name, version) = (r.text()?, r.text()?);
                let classes = (0..r.count(4)?).map(|_| r.text()).collect::<Result<_, _>>()?;
                Message::Deploy(Deploy { digest, source, name, version, classes })
            }
            LOADED => {
                Message::Loaded { digest: Digest(r.digest()?), node: r.u16()?, problem: r.text()? }
            }
            UNDEPLOY => Message::Undeploy { digest: Digest(r.digest()?) },
            AUDIT => Message::Audit { token: r.u64()? },
            AUDITED => {
                let (token, node) = (r.u64()?, r.u16()?);
                let mut hashes = Vec::new();
                for _ in 0..r.count(9)? {
                    let instance = r.u32()?;
                    let hash = match r.u8()? {
                        1 => Ok(r.digest()?),
                        0 => Err(r.text()?),
                        _ => return Err(Malformed("neither hash nor reason")),
                    };
                    hashes.push((instance, hash));
                }
                Message::Audited { token, node, hashes }
            }
            _ => return Err(Malformed("message of unknown kind")),
        };
        r.end()?;
        Ok((message, time_ns))
    }
}
