//! The lines of `doctor`.

use std::{future::Future, time::Duration};

use super::CommandResult;

/// The results of the checks so far.
pub(super) struct Report {
    deadline: Duration,
    checks: usize,
    failed: usize,
}

/// The result of a check, for its line.
pub(super) type Found = Result<String, Box<dyn std::error::Error>>;

impl Report {
    /// An empty report; each check may take up to `deadline`.
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            checks: 0,
            failed: 0,
        }
    }

    /// How long each check may take.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// An error if a check failed.
    pub(super) fn conclude(&self) -> CommandResult {
        match self.failed {
            0 => Ok(()),
            failed => Err(format!("{failed} of {} checks failed", self.checks).into()),
        }
    }

    /// Runs a check and prints its line. Returns whether it passed.
    pub(super) async fn check(&mut self, name: &str, check: impl Future<Output = Found>) -> bool {
        let found = tokio::time::timeout(self.deadline, check)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", self.deadline.as_millis()).into()));
        self.tell(name, &found)
    }

    /// Prints the line of a check. Returns whether it passed.
    pub(super) fn tell(&mut self, name: &str, found: &Found) -> bool {
        self.checks += 1;
        self.failed += usize::from(found.is_err());
        match found {
            // An error may span lines; the report has one line per check.
            Err(cause) => println!("FAILED  {name:<12} {}", cause.to_string().replace('\n', " ")),
            Ok(said) => println!("ok      {name:<12} {said}"),
        }
        found.is_ok()
    }
}
