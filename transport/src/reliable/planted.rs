//! Planted bugs: known traps of protocols like this one, for a simulator to find. A connection can hold one only under
//! the feature `canary`.

/// A planted bug.
#[cfg_attr(not(feature = "canary"), expect(unreachable_pub))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A word is shown when it arrives, also if the log bytes before it are still on their way.
    WordOvertakesLog,
    /// What was lost with a packet is not sent again.
    ForgetsLost,
    /// Whoever is heard counts as having heard us.
    ConfirmsHeard,
}

/// The bug of a connection, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Planted(#[cfg(feature = "canary")] Option<Bug>);

impl Planted {
    #[cfg(feature = "canary")]
    pub(super) fn plant(&mut self, bug: Bug) {
        self.0 = Some(bug);
    }

    /// Whether that bug is planted. Without the feature the compiler knows that it is not.
    #[cfg_attr(not(feature = "canary"), allow(clippy::unused_self))]
    pub(super) fn is(self, bug: Bug) -> bool {
        #[cfg(feature = "canary")]
        return self.0 == Some(bug);
        #[cfg(not(feature = "canary"))]
        {
            let _ = bug;
            false
        }
    }
}
