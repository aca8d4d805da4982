//! The outcome of a call: gRPC's status codes, so that nothing is lost on the way to a stock client.

use std::fmt;

use super::Text;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal $text:literal),* $(,)?) => {
        /// A gRPC status code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Code { $($(#[$doc])* $name = $value),* }

        impl Code {
            /// All codes, in numerical order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code's conventional spelling, such as `NOT_FOUND`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

codes! {
    /// Done.
    Ok = 0 "OK",
    /// The caller gave up.
    Cancelled = 1 "CANCELLED",
    /// No better code is known.
    Unknown = 2 "UNKNOWN",
    /// The request makes no sense, whatever the state.
    InvalidArgument = 3 "INVALID_ARGUMENT",
    /// The time was over before there was an answer; the call may have been executed.
    DeadlineExceeded = 4 "DEADLINE_EXCEEDED",
    /// No such thing.
    NotFound = 5 "NOT_FOUND",
    /// There is one already.
    AlreadyExists = 6 "ALREADY_EXISTS",
    /// The caller may not.
    PermissionDenied = 7 "PERMISSION_DENIED",
    /// Some limit was reached.
    ResourceExhausted = 8 "RESOURCE_EXHAUSTED",
    /// Not in this state.
    FailedPrecondition = 9 "FAILED_PRECONDITION",
    /// A conflict; the whole may be tried again.
    Aborted = 10 "ABORTED",
    /// Beyond the end.
    OutOfRange = 11 "OUT_OF_RANGE",
    /// There is no such method, or no such ability.
    Unimplemented = 12 "UNIMPLEMENTED",
    /// A fault of the service.
    Internal = 13 "INTERNAL",
    /// Nobody to answer; not executed, try again.
    Unavailable = 14 "UNAVAILABLE",
    /// Data are lost.
    DataLoss = 15 "DATA_LOSS",
    /// Who are you?
    Unauthenticated = 16 "UNAUTHENTICATED",
}

impl Code {
    /// The code of this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The code's number, as it stands in `grpc-status`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A code, and what happened in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Status {
    /// The code.
    pub code: Code,
    /// For people; empty when the code says all.
    pub message: Text,
}

impl Status {
    /// Done.
    pub const OK: Self = Self { code: Code::Ok, message: Text::from_static("") };

    /// A status with a message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<Text>) -> Self {
        Self { code, message: message.into() }
    }

    /// Whether the code is [`Code::Ok`].
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }
}
