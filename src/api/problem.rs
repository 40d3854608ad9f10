//! Errors as a client sees them: RFC 9457 problem details, one shape for every error the server makes.

mod body;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

pub use super::problem_code::ProblemCode;
pub(super) use body::ProblemBody;

use crate::{
    contract::{Fault, Faults},
    domain::{fault_code::FaultCode, pointer::shorten},
    metrics::UnavailableReason,
    store::StoreError,
};

/// `Retry-After` of a 503, in seconds.
const UNAVAILABLE_RETRY_S: u64 = 1;

/// `Retry-After` for a request that is still running, in seconds.
const RUNNING_RETRY_S: u64 = 1;

/// The media type of problems (RFC 9457).
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// The maximum length of a fault's pointer; a longer one is cut to the nearest value that contains it.
pub const POINTER_BYTES_MAX: usize = 256;

/// The maximum length of a fault's detail, and of a bad request's: some repeat what was sent.
const DETAIL_BYTES_MAX: usize = 512;

/// How much of a response the faults may take, so that it stays below 32 KiB. They are in it twice: in `errors` and in
/// `detail`.
const FAULTS_BYTES_MAX: usize = 30 * 1024;

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: a JSON Pointer (RFC 6901) into the body, or `path/` or `query/` and a parameter's name.
    pointer: String,
    /// What kind of fault.
    code: FaultCode,
    /// What is wrong, for people.
    detail: String,
}

impl From<Fault> for FieldError {
    fn from(Fault { pointer, code, detail }: Fault) -> Self {
        let mut detail = cut(detail.into_owned());
        let short = shorten(&pointer, POINTER_BYTES_MAX);
        if short.len() < pointer.len() {
            detail = format!("{detail} (at a pointer of {} bytes, which is cut short)", pointer.len());
        }
        Self {
            pointer: short.to_owned(),
            code,
            detail,
        }
    }
}

impl FieldError {
    /// The most bytes that it takes of a response, in `errors` and in `detail`.
    fn bytes(&self) -> usize {
        const FRAME: usize = r#"{"pointer":"","code":"duplicate_parameter","detail":""},the body ; "#.len() + 1;
        let Self {
            pointer,
            code: _,
            detail,
        } = self;
        FRAME + 2 * (json_bytes(pointer) + json_bytes(detail))
    }

    /// The fault as a part of the problem's `detail`.
    fn in_words(&self) -> String {
        let Self { pointer, detail, .. } = self;
        let what = if pointer.is_empty() { "the body" } else { pointer };
        format!("{what} {detail}")
    }
}

