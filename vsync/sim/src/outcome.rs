//! What became of own messages, as the engine tells its application: at each view and at the end.
//!
//! The answers are the core's, put together as the engine does it; `check/outcome` holds them against what was seen.

use quintet_vsync::core::{Durable, Why};

use crate::check::outcome::LastReport;
use crate::check::words::DELIVERED;
use crate::env::Env;
use crate::process::{Process, Upcall};

impl Process {
    /// What the engine says of own messages when it ends: those whole in the queue are delivered, a state that was
    /// never completed hides its own, the core tells of the published ones, and the rest was not published.
    pub(crate) fn report(&mut self, env: &mut Env) {
        let mut behind_gate = Vec::new();
        for upcall in std::mem::take(&mut self.queue) {
            let Upcall::Message { position, message, sender, .. } = upcall else { continue };
            if sender != self.me {
                continue;
            }
            if self.loading.is_some() {
                behind_gate.push(message);
            } else {
                let verdict = env.checks.outcome.tell(self.boot, self.me, message, position);
                env.checks.note(verdict);
            }
        }
        let mut report = LastReport { saw_the_end: self.saw_the_end(env), ..LastReport::default() };
        report.indeterminate = behind_gate;
        if self.core.departed_at_trim() {
            report.not_delivered = self.undelivered();
        } else {
            report.indeterminate.extend(self.undelivered());
        }
        report.not_delivered.extend(self.committed.iter().map(|c| c.0));
        let verdict = env.checks.outcome.end(self.boot, self.me, &report);
        env.checks.note(verdict);
    }

    /// By its disk and its own row: it left with the very next view, and had delivered all there was before.
    fn saw_the_end(&self, env: &Env) -> bool {
        let disk = &env.seats[usize::from(self.me.node.0) - 1].disk;
        disk.latest().is_some_and(|Durable { decided, .. }| {
            let departed = &decided.view.departed;
            departed.iter().any(|d| d.member == self.me && d.why == Why::Left)
                && decided.view.id.0 == self.view + 1
                && self.words[DELIVERED] >= decided.trim.0
        })
    }

    /// The messages of the own records that the core calls undelivered; 0 for one that there is not.
    pub(crate) fn undelivered(&self) -> Vec<u64> {
        let message = |position| {
            let at = self.log.partition_point(|r| r.position < position);
            self.log.get(at).filter(|r| r.position == position).map_or(0, |r| r.message)
        };
        self.core.undelivered().map(|r| message(r.position)).collect()
    }
}
