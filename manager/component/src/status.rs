//! How a call ends when it does not end with a reply: a gRPC status code and a sentence.
//!
//! gRPC's seventeen codes are the vocabulary because every client in every language already has
//! them. The number is the wire form, in the C interface as in HTTP/2 trailers, so it never
//! changes.

use std::fmt;

/// The gRPC status codes, with their wire numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Code {
    /// Not an error; never found in the `Err` of a component's reply.
    Ok = 0,
    /// The caller gave the call up.
    Cancelled = 1,
    /// An error with no better code.
    Unknown = 2,
    /// The request makes no sense, whatever state the component is in.
    InvalidArgument = 3,
    /// Too late; the call may or may not have been applied.
    DeadlineExceeded = 4,
    /// The thing asked for does not exist.
    NotFound = 5,
    /// The thing to be created exists already.
    AlreadyExists = 6,
    /// The caller is known and may not do this.
    PermissionDenied = 7,
    /// A limit was reached: quota, queue, memory.
    ResourceExhausted = 8,
    /// The component's state does not allow this now; retrying unchanged will not help.
    FailedPrecondition = 9,
    /// A conflict with another call; retry from a higher level.
    Aborted = 10,
    /// Past the end of something.
    OutOfRange = 11,
    /// This class has no such method.
    Unimplemented = 12,
    /// An invariant of the service is broken.
    Internal = 13,
    /// Not served now; retrying may help.
    Unavailable = 14,
    /// Data is lost or corrupt.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// The code with this wire number; a number that is none is [`Code::Unknown`], as gRPC asks.
    pub fn from_number(number: u32) -> Code {
        Code::ALL.get(number as usize).copied().unwrap_or(Code::Unknown)
    }

    /// The wire number.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The name as gRPC spells it, `INVALID_ARGUMENT`.
    pub const fn name(self) -> &'static str {
        match self {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a call did not give a reply.
///
/// A status returned by an *update* is part of the order like any reply: every replica must return
/// the same one, and the caller gets it exactly once. A component that returns one must have left
/// its state unchanged, or changed in the same way on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: String,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $code:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Status { Status::new(Code::$code, message) })*
    };
}

impl Status {
    /// A status with a code and a sentence for the caller.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into() }
    }

    constructors! {
        /// [`Code::Unknown`].
        unknown = Unknown,
        /// [`Code::InvalidArgument`].
        invalid_argument = InvalidArgument,
        /// [`Code::DeadlineExceeded`].
        deadline_exceeded = DeadlineExceeded,
        /// [`Code::NotFound`].
        not_found = NotFound,
        /// [`Code::AlreadyExists`].
        already_exists = AlreadyExists,
        /// [`Code::PermissionDenied`].
        permission_denied = PermissionDenied,
        /// [`Code::ResourceExhausted`].
        resource_exhausted = ResourceExhausted,
        /// [`Code::FailedPrecondition`].
        failed_precondition = FailedPrecondition,
        /// [`Code::Aborted`].
        aborted = Aborted,
        /// [`Code::OutOfRange`].
        out_of_range = OutOfRange,
        /// [`Code::Unimplemented`].
        unimplemented = Unimplemented,
        /// [`Code::Internal`].
        internal = Internal,
        /// [`Code::Unavailable`].
        unavailable = Unavailable,
        /// [`Code::DataLoss`].
        data_loss = DataLoss,
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_its_code() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, number);
            assert_eq!(Code::from_number(number as u32), code);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        assert_eq!(Code::from_number(u32::MAX), Code::Unknown);
    }
}
