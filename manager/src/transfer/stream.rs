//! The stream of parts a state is made of, and its bytes.
//!
//! ```text
//! u8 kind │ u64 length of the body │ u32 crc-32 of kind, length and body │ body
//! ```

use crate::codec::{Malformed, Reader, Writer};
use crate::executor::Saved;
use crate::journal::Entry;
use std::io::{self, Write};

const HEAD: usize = 13;
/// No part is longer: a longer length is damage.
const BODY_MAX: u64 = 16 << 30;

const REPLICA: u8 = 1;
const INSTANCE: u8 = 2;
const END: u8 = 3;
const TAIL: u8 = 4;

/// One part of a state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// The replica, encoded; always first.
    Replica(Vec<u8>),
    /// One instance.
    Instance(Saved),
    /// The snapshot is whole.
    End,
    /// What was delivered after the cut: one journal entry, encoded.
    Tail(Vec<u8>),
}

/// Writes a replica.
pub fn write_replica(out: &mut dyn Write, encoded: &[u8]) -> io::Result<()> {
    write_part(out, REPLICA, &[encoded])
}

/// Writes an instance.
pub fn write_instance(out: &mut dyn Write, saved: &Saved) -> io::Result<()> {
    let mut head = Writer::default();
    head.u32(saved.id).u64(saved.position).u64(saved.time_ns).text(&saved.failure);
    head.u64(saved.records.len() as u64);
    write_part(out, INSTANCE, &[&head.0, &saved.records, &saved.state])
}

/// Writes the end mark.
pub fn write_end(out: &mut dyn Write) -> io::Result<()> {
    write_part(out, END, &[])
}

/// Writes an encoded journal entry of the tail.
pub fn write_tail(out: &mut dyn Write, entry: &[u8]) -> io::Result<()> {
    write_part(out, TAIL, &[entry])
}

fn write_part(out: &mut dyn Write, kind: u8, body: &[&[u8]]) -> io::Result<()> {
    let length: u64 = body.iter().map(|piece| piece.len() as u64).sum();
    let mut head = [0; HEAD];
    head[0] = kind;
    head[1..9].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(&head[..9], body.iter().copied());
    head[9..].copy_from_slice(&sum.to_le_bytes());
    out.write_all(&head)?;
    body.iter().try_for_each(|piece| out.write_all(piece))
}

fn checksum<'a>(head: &[u8], body: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    body.for_each(|piece| hasher.update(piece));
    hasher.finalize()
}

/// Takes the bytes of a stream in pieces of any size and gives its parts.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    used: usize,
}

impl Parser {
    /// More bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that are not a whole part yet.
    pub fn rest(&self) -> usize {
        self.buffer.len() - self.used
    }

    /// The next whole part, if there is one.
    pub fn part(&mut self) -> Result<Option<Part>, Malformed> {
        let bytes = &self.buffer[self.used..];
        let Some((head, body)) = bytes.split_at_checked(HEAD) else { return Ok(None) };
        let mut r = Reader(head);
        let (kind, length, sum) = (r.u8()?, r.u64()?, r.u32()?);
        if length > BODY_MAX || !(REPLICA..=TAIL).contains(&kind) {
            return Err(Malformed("no part of a state begins like this"));
        }
        let Some(body) = body.get(..length as usize) else { return Ok(None) };
        if checksum(&head[..9], std::iter::once(body)) != sum {
            return Err(Malformed("a part's checksum is wrong"));
        }
        let part = match kind {
            REPLICA => Part::Replica(body.to_vec()),
            INSTANCE => Part::Instance(instance(body)?),
            TAIL => {
                Entry::decode(body)?.ok_or(Malformed("half an entry"))?;
                Part::Tail(body.to_vec())
            }
            _ => Part::End,
        };
        self.used += HEAD + length as usize;
        Ok(Some(part))
    }
}

fn instance(body: &[u8]) -> Result<Saved, Malformed> {
    let mut r = Reader(body);
    let (id, position, time_ns) = (r.u32()?, r.u64()?, r.u64()?);
    let failure = r.text()?.to_owned();
    let records = r.u64()?;
    let records = usize::try_from(records).map_err(|_| Malformed("absurd length"))?;
    let records = r.raw(records)?.to_vec();
    Ok(Saved { id, position, time_ns, failure, records, state: r.rest().to_vec() })
}

/// A whole snapshot, read.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The replica, encoded.
    pub replica: Vec<u8>,
    /// The instances.
    pub instances: Vec<Saved>,
}

/// Reads a snapshot file.
pub fn read_snapshot(bytes: &[u8]) -> Result<Snapshot, Malformed> {
    let mut parser = Parser::default();
    parser.push(bytes);
    let mut snapshot = Snapshot::default();
    let mut first = true;
    loop {
        match parser.part()?.ok_or(Malformed("the snapshot is cut short"))? {
            Part::Replica(encoded) if first => snapshot.replica = encoded,
            Part::Instance(saved) if !first => snapshot.instances.push(saved),
            Part::End if !first && parser.rest() == 0 => return Ok(snapshot),
            _ => return Err(Malformed("parts of a snapshot in a wrong order")),
        }
        first = false;
    }
}
