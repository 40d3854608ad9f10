//! One check of a receiver, and the line that says what came of it.

use std::{fmt, time::Duration};

use crate::cli::color;

/// What a receiver must do in a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Answer 2xx.
    Accepts,
    /// Answer 4xx.
    Refuses,
}

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Accepts => "accepts",
            Self::Refuses => "refuses",
        })
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it must be.
    Passed,
    /// Not asked of this receiver, and why.
    Skipped(String),
    /// Otherwise than it must be, and what would be right.
    Failed(String),
}

/// A check that was made.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) group: Group,
    pub(super) name: String,
    pub(super) verdict: Verdict,
    /// What the receiver answered.
    pub(super) answer: String,
    pub(super) took: Duration,
}

/// The table's head.
pub(super) fn print_head(url: &str) {
    println!("Checking {url}\n");
    println!("{:<7} {:<8} {:<62} {:<16} time", "result", "receiver", "what", "answer");
}

impl Check {
    /// Prints its row.
    pub(super) fn print(&self) {
        let (result, note) = match &self.verdict {
            Verdict::Passed => (color::good("ok     ").to_string(), None),
            Verdict::Skipped(reason) => (color::notable("skipped").to_string(), Some(reason)),
            Verdict::Failed(reason) => (color::bad("FAILED ").to_string(), Some(reason)),
        };
        let (group, name, answer, took) = (self.group.to_string(), &self.name, &self.answer, self.took.as_millis());
        anstream::println!("{result} {group:<8} {name:<62} {answer:<16} {took} ms");
        if let Some(note) = note {
            anstream::println!("{:17}{note}", "");
        }
    }
}
