//! The own control log: a broadcast of rare records, with a bounded queue before it.
//!
//! Two kinds share it, told apart by the first byte: the protocol core's, and the engine's own word to a learner about
//! where in the bulk log its state begins.

use std::collections::VecDeque;

use quintet_transport::{CONTROL, Incarnation, LogWriter, Member, NodeId, Poller, ReserveError};

/// Records waiting for room. When even this is full, a peer has not read its control log for thousands of records while
/// its heartbeats came: it is the peer that is broken, and its link is closed.
const QUEUE: usize = 4096;

const CORE: u8 = 0;
const BULK_BEGINS: u8 = 1;

/// The state for `to` begins at byte `from` of the sender's bulk log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BulkBegins {
    pub(crate) to: Member,
    pub(crate) from: u64,
}

/// A control record, by kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    Core(&'a [u8]),
    BulkBegins(BulkBegins),
}

/// Splits a record by its kind; `None` if it has none that is known.
pub(crate) fn parse(bytes: &[u8]) -> Option<Incoming<'_>> {
    let (kind, body) = bytes.split_first()?;
    match *kind {
        CORE => Some(Incoming::Core(body)),
        BULK_BEGINS => {
            let (node, rest) = body.split_first_chunk::<2>()?;
            let (incarnation, rest) = rest.split_first_chunk::<8>()?;
            let (from, rest) = rest.split_first_chunk::<8>()?;
            let to = Member {
                node: NodeId(u16::from_le_bytes(*node)),
                incarnation: Incarnation(u64::from_le_bytes(*incarnation)),
            };
            rest.is_empty()
                .then(|| Incoming::BulkBegins(BulkBegins { to, from: u64::from_le_bytes(*from) }))
        }
        _ => None,
    }
}

/// Records on their way out.
pub(crate) struct ControlOut {
    log: LogWriter,
    queue: VecDeque<Vec<u8>>,
    sequence: u64,
    pub(crate) sent: u64,
}

impl ControlOut {
    pub(crate) fn new(log: LogWriter) -> Self {
        Self { log, queue: VecDeque::new(), sequence: 0, sent: 0 }
    }

    pub(crate) fn core(&mut self, body: &[u8]) {
        let mut record = Vec::with_capacity(1 + body.len());
        record.push(CORE);
        record.extend_from_slice(body);
        self.queue.push_back(record);
    }

    pub(crate) fn bulk_begins(&mut self, b: BulkBegins) {
        let mut record = vec![BULK_BEGINS];
        record.extend_from_slice(&b.to.node.0.to_le_bytes());
        record.extend_from_slice(&b.to.incarnation.0.to_le_bytes());
        record.extend_from_slice(&b.from.to_le_bytes());
        self.queue.push_back(record);
    }

    pub(crate) fn is_overfull(&self) -> bool {
        self.queue.len() > QUEUE
    }

    /// Publishes what fits. True if anything was.
    pub(crate) fn pump(&mut self, poller: &mut Poller) -> bool {
        let mut something = false;
        while let Some(record) = self.queue.front() {
            match self.log.reserve(record.len()) {
                Ok(mut slot) => {
                    slot.copy_from_slice(record);
                    slot.commit();
                    self.queue.pop_front();
                }
                Err(ReserveError::Full) => break,
                Err(ReserveError::TooLarge) => {
                    // The codec's own limits are far below the smallest control log.
                    tracing::error!(
                        len = record.len(),
                        "dropped a control record that is longer than the log"
                    );
                    self.queue.pop_front();
                }
            }
        }
        while poller.committed(CONTROL).is_some() {
            poller.publish(CONTROL, self.sequence);
            self.sequence += 1;
            self.sent += 1;
            something = true;
        }
        something
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(parse(&[CORE, 7, 8]), Some(Incoming::Core(&[7, 8])));
        let mut begins = vec![BULK_BEGINS, 3, 0];
        begins.extend_from_slice(&9u64.to_le_bytes());
        begins.extend_from_slice(&4096u64.to_le_bytes());
        let expected = BulkBegins { to: Member::new(3, 9), from: 4096 };
        assert_eq!(parse(&begins), Some(Incoming::BulkBegins(expected)));
        begins.pop();
        assert_eq!(parse(&begins), None);
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[9]), None);
    }
}
