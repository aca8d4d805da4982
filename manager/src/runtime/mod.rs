//! One incarnation of a manager at work: from the ordered messages to state, disk and answers.
//!
//! ```text
//!  engine ──► delivery thread ──► journal (one write per batch) ──► reported as kept
//!                   │
//!                   └─► machine: replica + one executor per instance ──► outbox ──► clients
//! ```
//!
//! The same [`Machine`] is driven by live deliveries, by the journal at a recovery and by a donor's
//! tail at a learner, so these three cannot disagree about what a message means. An incarnation
//! ends when the group goes on without it; then the process begins another from its own disk.

mod audits;
mod cut;
mod delivery;
mod directory;
mod incarnation;
mod loader;
mod machine;
mod outbox;
mod shared;
mod snapshots;
#[cfg(test)]
mod tests;

pub use audits::{AuditRecord, Audits};
pub use cut::Cut;
pub use directory::{Directory, Route};
pub use incarnation::{End, run};
pub use loader::Unavailable;
pub use machine::Machine;
pub use outbox::{Answer, Delivered, Outbox, Slot, Slots, Waiter};
pub use shared::{Counters, Live, SendFailed, Shared, Standing};
