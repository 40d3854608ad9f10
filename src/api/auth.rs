//! Who is calling, and what they may do. The first extractor of every `/v1` handler, so that a caller without a token
//! learns nothing about the path, the query or the body.

use std::marker::PhantomData;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};

use super::{
    ApiState,
    context::{Client, note_organization},
    limits::RequestPermit,
    meter::Meter,
    problem::Problem,
};
use crate::{
    clock::Clock,
    domain::{
        audit::Origin,
        id::{OrganizationId, TokenId},
        token::{Scope, Scopes, Token},
    },
    store::tokens::{self, TokenHolder},
    telemetry::spans::RequestSpan,
};

/// A scope that a handler requires, as a type.
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

/// The caller of a request that the dashboard makes: the holder of the token that a pass stands for. An extension of the
/// request, which no client can set.
#[derive(Clone, Debug)]
pub(super) struct PassHolder {
    /// The token's digest.
    pub(super) token_digest: [u8; 32],
    /// The scopes that the request may use, if the token has them.
    pub(super) scopes: Scopes,
}

/// A caller with a valid token that has the scope. The token may belong to no organization.
pub(super) struct Holder<S> {
    /// The organization that the token acts for; `None` for a platform token.
    pub(super) organization_id: Option<OrganizationId>,
    token_id: TokenId,
    token_digest: [u8; 32],
    scopes: Scopes,
    /// What the request uses of the organization's limits.
    pub(super) meter: Meter,
    /// The request's span.
    pub(super) span: RequestSpan,
    /// The permit that the request holds while it is in progress.
    permit: Option<RequestPermit>,
    scope: PhantomData<S>,
}

/// A caller with a valid token that has the scope and belongs to an organization.
pub(super) struct Caller<S> {
    /// The organization that the token acts for.
    pub(super) organization_id: OrganizationId,
    /// The digest of the token.
    pub(super) token_digest: [u8; 32],
    token_id: TokenId,
    scopes: Scopes,
    client: Client,
    /// What the request uses of the organization's limits.
    pub(super) meter: Meter,
    scope: PhantomData<S>,
}

impl<S: RequiredScope> FromRequestParts<ApiState> for Holder<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let pass_holder = parts.extensions.get::<PassHolder>();
        let token_digest = match pass_holder {
            Some(holder) => holder.token_digest,
            None => bearer(&parts.headers)?.digest(),
        };
        let holder = tokens::find_holder(&state.db, token_digest, state.clock.now()).await?;
        let TokenHolder {
            organization_id,
            mut scopes,
            token_id,
        } = holder.ok_or_else(Problem::unauthorized)?;
        if let Some(holder) = pass_holder {
            scopes = scopes.within(&holder.scopes);
        }
        let span: RequestSpan = parts.extensions.get().cloned().unwrap_or_default();
        if let Some(id) = organization_id {
            note_organization(&span, id);
        }
        let permit: Option<RequestPermit> = parts.extensions.get().cloned();
        if let Some(permit) = &permit {
            permit.exchange_for(&state.requests, organization_id)?;
        }
        let meter = Meter::of(&parts.extensions);
        let admitted = match organization_id {
            Some(org) => {
                state.entry.wait(org).await;
                meter.admit(state, org).await
            }
            None => Ok(true),
        };
        require(&scopes, S::SCOPE)?;
        admitted?;
        Ok(Self {
            organization_id,
            token_id,
            token_digest,
            scopes,
            meter,
            span,
            permit,
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
            token_digest: holder.token_digest,
            token_id: holder.token_id,
            scopes: holder.scopes,
            client: parts.extensions.get().cloned().unwrap_or_default(),
            meter: holder.meter,
            scope: PhantomData,
        })
    }
}

impl<S> Holder<S> {
    /// Makes this the request of the organization that a platform token acts for, whose limits then apply. False if the
    /// organization does not exist.
    pub(super) async fn act_for(&self, state: &ApiState, org: OrganizationId) -> Result<bool, Problem> {
        if let Some(permit) = &self.permit {
            permit.exchange_for(&state.requests, Some(org))?;
        }
        state.entry.wait(org).await;
        self.meter.admit(state, org).await
    }
}

fn require(scopes: &Scopes, scope: Scope) -> Result<(), Problem> {
    if scopes.contains(scope) {
        return Ok(());
    }
    Err(Problem::forbidden(format!("This token lacks the scope {scope}.")))
}

impl<S> Caller<S> {
    /// Refuses a caller whose token lacks another scope, which only some requests of an operation need.
    pub(super) fn require(&self, scope: Scope) -> Result<(), Problem> {
        require(&self.scopes, scope)
    }

    /// What the audit records about this request.
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

/// The token in the `Authorization` header (RFC 6750, section 2.1). The scheme is case-insensitive (RFC 9110,
/// section 11.1). Two headers are refused.
///
/// If the whole header was pasted where only the token belongs, a separate problem says so: that is about the header's
/// form and reveals nothing about the token.
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
pub(super) fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| rest.trim_start_matches(' '))
}
