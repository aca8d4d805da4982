//! Virtual synchrony: 9 same set for those who move together, 14 uniformity, 17 one trim, 18 equal state at a cut.

use std::collections::{BTreeMap, HashMap};

use quintet_transport::Member;

use super::{Boot, Verdict, ViewInfo, Violation};

/// How many messages of each view were delivered by whom.
#[derive(Debug, Default)]
pub struct Synchrony {
    /// Messages delivered in its current view, per process.
    count: HashMap<Boot, (u64, u64)>,
    /// Most messages anybody delivered in a view.
    most: BTreeMap<u64, (u64, Member)>,
    /// How many messages those delivered who went on from a view to the next.
    last: BTreeMap<u64, (u64, Member)>,
    /// The application's state at the start of a view: entries and hash.
    start: BTreeMap<u64, ((u64, u64), Member)>,
}

impl Synchrony {
    /// A process delivered a message in `view`.
    pub fn deliver(&mut self, boot: Boot, me: Member, view: u64) -> Verdict {
        let count = self.count.entry(boot).or_insert((view, 0));
        if count.0 != view {
            *count = (view, 0);
        }
        count.1 += 1;
        let count = count.1;
        let most = self.most.entry(view).or_insert((0, me));
        if count > most.0 {
            *most = (count, me);
        }
        match self.last.get(&view) {
            Some(&(last, who)) if count > last => {
                let text = format!(
                    "{me} delivered {count} messages in view {view}; {who} left it with {last}"
                );
                Err(Violation::new(14, text))
            }
            _ => Ok(()),
        }
    }

    /// A process went from view `before` to `view`.
    pub fn install(
        &mut self,
        boot: Boot,
        me: Member,
        before: Option<u64>,
        view: &ViewInfo,
    ) -> Verdict {
        if let Some(before) = before {
            let count = self.count.get(&boot).filter(|c| c.0 == before).map_or(0, |c| c.1);
            let &mut (last, who) = self.last.entry(before).or_insert((count, me));
            if last != count {
                let text = format!(
                    "from view {before} to {}: {me} delivered {count}, {who} {last}",
                    view.id
                );
                return Err(Violation::new(9, text));
            }
            if let Some(&(most, other)) = self.most.get(&before)
                && most > count
            {
                let text = format!(
                    "{other} delivered {most} messages in view {before}; survivor {me} only {count}"
                );
                return Err(Violation::new(14, text));
            }
        }
        Ok(())
    }

    /// A process's application begins `view` with `state`: number of messages and hash over them.
    pub fn start(&mut self, me: Member, view: &ViewInfo, state: (u64, u64)) -> Verdict {
        let &mut (start, who) = self.start.entry(view.id).or_insert((state, me));
        if start != state {
            let text = format!(
                "view {}: {me} starts with {} entries, hash {:x}; {who} with {}, {:x}",
                view.id, state.0, state.1, start.0, start.1
            );
            return Err(Violation::new(if view.joined.contains(&me) { 18 } else { 9 }, text));
        }
        Ok(())
    }
}