/// How many bytes a text has as a JSON string, without its quotes.
fn json_bytes(text: &str) -> usize {
    let bytes = |byte| match byte {
        b'"' | b'\\' => 2,
        ..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(bytes).sum()
}

/// Truncates a detail that is too long.
fn cut(mut detail: String) -> String {
    if detail.len() > DETAIL_BYTES_MAX {
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        detail.push('…');
    }
    detail
}

/// A refusal or a failure. `context` renders it, which knows the request's id and path.
#[derive(Clone, Debug)]
pub struct Problem {
    code: ProblemCode,
    detail: String,
    errors: Vec<FieldError>,
    /// Seconds for `Retry-After`.
    retry_after_s: Option<u64>,
    /// Why the service is not available, if that is it.
    unavailable: Option<UnavailableReason>,
}

impl Problem {
    fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            unavailable: None,
        }
    }

    /// An error that a sandbox was asked for, or that one of its own operations has.
    pub(crate) fn of_sandbox(code: ProblemCode, detail: impl Into<String>, retry_after_s: Option<u64>) -> Self {
        Self {
            retry_after_s,
            ..Self::new(code, detail)
        }
    }

    /// 503, for this reason.
    fn unavailable(reason: UnavailableReason, detail: impl Into<String>) -> Self {
        Self {
            retry_after_s: Some(UNAVAILABLE_RETRY_S),
            unavailable: Some(reason),
            ..Self::new(ProblemCode::ServiceUnavailable, detail)
        }
    }

    /// Why the service is not available, if that is it.
    pub(super) fn unavailable_reason(&self) -> Option<UnavailableReason> {
        self.unavailable
    }

    /// 400: the request is malformed.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::BadRequest, cut(detail.into()))
    }

    /// 401: the same for a token that is missing, malformed, unknown or revoked.
    pub(super) fn unauthorized() -> Self {
        Self::new(
            ProblemCode::Unauthorized,
            "Send a valid token as Authorization: Bearer <token>.",
        )
    }

    /// 401: the `Authorization` header has its scheme twice, whatever follows.
    pub(super) fn scheme_twice() -> Self {
        Self::new(
            ProblemCode::Unauthorized,
            "The Authorization header says Bearer twice: send it as Authorization: Bearer <token>.",
        )
    }

    /// 403: the token may not do this.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Forbidden, detail)
    }

    /// 404: the same for what does not exist and for what belongs to another organization.
    pub(super) fn not_found(thing: &str) -> Self {
        Self::new(ProblemCode::NotFound, format!("No {thing} with that id."))
    }

    /// 404: the dashboard has no such page.
    pub(super) fn no_such_page() -> Self {
        Self::new(ProblemCode::NotFound, "There is no such page.")
    }

    /// 409: the current state does not allow this.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Conflict, detail)
    }

    /// 409: a request with the same idempotency key is still running.
    pub(super) fn still_running() -> Self {
        Self {
            retry_after_s: Some(RUNNING_RETRY_S),
            ..Self::conflict("The request with this Idempotency-Key is still running; repeat it to get its response.")
        }
    }

    /// 409: the idempotency key was used for another request.
    pub(super) fn idempotency_mismatch() -> Self {
        Self::new(
            ProblemCode::IdempotencyMismatch,
            "This Idempotency-Key was used for another request; use a new one.",
        )
    }

    /// 412: the resource is not the version that the client has seen.
    pub(super) fn precondition_failed(thing: &str) -> Self {
        let detail = format!("The {thing} has changed: If-Match does not list its current ETag. Read it again.");
        Self::new(ProblemCode::PreconditionFailed, detail)
    }

    /// 412: `If-Match` cannot match any version.
    pub(super) fn weak_precondition() -> Self {
        let detail = "If-Match lists weak tags only, which match no version (RFC 9110, section 13.1.1): send the ETag as \
                      it was returned, without W/ before it.";
        Self::new(ProblemCode::PreconditionFailed, detail)
    }

    /// 413: the body is larger than the operation takes.
    pub(super) fn payload_too_large(bytes_max: usize) -> Self {
        Self::new(
            ProblemCode::PayloadTooLarge,
            format!("The body may have at most {bytes_max} bytes."),
        )
    }

    /// 415: the body is not JSON, or encoded.
    pub(super) fn unsupported_media_type(detail: &'static str) -> Self {
        Self::new(ProblemCode::UnsupportedMediaType, detail)
    }

    /// 422: the request is understood, but not accepted.
    pub(super) fn validation(faults: Faults) -> Self {
        Self::faulty(ProblemCode::ValidationError, faults)
    }

    /// 400: the query is malformed.
    pub(super) fn bad_query(faults: Faults) -> Self {
        Self::faulty(ProblemCode::BadRequest, faults)
    }

    /// What is wrong with a query: 422 if it is understood.
    pub(crate) fn of_query(faults: Faults, is_understood: bool) -> Self {
        if is_understood {
            Self::validation(faults)
        } else {
            Self::bad_query(faults)
        }
    }

    /// Lists as many faults as fit, and counts the others.
    fn faulty(code: ProblemCode, faults: Faults) -> Self {
        let (listed, mut more) = faults.into_parts();
        let mut room = FAULTS_BYTES_MAX;
        let (mut errors, mut details) = (Vec::with_capacity(listed.len()), Vec::with_capacity(listed.len() + 1));
        for error in listed.into_iter().map(FieldError::from) {
            let left = room.checked_sub(error.bytes());
            room = left.unwrap_or(0);
            if left.is_some() {
                details.push(error.in_words());
                errors.push(error);
            } else {
                more += 1;
            }
        }
        if more > 0 {
            details.push(format!("and {more} more"));
        }
        Self {
            errors,
            ..Self::new(code, details.join("; "))
        }
    }

    /// 422 with one fault.
    pub(super) fn invalid(pointer: &str, code: FaultCode, detail: impl Into<String>) -> Self {
        let mut faults = Faults::default();
        faults.add(pointer, code, &detail.into());
        Self::validation(faults)
    }

    /// 429: more requests than the organization may make per minute.
    pub(super) fn rate_limit_exceeded(requests_per_minute_max: u32, retry_after_s: u64) -> Self {
        let detail = format!("This organization may make {requests_per_minute_max} requests per minute.");
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(ProblemCode::RateLimitExceeded, detail)
        }
    }

    /// 429: more writes than the organization may make per calendar month.
    pub(super) fn quota_exceeded(writes_per_month_max: u32, retry_after_s: u64) -> Self {
        let detail = format!("This organization may make {writes_per_month_max} writes per calendar month.");
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(ProblemCode::QuotaExceeded, detail)
        }
    }

    /// 503: the node must not be sent requests now.
    pub(super) fn unready(detail: &'static str) -> Self {
        Self::unavailable(UnavailableReason::NotReady, detail)
    }

    /// 503: the node handles as many requests as it can.
    pub(super) fn overloaded() -> Self {
        let detail = "The service is handling as many requests as it can; nothing was done. Try again soon.";
        Self::unavailable(UnavailableReason::Overloaded, detail)
    }

    /// 503: the request took so long that it was abandoned.
    pub(super) fn took_too_long() -> Self {
        let detail = "The service could not respond in time; it may still have done what you asked. Check, or send the \
                      request again with the same Idempotency-Key.";
        Self::unavailable(UnavailableReason::Timeout, detail)
    }

    /// 503: the service is about to stop.
    pub(super) fn stopping() -> Self {
        Self::unavailable(UnavailableReason::Stopping, "The service is stopping.")
    }

    /// 500: a fault of ours, which is logged where it is found.
    pub(crate) fn internal_error() -> Self {
        Self::new(
            ProblemCode::InternalError,
            "Something failed on our side. Quote the request id when you report it.",
        )
    }

    /// Whether the request itself is at fault, so that only another one can succeed.
    pub(super) fn is_refusal(&self) -> bool {
        let status = self.code.status();
        status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                tracing::warn!(exception.message = %cause, "the database is not available");
                let detail = "The service cannot reach its database; nothing was changed. Try again soon.";
                Self::unavailable(UnavailableReason::Database, detail)
            }
            StoreError::InDoubt(cause) => {
                tracing::warn!(exception.message = %cause, "the connection broke while a write was committed");
                let detail = "The connection to the database broke while this was being written: it may or may not have been \
                              done. Repeat the request with the same Idempotency-Key, or check before you repeat it.";
                Self::unavailable(UnavailableReason::Database, detail)
            }
            StoreError::Refused(_) | StoreError::Corrupt(_) => {
                tracing::error!(exception.message = %error, "a request failed");
                Self::internal_error()
            }
        }
    }
}

/// 404: no such route.
pub(super) async fn unknown_route() -> Problem {
    Problem::new(ProblemCode::NotFound, "There is no such route; /docs lists them all.")
}

/// 405: the router adds `Allow`.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(
        ProblemCode::MethodNotAllowed,
        "This route does not take that method; the Allow header lists those it takes.",
    )
}
