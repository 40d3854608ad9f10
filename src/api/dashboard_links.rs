//! `/v1/dashboard_links`: links that open the dashboard.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::{
    ApiState,
    auth::{Caller, WebhooksRead},
    extract::{Body, NoQuery, RequestBody, whole_number},
    idempotency::IdempotencyKeyHeader,
    problem::Problem,
    public_address::PublicAddress,
    responses::{WithBody, WithIdempotencyKey, WithNoQuery, WithToken},
};
use crate::{
    domain::{
        pass::{Access, Pass, PassKind},
        timestamp::Timestamp,
        token::Scope,
    },
    store::secrets::passes,
};

/// How long a link works that says nothing about it.
const LINK_LASTS: Duration = Duration::from_hours(1);

/// Body for POST `/v1/dashboard_links`.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
#[validate(context = ApiState)]
pub(super) struct CreateDashboardLink {
    // An absent `access` is refused by the schema, so that the other fields are still validated.
    #[schema(required, nullable = false, value_type = DashboardLinkAccess)]
    access: Option<DashboardLinkAccess>,
    #[schema(minimum = 60, maximum = 86400)]
    #[serde(default, deserialize_with = "whole_number")]
    expires_in_seconds: Option<u32>,
}

/// What a link allows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DashboardLinkAccess {
    /// To look.
    Read,
    /// To retry deliveries, too.
    Retry,
}

impl From<DashboardLinkAccess> for Access {
    fn from(access: DashboardLinkAccess) -> Self {
        match access {
            DashboardLinkAccess::Read => Self::Read,
            DashboardLinkAccess::Retry => Self::Retry,
        }
    }
}

/// A link to make.
pub(super) struct NewLink {
    access: DashboardLinkAccess,
    lasts: Duration,
}

impl RequestBody for CreateDashboardLink {
    type Parsed = NewLink;

    fn parse(self, _: &ApiState) -> Option<NewLink> {
        let Self {
            access,
            expires_in_seconds,
        } = self;
        let lasts = expires_in_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        Some(NewLink {
            access: access?,
            lasts: lasts.unwrap_or(LINK_LASTS),
        })
    }
}

/// A link, shown once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DashboardLink {
    object: DashboardLinkObject,
    #[schema(format = "uri-reference")]
    url: String,
    access: DashboardLinkAccess,
    expires_at: Timestamp,
}

/// The discriminator of a link.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DashboardLinkObject {
    DashboardLink,
}

#[utoipa::path(
    post, path = "/v1/dashboard_links", tag = "dashboard", security(("bearer" = ["webhooks:read"])),
    params(IdempotencyKeyHeader),
    request_body = CreateDashboardLink,
    responses((status = 201, body = DashboardLink), WithToken, WithBody, WithNoQuery, WithIdempotencyKey),
)]
pub(super) async fn create_dashboard_link(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    address: PublicAddress,
    _: NoQuery,
    Body(NewLink { access, lasts }, submission): Body<CreateDashboardLink>,
) -> Result<Response, Problem> {
    if matches!(access, DashboardLinkAccess::Retry) {
        caller.require(Scope::WebhooksWrite)?;
    }
    let make = async |_| {
        let pass = Pass {
            token_digest: caller.token_digest,
            access: access.into(),
            expires_at: state.clock.now().plus(lasts),
        };
        let link = DashboardLink {
            object: DashboardLinkObject::DashboardLink,
            url: address.of(&link_path(&state, &pass)?),
            access,
            expires_at: pass.expires_at,
        };
        Ok((StatusCode::CREATED, Json(link)).into_response())
    };
    submission
        .once_leased(&state, &caller.meter, caller.organization_id, make)
        .await
}

fn link_path(state: &ApiState, pass: &Pass) -> Result<String, Problem> {
    let sealed = passes::seal(&state.db, PassKind::Link, pass)?;
    Ok(format!("/dashboard/link?link={sealed}"))
}
