//! What a browser submits. A form counts only if a page of ours has made it for this browser: it must come from this site, and
//! hold what only our pages can know of the browser's cookie.

use std::collections::HashMap;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts as _, Request},
    http::{HeaderMap, Method},
    response::{IntoResponse as _, Response},
};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::{
    cookies::{Cookie, form_token},
    visit::Visit,
};
use crate::{
    api::{
        ApiState,
        extract::{is_of_type, read},
        problem::Problem,
        public_address::PublicAddress,
    },
    domain::pass::Action,
};

/// How large a form may be.
const FORM_BYTES_MAX: usize = 8 * 1024;

/// The media type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// The fields of a form of whoever is not signed in.
pub(super) struct Fields(HashMap<String, String>);

impl Fields {
    /// A field's text; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Reads the form of the browser that has this cookie.
    async fn of(request: Request, state: &ApiState, cookie: Cookie) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Ok(address) = PublicAddress::from_request_parts(&mut parts, state).await;
        is_from_here(&parts.headers, &address)?;
        if !is_of_type(&parts.headers, FORM) {
            return Err(Problem::unsupported_media_type("Send the form as the page sends it."));
        }
        let bytes = read(&parts.headers, body, FORM_BYTES_MAX, state.body_read_timeout).await?;
        let fields = Self(url::form_urlencoded::parse(&bytes).into_owned().collect());
        let expected = cookie.of(&parts.headers, &address).map(form_token);
        let is_ours = expected.is_some_and(|expected| expected.as_bytes().ct_eq(fields.text("form").as_bytes()).into());
        if !is_ours {
            let detail = "The form is not of this session, or the browser sent no cookie: open the page again, and send it from there.";
            return Err(Problem::forbidden(detail));
        }
        Ok(fields)
    }
}

impl FromRequest<ApiState> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Problem> {
        Self::of(request, state, Cookie::Visitor).await
    }
}

/// A form of somebody who is signed in.
pub(super) struct Submitted {
    pub(super) visit: Visit,
    fields: Fields,
}

impl FromRequest<ApiState> for Submitted {
    type Rejection = Response;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, state).await?;
        let request = Request::from_parts(parts, body);
        let fields = Fields::of(request, state, Cookie::Session).await;
        let fields = fields.map_err(Problem::into_response)?;
        Ok(Self { visit, fields })
    }
}

impl Submitted {
    /// A field's text; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.fields.text(name)
    }

    /// Does what the form asks for, once however often it is sent.
    pub(super) async fn send(
        &self,
        action: Action,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, Problem> {
        let key = self.text("key");
        self.visit.send(action, method, path_and_query, body, key).await
    }
}

/// Refuses a form of another site's page. Browsers say where a request is from in `Sec-Fetch-Site`, those of before 2023 in
/// `Origin` alone, which is `null` where the page forbids to name it, as ours do.
fn is_from_here(headers: &HeaderMap, address: &PublicAddress) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_from_here = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin",
        (None, None | Some("null")) => true,
        (None, Some(origin)) => address.origin().is_some_and(|own| own == origin),
    };
    if is_from_here {
        return Ok(());
    }
    Err(Problem::forbidden(
        "This form was sent by a page of another site; nothing was done.",
    ))
}
