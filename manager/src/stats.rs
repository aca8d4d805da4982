//! The daemon's counters where others can read them, also when it is stopped or stuck.
//!
//! They are on a board in memory (`quintet_transport::stats` says why not on disk); the link `stats` in the data
//! directory leads to it: `/proc/PID/fd/N`. Who may read it is decided by the kernel: the daemon's user, and root. It is
//! gone with the process; what is left of the link after a kill leads nowhere, or to a file of somebody else, which is
//! no board.

use crate::config::Config;
use quintet_transport::stats::{BYTES_MAX, Board, Cell, Damage};
use quintet_vsync::{NodeId, stat_names, stat_texts};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Its name in the data directory.
pub const FILE: &str = "stats";
/// What the manager itself counts, in the order of the cells.
const NAMES: [&str; 13] = [
    "process.pid",
    "process.node",
    "process.started_ns",
    "manager.calls",
    "manager.updates",
    "manager.reads",
    "manager.refused",
    "manager.malformed_frames",
    "manager.messages",
    "manager.snapshots",
    "manager.transfers_received",
    "manager.position",
    "manager.journal_bytes",
];

/// A board for the daemon of that configuration, with what does not change.
pub fn board(config: &Config, started_ns: u64) -> io::Result<Arc<Board>> {
    let peers = config.nodes.iter().map(|node| NodeId(node.id)).filter(|id| id.0 != config.node);
    let own = NAMES.iter().map(|name| (*name).to_owned());
    let texts = stat_texts(peers.clone());
    let board = Board::with_texts(own.chain(stat_names(peers)).collect(), texts)?;
    cell(&board, "process.pid").set(u64::from(std::process::id()));
    cell(&board, "process.node").set(u64::from(config.node));
    cell(&board, "process.started_ns").set(started_ns);
    Ok(board)
}

/// One of the manager's own cells.
///
/// # Panics
/// If there is none of that name.
pub fn cell(board: &Arc<Board>, name: &str) -> Cell {
    board.cell(name).expect("a board of this manager has the cells of NAMES")
}

/// The link to a board; gone when dropped.
#[derive(Debug)]
pub struct Published {
    link: PathBuf,
    leads_to: PathBuf,
}

impl Published {
    /// Puts the link into the data directory, in the place of an earlier one.
    pub fn new(board: &Board, data_dir: &Path) -> io::Result<Published> {
        let leads_to =
            PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), board.fd().as_raw_fd()));
        let (link, new) = (data_dir.join(FILE), data_dir.join("stats.new"));
        let _ = fs::remove_file(&new);
        std::os::unix::fs::symlink(&leads_to, &new)?;
        fs::rename(&new, &link)?;
        Ok(Published { link, leads_to })
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if fs::read_link(&self.link).is_ok_and(|there| there == self.leads_to) {
            let _ = fs::remove_file(&self.link);
        }
    }
}

/// Why there are no counters to be read. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// No daemon runs there.
    #[error("no daemon runs with the data directory {}: its counters are in its memory, and end with it", .0.display())]
    NoDaemon(PathBuf),
    /// The kernel refuses.
    #[error("{} cannot be read ({source}): be root, or the user that quintetd runs as", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is there is no board.
    #[error("{}: {damage}; has its daemon ended, and the link leads elsewhere by now?", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        damage: Damage,
    },
}

/// What a daemon shows: figures, and what is said in words.
#[derive(Debug)]
pub struct Found {
    /// In their order.
    pub cells: Vec<(String, u64)>,
    /// In theirs.
    pub texts: Vec<(String, String)>,
}

/// The counters of the daemon with that data directory.
pub fn read(data_dir: &Path) -> Result<Found, Unreadable> {
    let path = data_dir.join(FILE);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Unreadable::NoDaemon(data_dir.to_owned()),
        _ => Unreadable::Refused { path: path.clone(), source },
    };
    // What a link leads to by now may be anything: it must not be waited for, nor read for ever.
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(&path).map_err(failed)?;
    let damaged = |damage| Unreadable::Damaged { path: path.clone(), damage };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(damaged(Damage::Foreign));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX as u64).read_to_end(&mut bytes).map_err(failed)?;
    let shown = quintet_transport::stats::read(&bytes).map_err(damaged)?;
    Ok(Found {
        cells: shown.cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        texts: shown.texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_leads_to_the_counters_and_goes_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let missing = read(dir.path()).unwrap_err();
        assert!(matches!(missing, Unreadable::NoDaemon(_)), "{missing}");
        let board = Board::new(vec!["a".into(), "b".into()]).unwrap();
        std::os::unix::fs::symlink("/proc/1/fd/999999", dir.path().join(FILE)).unwrap();
        assert!(read(dir.path()).is_err(), "left over by a daemon that was killed");
        let published = Published::new(&board, dir.path()).unwrap();
        board.cell("b").unwrap().set(5);
        assert_eq!(read(dir.path()).unwrap().cells, [("a".to_owned(), 0), ("b".to_owned(), 5)]);
        drop(published);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_later_link_is_not_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["a", "b"].map(|name| Board::new(vec![name.into()]).unwrap());
        let first = Published::new(&one, dir.path()).unwrap();
        let _second = Published::new(&two, dir.path()).unwrap();
        drop(first);
        assert_eq!(read(dir.path()).unwrap().cells, [("b".to_owned(), 0)]);
    }

    #[test]
    fn what_is_no_board_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for bytes in [&b""[..], b"QNTSTATS\x01\0", b"something else entirely, and long enough"] {
            fs::write(&path, bytes).unwrap();
            let said = read(dir.path()).unwrap_err();
            assert!(matches!(said, Unreadable::Damaged { .. }), "{said}");
            assert!(said.to_string().contains("leads elsewhere"), "{said}");
        }
        fs::remove_file(&path).unwrap();
        for foreign in ["/dev/zero", "/tmp"] {
            std::os::unix::fs::symlink(foreign, &path).unwrap();
            assert!(matches!(
                read(dir.path()),
                Err(Unreadable::Damaged { damage: Damage::Foreign, .. })
            ));
            fs::remove_file(&path).unwrap();
        }
    }
}
