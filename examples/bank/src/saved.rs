//! The bank's state as bytes: little-endian numbers, maps in the order of their keys, so that equal
//! banks give equal bytes.
//!
//! ```text
//! "BANK" version:u32 transfers:u64
//! accounts:u64 (account:u64 balance:u64)*   references:u64 (reference:u64 times:u32)*
//! ```
//! A saved state comes from a disk or a peer. Reading it trusts no length: maps grow as entries
//! arrive, within limits, and what is out of order, incomplete or too long is an error.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};

use crate::{Bank, LEDGER_MAX};

const MAGIC: &[u8; 4] = b"BANK";
const VERSION: u32 = 1;
const ACCOUNTS_MAX: u64 = 100_000_000;
/// What is written at once.
const CHUNK: usize = 64 * 1024;

pub(crate) fn write(bank: &Bank, out: &mut dyn Write) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(CHUNK, out);
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&bank.transfers.to_le_bytes())?;
    out.write_all(&(bank.accounts.len() as u64).to_le_bytes())?;
    for (account, balance) in &bank.accounts {
        out.write_all(&account.to_le_bytes())?;
        out.write_all(&balance.to_le_bytes())?;
    }
    out.write_all(&(bank.ledger.len() as u64).to_le_bytes())?;
    for (reference, times) in &bank.ledger {
        out.write_all(&reference.to_le_bytes())?;
        out.write_all(&times.to_le_bytes())?;
    }
    out.flush()
}

pub(crate) fn read(from: &mut dyn Read) -> io::Result<Bank> {
    let from = &mut io::BufReader::with_capacity(CHUNK, from);
    if &array::<4>(from)? != MAGIC {
        return Err(wrong("these bytes are not a saved bank"));
    }
    let version = u32::from_le_bytes(array(from)?);
    if version != VERSION {
        return Err(wrong(format!(
            "a bank saved in format {version}; this release reads format {VERSION}"
        )));
    }
    let transfers = number(from)?;
    let accounts = map(from, ACCOUNTS_MAX, number)?;
    let ledger = map(from, LEDGER_MAX as u64, |from| Ok(u32::from_le_bytes(array(from)?)))?;
    if accounts.values().try_fold(0u64, |sum, &balance| sum.checked_add(balance)).is_none() {
        return Err(wrong("a saved bank with more money than 64 bits count"));
    }
    if from.read(&mut [0])? != 0 {
        return Err(wrong("a saved bank with bytes behind its end"));
    }
    Ok(Bank { accounts, ledger, transfers })
}

fn map<R: Read, V>(
    from: &mut R,
    most: u64,
    value: impl Fn(&mut R) -> io::Result<V>,
) -> io::Result<BTreeMap<u64, V>> {
    let count = number(from)?;
    if count > most {
        return Err(wrong(format!("a saved bank with {count} entries where {most} are allowed")));
    }
    let mut map = BTreeMap::new();
    for _ in 0..count {
        let key = number(from)?;
        if map.last_key_value().is_some_and(|(&last, _)| key <= last) {
            return Err(wrong(format!("a saved bank whose entries are out of order at {key}")));
        }
        map.insert(key, value(from)?);
    }
    Ok(map)
}

fn number(from: &mut impl Read) -> io::Result<u64> {
    Ok(u64::from_le_bytes(array(from)?))
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => wrong("a saved bank that ends too early"),
        _ => error,
    })?;
    Ok(bytes)
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text.into())
}
