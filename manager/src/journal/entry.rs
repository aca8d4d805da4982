//! One entry of the journal, and its bytes.
//!
//! ```text
//! u32 length of the body │ u32 crc-32 of length and body │ body: u8 kind │ u64 position │ fields
//! ```
//!
//! The sum covers the length too, so that neither zeroes (a hole a crash left) nor a length from
//! another entry pass for an entry. The same bytes travel in a state transfer's tail.

use crate::codec::{Malformed, Reader};

/// Length and sum in front of a body.
pub(crate) const HEAD: usize = 8;
/// No entry is longer: a longer length is damage, not an entry.
pub(crate) const BODY_MAX: usize = (4 << 20) + 64;

const MESSAGE: u8 = 1;
const VIEW: u8 = 2;

/// What was delivered, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry<'a> {
    /// A message.
    Message {
        /// Its position.
        at: u64,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// A view; the position is the first that its messages may have.
    View {
        /// Where it begins.
        at: u64,
        /// Its number.
        view: u64,
        /// Its nodes in rank order.
        members: Vec<u16>,
    },
}

impl<'a> Entry<'a> {
    /// First position after this entry.
    pub fn upto(&self) -> u64 {
        match self {
            Entry::Message { at, .. } => at + 1,
            Entry::View { at, .. } => *at,
        }
    }

    /// Appends the entry's bytes, without an allocation beyond `out`'s growth.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        match self {
            Entry::Message { at, bytes } => {
                out.push(MESSAGE);
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Entry::View { at, view, members } => {
                out.push(VIEW);
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(&view.to_le_bytes());
                for node in members {
                    out.extend_from_slice(&node.to_le_bytes());
                }
            }
        }
        let length = (out.len() - start - HEAD) as u32;
        let sum = checksum(length, &out[start + HEAD..]);
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + HEAD].copy_from_slice(&sum.to_le_bytes());
    }

    /// The entry at the beginning of `bytes` and its length; `None` if it is not whole.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Entry<'a>, usize)>, Malformed> {
        let mut r = Reader(bytes);
        let (Ok(length), Ok(sum)) = (r.u32(), r.u32()) else { return Ok(None) };
        if length == 0 || length as usize > BODY_MAX {
            return Err(Malformed("an entry cannot have this length"));
        }
        let Ok(body) = r.raw(length as usize) else { return Ok(None) };
        if checksum(length, body) != sum {
            return Err(Malformed("an entry's checksum is wrong"));
        }
        let mut r = Reader(body);
        let kind = r.u8()?;
        let at = r.u64()?;
        let entry = match kind {
            MESSAGE => Entry::Message { at, bytes: r.rest() },
            VIEW => {
                let view = r.u64()?;
                let (nodes, []) = r.rest().as_chunks::<2>() else {
                    return Err(Malformed("half a node id"));
                };
                let members = nodes.iter().map(|node| u16::from_le_bytes(*node)).collect();
                Entry::View { at, view, members }
            }
            _ => return Err(Malformed("an entry of unknown kind")),
        };
        Ok(Some((entry, HEAD + length as usize)))
    }
}

fn checksum(length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}
