//! `/v1/webhooks/{webhook_id}/audit`: who changed a webhook, when, from where, and how.

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use validator::Validate;

use super::{
    ApiState,
    auth::{Caller, WebhooksRead},
    extract::{Path, Query},
    page::{self, Page},
    problem::Problem,
    public_address::PublicAddress,
    responses::{WithId, WithQuery, WithToken},
    webhooks::no_webhook,
};
use crate::{
    domain::{
        audit::AuditEntry,
        id::{AuditEntryId, WebhookId},
    },
    store::audit,
};

/// Query of GET `/v1/webhooks/{id}/audit`.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[validate(context = ApiState)]
#[into_params(parameter_in = Query)]
pub(super) struct ListAuditEntriesQuery {
    #[param(required = false, minimum = 1, maximum = 200, default = 50, value_type = i32)]
    limit: u32,
    #[param(value_type = Option<Uuid>)]
    after: Option<AuditEntryId>,
}

#[utoipa::path(
    get, path = "/v1/webhooks/{webhook_id}/audit", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(("webhook_id" = Uuid, Path), ListAuditEntriesQuery),
    responses((status = 200, body = [AuditEntry], headers(("Link" = String))), WithToken, WithId, WithQuery),
)]
pub(super) async fn list_audit_entries(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    address: PublicAddress,
    Path(id): Path<WebhookId>,
    Query(ListAuditEntriesQuery { limit, after }): Query<ListAuditEntriesQuery>,
) -> Result<Page, Problem> {
    let limit = page::limit(&state, limit);
    let found = audit::list(&state.db, caller.organization_id, id, after, limit).await?;
    let found = found.ok_or_else(no_webhook)?;
    Ok(Page::new(found, limit, &address, |entry| entry.id, Ok)?)
}
