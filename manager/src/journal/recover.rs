//! Reading the data directory back after a stop or a crash.

use super::{Entry, Error, MAGIC, failed, sync_dir};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// The files of a data directory, in order of their positions.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) snapshots: Vec<(u64, PathBuf)>,
    pub(super) segments: Vec<(u64, PathBuf)>,
}

/// What was found, and where the journal goes on.
#[derive(Debug)]
pub struct Recovered {
    /// Position of the snapshot that was loaded; 0 without one.
    pub snapshot: u64,
    /// First position that is not recovered.
    pub upto: u64,
    /// Entries replayed.
    pub entries: u64,
    /// The segment to append to.
    pub(super) segment: Option<PathBuf>,
    /// What was cut or set aside, in words for people.
    pub repairs: Vec<String>,
}

/// Loads the latest usable snapshot and replays the journal behind it.
///
/// `load` is given a snapshot's bytes and position; if it refuses them (`Err` says why), the file is
/// set aside and the one before is tried. `replay` is given every later entry, in order. A segment
/// is cut at its first damaged entry, and segments behind the cut are set aside.
pub fn recover<S>(
    dir: &Path,
    state: &mut S,
    mut load: impl FnMut(&mut S, &[u8], u64) -> Result<(), String>,
    mut replay: impl FnMut(&mut S, Entry<'_>),
) -> Result<Recovered, Error> {
    let found = files(dir)?;
    let mut repairs = Vec::new();
    let mut snapshot = 0;
    for (position, path) in found.snapshots.iter().rev() {
        let bytes = std::fs::read(path).map_err(failed(path, "read"))?;
        match load(state, &bytes, *position) {
            Ok(()) => {
                snapshot = *position;
                break;
            }
            Err(why) => {
                set_aside(path)?;
                repairs.push(format!("{}: not usable ({why}); set aside", path.display()));
            }
        }
    }
    let mut recovered = Recovered { snapshot, upto: snapshot, entries: 0, segment: None, repairs };
    // Segments from the last one that begins at or before the snapshot; without one, there is a gap.
    let first = found.segments.iter().rposition(|(begin, _)| *begin <= snapshot);
    let mut joined = first.is_some();
    for (begin, path) in &found.segments[first.unwrap_or(0)..] {
        joined &= recovered.segment.is_none() || *begin == recovered.upto;
        if joined {
            joined = segment(path, state, &mut replay, &mut recovered)?;
        } else {
            set_aside(path)?;
            let what = format!("{}: entries before it are missing; set aside", path.display());
            recovered.repairs.push(what);
        }
    }
    Ok(recovered)
}

/// Replays one segment and cuts it where it is damaged; false if what follows cannot be joined to it.
fn segment<S>(
    path: &Path,
    state: &mut S,
    replay: &mut impl FnMut(&mut S, Entry<'_>),
    recovered: &mut Recovered,
) -> Result<bool, Error> {
    let bytes = std::fs::read(path).map_err(failed(path, "read"))?;
    let mut at = MAGIC.len() + 8;
    let mut problem = None;
    if bytes.len() < at || bytes[..8] != MAGIC[..] {
        set_aside(path)?;
        let what =
            format!("{}: not a journal segment, {} bytes dropped", path.display(), bytes.len());
        recovered.repairs.push(what);
        return Ok(false);
    }
    while at < bytes.len() {
        match Entry::decode(&bytes[at..]) {
            Ok(Some((entry, length))) => {
                let (Entry::Message { at: position, .. } | Entry::View { at: position, .. }) =
                    &entry;
                let old = entry.upto() <= recovered.snapshot;
                if !old && *position < recovered.upto {
                    problem = Some("an entry is out of order");
                    break;
                }
                if !old {
                    recovered.upto = entry.upto();
                    recovered.entries += 1;
                    replay(state, entry);
                }
                at += length;
            }
            Ok(None) => {
                problem = Some("the last entry is torn");
                break;
            }
            Err(malformed) => {
                problem = Some(malformed.0);
                break;
            }
        }
    }
    let whole = problem.is_none();
    if let Some(problem) = problem {
        let lost = bytes.len() - at;
        let file = OpenOptions::new().write(true).open(path).map_err(failed(path, "open"))?;
        file.set_len(at as u64).map_err(failed(path, "cut"))?;
        file.sync_all().map_err(failed(path, "sync"))?;
        let what = format!("{}: {problem} at byte {at}; {lost} bytes dropped", path.display());
        recovered.repairs.push(what);
    }
    recovered.segment = Some(path.to_owned());
    Ok(whole)
}

/// Keeps a file for a person to look at, out of the way.
fn set_aside(path: &Path) -> Result<(), Error> {
    let aside = path.with_extension("damaged");
    std::fs::rename(path, &aside).map_err(failed(path, "set aside"))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

pub(super) fn files(dir: &Path) -> Result<Files, Error> {
    let mut files = Files::default();
    for file in std::fs::read_dir(dir).map_err(failed(dir, "read"))? {
        let path = file.map_err(failed(dir, "read"))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let number =
            |prefix, suffix| name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u64>().ok();
        if let Some(position) = number("journal-", ".log") {
            files.segments.push((position, path));
        } else if let Some(position) = number("snapshot-", ".state") {
            files.snapshots.push((position, path));
        }
    }
    files.segments.sort();
    files.snapshots.sort();
    Ok(files)
}
