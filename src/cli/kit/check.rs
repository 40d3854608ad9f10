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

/// The table of the checks, printed row by row as they are made. The answer, whose length nobody knows before it is there,
/// is the last column.
#[derive(Debug)]
pub(super) struct Rows {
    /// The length of the longest check's name.
    pub(super) name_width: usize,
}

impl Rows {
    /// Prints the table's head.
    pub(super) fn print_head(&self) {
        let width = self.name_width;
        println!(
            "{:<7} {:<8} {:<width$} {:>8}  answer",
            "result", "receiver", "what", "time"
        );
    }

    /// Prints the row of a check.
    pub(super) fn print(&self, check: &Check) {
        let (result, note) = match &check.verdict {
            Verdict::Passed => (color::good("ok     ").to_string(), None),
            Verdict::Skipped(reason) => (color::notable("skipped").to_string(), Some(reason)),
            Verdict::Failed(reason) => (color::bad("FAILED ").to_string(), Some(reason)),
        };
        let (group, name, width) = (check.group.to_string(), &check.name, self.name_width);
        let took = format!("{} ms", check.took.as_millis());
        let row = format!("{result} {group:<8} {name:<width$} {took:>8}  {}", check.answer);
        anstream::println!("{}", row.trim_end());
        if let Some(note) = note {
            println!("{:17}{note}", "");
        }
    }
}
