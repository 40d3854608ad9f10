//! `If-Match`: a change applies only to a version that the client has seen (RFC 9110, section 13.1.1).

use axum::{
    extract::FromRequestParts,
    http::{header::IF_MATCH, request::Parts},
};
use utoipa::IntoParams;

use super::{ApiState, problem::Problem};
use crate::domain::precondition::IfMatch;

/// The versions that the request may change; `None` without the header.
#[derive(Clone)]
pub(super) struct Precondition(pub(super) Option<IfMatch>);

impl Precondition {
    /// The refusal of a change to a version that the header does not list.
    pub(super) fn refusal(&self, thing: &str) -> Problem {
        if self.0.as_ref().is_some_and(IfMatch::is_weak) {
            return Problem::weak_precondition();
        }
        Problem::precondition_failed(thing)
    }
}

/// The header, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "a schema")]
pub(super) struct IfMatchHeader {
    #[param(
        rename = "If-Match",
        required = false,
        pattern = r#"^(\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$"#
    )]
    if_match: String,
}

impl FromRequestParts<ApiState> for Precondition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        let lines = parts.headers.get_all(IF_MATCH).iter();
        let lines: Option<Vec<&str>> = lines.map(|value| value.to_str().ok()).collect();
        match lines {
            Some(lines) if lines.is_empty() => Ok(Self(None)),
            lines => lines
                .and_then(|lines| IfMatch::parse(&lines.join(",")))
                .map(Some)
                .map(Self)
                .ok_or_else(|| {
                    Problem::bad_request("The header If-Match must be * or a list of entity tags in quotation marks.")
                }),
        }
    }
}
