//! Validated extractors: a path parameter, a query, a body. What they hand over is valid; what is not they refuse with
//! a problem that names the field.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use validator::{Validate, ValidationError};

use super::{ApiState, idempotency::Submission, json, problem::Problem};
use crate::domain::{
    event_id::EventId,
    id::{DeliveryId, WebhookId},
    pointer::first_token,
};

pub(super) use crate::contract::Faults;

/// The one parameter of a path.
pub(super) struct Path<T>(pub(super) T);

/// A value that stands in a path.
pub(super) trait PathParameter: Sized {
    /// The parameter's name in the route.
    const NAME: &'static str;
    /// What it must be, to complete the sentence "must be …".
    const EXPECTED: &'static str;
    /// Reads it.
    fn parse(text: &str) -> Option<Self>;
}

impl PathParameter for WebhookId {
    const NAME: &'static str = "webhook_id";
    const EXPECTED: &'static str = "a UUID";
    fn parse(text: &str) -> Option<Self> {
        hyphenated(text).map(Self::new)
    }
}

impl PathParameter for DeliveryId {
    const NAME: &'static str = "delivery_id";
    const EXPECTED: &'static str = "a UUID";
    fn parse(text: &str) -> Option<Self> {
        hyphenated(text).map(Self::new)
    }
}

impl PathParameter for EventId {
    const NAME: &'static str = "event_id";
    const EXPECTED: &'static str = "evt_ and a ULID";
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// A UUID in its usual spelling of 36 characters; the `uuid` crate would read others too.
fn hyphenated(text: &str) -> Option<Uuid> {
    if text.len() == 36 {
        Uuid::try_parse(text).ok()
    } else {
        None
    }
}

impl<T: PathParameter> FromRequestParts<ApiState> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let parameters = RawPathParams::from_request_parts(parts, state).await.ok();
        let text = parameters
            .iter()
            .flatten()
            .find(|(name, _)| *name == T::NAME)
            .map(|(_, value)| value);
        text.and_then(T::parse).map(Self).ok_or_else(|| {
            Problem::invalid(
                &format!("path/{}", T::NAME),
                "format",
                format!("must be {}", T::EXPECTED),
            )
        })
    }
}

/// A query. An unknown parameter is refused as a bad one is: a typo must not be ignored in silence.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned + Validate + Send> FromRequestParts<ApiState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        let text = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(url::form_urlencoded::parse(text.as_bytes()));
        let query: T = serde_path_to_error::deserialize(pairs).map_err(|error| {
            let (parameter, cause) = (error.path().to_string(), error.into_inner());
            Problem::bad_request(format!("Query parameter {parameter}: {cause}."))
        })?;
        let errors = query.validate().err();
        let broken = errors.as_ref().and_then(|errors| {
            let (parameter, broken) = errors.field_errors().into_iter().next()?;
            Some((parameter, broken.first()?))
        });
        match broken {
            Some((parameter, error)) => Err(Problem::bad_request(format!(
                "Query parameter {parameter}: {}.",
                detail(error)
            ))),
            None => Ok(Self(query)),
        }
    }
}

/// A boolean of a query, in any case: some clients write `True`.
pub(super) fn query_boolean<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(serde::de::Error::custom("must be true or false")),
    }
}

/// A whole number of a body, in any spelling: to JSON Schema, `50.0` and `5e1` are the integer 50 too.
pub(super) fn whole_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = <Option<f64> as serde::Deserialize>::deserialize(deserializer)?;
    // Without its sign, a zero is written as one.
    let whole = number.map(|number| {
        if number == 0.0 {
            Ok(0)
        } else {
            number.to_string().parse()
        }
    });
    whole
        .transpose()
        .map_err(|_| serde::de::Error::custom("must be a whole number"))
}

/// A request body as it is written, and what it becomes when it is valid.
///
/// Several judges, and every fault of each is reported: the schema of the type's name in openapi.yaml,
/// [`judge`](Self::judge), and [`parse`](Self::parse), which knows what words mean. A judge that finds more faults than are listed is the last one.
pub(super) trait RequestBody: DeserializeOwned + ToSchema + Send {
    /// What the handler gets.
    type Parsed: Send;
    /// How large it may be.
    const BYTES_MAX: usize = 16 * 1024;
    /// Whether no body at all means `{}`.
    const OPTIONAL: bool = false;

