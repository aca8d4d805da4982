//! How a command says that it failed.

use std::fmt;

/// What a person reads when a command fails.
#[derive(Debug)]
pub(crate) struct Error {
    what: String,
    more: Vec<String>,
}

impl Error {
    pub(crate) fn new(what: impl Into<String>) -> Error {
        Error { what: what.into(), more: Vec::new() }
    }

    /// Adds a line: what it means, or what to do.
    pub(crate) fn hint(mut self, line: impl Into<String>) -> Error {
        self.more.push(line.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.more
            .iter()
            .filter(|line| !line.is_empty())
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}
