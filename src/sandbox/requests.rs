//! Requests for the sandbox's own operations, checked by its document as those for the API are by theirs, and their errors.

use std::time::Duration;

use axum::{
    extract::{FromRequest, FromRequestParts, MatchedPath, Request, State},
    http::{HeaderValue, request::Parts},
    middleware::Next,
    response::Response,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::state::Sandbox;
use crate::{
    api::{
        checked_json, new_request_id,
        problem::{Problem, ProblemCode},
    },
    contract::Query,
};

/// How large a body may be.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Renders the problems of these operations; those of the API are rendered already.
pub(super) async fn with_problems(State(sandbox): State<Sandbox>, request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let request_id = new_request_id(&sandbox.parts.clock);
    problem.render(&mut response, &sandbox.parts.error_pages_url, uri.path(), &request_id);
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

/// A body, and the component schema that checks it.
pub(super) trait Checked: DeserializeOwned {
    const SCHEMA: &'static str;
}

/// A valid body.
pub(super) struct Body<T>(pub(super) T);

impl<T: Checked> FromRequest<Sandbox> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, sandbox: &Sandbox) -> Result<Self, Problem> {
        let operations = &sandbox.parts.operations;
        let value = checked_json(request, operations, T::SCHEMA, BODY_BYTES_MAX, PATIENCE).await?;
        read(value).map(Self)
    }
}

/// A valid query.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Sandbox> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, sandbox: &Sandbox) -> Result<Self, Problem> {
        let template = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        let (template, query) = (template.unwrap_or_default(), parts.uri.query().unwrap_or_default());
        let operations = &sandbox.parts.operations;
        let Query {
            values,
            faults,
            is_understood,
        } = operations.check_query(parts.method.as_str(), template, query);
        if faults.is_empty() {
            read(Value::Object(values)).map(Self)
        } else {
            Err(Problem::of_query(faults, is_understood))
        }
    }
}

/// What a valid value is. A number such as `1.0` is a whole one to JSON Schema, but not here.
fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|cause| {
        let detail = format!("The request cannot be read: {cause}.");
        Problem::of_sandbox(ProblemCode::ValidationError, detail, None)
    })
}
