//! The pages for people, and the files that they load. openapi.yaml, which is about the API, does not contain them; their
//! errors are problems like any other.

use std::sync::Arc;

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

async fn show_swagger_ui(State(state): State<ApiState>, headers: HeaderMap) -> Result<Response, Problem> {
    let parts = state.clone();
    let make = move || Some(swagger::page(parts.is_dev, parts.prefix()));
    shown(&state, &headers, swagger::POLICY, make).await
}

async fn show_file(
    State(state): State<ApiState>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = name.map(|Path(name)| name).unwrap_or_default();
    let is_gzip_taken = is_gzip_taken(&headers);
    let make = move || assets::file(&name, is_gzip_taken);
    let mut response = shown(&state, &headers, swagger::POLICY, make).await?;
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
    let base = if is_plain { base } else { String::new() };
    let parts = state.clone();
    let make = move || pages::page(uri.path(), &base, parts.prefix());
    shown(&state, &headers, pages::article::POLICY, make).await
}

/// Makes a file, and its entity tag. That takes milliseconds of a processor, and whoever asks needs no token: it is done
/// for one request at a time, on a thread of its own, so that the API goes on.
async fn tagged(
    state: &ApiState,
    make: impl FnOnce() -> Option<File> + Send + 'static,
) -> Result<(File, String), Problem> {
    let turn = Arc::clone(&state.page_turn).acquire_owned().await;
    let making = tokio::task::spawn_blocking(move || {
        // Kept to the end, even if the client hangs up.
        let _turn = turn;
        let file = make()?;
        let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&file.bytes)[..TAG_BYTES]));
        Some((file, tag))
    });
    match making.await {
        Ok(Some(tagged)) => Ok(tagged),
        Ok(None) => Err(unknown_route().await),
        // It panicked; the panic hook has logged where.
        Err(_) => Err(Problem::internal_error()),
    }
}

/// Returns a file, or 304 if the browser has it already. Browsers check each time; a file changes only with the server.
async fn shown(
    state: &ApiState,
    headers: &HeaderMap,
    policy: &'static str,
    make: impl FnOnce() -> Option<File> + Send + 'static,
) -> Result<Response, Problem> {
    let (file, tag) = tagged(state, make).await?;
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
    Ok(response)
}
