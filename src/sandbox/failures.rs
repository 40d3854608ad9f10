//! Failures on demand: the next requests of the API are answered with an error, as an overloaded service would.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

/// Requests that may be failed at once.
const TIMES_MAX: u32 = 1000;

/// The longest `Retry-After`, in seconds.
const RETRY_AFTER_MAX_S: u32 = 86_400;

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
    /// What is wrong with it, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        if ![429, 500, 503].contains(&self.status) {
            return Some("status must be 429, 500 or 503".to_owned());
        }
        if self.times > TIMES_MAX {
            return Some(format!(
                "times must be at most {TIMES_MAX}; 0 ends what was asked for before"
            ));
        }
        (self.retry_after_s > RETRY_AFTER_MAX_S).then(|| format!("retry_after_s must be at most {RETRY_AFTER_MAX_S}"))
    }

    pub(super) fn refusal(self, instance: &str) -> Refusal {
        let (status, code) = match self.status {
            429 => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            500 => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable"),
        };
        Refusal {
            instance: instance.to_owned(),
            retry_after_s: (self.status != 500).then_some(self.retry_after_s),
            ..Refusal::new(
                status,
                code,
                "The sandbox was asked to fail this request (POST /sandbox/fail).",
            )
        }
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
