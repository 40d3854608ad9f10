//! The kinds of errors, as programs read them.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What kind of error it is, for programs: the whole catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// Malformed JSON, or a malformed query.
    BadRequest,
    /// No valid token.
    Unauthorized,
    /// The token may not do this.
    Forbidden,
    /// It does not exist, or belongs to another organization.
    NotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// The current state does not allow this.
    Conflict,
    /// The idempotency key was used for another request.
    IdempotencyMismatch,
    /// The resource has changed since it was read.
    PreconditionFailed,
    /// The body is larger than the operation takes.
    PayloadTooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// Fields of the body or the path are wrong.
    ValidationError,
    /// Too many requests per minute.
    RateLimitExceeded,
    /// Too many writes this month.
    QuotaExceeded,
    /// A fault of ours.
    InternalError,
    /// The service cannot respond now.
    ServiceUnavailable,
}

impl ProblemCode {
    /// The status that it comes with.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict | Self::IdempotencyMismatch => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ValidationError => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimitExceeded | Self::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad request",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::Conflict => "Conflict",
            Self::IdempotencyMismatch => "Idempotency key mismatch",
            Self::PreconditionFailed => "Precondition failed",
            Self::PayloadTooLarge => "Payload too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::ValidationError => "Validation error",
            Self::RateLimitExceeded => "Rate limit exceeded",
            Self::QuotaExceeded => "Quota exceeded",
            Self::InternalError => "Internal error",
            Self::ServiceUnavailable => "Service unavailable",
        }
    }

    /// The word on the wire.
    pub(super) fn word(self) -> String {
        self.title()
            .to_ascii_lowercase()
            .replace(' ', "_")
            .replace("idempotency_key", "idempotency")
    }
}
