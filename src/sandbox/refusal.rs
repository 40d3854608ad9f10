//! Errors of the sandbox's own operations, in the shape of the API's (RFC 9457), and bodies that are judged by it.

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Request, rejection::JsonRejection},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use rand::RngExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use ulid::Ulid;

use crate::store::StoreError;

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: String,
    /// The path of the request.
    pub(super) instance: String,
    /// When to come back, in seconds.
    pub(super) retry_after_s: Option<u32>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            instance: "/sandbox".to_owned(),
            retry_after_s: None,
        }
    }

    /// A member of the body that is not as it must be.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_error", detail)
    }

    /// A request that asks for too much at once, or at a bad time.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self {
            retry_after_s: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", detail)
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(exception.message = %error, "the sandbox's database failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "The database failed.",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self {
            status,
            code,
            detail,
            instance,
            retry_after_s,
        } = self;
        let request_id = format!("req_{}", Ulid::from_parts(0, rand::rng().random()));
        let mut problem = json!({
            "type": format!("https://docs.kallima.bio/errors/{code}"),
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
            "instance": instance,
            "code": code,
            "request_id": request_id,
        });
        if let Some(seconds) = retry_after_s {
            problem["retry_after_seconds"] = seconds.into();
        }
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            headers.insert("x-request-id", id);
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Send the body as JSON, with the header Content-Type: application/json.",
            )),
            Err(JsonRejection::JsonDataError(error)) => Err(Refusal::invalid(error.body_text())),
            Err(error) => Err(Refusal::new(error.status(), "bad_request", error.body_text())),
        }
    }
}

/// A query.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        let value = |text: &str| text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from);
        let query = url::form_urlencoded::parse(query.as_bytes());
        let members = query.map(|(name, text)| (name.into_owned(), value(&text)));
        let read = serde_json::from_value(members.collect::<Map<_, _>>().into()).map(Self);
        read.map_err(|cause| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", format!("The query: {cause}.")))
    }
}
