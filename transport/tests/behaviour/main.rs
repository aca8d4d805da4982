//! What a poller promises, asked of every path: shared memory, UDP, and verbs where there are adapters.

#[cfg(feature = "verbs")]
mod adapters;
#[cfg(feature = "verbs")]
mod addresses;
mod deaths;
#[cfg(all(feature = "verbs", feature = "faults"))]
mod detour;
#[cfg(feature = "faults")]
mod faults;
mod footprint;
mod growth;
mod harness;
mod hostile;
mod idle;
mod logs;
mod meeting;
mod overrun;
#[path = "../../../scripts/tidy/skip.rs"]
mod skip;
#[cfg(feature = "verbs")]
mod trouble;
mod users;
mod waiting;
mod words;
