//! The writer's side: shared memory with cells in it.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format;
use crate::memory::Memory;
use crate::shm::sealed;

// A cell is an atomic word of this machine, and little-endian by the format.
const _: () = assert!(cfg!(target_endian = "little"));

/// Named cells in shared memory. It goes with the last of its cells, and with its process.
pub struct Board {
    memory: Memory,
    file: OwnedFd,
    names: Vec<String>,
    texts: Vec<String>,
    cells_at: usize,
}

impl Board {
    /// Makes a board with these cells, all zero. Its pages are allocated now: no store can fail later.
    ///
    /// # Panics
    /// As [`Board::with_texts`].
    pub fn new(names: Vec<String>) -> io::Result<Arc<Board>> {
        Board::with_texts(names, Vec::new())
    }

    /// The same, and with these texts, all empty.
    ///
    /// # Panics
    /// If there are more than [`CELLS_MAX`](super::CELLS_MAX) names or [`TEXTS_MAX`](super::TEXTS_MAX) texts, or a name is
    /// not plain ASCII of 1 to [`NAME_MAX`](super::NAME_MAX) bytes.
    pub fn with_texts(names: Vec<String>, texts: Vec<String>) -> io::Result<Arc<Board>> {
        let (head, cells_at, len) = format::layout(&names, &texts);
        let (file, memory) = sealed(c"quintet-stats", crate::memory::pages(len))?;
        let (words, rest) = head.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        for (index, word) in words.iter().chain([&last]).enumerate() {
            if index * 8 < cells_at {
                memory.word(index * 8).store(u64::from_le_bytes(*word), Ordering::Relaxed);
            }
        }
        Ok(Arc::new(Board { memory, file, names, texts, cells_at }))
    }

    /// The cell of that name, if there is one.
    pub fn cell(self: &Arc<Board>, name: &str) -> Option<Cell> {
        let index = self.names.iter().position(|known| known == name)?;
        Some(Cell { board: self.clone(), at: self.cells_at + 8 * index })
    }

    /// The text of that name, if there is one.
    pub fn text(self: &Arc<Board>, name: &str) -> Option<Text> {
        let index = self.texts.iter().position(|known| known == name)?;
        let at = self.cells_at + 8 * self.names.len() + format::TEXT_BYTES * index;
        Some(Text { board: self.clone(), at })
    }

    /// The memory as a file: whoever opens `/proc/PID/fd/N` for reading can [`read`](super::read) it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("cells", &self.names.len()).finish_non_exhaustive()
    }
}

/// A short text.
#[derive(Clone)]
pub struct Text {
    board: Arc<Board>,
    at: usize,
}

impl Text {
    /// Sets it; what is too long is cut off. Plain stores, and none if it says that already.
    pub fn set(&self, text: &str) {
        let mut end = text.len().min(format::TEXT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text.as_bytes()[..end];
        for at in (0..format::TEXT_BYTES).step_by(8) {
            let mut word = [0; 8];
            let rest = text.get(at..).unwrap_or_default();
            let len = rest.len().min(8);
            word[..len].copy_from_slice(&rest[..len]);
            let (word, cell) = (u64::from_le_bytes(word), self.board.memory.word(self.at + at));
            if cell.load(Ordering::Relaxed) != word {
                cell.store(word, Ordering::Relaxed);
            }
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").finish_non_exhaustive()
    }
}

/// One cell; a counter like any other to whoever counts.
#[derive(Clone)]
pub struct Cell {
    board: Arc<Board>,
    at: usize,
}

impl Cell {
    /// Sets it. A plain store.
    pub fn set(&self, value: u64) {
        self.store(value, Ordering::Relaxed);
    }
}

impl Deref for Cell {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        self.board.memory.word(self.at)
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("cell.{index}")).collect()
    }

    #[test]
    fn another_reader_sees_each_store() {
        let board = Board::new(names(9)).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), board.fd().as_raw_fd());
        let (first, last) = (board.cell("cell.0").unwrap(), board.cell("cell.8").unwrap());
        assert!(board.cell("cell.9").is_none());
        for round in 1..4 {
            first.fetch_add(1, Ordering::Relaxed);
            last.set(round << 40);
            let bytes = std::fs::read(&path).unwrap();
            let found = super::super::read(&bytes).unwrap().cells;
            assert_eq!(
                (found.len(), found[0], found[8]),
                (9, ("cell.0", round), ("cell.8", round << 40))
            );
        }
        // Nobody else writes it, nor cuts it off.
        let other = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert!(other.set_len(8).is_err());
        assert!(std::io::Write::write(&mut &other, b"x").is_err());
    }

    #[test]
    fn a_text_is_seen_as_far_as_there_is_room() {
        let board = Board::with_texts(names(1), vec!["a".into(), "b".into()]).unwrap();
        let path = format!("/proc/self/fd/{}", board.fd().as_raw_fd());
        let seen = || {
            let bytes = std::fs::read(&path).unwrap();
            let shown = super::super::read(&bytes).unwrap();
            shown.texts.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        let (one, two) = (board.text("a").unwrap(), board.text("b").unwrap());
        one.set("a long reason, and more");
        two.set(&format!("{}\u{e4}", "x".repeat(format::TEXT_BYTES - 1)));
        assert_eq!(seen(), ["a long reason, and more", &"x".repeat(format::TEXT_BYTES - 1)]);
        one.set("short");
        assert_eq!(seen()[0], "short");
        assert_eq!(board.cell("cell.0").unwrap().load(Ordering::Relaxed), 0);
        assert!(board.text("c").is_none());
    }

    #[test]
    fn the_largest_board_fits_and_a_larger_one_is_a_mistake() {
        let longest = (0..format::CELLS_MAX).map(|i| format!("{i:0>64}")).collect();
        let texts = (0..format::TEXTS_MAX).map(|i| format!("{i:0>64}")).collect();
        let board = Board::with_texts(longest, texts).unwrap();
        let bytes = std::fs::read(format!("/proc/self/fd/{}", board.fd().as_raw_fd())).unwrap();
        assert_eq!(super::super::read(&bytes).unwrap().cells.len(), format::CELLS_MAX);
        assert!(bytes.len() <= format::BYTES_MAX);
        assert!(std::panic::catch_unwind(|| Board::new(names(format::CELLS_MAX + 1))).is_err());
    }
}
