//! Failures on demand: the next requests of the API are answered with an error, as an overloaded service would.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::api::problem::{Problem, ProblemCode};

/// Which requests fail, and how.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    /// 429, 500 or 503.
    pub status: u16,
    /// How many requests.
    #[serde(default = "once")]
    pub times: u32,
    /// `Retry-After` of a 429 or 503, in seconds.
    #[serde(default)]
    pub retry_after_s: u32,
}

const fn once() -> u32 {
    1
}

impl Failure {
    pub(super) fn problem(self) -> Problem {
        let code = match self.status {
            429 => ProblemCode::RateLimitExceeded,
            500 => ProblemCode::InternalError,
            _ => ProblemCode::ServiceUnavailable,
        };
        let detail = "The sandbox was asked to fail this request (POST /sandbox/fail).";
        Problem::of_sandbox(code, detail, (self.status != 500).then_some(self.retry_after_s.into()))
    }
}

/// The failures that are still to come.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Option<Failure>>);

impl Failures {
    /// Replaces them.
    pub(super) fn set(&self, failure: Option<Failure>) {
        *self.lock() = failure.filter(|failure| failure.times > 0);
    }

    /// Takes one.
    pub(super) fn next(&self) -> Option<Failure> {
        let mut coming = self.lock();
        let failure = coming.as_mut()?;
        failure.times -= 1;
        let next = *failure;
        if next.times == 0 {
            *coming = None;
        }
        Some(next)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