    /// Judges what no schema of the body alone can say.
    fn judge(_value: &Value, _state: &ApiState, _faults: &mut Faults) {}

    /// Turns the body into domain types. `None`, or anything added to `faults`, refuses it.
    fn parse(self, state: &ApiState, faults: &mut Faults) -> Option<Self::Parsed>;
}

/// A valid body, as domain types, and how to do what it asks for once.
pub(super) struct Body<T: RequestBody>(pub(super) T::Parsed, pub(super) Submission);

impl<T: RequestBody> FromRequest<ApiState> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let key = Submission::key_of(&parts.headers)?;
        let bytes = read(&parts.headers, body, T::BYTES_MAX, state.body_read_timeout).await?;
        let submission = Submission::new(key, &parts, &bytes);
        let bytes = match (bytes.is_empty(), T::OPTIONAL) {
            (true, true) => Bytes::from_static(b"{}"),
            (true, false) => return Err(Problem::bad_request("The body is empty; send a JSON object.")),
            (false, _) if is_json(&parts.headers) => bytes,
            (false, _) => return Err(Problem::unsupported_media_type()),
        };
        judge::<T>(state, &bytes).map(|parsed| Self(parsed, submission))
    }
}

async fn read(
    headers: &HeaderMap,
    body: axum::body::Body,
    bytes_max: usize,
    patience: Duration,
) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(Problem::payload_too_large(bytes_max));
    }
    let collecting = tokio::time::timeout(patience, Limited::new(body, bytes_max).collect()).await;
    let collected = collecting.map_err(|_| Problem::bad_request("The body took too long to arrive."))?;
    let collected = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Problem::payload_too_large(bytes_max)
        } else {
            Problem::bad_request("The body broke off.")
        }
    })?;
    Ok(collected.to_bytes())
}

/// Whether the body is plain `application/json`; parameters such as a charset do not matter (RFC 8259, section 11).
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let encoding = headers
        .get(header::CONTENT_ENCODING)
        .map_or("identity", |value| value.to_str().unwrap_or_default());
    media_type.eq_ignore_ascii_case("application/json") && encoding.eq_ignore_ascii_case("identity")
}

fn judge<T: RequestBody>(state: &ApiState, bytes: &[u8]) -> Result<T::Parsed, Problem> {
    let mut faults = Faults::default();
    let value = json::read(bytes, &mut faults)
        .map_err(|cause| Problem::bad_request(format!("The body is not valid JSON: {cause}.")))?;
    if !faults.is_full() {
        state.contract.judge(&T::name(), &value, &mut faults);
    }
    if !faults.is_full() {
        T::judge(&value, state, &mut faults);
    }
    let body: T = if faults.is_empty() {
        serde_json::from_slice(bytes)
    } else {
        match without_faults(value, &faults) {
            Some(value) => T::deserialize(value),
            None => return Err(Problem::validation(faults)),
        }
    }
    .map_err(|cause| {
        faults.add("", "type", &cause);
        Problem::validation(std::mem::take(&mut faults))
    })?;
    match body.parse(state, &mut faults) {
        Some(parsed) if faults.is_empty() => Ok(parsed),
        _ => Err(Problem::validation(faults)),
    }
}

/// The fields that nobody has complained of yet: the other judges see them all the same, so that every fault is reported
/// at once. `None` if there is nothing left to judge.
fn without_faults(mut value: Value, faults: &Faults) -> Option<Value> {
    if faults.is_full() {
        return None;
    }
    let blamed: Vec<_> = faults
        .listed()
        .iter()
        .map(|fault| first_token(&fault.pointer))
        .collect();
    value.as_object_mut()?.retain(|name, _| !blamed.contains(name));
    Some(value)
}

/// What a parameter must be, by the rule that it breaks.
fn detail(error: &ValidationError) -> String {
    let parameter = |name: &str| error.params.get(name).map(ToString::to_string);
    match (parameter("min"), parameter("max")) {
        (Some(min), Some(max)) => format!("must be from {min} to {max}"),
        (None, Some(max)) => format!("must be at most {max}"),
        (Some(min), None) => format!("must be at least {min}"),
        (None, None) => error.message.as_deref().unwrap_or("is not valid").to_owned(),
    }
}
