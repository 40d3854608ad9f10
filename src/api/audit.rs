//! `/v1/webhooks/{webhook_id}/audit`: who changed a webhook, when, from where, and how.

use axum::extract::{OriginalUri, State};
use serde::Deserialize;
use utoipa::IntoParams;
use validator::Validate;

use super::{
    ApiState,
    auth::{Caller, WebhooksRead},
    extract::{Path, Query},
    page::{self, Page},
    problem::Problem,
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
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListAuditEntriesQuery {
    #[serde(default = "ListAuditEntriesQuery::limit_default")]
    #[param(required = false, minimum = 1, maximum = 200, default = 50, value_type = i32)]
    #[validate(range(min = 1, max = 200))]
    limit: u32,
    #[param(value_type = Option<Uuid>)]
    after: Option<AuditEntryId>,
}

impl ListAuditEntriesQuery {
    fn limit_default() -> u32 {
        50
    }
}

#[utoipa::path(
    get, path = "/v1/webhooks/{webhook_id}/audit", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(("webhook_id" = Uuid, Path), ListAuditEntriesQuery),
    responses((status = 200, body = [AuditEntry], headers(("Link" = String))), WithToken, WithId, WithQuery),
)]
pub(super) async fn list_audit_entries(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    OriginalUri(uri): OriginalUri,
    Path(id): Path<WebhookId>,
    Query(ListAuditEntriesQuery { limit, after }): Query<ListAuditEntriesQuery>,
) -> Result<Page, Problem> {
    let limit = page::limit(&state, limit);
    let found = audit::list(&state.db, caller.organization_id, id, after, limit).await?;
    let found = found.ok_or_else(no_webhook)?;
    Ok(Page::new(found, limit, &uri, |entry| entry.id, Ok)?)
}
