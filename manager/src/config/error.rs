//! What is wrong with a configuration file, where, and what to write instead.

use super::suggest;
use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration that cannot be used. Its `Display` is meant for the person who wrote the file.
#[derive(Debug)]
pub enum Error {
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not TOML, or a key is unknown, missing or of the wrong type.
    Syntax {
        /// The file, where known.
        path: Option<PathBuf>,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The line itself.
        excerpt: String,
        /// What is wrong.
        what: String,
        /// The nearest key that exists.
        nearest: Option<String>,
    },
    /// A value that cannot be right.
    Value {
        /// The key, dotted.
        key: String,
        /// What is wrong.
        what: String,
        /// What to write instead.
        fix: String,
    },
}

impl Error {
    /// A value that cannot be right. The remedy is empty where `what` says it.
    pub(crate) fn value(key: &str, what: impl Into<String>, fix: &str) -> Error {
        Error::Value { key: key.to_owned(), what: what.into(), fix: fix.to_owned() }
    }

    /// The same error, with the file's name in it.
    pub(crate) fn in_file(self, file: &Path) -> Error {
        match self {
            Error::Syntax { line, column, excerpt, what, nearest, .. } => {
                Error::Syntax { path: Some(file.to_owned()), line, column, excerpt, what, nearest }
            }
            Error::Value { key, what, fix } => {
                Error::Value { key, what: format!("{what} (in {})", file.display()), fix }
            }
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Read { path, source } => {
                write!(f, "cannot read the configuration {}: {source}", path.display())?;
                if source.kind() == std::io::ErrorKind::InvalidData {
                    f.write_str(
                        "; a configuration is a text file in TOML: is this the right file?",
                    )?;
                }
                Ok(())
            }
            Error::Syntax { path, line, column, excerpt, what, nearest } => {
                let file = path.as_deref().unwrap_or(Path::new("configuration"));
                writeln!(f, "{}:{line}:{column}: {what}", file.display())?;
                write!(f, "  {line} | {excerpt}")?;
                if let Some(nearest) = nearest {
                    write!(f, "\n  did you mean `{nearest}`?")?;
                }
                Ok(())
            }
            Error::Value { key, what, fix } => {
                write!(f, "`{key}`: {what}")?;
                if fix.is_empty() { Ok(()) } else { write!(f, "; {fix}") }
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Turns the parser's error into ours: position as line and column, and the nearest key.
pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> Error {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let at = (0..=at).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let column = before[start..].chars().count() + 1;
    let excerpt = text[start..].lines().next().unwrap_or("").trim_end().to_owned();
    let what = error.message().lines().next().unwrap_or("").to_owned();
    if unknown_key(&what).is_some_and(|(unknown, _)| unknown == "plaintext") {
        let what = "`plaintext` is gone: UDP is always encrypted, at any address. Remove the line, and give every node an \
                    identity (`quintet cluster init`)"
            .to_owned();
        return Error::Syntax { path: None, line, column, excerpt, what, nearest: None };
    }
    let nearest = unknown_key(&what).and_then(|(unknown, known)| suggest::nearest(unknown, &known));
    Error::Syntax { path: None, line, column, excerpt, what, nearest }
}

/// Reads serde's "unknown field `x`, expected one of `a`, `b`" (or "unknown variant").
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message
        .strip_prefix("unknown field ")
        .or_else(|| message.strip_prefix("unknown variant "))?;
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    Some((unknown, quoted.collect()))
}
