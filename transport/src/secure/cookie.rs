//! Cookies: what shows that somebody reads at the address that a packet claims to come from.
//!
//! A keyed hash of what the packet says, and of the time in coarse steps. Nothing is remembered; the key is random
//! and of one process. The address is not in it: an answer goes only to the address that is configured for the claimed
//! node, wherever the packet came from.
//!
//! It begins with the mark of the node that made it, so that a socket filter can tell an answer to us from the unasked.

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};

use crate::id::NodeId;
use crate::reliable::COOKIE_LEN;
use crate::time::Time;

/// A cookie is good for one to two of these.
const STEP: Duration = Duration::from_secs(5);
/// How long a node's mark is.
const MARK_LEN: usize = 4;

/// Makes and checks cookies.
#[derive(Debug)]
pub(crate) struct Cookies {
    key: hmac::Key,
    mark: [u8; MARK_LEN],
}

impl Cookies {
    pub(crate) fn new(secret: [u8; 32], mark: [u8; MARK_LEN]) -> Self {
        Cookies { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), mark }
    }

    /// The cookie for who claims to be `from` and wants packets with that connection id.
    pub(crate) fn make(&self, now: Time, from: NodeId, connection: u64) -> [u8; COOKIE_LEN] {
        self.at(now.as_nanos() / STEP.as_nanos() as u64, from, connection)
    }

    pub(crate) fn check(
        &self,
        now: Time,
        from: NodeId,
        connection: u64,
        cookie: &[u8; COOKIE_LEN],
    ) -> bool {
        if cookie[..MARK_LEN] != self.mark {
            return false;
        }
        let step = now.as_nanos() / STEP.as_nanos() as u64;
        [step, step.saturating_sub(1)].into_iter().any(|step| {
            let good = self.at(step, from, connection);
            constant_time::verify_slices_are_equal(&good, cookie).is_ok()
        })
    }

    fn at(&self, step: u64, from: NodeId, connection: u64) -> [u8; COOKIE_LEN] {
        let mut input = [0; 18];
        input[..8].copy_from_slice(&step.to_le_bytes());
        input[8..10].copy_from_slice(&from.0.to_le_bytes());
        input[10..].copy_from_slice(&connection.to_le_bytes());
        let tag = hmac::sign(&self.key, &input);
        let mut cookie = [0; COOKIE_LEN];
        cookie[..MARK_LEN].copy_from_slice(&self.mark);
        cookie[MARK_LEN..].copy_from_slice(&tag.as_ref()[..COOKIE_LEN - MARK_LEN]);
        cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_claim_and_for_a_while() {
        let cookies = Cookies::new([1; 32], [7; 4]);
        let start = Time::from_millis(1_000_000);
        let cookie = cookies.make(start, NodeId(2), 3);
        assert!(cookies.check(start, NodeId(2), 3, &cookie));
        assert!(cookies.check(start + STEP, NodeId(2), 3, &cookie));
        assert!(!cookies.check(start + STEP * 2, NodeId(2), 3, &cookie));
        assert!(!cookies.check(start, NodeId(1), 3, &cookie));
        assert!(!cookies.check(start, NodeId(2), 4, &cookie));
        assert!(!cookies.check(start, NodeId(2), 3, &[0; COOKIE_LEN]));
        assert_eq!(cookie[..4], [7; 4]);
        assert!(!Cookies::new([2; 32], [7; 4]).check(start, NodeId(2), 3, &cookie));
        assert!(!Cookies::new([1; 32], [8; 4]).check(start, NodeId(2), 3, &cookie));
    }
}
