//! The bytes of a board: header, names, cells, texts. No file in here.
//!
//! ```text
//!  0  magic "QNTSTATS"
//!  8  version (u32), number of cells (u32)
//! 16  bytes of the names (u32), offset of the cells (u32)
//! 24  number of texts (u32), bytes of each (u32)
//! 32  names, of cells and then of texts: length (u8) and ASCII text, one after the other
//!     cells: u64, beginning at a multiple of 8
//!     texts: UTF-8, filled up with zero bytes
//! ```
//!
//! All little-endian. A reader refuses what it does not know; a later version changes the number.

/// First bytes of a board.
const MAGIC: [u8; 8] = *b"QNTSTATS";
const VERSION: u32 = 2;
const HEADER: usize = 32;

/// Cells of a board at most.
pub const CELLS_MAX: usize = 4096;
/// Bytes of a cell's name at most.
pub const NAME_MAX: usize = 64;
/// Texts of a board at most.
pub const TEXTS_MAX: usize = 256;
/// Bytes of a text.
pub const TEXT_BYTES: usize = 256;
/// Bytes of a board at most, in whole pages: no reader needs to take more.
pub const BYTES_MAX: usize =
    (HEADER + CELLS_MAX * (1 + NAME_MAX + 8) + TEXTS_MAX * (1 + NAME_MAX + TEXT_BYTES) + 8)
        .next_multiple_of(4096);

/// What a board shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown<'a> {
    /// Names and values, in the order of the cells.
    pub cells: Vec<(&'a str, u64)>,
    /// Names and texts, in their order. One that was just being written may be mixed from two.
    pub texts: Vec<(&'a str, String)>,
}

/// Why bytes are no board.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    /// Shorter than its header says, or than a header.
    #[error("it is cut off: {has} bytes where {needs} should be")]
    Short {
        /// Bytes that are there.
        has: usize,
        /// Bytes that should be.
        needs: usize,
    },
    /// Something else.
    #[error("it holds no counters of Quintet")]
    Foreign,
    /// Of a version that this program does not know.
    #[error(
        "it is of version {0}, and this program knows version {VERSION}: use the tools of the daemon's release"
    )]
    Version(u32),
    /// Numbers that do not fit together.
    #[error("its header contradicts itself")]
    Header,
    /// A name that is none.
    #[error("the name of cell {0} is damaged")]
    Name(usize),
}

/// Header and names of a board with these cells and texts; the offset of the first cell; the length of it all.
///
/// # Panics
/// If there are too many names, or one is not plain ASCII of 1 to [`NAME_MAX`] bytes.
pub(super) fn layout(names: &[String], texts: &[String]) -> (Vec<u8>, usize, usize) {
    assert!(names.len() <= CELLS_MAX, "{} cells", names.len());
    assert!(texts.len() <= TEXTS_MAX, "{} texts", texts.len());
    let all = || names.iter().chain(texts);
    let text: usize = all().map(|name| 1 + name.len()).sum();
    let cells_at = (HEADER + text).next_multiple_of(8);
    let mut bytes = Vec::with_capacity(cells_at);
    bytes.extend(MAGIC);
    let (cells, of_texts) = (names.len() as u32, [texts.len() as u32, TEXT_BYTES as u32]);
    for number in [VERSION, cells, text as u32, cells_at as u32].into_iter().chain(of_texts) {
        bytes.extend(number.to_le_bytes());
    }
    for name in all() {
        assert!(is_name(name.as_bytes()), "{name:?} is no name of a cell");
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
    }
    (bytes, cells_at, cells_at + 8 * names.len() + TEXT_BYTES * texts.len())
}

fn is_name(name: &[u8]) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic)
}

