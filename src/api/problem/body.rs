//! Problems as they are sent: as JSON to programs, as a page to the browsers of the dashboard.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{FieldError, PROBLEM_JSON, Problem, ProblemCode};
use crate::pages::{assets, dashboard::Refusal};

/// Where the dashboard signs in.
const SIGN_IN: HeaderValue = HeaderValue::from_static("/dashboard/sign_in");

/// Problem details as they stand on the wire.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(in crate::api) struct ProblemBody {
    #[schema(format = "uri")]
    r#type: String,
    title: String,
    #[schema(minimum = 400, maximum = 599)]
    status: i32,
    detail: String,
    #[schema(format = "uri-reference")]
    instance: String,
    code: ProblemCode,
    #[schema(pattern = "^req_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 100)]
    errors: Option<Vec<FieldError>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    retry_after_seconds: Option<i64>,
}

impl Problem {
    /// Gives the response its body and headers. The code completes the address of the page about it.
    pub(crate) fn render(self, response: &mut Response, pages: &str, path: &str, request_id: &str) {
        let Self {
            code,
            detail,
            errors,
            retry_after_s,
            unavailable: _,
        } = self;
        let body = ProblemBody {
            r#type: format!("{pages}/{}", code.word()),
            title: code.title().to_owned(),
            status: i32::from(code.status().as_u16()),
            detail,
            instance: path.to_owned(),
            code,
            request_id: request_id.to_owned(),
            errors: (!errors.is_empty()).then_some(errors),
            // Beside the header, the body says it for a limit alone.
            retry_after_seconds: retry_after_s
                .filter(|_| code.status() == StatusCode::TOO_MANY_REQUESTS)
                .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
        };
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if code == ProblemCode::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        *response.body_mut() = Body::from(serde_json::to_vec(&body).unwrap_or_default());
    }

    /// The same as a page of the dashboard. Whoever is not signed in is led to where they can be.
    pub(in crate::api) fn render_page(self, response: &mut Response, prefix: &str, request_id: &str) {
        let (status, page) = if self.code == ProblemCode::Unauthorized {
            response.headers_mut().insert(header::LOCATION, SIGN_IN);
            (StatusCode::SEE_OTHER, String::new())
        } else {
            let refusal = Refusal {
                title: self.code.title(),
                detail: &self.detail,
                faults: &self.sentences(),
                request_id,
            };
            (self.code.status(), refusal.page().behind(prefix))
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(assets::HTML));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        *response.body_mut() = Body::from(page);
    }

    /// The faults of the request, each as a sentence for people: to them, a parameter of the query is a field.
    pub(in crate::api) fn sentences(&self) -> Vec<String> {
        let of_field = |words: String| words.strip_prefix("query/").map(str::to_owned).unwrap_or(words);
        self.errors.iter().map(FieldError::in_words).map(of_field).collect()
    }

    /// The status of the response.
    pub(in crate::api) fn status(&self) -> StatusCode {
        self.code.status()
    }
}
