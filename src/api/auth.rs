//! Who calls, and what they may do. The first extractor of every `/v1` handler, so that nothing about the path, the
//! query or the body is told to somebody without a token.

use std::marker::PhantomData;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};

use super::{
    ApiState,
    context::{Client, note_organization},
    limits::Place,
    meter::Meter,
    problem::Problem,
};
use crate::{
    clock::Clock,
    domain::{
        audit::Origin,
        id::{OrganizationId, TokenId},
        token::{Scope, Token},
    },
    store::tokens::{self, TokenHolder},
    telemetry::spans::RequestSpan,
};

/// A scope that a handler asks for, as a type.
pub(super) trait RequiredScope: Send + Sync {
    /// The scope.
    const SCOPE: Scope;
}

/// `webhooks:read`.
pub(super) struct WebhooksRead;
/// `webhooks:write`.
pub(super) struct WebhooksWrite;
/// `events:publish`.
pub(super) struct EventsPublish;

impl RequiredScope for WebhooksRead {
    const SCOPE: Scope = Scope::WebhooksRead;
}
impl RequiredScope for WebhooksWrite {
    const SCOPE: Scope = Scope::WebhooksWrite;
}
impl RequiredScope for EventsPublish {
    const SCOPE: Scope = Scope::EventsPublish;
}

/// Somebody with a valid token that has the scope; perhaps of no organization.
pub(super) struct Holder<S> {
    /// The organization the token acts for; none for a platform token.
    pub(super) organization_id: Option<OrganizationId>,
    token_id: TokenId,
    /// What the request uses of the organization's limits.
    pub(super) meter: Meter,
    /// The request's span.
    pub(super) span: RequestSpan,
    /// What the request holds while it is under way.
    place: Option<Place>,
    scope: PhantomData<S>,
}

/// Somebody with a valid token that has the scope and belongs to an organization.
pub(super) struct Caller<S> {
    /// The organization the token acts for.
    pub(super) organization_id: OrganizationId,
    token_id: TokenId,
    client: Client,
    /// What the request uses of the organization's limits.
    pub(super) meter: Meter,
    scope: PhantomData<S>,
}

impl<S: RequiredScope> FromRequestParts<ApiState> for Holder<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        let holder = tokens::find_holder(&state.db, token.digest(), state.clock.now()).await?;
        let TokenHolder {
            organization_id,
            scopes,
            token_id,
        } = holder.ok_or_else(Problem::unauthorized)?;
        let span: RequestSpan = parts.extensions.get().cloned().unwrap_or_default();
        if let Some(id) = organization_id {
            note_organization(&span, id);
        }
        let place: Option<Place> = parts.extensions.get().cloned();
        if let Some(place) = &place {
            place.belong_to(&state.requests, organization_id)?;
        }
        let meter = Meter::of(&parts.extensions);
        let admitted = match organization_id {
            Some(org) => {
                state.entry.wait(org).await;
                meter.admit(state, org).await
            }
            None => Ok(true),
        };
        if !scopes.contains(S::SCOPE) {
            let detail = format!("This token lacks the scope {}.", S::SCOPE.as_str());
            return Err(Problem::forbidden(detail));
        }
        admitted?;
        Ok(Self {
            organization_id,
            token_id,
            meter,
            span,
            place,
            scope: PhantomData,
        })
    }
}

impl<S: RequiredScope> FromRequestParts<ApiState> for Caller<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let holder = Holder::<S>::from_request_parts(parts, state).await?;
        let organization_id = holder
            .organization_id
            .ok_or_else(|| Problem::forbidden("This is a platform token; use one that belongs to an organization."))?;
        Ok(Self {
            organization_id,
            token_id: holder.token_id,
            client: parts.extensions.get().cloned().unwrap_or_default(),
            meter: holder.meter,
            scope: PhantomData,
        })
    }
}

impl<S> Holder<S> {
    /// A platform token speaks for an organization: the request is one of that organization, whose limits count. False
    /// where there is no such organization.
    pub(super) async fn speak_for(&self, state: &ApiState, org: OrganizationId) -> Result<bool, Problem> {
        if let Some(place) = &self.place {
            place.belong_to(&state.requests, Some(org))?;
        }
        state.entry.wait(org).await;
        self.meter.admit(state, org).await
    }
}

impl<S> Caller<S> {
    /// What the audit remembers of this request.
    pub(super) fn origin(&self, clock: &Clock) -> Origin {
        let Client { address, request_id } = self.client.clone();
        Origin {
            entry_id: clock.new_id(),
            token_id: self.token_id,
            address,
            request_id,
        }
    }
}

/// The token of the `Authorization` header (RFC 6750, section 2.1). The scheme's case does not matter (RFC 9110,
/// section 11.1); two headers are nobody's token.
///
/// Whoever pastes the whole header where the token alone belongs is told so: that is a fault of the header's form, and
/// says nothing about the token.
fn bearer(headers: &HeaderMap) -> Result<Token, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let credentials = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(after_scheme),
        _ => None,
    };
    let credentials = credentials.ok_or_else(Problem::unauthorized)?;
    if after_scheme(credentials).is_some() {
        return Err(Problem::scheme_twice());
    }
    Token::parse(credentials).ok_or_else(Problem::unauthorized)
}

/// What follows the scheme `Bearer`; `None` if the text does not begin with it.
fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| rest.trim_start_matches(' '))
}