/// What the board of these bytes shows. What follows the last text is not looked at.
pub fn read(bytes: &[u8]) -> Result<Shown<'_>, Damage> {
    let has = bytes.len();
    if bytes.get(..MAGIC.len()).is_some_and(|magic| magic != MAGIC) {
        return Err(Damage::Foreign);
    }
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let short = |needs| Damage::Short { has, needs };
    let version = number(8).ok_or(short(HEADER))?;
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    let [Some(count), Some(text), Some(cells_at), Some(texts), Some(text_bytes)] =
        [12, 16, 20, 24, 28].map(|at| number(at).map(|number| number as usize))
    else {
        return Err(short(HEADER));
    };
    // Bounds first, so that no sum below can be large.
    if count > CELLS_MAX
        || texts > TEXTS_MAX
        || text_bytes != TEXT_BYTES
        || text > (count + texts) * (1 + NAME_MAX)
        || cells_at != (HEADER + text).next_multiple_of(8)
    {
        return Err(Damage::Header);
    }
    let texts_at = cells_at + 8 * count;
    let needs = texts_at + TEXT_BYTES * texts;
    if has < needs {
        return Err(short(needs));
    }
    let mut names = &bytes[HEADER..HEADER + text];
    let mut next_name = |index: usize| {
        let name =
            names.split_first().and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)));
        let (name, rest) = name.filter(|(name, _)| is_name(name)).ok_or(Damage::Name(index))?;
        names = rest;
        std::str::from_utf8(name).map_err(|_| Damage::Name(index))
    };
    let mut shown = Shown { cells: Vec::with_capacity(count), texts: Vec::with_capacity(texts) };
    for (index, cell) in bytes[cells_at..texts_at].as_chunks::<8>().0.iter().enumerate() {
        shown.cells.push((next_name(index)?, u64::from_le_bytes(*cell)));
    }
    for (index, text) in bytes[texts_at..needs].as_chunks::<TEXT_BYTES>().0.iter().enumerate() {
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(TEXT_BYTES);
        let text = String::from_utf8_lossy(&text[..end]);
        // It goes to terminals.
        let text =
            text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
        shown.texts.push((next_name(count + index)?, text.collect()));
    }
    if names.is_empty() { Ok(shown) } else { Err(Damage::Header) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn board(cells: &[(String, u64)]) -> Vec<u8> {
        let names: Vec<String> = cells.iter().map(|(name, _)| name.clone()).collect();
        let (mut bytes, cells_at, len) = layout(&names, &["why".into()]);
        bytes.resize(cells_at, 0);
        bytes.extend(cells.iter().flat_map(|(_, value)| value.to_le_bytes()));
        let mut text = "so \u{e4}\n".as_bytes().to_vec();
        text.resize(TEXT_BYTES, 0);
        bytes.extend(text);
        assert_eq!(bytes.len(), len);
        bytes
    }

    #[test]
    fn these_are_the_bytes() {
        let bytes = board(&[("a".into(), 1), ("bc.d".into(), 0x0102_0304_0506_0708)]);
        let mut expected = b"QNTSTATS\x02\0\0\0\x02\0\0\0\x0b\0\0\0\x30\0\0\0".to_vec();
        expected.extend(b"\x01\0\0\0\0\x01\0\0\x01a\x04bc.d\x03why\0\0\0\0\0");
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        expected.extend(b"so \xc3\xa4\n");
        expected.resize(0x30 + 16 + 256, 0);
        assert_eq!(bytes, expected);
        let shown = read(&bytes).unwrap();
        assert_eq!(shown.cells, [("a", 1), ("bc.d", 0x0102_0304_0506_0708)]);
        assert_eq!(shown.texts, [("why", "so \u{e4}\u{fffd}".to_owned())]);
    }

    #[test]
    fn each_damage_is_named() {
        let good = board(&[("a".into(), 1)]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            read(&bytes).map(|_| ())
        };
        assert_eq!(read(b"\x7fELF and more of it"), Err(Damage::Foreign));
        assert_eq!(read(b"QNT"), Err(Damage::Short { has: 3, needs: 32 }));
        let needs = good.len();
        assert_eq!(read(&good[..needs - 1]), Err(Damage::Short { has: needs - 1, needs }));
        assert_eq!(with(8, 1), Err(Damage::Version(1)));
        assert_eq!(with(13, 0xff), Err(Damage::Header));
        assert_eq!(with(20, 24), Err(Damage::Header));
        assert_eq!(with(25, 2), Err(Damage::Header));
        assert_eq!(with(28, 1), Err(Damage::Header));
        assert_eq!(with(32, 9), Err(Damage::Name(0)));
        assert_eq!(with(33, 0xc3), Err(Damage::Name(0)));
        assert_eq!(with(34, 9), Err(Damage::Name(1)));
        assert!(Damage::Version(1).to_string().contains("knows version 2"));
    }

    fn cells() -> impl Strategy<Value = Vec<(String, u64)>> {
        proptest::collection::vec(("[a-z][a-z0-9._]{0,63}", any::<u64>()), 0..40)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(cells in cells()) {
            let bytes = board(&cells);
            let found = read(&bytes).unwrap();
            prop_assert!(found.cells.iter().map(|(name, value)| ((*name).to_owned(), *value)).eq(cells));
        }

        #[test]
        fn whatever_is_cut_off_is_an_error(cells in cells(), cut in 1usize..5000) {
            let bytes = board(&cells);
            let kept = bytes.len().saturating_sub(cut);
            prop_assert!(read(&bytes[..kept]).is_err());
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn a_damaged_board_is_read_or_refused(
            cells in cells(),
            damage in proptest::collection::vec((8usize..3000, any::<u8>()), 1..6),
        ) {
            let mut bytes = board(&cells);
            let len = bytes.len();
            damage.into_iter().for_each(|(at, byte)| bytes[8 + at % (len - 8)] = byte);
            if let Ok(found) = read(&bytes) {
                prop_assert!(found.cells.len() <= CELLS_MAX);
            }
        }
    }
}
