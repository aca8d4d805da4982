//! Where a node's state lies, and how a received one takes the place of its own.
//!
//! ```text
//! data_dir/state      what the node has: snapshots and segments
//! data_dir/received   the group's state while it arrives
//! data_dir/replaced   what the node had, for an instant
//! ```
//!
//! A learner may be killed at any time, its donor too. So what it receives is worth nothing until the
//! node is a member with it; until then its own state stays as it is, and is what it has if it begins
//! again. Then two renames put the one in the place of the other, the first being the decision, and
//! a start finishes what a crash left half done.

use super::{Error, failed, sync_dir};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const STATE: &str = "state";
const RECEIVED: &str = "received";
const REPLACED: &str = "replaced";

/// One step of the replacement.
type Step = fn(&Path) -> Result<(), Error>;

/// The steps of the replacement. The process may die between any two.
pub(super) const STEPS: [Step; 3] = [
    |data_dir| rename(data_dir, STATE, REPLACED),
    |data_dir| rename(data_dir, RECEIVED, STATE),
    |data_dir| remove(data_dir, REPLACED),
];

/// Puts the directory in order after whatever happened; gives where the state lies.
pub fn settle(data_dir: &Path) -> Result<PathBuf, Error> {
    let is_there = |name| data_dir.join(name).exists();
    if is_there(REPLACED) && !is_there(STATE) {
        // The decision was made. What was received is there, for only its rename is missing.
        rename(data_dir, RECEIVED, STATE)?;
    }
    remove(data_dir, REPLACED)?;
    remove(data_dir, RECEIVED)?;
    let state = data_dir.join(STATE);
    fs::create_dir_all(&state).map_err(failed(&state, "create"))?;
    sync_dir(data_dir)?;
    for file in fs::read_dir(&state).map_err(failed(&state, "read"))? {
        let path = file.map_err(failed(&state, "read"))?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"unfinished-"))
        {
            fs::remove_file(&path).map_err(failed(&path, "delete"))?;
        }
    }
    Ok(state)
}

/// An empty directory for a state that will be received.
pub fn receive(data_dir: &Path) -> Result<PathBuf, Error> {
    remove(data_dir, RECEIVED)?;
    let received = data_dir.join(RECEIVED);
    fs::create_dir(&received).map_err(failed(&received, "create"))?;
    Ok(received)
}

/// The received state becomes the node's own; gives where it lies now.
pub(super) fn adopt(data_dir: &Path) -> Result<PathBuf, Error> {
    STEPS.iter().try_for_each(|step| step(data_dir))?;
    Ok(data_dir.join(STATE))
}

fn rename(data_dir: &Path, from: &str, to: &str) -> Result<(), Error> {
    let from = data_dir.join(from);
    fs::rename(&from, data_dir.join(to)).map_err(failed(&from, "rename"))?;
    sync_dir(data_dir)
}

fn remove(data_dir: &Path, name: &str) -> Result<(), Error> {
    let path = data_dir.join(name);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(&path, "delete")(error))
        }
        _ => Ok(()),
    }
}
