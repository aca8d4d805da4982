//! 21: after the faults have ended, the group converges: one primary, every node of the healed core a member of it,
//! every send resolved, every write durable and complete, all states equal.

use super::{Verdict, ViewInfo, Violation};
use crate::env::Env;
use crate::process::Process;

/// Could these nodes alone go on, whatever of the running view change turns out to have happened? They must be a
/// quorum of every view that may be the latest: those installed or decided last, and those accepted anywhere.
/// `holders` are the nodes that run as members of the latest view and have its state.
pub fn may_go_on(env: &Env, nodes: &[u16], holders: &[u16]) -> bool {
    let quorum = |view: &ViewInfo| view.quorum(|_, m| nodes.contains(&m.node.0));
    if env.checks.views.latest_decided().is_some_and(|v| !quorum(v)) {
        return false;
    }
    // A state that reaches into the latest view must be among them, on a disk or in memory: without it a total restart
    // cannot tell what was acknowledged from what was not, and has to wait for everybody.
    let latest = env.checks.views.latest_decided().map_or(0, |v| v.id);
    let whole = nodes.iter().any(|&n| {
        let seat = &env.seats[usize::from(n) - 1];
        holders.contains(&n)
            || seat
                .journal
                .entries
                .last()
                .is_some_and(|e| e.position >> super::VIEW_SHIFT >= latest)
    });
    whole
        && env.seats.iter().filter_map(|s| s.disk.latest()).all(|durable| {
            quorum(&ViewInfo::of(&durable.decided.view))
                && durable
                    .accepted
                    .as_ref()
                    .is_none_or(|(_, value)| quorum(&ViewInfo::of(&value.view)))
        })
}

/// Has the group converged? Else: what is missing.
pub fn converged(env: &Env, procs: &[&Process]) -> Result<(), String> {
    let Some(view) = env.checks.views.latest() else { return Err("no view at all".into()) };
    for seat in env.seats.iter().filter(|s| !s.retired) {
        let Some(process) = seat.boot.and_then(|b| procs.iter().find(|p| p.boot == b)) else {
            return Err(format!("n{} is not running", seat.node));
        };
        let me = process.me;
        if process.core.standing() != quintet_vsync::core::Standing::Member
            || process.view != view.id
        {
            return Err(format!("{me} is not a member of view {}", view.id));
        }
        if process.loading.is_some() || !process.queue.is_empty() {
            return Err(format!("{me} has not loaded its state"));
        }
        if process.blocked {
            return Err(format!("{me} says it is blocked"));
        }
        let open = env.checks.outcome.open(process.boot);
        if open > 0 {
            return Err(format!("{me} has {open} sends without an outcome"));
        }
        if !process.app.unacknowledged.is_empty() {
            return Err(format!("{me} has deliveries that no quorum reports persisted"));
        }
        if !process.app.incomplete.is_empty() {
            return Err(format!("{me} has deliveries that are not reported delivered by all"));
        }
    }
    let running = env.seats.iter().filter(|s| !s.retired).count();
    if view.members.len() != running {
        return Err(format!(
            "view {} has {} members, {running} nodes run",
            view.id,
            view.members.len()
        ));
    }
    Ok(())
}

/// After convergence: equal states, and nothing acknowledged is missing.
pub fn states_hold(env: &mut Env, procs: &[&Process]) -> Verdict {
    let Some(first) = procs.first() else { return Ok(()) };
    for process in procs {
        if process.app.state() != first.app.state() {
            let text = format!(
                "after convergence {} has state {:?}, {} has {:?}",
                first.me,
                first.app.state(),
                process.me,
                process.app.state()
            );
            return Err(Violation::new(9, text));
        }
    }
    let history: Vec<(u64, u64)> = first.app.messages().collect();
    env.checks.durable.holds(first.me, &history, u64::MAX)
}
