//! The pages for people, and the files that they load. openapi.yaml, which is about the API, does not contain them; their
//! errors are problems like any other.

use axum::{
    Router,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use sha2::{Digest as _, Sha256};

use super::{
    ApiState,
    problem::{Problem, unknown_route},
    public_address::PublicAddress,
};
use crate::pages::{
    self,
    assets::{self, File},
    swagger,
};

/// How many bytes of a file's digest its entity tag contains.
const TAG_BYTES: usize = 16;

/// The routes of the pages.
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/", get(async || Redirect::temporary("/docs")))
        .route("/docs", get(show_swagger_ui))
        .route("/docs/", get(async || Redirect::permanent("/docs")))
        .route("/docs/{file}", get(show_file))
        .route("/guide", get(show_page))
        .route("/guide.md", get(show_page))
        .route("/guide/{page}", get(show_page))
        .route("/reference", get(show_page))
        .route("/reference.md", get(show_page))
        .route("/reference/{*page}", get(show_page))
        .route("/errors", get(show_page))
        .route("/errors.md", get(show_page))
        .route("/errors/{page}", get(show_page))
        .route("/llms.txt", get(show_page))
}

async fn show_swagger_ui(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    shown(&headers, swagger::page(state.is_dev, state.prefix()), swagger::POLICY)
}

async fn show_file(name: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Result<Response, Problem> {
    let name = name.map(|Path(name)| name).unwrap_or_default();
    let Some(file) = assets::file(&name, is_gzip_taken(&headers)) else {
        return Err(unknown_route().await);
    };
    let mut response = shown(&headers, file, swagger::POLICY);
    let vary = HeaderValue::from_static("accept-encoding");
    response.headers_mut().append(header::VARY, vary);
    Ok(response)
}

/// Whether the client takes gzip (RFC 9110, section 12.5.3). One that does not say so gets a file as it is.
fn is_gzip_taken(headers: &HeaderMap) -> bool {
    let written = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = written
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused = weight.trim().trim_start_matches("q=").parse() == Ok(0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

async fn show_page(
    State(state): State<ApiState>,
    uri: Uri,
    headers: HeaderMap,
    address: PublicAddress,
) -> Result<Response, Problem> {
    let base = address.of("");
    // The pages quote it in code samples, and a host name must not be able to end the quotation.
    let is_plain = base
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b":/.-_[]".contains(&byte));
    let base = if is_plain { base.as_str() } else { "" };
    match pages::page(uri.path(), base, state.prefix()) {
        Some(page) => Ok(shown(&headers, page, pages::article::POLICY)),
        None => Err(unknown_route().await),
    }
}

/// Returns a file, or 304 if the browser has it already. Browsers check each time; a file changes only with the server.
fn shown(headers: &HeaderMap, file: File, policy: &'static str) -> Response {
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&file.bytes)[..TAG_BYTES]));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.contains(&tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, file.media_type)], file.bytes).into_response()
    };
    let response_headers = response.headers_mut();
    if file.is_compressed && !is_known {
        response_headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response_headers.insert(header::ETAG, tag);
    }
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response_headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
