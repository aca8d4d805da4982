//! The options of a method, `quintet/options.proto`, as Rust values with every default filled in.

use std::fmt;
use std::time::Duration;

/// `quintet/options.proto`, for build scripts and descriptors.
pub const OPTIONS_PROTO: &str = include_str!("../proto/quintet/options.proto");

macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$choice_doc:meta])* $choice:ident = $number:literal $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$choice_doc])* $choice),* }

        impl $name {
            /// The choice with this number in `quintet/options.proto`.
            #[allow(dead_code)]
            pub(crate) fn from_number(number: i32) -> Option<$name> {
                match number { $($number => Some($name::$choice),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$choice => $text),* })
            }
        }
    };
}

choices! {
    /// Whether a method changes state.
    Kind {
        /// Ordered, and applied by every replica.
        Update = 1 "UPDATE",
        /// Answered by one replica.
        Read = 2 "READ",
    }
}

choices! {
    /// The order of an update among the others. What is stronger than asked is allowed.
    Order {
        /// Any order.
        None = 1 "NONE",
        /// The updates of one caller in the order of its calls.
        Fifo = 2 "FIFO",
        /// No update before one that may have caused it.
        Causal = 3 "CAUSAL",
        /// One order, the same on every replica.
        Total = 4 "TOTAL",
    }
}

choices! {
    /// How often an update is executed when clients, proxies and nodes fail and retry.
    Call {
        /// Once or more.
        AtLeastOnce = 1 "AT_LEAST_ONCE",
        /// Once, or not at all.
        AtMostOnce = 2 "AT_MOST_ONCE",
        /// Once, with that execution's reply.
        ExactlyOnce = 3 "EXACTLY_ONCE",
    }
}

choices! {
    /// How the replies of the replicas become the caller's reply.
    Collate {
        /// The first reply.
        First = 1 "FIRST",
        /// Every replica has replied.
        All = 2 "ALL",
        /// More than half have replied.
        Majority = 3 "MAJORITY",
    }
}

choices! {
    /// What happens to an update whose caller is gone before it was ordered.
    Orphan {
        /// It is executed.
        Ignore = 1 "IGNORE",
        /// It is executed and reported.
        Detect = 2 "DETECT",
        /// It is not executed.
        Terminate = 3 "TERMINATE",
    }
}

choices! {
    /// How fresh the answer of a read is.
    Read {
        /// Any replica's state as it is.
        Local = 1 "LOCAL",
        /// A replica that has applied everything this client was told of.
        Session = 2 "SESSION",
        /// As if in the total order.
        Linearizable = 3 "LINEARIZABLE",
    }
}

/// How a method is ordered, executed and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodOptions {
    /// Whether it changes state.
    pub kind: Kind,
    /// The order of an update; meaningless for a read.
    pub order: Order,
    /// Whether an update is applied only when every member of the view has received it.
    pub stable: bool,
    /// How often an update is executed.
    pub call: Call,
    /// How the replies to an update become one.
    pub collate: Collate,
    /// What happens to an update without a caller.
    pub orphan: Orphan,
    /// The longest a caller waits; `None` is no limit.
    pub deadline: Option<Duration>,
    /// How fresh the answer of a read is; meaningless for an update.
    pub read: Read,
}

impl MethodOptions {
    /// The options of a method that says nothing but its kind.
    pub fn new(kind: Kind) -> MethodOptions {
        MethodOptions {
            kind,
            order: Order::Total,
            stable: true,
            call: Call::ExactlyOnce,
            collate: Collate::First,
            orphan: Orphan::Ignore,
            deadline: None,
            read: Read::Session,
        }
    }
}
