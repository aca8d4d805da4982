//! The replies an instance remembers, which make its updates happen exactly once.
//!
//! The record of a reply is made by the same ordered message as the update, so every replica has
//! both or neither; a repeat of the call, through whatever manager and after whatever failure, finds
//! the record and is answered from it. What has to be remembered is bounded by the client itself:
//! it names the lowest call whose answer it still wants, and everything below is dropped. After
//! that a copy that was long on its way is *late*: it was answered or given up, and is not executed.
//!
//! Birrell and Nelson, "Implementing Remote Procedure Calls" (1984), with the table replicated.

use crate::codec::{Malformed, Reader, Writer};
use crate::limits::REPLIES_PER_CLIENT;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What an update answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// Status code, gRPC's numbers; 0 is good.
    pub code: u8,
    /// The component's words where it is not.
    pub message: String,
    /// Position of the update in the total order.
    pub position: u64,
    /// The reply message; empty unless the code is 0.
    pub body: Bytes,
}

/// The replies remembered for all clients of one instance.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Records {
    clients: BTreeMap<u128, Client>,
    replies: usize,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Client {
    first_incomplete: u64,
    replies: BTreeMap<u64, Reply>,
}

/// What to do with a call.
#[derive(Debug, Eq, PartialEq)]
pub enum Verdict<'a> {
    /// Execute it, and [`Records::insert`] its reply.
    New,
    /// It was executed: this is its reply.
    Repeat(&'a Reply),
    /// Its answer was received or given up long ago: do nothing.
    Late,
    /// The client has more unacknowledged replies than are kept: refuse, without a record.
    Full,
}

impl Records {
    /// Takes note of what the client still wants and says what to do with its call.
    pub fn check(&mut self, client: u128, seq: u64, first_incomplete: u64) -> Verdict<'_> {
        let entry = self.clients.entry(client).or_default();
        if first_incomplete > entry.first_incomplete {
            entry.first_incomplete = first_incomplete;
            let kept = entry.replies.split_off(&first_incomplete);
            self.replies -= entry.replies.len();
            entry.replies = kept;
        }
        if let Some(reply) = entry.replies.get(&seq) {
            return Verdict::Repeat(reply);
        }
        if seq < entry.first_incomplete {
            Verdict::Late
        } else if entry.replies.len() >= REPLIES_PER_CLIENT {
            Verdict::Full
        } else {
            Verdict::New
        }
    }

    /// Remembers the reply of a call that was [`Verdict::New`].
    pub fn insert(&mut self, client: u128, seq: u64, reply: Reply) {
        let entry = self.clients.entry(client).or_default();
        if entry.replies.insert(seq, reply).is_none() {
            self.replies += 1;
        }
    }

    /// The client's session is over.
    pub fn forget(&mut self, client: u128) {
        if let Some(entry) = self.clients.remove(&client) {
            self.replies -= entry.replies.len();
        }
    }

    /// Replies kept, of all clients.
    pub fn len(&self) -> usize {
        self.replies
    }

    /// True if no reply is kept.
    pub fn is_empty(&self) -> bool {
        self.replies == 0
    }

    /// The whole table as bytes; equal tables give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u32(self.clients.len() as u32);
        for (client, entry) in &self.clients {
            w.u128(*client).u64(entry.first_incomplete).u32(entry.replies.len() as u32);
            for (seq, reply) in &entry.replies {
                w.u64(*seq).u8(reply.code).text(&reply.message).u64(reply.position);
                w.bytes(&reply.body);
            }
        }
        w.0
    }

    /// Reads what [`Records::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Records, Malformed> {
        let mut r = Reader(bytes);
        let mut records = Records::default();
        for _ in 0..r.count(28)? {
            let client = r.u128()?;
            let mut entry = Client { first_incomplete: r.u64()?, replies: BTreeMap::new() };
            for _ in 0..r.count(25)? {
                let seq = r.u64()?;
                let code = r.u8()?;
                let message = r.text()?.to_owned();
                let position = r.u64()?;
                let body = Bytes::copy_from_slice(r.bytes()?);
                entry.replies.insert(seq, Reply { code, message, position, body });
            }
            records.replies += entry.replies.len();
            records.clients.insert(client, entry);
        }
        r.end()?;
        Ok(records)
    }
}
