//! Validating extractors: a path parameter, a query, a body. Handlers get only what is valid; anything else is refused
//! with a problem that names the field.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IntoDeserializer as _, value};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ApiState,
    idempotency::Submission,
    json,
    meaning::{self, Meaning},
    problem::Problem,
};
use crate::{
    contract::{self, Contract, Faults},
    domain::{fault_code::FaultCode, pointer::first_token},
};

/// The one parameter of a path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let parameters = RawPathParams::from_request_parts(parts, state).await.ok();
        let text = parameters
            .iter()
            .flatten()
            .map(|(_, value)| value)
            .next()
            .unwrap_or_default();
        let mut faults = Faults::default();
        let (method, template) = route(parts);
        state.contract.check_path(method, template, text, &mut faults);
        if !faults.is_empty() {
            return Err(Problem::validation(faults));
        }
        let value = text.into_deserializer();
        T::deserialize(value).map(Self).map_err(|cause: value::Error| {
            tracing::error!(exception.message = %cause, "a path parameter is valid but cannot be parsed");
            Problem::internal_error()
        })
    }
}

/// The method and the path template, which identify the operation in the document.
fn route(parts: &Parts) -> (&str, &str) {
    let template = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    (parts.method.as_str(), template.unwrap_or_default())
}

/// A query, checked like a body: its shape by the document, then its meaning. An unknown parameter is refused like an
/// invalid one: a typo must not be ignored silently.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned + Meaning + Send> FromRequestParts<ApiState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let (method, template) = route(parts);
        let contract::Query {
            values,
            mut faults,
            mut is_understood,
        } = state
            .contract
            .check_query(method, template, parts.uri.query().unwrap_or_default());
        match serde_path_to_error::deserialize(Value::Object(values)) {
            Ok(query) => {
                meaning::check(&query, "query", state, &mut faults);
                if faults.is_empty() {
                    return Ok(Self(query));
                }
            }
            // A date that does not exist in the calendar.
            Err(error) => {
                is_understood = false;
                let at = format!("query/{}", error.path());
                faults.add(&at, FaultCode::Format, error.inner());
            }
        }
        Err(Problem::of_query(faults, is_understood))
    }
}

/// No query, for operations without parameters: any is refused, for the same reason.
pub(super) struct NoQuery;

impl FromRequestParts<ApiState> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let Some(text) = parts.uri.query() else {
            return Ok(Self);
        };
        let (method, template) = route(parts);
        let faults = state.contract.check_query(method, template, text).faults;
        if faults.is_empty() {
            Ok(Self)
        } else {
            Err(Problem::bad_query(faults))
        }
    }
}

/// A whole number of a body, in any spelling: to JSON Schema, `50.0` and `5e1` are the integer 50 too.
pub(super) fn whole_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = <Option<f64> as serde::Deserialize>::deserialize(deserializer)?;
    // Without its sign, -0.0 is written as zero.
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

/// A request body as the client wrote it, and what it is parsed into.
///
/// There are two kinds of checks, and every fault that they find is reported. Its shape is checked by the schema of the
/// type's name in openapi.yaml and by [`check_shape`](Self::check_shape), its meaning by the type's `validator` rules.
/// Once the list of faults is full, no further check runs.
pub(super) trait RequestBody: DeserializeOwned + ToSchema + Meaning + Send {
    /// What the handler gets.
    type Parsed: Send;
    /// Its maximum size.
    const BYTES_MAX: usize = 16 * 1024;
    /// Whether a missing body means `{}`.
    const OPTIONAL: bool = false;

    /// Checks the part of the shape that depends on the content, such as the schema of an event's data.
    fn check_shape(_value: &Value, _state: &ApiState, _faults: &mut Faults) {}

    /// Turns a valid body into domain types. `None` for a body that a check should have refused: our fault.
    fn parse(self, state: &ApiState) -> Option<Self::Parsed>;
}

/// A valid body, as domain types, and the submission that performs its write once.
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
            (false, _) => {
                is_json(&parts.headers)?;
                bytes
            }
        };
        validated::<T>(state, &bytes).map(|parsed| Self(parsed, submission))
    }
}

/// Reads a body of JSON and checks its shape by the component schema of that name: that of a request to a sandbox.
pub(crate) async fn checked_json(
    request: Request,
    contract: &Contract,
    name: &str,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Value, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = read(&parts.headers, body, bytes_max, timeout).await?;
    is_json(&parts.headers)?;
    let mut faults = Faults::default();
    let value = parse(&bytes, &mut faults)?;
    contract.check_body(name, &value, &mut faults);
    if faults.is_empty() {
        Ok(value)
    } else {
        Err(Problem::validation(faults))
    }
}

fn parse(bytes: &[u8], faults: &mut Faults) -> Result<Value, Problem> {
    json::read(bytes, faults).map_err(|cause| Problem::bad_request(format!("The body is not valid JSON: {cause}.")))
}

/// Reads a body of at most `bytes_max` bytes, which must arrive within `patience`.
pub(super) async fn read(
    headers: &HeaderMap,
    body: axum::body::Body,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(Problem::payload_too_large(bytes_max));
    }
    let collecting = tokio::time::timeout(timeout, Limited::new(body, bytes_max).collect()).await;
    let collected = collecting.map_err(|_| Problem::bad_request("The body took too long to arrive."))?;
    let collected = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Problem::payload_too_large(bytes_max)
        } else {
            Problem::bad_request("The body ended before it was complete.")
        }
    })?;
    Ok(collected.to_bytes())
}

/// Whether a body is of this media type, whatever its parameters.
pub(super) fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let written = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let written = written.map(|written| written.split(';').next().unwrap_or_default().trim());
    written.is_some_and(|written| written.eq_ignore_ascii_case(media_type))
}

/// Refuses anything but uncompressed `application/json`; parameters such as a charset are ignored (RFC 8259, section 11).
fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    if !is_of_type(headers, "application/json") {
        return Err(Problem::unsupported_media_type(
            "Send the body as JSON, with the header Content-Type: application/json.",
        ));
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::unsupported_media_type(
            "Send the body as it is, without the header Content-Encoding: compressed bodies are not read.",
        ));
    }
    Ok(())
}

fn validated<T: RequestBody>(state: &ApiState, bytes: &[u8]) -> Result<T::Parsed, Problem> {
    let mut faults = Faults::default();
    let value = parse(bytes, &mut faults)?;
    if !faults.is_full() {
        state.contract.check_body(&T::name(), &value, &mut faults);
    }
    if !faults.is_full() {
        T::check_shape(&value, state, &mut faults);
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
        faults.add("", FaultCode::Type, &cause);
        Problem::validation(std::mem::take(&mut faults))
    })?;
    meaning::check(&body, "", state, &mut faults);
    if !faults.is_empty() {
        return Err(Problem::validation(faults));
    }
    body.parse(state).ok_or_else(|| {
        tracing::error!(kallima.body = %T::name(), "a body that passed every check cannot be parsed");
        Problem::internal_error()
    })
}

/// The fields without a fault so far. The remaining checks see these, so that every fault is reported at once. `None` if
/// there is nothing left to check.
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
