//! Follows one own message at a time through the sweep. Told what happens to all of them; `None` is told nothing.

use std::sync::Arc;

use quintet_transport::{Time, clock};

use crate::core::Position;
use crate::event::MessageId;
use crate::passages::{Passage, Passages};

pub(crate) struct Follower {
    into: Arc<Passages>,
    followed: Option<Followed>,
}

struct Followed {
    id: MessageId,
    at: Position,
    published: Option<Time>,
    visible: Option<Time>,
}

impl Follower {
    pub(crate) fn new(into: Arc<Passages>) -> Follower {
        Follower { into, followed: None }
    }

    /// An own message has that place, and is visible with the next flush.
    pub(crate) fn placed(&mut self, id: MessageId, at: Position) {
        self.followed.get_or_insert(Followed { id, at, published: None, visible: None });
    }

    /// Everything placed so far is visible.
    pub(crate) fn flushed(&mut self) {
        if let Some(followed) = self.followed.as_mut().filter(|f| f.published.is_none()) {
            followed.published = Some(clock::now());
        }
    }

    /// Another member has everything before that place. A word of another view says nothing: the message has another
    /// place there.
    pub(crate) fn received(&mut self, before: Position) {
        if let Some(followed) = self.followed.as_mut().filter(|f| f.visible.is_none())
            && before > followed.at
            && before.view() == followed.at.view()
        {
            followed.visible = Some(clock::now());
        }
    }

    /// An own message is delivered. In a new view a message may be delivered that peers had long before.
    pub(crate) fn delivered(&mut self, id: MessageId) {
        if let Some(followed) = self.followed.take_if(|followed| followed.id == id) {
            let stable = clock::now();
            let published = followed.published.unwrap_or(stable);
            let visible = followed.visible.unwrap_or(stable);
            self.into.add(Passage { id, published, visible, stable });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ViewId;

    #[test]
    fn one_message_is_followed_until_it_is_delivered() {
        let passages = Arc::new(Passages::new(2));
        let mut follower = Follower::new(passages.clone());
        let at = |view, p| Position::new(ViewId(view), p);
        let ids = [0, 64, 128].map(MessageId);
        follower.placed(ids[0], at(3, 7));
        follower.flushed();
        let seen = clock::now();
        follower.placed(ids[1], at(3, 10));
        follower.flushed();
        // Everything before it, and not it; then of another view.
        follower.received(at(3, 7));
        follower.received(at(4, 9));
        let unseen = clock::now();
        follower.received(at(3, 8));
        let seen_there = clock::now();
        follower.delivered(ids[1]);
        assert_eq!(passages.take(), None, "that one was not followed");
        follower.delivered(ids[0]);
        let passage = passages.take().expect("delivered");
        assert_eq!(passage.id, ids[0]);
        let Passage { published, visible, stable, .. } = passage;
        let order = [published, seen, unseen, visible, seen_there, stable];
        assert!(order.is_sorted(), "{passage:?}");
        follower.placed(ids[2], at(4, 1));
        follower.delivered(ids[2]);
        let alone = passages.take().expect("without a peer");
        assert_eq!((alone.id, alone.published), (ids[2], alone.stable));
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let passages = Arc::new(Passages::new(2));
        let mut follower = Follower::new(passages.clone());
        for id in (0..5).map(MessageId) {
            follower.placed(id, Position::ZERO);
            follower.delivered(id);
        }
        let kept = std::iter::from_fn(|| passages.take()).map(|passage| passage.id.0);
        assert_eq!(kept.collect::<Vec<_>>(), [0, 1]);
    }
}
