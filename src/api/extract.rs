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
use validator::{Validate, ValidationError, ValidationErrors, ValidationErrorsKind};

use super::{
    ApiState,
    idempotency::Submission,
    problem::{FieldError, Problem},
};
use crate::{
    contract::Fault,
    domain::{event_id::EventId, pointer::first_token},
};

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

/// `{webhook_id}`.
pub(super) struct WebhookId(pub(super) Uuid);
/// `{delivery_id}`.
pub(super) struct DeliveryId(pub(super) Uuid);

impl PathParameter for WebhookId {
    const NAME: &'static str = "webhook_id";
    const EXPECTED: &'static str = "a UUID";
    fn parse(text: &str) -> Option<Self> {
        hyphenated(text).map(Self)
    }
}

impl PathParameter for DeliveryId {
    const NAME: &'static str = "delivery_id";
    const EXPECTED: &'static str = "a UUID";
    fn parse(text: &str) -> Option<Self> {
        hyphenated(text).map(Self)
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
        let mut faults = Vec::new();
        query
            .validate()
            .unwrap_or_else(|errors| collect(&errors, "", &mut faults));
        match faults.first() {
            Some(Fault { pointer, detail, .. }) => Err(Problem::bad_request(format!(
                "Query parameter {}: {detail}.",
                pointer.trim_start_matches('/')
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
/// Three judges, and every fault of each is reported: the schema of the type's name in openapi.yaml, the type's own
/// `validator` rules, and [`parse`](Self::parse), which knows what words mean.
pub(super) trait RequestBody: DeserializeOwned + Validate + ToSchema + Send {
    /// What the handler gets.
    type Parsed: Send;
    /// How large it may be.
    const BYTES_MAX: usize = 16 * 1024;
    /// Whether no body at all means `{}`.
    const OPTIONAL: bool = false;

    /// Turns the body into domain types. `None`, or anything added to `faults`, refuses it.
    fn parse(self, state: &ApiState, faults: &mut Faults) -> Option<Self::Parsed>;
}

/// The faults found so far, one a place: the first judge that complains of a place is the clearest.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault, unless its place has one.
    pub(super) fn add(&mut self, pointer: &str, code: &str, detail: &impl ToString) {
        self.push(Fault {
            pointer: pointer.to_owned(),
            code: code.to_owned(),
            detail: detail.to_string(),
        });
    }

    /// Adds a fault, unless its place has one.
    pub(super) fn push(&mut self, fault: Fault) {
        if self.0.iter().all(|known| known.pointer != fault.pointer) {
            self.0.push(fault);
        }
    }

    fn into_problem(self) -> Problem {
        Problem::validation(self.0.into_iter().map(FieldError::from).collect())
    }
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
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|cause| Problem::bad_request(format!("The body is not valid JSON: {cause}.")))?;
        judge::<T>(state, &bytes, value).map(|parsed| Self(parsed, submission))
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

fn judge<T: RequestBody>(state: &ApiState, bytes: &[u8], mut value: Value) -> Result<T::Parsed, Problem> {
    let mut faults = Faults::default();
    state
        .contract
        .faults(&T::name(), &value)
        .into_iter()
        .for_each(|fault| faults.push(fault));
    // The fields that the schema has no complaint of are judged all the same, so that every fault is told at once.
    let trimmed;
    let readable = if faults.0.is_empty() {
        bytes
    } else {
        let Some(fields) = value.as_object_mut() else {
            return Err(faults.into_problem());
        };
        fields.retain(|name, _| !faults.0.iter().any(|fault| first_token(&fault.pointer) == *name));
        trimmed = serde_json::to_vec(&value).unwrap_or_default();
        &trimmed
    };
    let body: T = match serde_json::from_slice(readable) {
        Ok(body) => body,
        Err(cause) => {
            faults.add("", "type", &cause);
            return Err(faults.into_problem());
        }
    };
    let mut ruled = Vec::new();
    body.validate()
        .unwrap_or_else(|errors| collect(&errors, "", &mut ruled));
    for fault in ruled {
        faults.push(fault);
    }
    match body.parse(state, &mut faults) {
        Some(parsed) if faults.0.is_empty() => Ok(parsed),
        _ => Err(faults.into_problem()),
    }
}

/// The complaints of `validator`, each with its place.
fn collect(errors: &ValidationErrors, base: &str, faults: &mut Vec<Fault>) {
    for (field, kind) in errors.errors() {
        let pointer = format!("{base}/{field}");
        match kind {
            ValidationErrorsKind::Field(errors) => {
                faults.extend(errors.iter().map(|error| rule_fault(&pointer, error)));
            }
            ValidationErrorsKind::Struct(errors) => collect(errors, &pointer, faults),
            ValidationErrorsKind::List(items) => {
                for (index, errors) in items {
                    collect(errors, &format!("{pointer}/{index}"), faults);
                }
            }
        }
    }
}

fn rule_fault(pointer: &str, error: &ValidationError) -> Fault {
    let parameter = |name: &str| error.params.get(name).map(ToString::to_string);
    let detail = match (parameter("min"), parameter("max")) {
        (Some(min), Some(max)) => format!("must be from {min} to {max}"),
        (None, Some(max)) => format!("must be at most {max}"),
        (Some(min), None) => format!("must be at least {min}"),
        (None, None) => error.message.as_deref().unwrap_or("is not valid").to_owned(),
    };
    Fault {
        pointer: pointer.to_owned(),
        code: error.code.to_string(),
        detail,
    }
}
