//! What was found when looking for verbs, for people.

use std::fmt;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The adapter, port, address or setting.
    pub subject: String,
    /// Whether it serves.
    pub verdict: Verdict,
}

/// What is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can carry links.
    Usable,
    /// It is passed over, or slow; nothing depends on it.
    Note {
        /// Why.
        reason: String,
        /// What would change that.
        fix: String,
    },
    /// It would be needed.
    Unusable {
        /// Why not.
        reason: String,
        /// What to do.
        fix: String,
    },
}

impl Finding {
    #[cfg(feature = "verbs")]
    pub(super) fn usable(subject: &str) -> Finding {
        Finding { subject: subject.to_owned(), verdict: Verdict::Usable }
    }

    #[cfg(feature = "verbs")]
    pub(super) fn note(subject: &str, reason: String, fix: &str) -> Finding {
        let fix = fix.to_owned();
        Finding { subject: subject.to_owned(), verdict: Verdict::Note { reason, fix } }
    }

    pub(super) fn unusable(subject: &str, reason: String, fix: &str) -> Finding {
        let fix = fix.to_owned();
        Finding { subject: subject.to_owned(), verdict: Verdict::Unusable { reason, fix } }
    }
}

/// All of it. Its text is one line per finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerbsReport {
    /// In the order of looking.
    pub findings: Vec<Finding>,
}

impl VerbsReport {
    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Whether links can go over verbs.
    pub fn usable(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Usable)
    }

    /// What stands in the way, in one line; empty if nothing does.
    pub fn obstacle(&self) -> String {
        if self.usable() {
            return String::new();
        }
        let unusable = |finding: &&Finding| matches!(finding.verdict, Verdict::Unusable { .. });
        self.findings.iter().find(unusable).map(Finding::to_string).unwrap_or_default()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Usable => write!(f, "{}: usable", self.subject),
            Verdict::Note { reason, fix } | Verdict::Unusable { reason, fix } => {
                write!(f, "{}: {reason}; {fix}", self.subject)
            }
        }
    }
}

impl fmt::Display for VerbsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))
    }
}
