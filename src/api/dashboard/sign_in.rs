//! Signing in by token or by link, and signing out.

use std::time::Duration;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use rand::{RngExt as _, rand_core::UnwrapErr, rngs::SysRng};
use url::form_urlencoded;

use super::{
    cookies::{Cookie, form_token},
    forms::{Fields, Submitted},
    visit::shown,
};
use crate::{
    api::{ApiState, auth::after_scheme, problem::Problem, public_address::PublicAddress},
    domain::{
        pass::{Access, Pass, PassKind, SESSION_MAX},
        timestamp::Timestamp,
        token::{Scope, Token},
    },
    pages::{dashboard::sign_in, links::WebPage},
    store::{secrets::passes, tokens},
};

/// Makes a page with a form for whoever is not signed in, and gives the browser the cookie that the form is bound to.
fn with_form(
    state: &ApiState,
    headers: &HeaderMap,
    address: &PublicAddress,
    page: impl FnOnce(&str) -> WebPage,
) -> Response {
    let known = Cookie::Visitor.of(headers, address).map(str::to_owned);
    let value = known.unwrap_or_else(|| hex::encode(UnwrapErr(SysRng).random::<[u8; 16]>()));
    let mut response = shown(state, page(&form_token(&value))).into_response();
    let cookie = Cookie::Visitor.set(&value, SESSION_MAX, address);
    response
        .headers_mut()
        .extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    response
}

pub(super) async fn show_form(State(state): State<ApiState>, headers: HeaderMap, address: PublicAddress) -> Response {
    with_form(&state, &headers, &address, |form| sign_in::page(form, None))
}

pub(super) async fn by_token(
    State(state): State<ApiState>,
    headers: HeaderMap,
    address: PublicAddress,
    fields: Fields,
) -> Result<Response, Problem> {
    let refused = |notice| {
        let mut response = with_form(&state, &headers, &address, |form| sign_in::page(form, Some(notice)));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Ok(response)
    };
    let text = fields.text("token").trim();
    let Some(token) = Token::parse(after_scheme(text).unwrap_or(text)) else {
        return refused("This is not a token: one is ab_ and 48 letters and digits.");
    };
    let (digest, now) = (token.digest(), state.clock.now());
    let Some(holder) = tokens::find_holder(&state.db, digest, now).await? else {
        return refused("This token is not valid: it is unknown here, or it was revoked.");
    };
    if holder.organization_id.is_none() {
        return refused("This is a platform token; use one that belongs to an organization.");
    }
    if !holder.scopes.contains(Scope::WebhooksRead) {
        return refused("This token lacks the scope webhooks:read, without which there is nothing to see.");
    }
    let pass = Pass {
        token_digest: digest,
        access: Access::Full,
        expires_at: now.plus(SESSION_MAX),
    };
    begin(&state, &address, &pass, now)
}

pub(super) async fn show_link(
    State(state): State<ApiState>,
    headers: HeaderMap,
    address: PublicAddress,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    let link = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "link");
    let link = link.map(|(_, link)| link).unwrap_or_default();
    Ok(match opened(&state, &link).await? {
        Some(pass) => with_form(&state, &headers, &address, |form| {
            sign_in::link(form, &link, pass.access, pass.expires_at)
        }),
        None => dead_link(&state),
    })
}

pub(super) async fn by_link(
    State(state): State<ApiState>,
    address: PublicAddress,
    fields: Fields,
) -> Result<Response, Problem> {
    match opened(&state, fields.text("link")).await? {
        Some(pass) => begin(&state, &address, &pass, state.clock.now()),
        None => Ok(dead_link(&state)),
    }
}

/// The pass of a link whose token is still valid.
async fn opened(state: &ApiState, link: &str) -> Result<Option<Pass>, Problem> {
    let now = state.clock.now();
    let Some(pass) = passes::open(&state.db, PassKind::Link, link, now) else {
        return Ok(None);
    };
    let holder = tokens::find_holder(&state.db, pass.token_digest, now).await?;
    Ok(holder.map(|_| pass))
}

fn dead_link(state: &ApiState) -> Response {
    (StatusCode::NOT_FOUND, shown(state, sign_in::dead_link())).into_response()
}

/// Begins a session, and leads to what it shows.
fn begin(state: &ApiState, address: &PublicAddress, pass: &Pass, now: Timestamp) -> Result<Response, Problem> {
    let session = pass.session(now);
    let sealed = passes::seal(&state.db, PassKind::Session, &session)?;
    Ok(leave(&sealed, session.expires_at.since(now), address))
}

pub(super) async fn sign_out(address: PublicAddress, _form: Submitted) -> Response {
    leave("", Duration::ZERO, &address)
}

/// Sets the session's cookie, and leads to the dashboard.
fn leave(session: &str, lasts: Duration, address: &PublicAddress) -> Response {
    let mut response = Redirect::to("/dashboard").into_response();
    let cookie = Cookie::Session.set(session, lasts, address);
    response
        .headers_mut()
        .extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    response
}
