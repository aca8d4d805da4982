//! Views: 1 self-inclusion, 2 increasing ids, 3 same id same view, 4 primary uniqueness, 10 transitional sets.

use std::collections::BTreeMap;

use quintet_transport::{Member, NodeId};

use super::{Boot, Verdict, ViewInfo, Violation};

/// All views seen in a run, and who is in which.
#[derive(Debug, Default)]
pub struct Views {
    known: BTreeMap<u64, ViewInfo>,
    current: BTreeMap<Boot, u64>,
    /// For view `v`: from which view each of its members came.
    came_from: BTreeMap<(u64, Member), u64>,
    /// Durable accepts: (view, value) → nodes.
    accepts: BTreeMap<(u64, u64), Vec<NodeId>>,
    /// The value a view id was decided with, and the view in it. (Not every decided view is installed: all its
    /// members may die first.)
    decided: BTreeMap<u64, (u64, ViewInfo)>,
}

impl Views {
    /// The view a process is in.
    pub fn current(&self, boot: Boot) -> Option<u64> {
        self.current.get(&boot).copied()
    }

    /// A view by number.
    pub fn get(&self, id: u64) -> Option<&ViewInfo> {
        self.known.get(&id)
    }

    /// The highest view installed by anybody.
    pub fn latest(&self) -> Option<&ViewInfo> {
        self.known.values().next_back()
    }

    /// How many views were installed.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// The genesis view, which nobody installs: all configured nodes.
    pub fn genesis(&mut self, view: ViewInfo) {
        self.decided.insert(view.id, (0, view.clone()));
        self.known.insert(view.id, view);
    }

    /// The highest view that was decided, whether anybody knows it or not.
    pub fn latest_decided(&self) -> Option<&ViewInfo> {
        self.decided.values().next_back().map(|d| &d.1)
    }

    /// The views that were decided and founded from states on disk.
    pub fn founded(&self) -> Vec<&ViewInfo> {
        self.decided.values().map(|d| &d.1).filter(|v| v.founded).collect()
    }

    /// `node` has durably accepted `view` in `ballot`; `value` is a number for all that was accepted with it.
    pub fn accepted(&mut self, node: NodeId, ballot: u64, value: u64, view: ViewInfo) -> Verdict {
        let id = view.id;
        let nodes = self.accepts.entry((id, crate::entropy::mix(ballot) ^ value)).or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
        let Some((_, before)) = id.checked_sub(1).and_then(|b| self.decided.get(&b)) else {
            return Ok(());
        };
        if before.quorum(|_, m| nodes.contains(&m.node)) {
            let first = self.decided.entry(id).or_insert((value, view)).0;
            if first != value {
                return Err(Violation::new(
                    4,
                    format!("view {id} was decided twice, with different values"),
                ));
            }
        }
        Ok(())
    }

    /// Has a quorum accepted a value for view `id`?
    pub fn decided(&self, id: u64) -> bool {
        self.decided.contains_key(&id)
    }

    /// A process installed a view.
    pub fn install(&mut self, boot: Boot, me: Member, view: &ViewInfo) -> Verdict {
        if !view.has(me) {
            return Err(Violation::new(
                1,
                format!("{me} installed view {} without itself", view.id),
            ));
        }
        if let Some(other) = self.known.get(&view.id) {
            if other != view {
                return Err(Violation::new(
                    3,
                    format!("{me} installed {view:?}, another has {other:?}"),
                ));
            }
        } else {
            self.known.insert(view.id, view.clone());
        }
        if !self.decided(view.id) {
            return Err(Violation::new(
                4,
                format!("{me} installed view {} that no quorum has accepted", view.id),
            ));
        }
        let before = self.current.insert(boot, view.id);
        if let Some(before) = before {
            if before >= view.id {
                return Err(Violation::new(
                    2,
                    format!("{me} went from view {before} to {}", view.id),
                ));
            }
            self.came_from.insert((view.id, me), before);
        }
        // Those of the view before who did not join anew moved together: from that view, all of them.
        let together = before.is_some();
        if together == view.joined.contains(&me) {
            return Err(Violation::new(
                10,
                format!(
                    "{me} installed view {} {} but came from {before:?}",
                    view.id,
                    joined(together)
                ),
            ));
        }
        if let Some(before) = before {
            for &peer in view.members.iter().filter(|m| !view.joined.contains(m)) {
                let from = self.came_from.get(&(view.id, peer)).copied();
                if from.is_some_and(|f| f != before) {
                    let text =
                        format!("view {}: {me} came from {before}, {peer} from {from:?}", view.id);
                    return Err(Violation::new(10, text));
                }
                if self.known.get(&before).is_some_and(|v| !v.has(peer)) {
                    let text = format!(
                        "view {}: {peer} did not join but was not in view {before}",
                        view.id
                    );
                    return Err(Violation::new(10, text));
                }
            }
        }
        Ok(())
    }
}

fn joined(not: bool) -> &'static str {
    if not { "as a joiner" } else { "as a survivor" }
}
