//! Entropy: bytes that nobody can guess, from the kernel. It is asked once at start, when a refusal can still be told.

use crate::error::Error;

/// The first, at start.
pub(super) fn first<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let failed = |e| Error::System { what: "entropy", source: std::io::Error::other(e) };
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// More of them.
pub(super) fn random<const N: usize>() -> [u8; N] {
    first().expect("the kernel gave entropy at start and does not run out of it")
}
