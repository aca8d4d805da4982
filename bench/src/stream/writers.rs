//! Threads that write into the log of one node, as those of an application do.

use quintet_transport::{LogWriter, ReserveError};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// They write until they are told to end.
pub(super) struct Writers {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u64, ReserveError>>>,
}

impl Writers {
    /// That many, each writing messages of that size as fast as there is room.
    pub(super) fn start(log: &LogWriter, count: u16, size: usize) -> Writers {
        let ended = Arc::new(AtomicBool::new(false));
        let start = |_| {
            let (log, ended) = (log.clone(), ended.clone());
            std::thread::spawn(move || write(&log, size, &ended))
        };
        Writers { threads: (0..count).map(start).collect(), ended }
    }

    /// Ends them. Returns how many messages each has written.
    pub(super) fn end(self) -> Result<Vec<u64>, Box<dyn Error>> {
        self.ended.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for thread in self.threads {
            written.push(thread.join().map_err(|_| "a writing thread failed")??);
        }
        Ok(written)
    }
}

fn write(log: &LogWriter, size: usize, ended: &AtomicBool) -> Result<u64, ReserveError> {
    let payload = vec![7; size];
    let mut written = 0;
    while !ended.load(Ordering::Relaxed) {
        match log.reserve(size) {
            Ok(mut slot) => {
                slot.copy_from_slice(&payload);
                slot.commit();
                written += 1;
            }
            // Whoever makes room may wait for this very core.
            Err(ReserveError::Full) => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
