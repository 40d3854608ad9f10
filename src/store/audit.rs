//! Who changed a webhook, when, from where, and how. An entry is written in the transaction of the change itself.

use std::net::IpAddr;

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Set,
};
use uuid::Uuid;

use super::{
    Database, StoreError,
    entity::{audit_entry, webhook},
    error::readable,
    webhooks::{read_filter, read_rate, read_reason},
};
use crate::{
    clock::Clock,
    domain::{
        audit::{AuditAction, AuditActor, FieldChanges, WebhookFields},
        delivery::DisabledReason,
        rate::RateLimit,
        timestamp::Timestamp,
    },
};

/// The request that a write comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The id of the entry to write: ids that are made one after the other sort so.
    pub entry_id: Uuid,
    /// The token that the request was made with.
    pub token_id: Uuid,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// A write to a webhook, as it is remembered.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// Its id.
    pub id: Uuid,
    /// The webhook, which may be gone.
    pub webhook_id: Uuid,
    /// What was done.
    pub action: AuditAction,
    /// Who did it.
    pub actor: AuditActor,
    /// With which token, where it was somebody with one.
    pub token_id: Option<Uuid>,
    /// From which IP address.
    pub address: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
    /// Whether the signing secret was replaced.
    pub secret_rotated: bool,
    /// Which fields changed, and how.
    pub changes: FieldChanges,
    /// When.
    pub created_at: Timestamp,
}

/// The entries of a webhook, newest first, from the one after `after`, at most `limit`.
///
/// `None` where the organization has no such webhook, and no entry of one that it had.
pub async fn list(
    db: &Database,
    org: Uuid,
    webhook_id: Uuid,
    after: Option<Uuid>,
    limit: u64,
) -> Result<Option<Vec<AuditEntry>>, StoreError> {
    let of_webhook = || {
        audit_entry::Entity::find()
            .filter(audit_entry::Column::OrganizationId.eq(org))
            .filter(audit_entry::Column::WebhookId.eq(webhook_id))
    };
    let mut page = of_webhook();
    if let Some(after) = after {
        page = page.filter(audit_entry::Column::Id.lt(after));
    }
    let rows = page
        .order_by_desc(audit_entry::Column::Id)
        .limit(limit)
        .all(&db.read)
        .await?;
    if rows.is_empty() {
        let webhook = webhook::Entity::find_by_id((org, webhook_id)).count(&db.read).await?;
        if webhook == 0 && of_webhook().limit(1).one(&db.read).await?.is_none() {
            return Ok(None);
        }
    }
    rows.into_iter().map(view).collect::<Result<_, _>>().map(Some)
}

/// Remembers a request's write: a creation without `before`, a deletion without `after`.
pub(super) async fn record(
    tx: &impl ConnectionTrait,
    origin: Origin,
    before: Option<&webhook::Model>,
    after: Option<&webhook::Model>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (action, row) = match (before, after) {
        (None, Some(row)) => (AuditAction::Created, row),
        (Some(_), Some(row)) => (AuditAction::Updated, row),
        (Some(row), None) => (AuditAction::Deleted, row),
        (None, None) => return Ok(()),
    };
    let (before_fields, after_fields) = (before.map(fields).transpose()?, after.map(fields).transpose()?);
    let Origin {
        entry_id,
        token_id,
        address,
        request_id,
    } = origin;
    let entry = AuditEntry {
        id: entry_id,
        webhook_id: row.id,
        action,
        actor: AuditActor::Token,
        token_id: Some(token_id),
        address: address.map(|address| address.to_string()),
        request_id,
        secret_rotated: before
            .zip(after)
            .is_some_and(|(before, after)| before.secret != after.secret),
        changes: FieldChanges::between(before_fields.as_ref(), after_fields.as_ref()),
        created_at: now,
    };
    insert(tx, row.organization_id, entry).await
}

/// Remembers that the service switched a webhook off.
pub(super) async fn record_disabling(
    tx: &impl ConnectionTrait,
    clock: &Clock,
    organization_id: Uuid,
    webhook_id: Uuid,
    reason: DisabledReason,
) -> Result<(), StoreError> {
    let entry = AuditEntry {
        id: clock.new_uuid(),
        webhook_id,
        action: AuditAction::Disabled,
        actor: AuditActor::Service,
        token_id: None,
        address: None,
        request_id: None,
        secret_rotated: false,
        changes: FieldChanges::disabling(reason),
        created_at: clock.now(),
    };
    insert(tx, organization_id, entry).await
}

async fn insert(tx: &impl ConnectionTrait, organization_id: Uuid, entry: AuditEntry) -> Result<(), StoreError> {
    let AuditEntry {
        id,
        webhook_id,
        action,
        actor,
        token_id,
        address,
        request_id,
        secret_rotated,
        changes,
        created_at,
    } = entry;
    let row = audit_entry::ActiveModel {
        organization_id: Set(organization_id),
        id: Set(id),
        webhook_id: Set(webhook_id),
        action: Set(action.as_str().to_owned()),
        actor: Set(actor.as_str().to_owned()),
        token_id: Set(token_id),
        address: Set(address),
        request_id: Set(request_id),
        secret_rotated: Set(secret_rotated),
        changes: Set(serde_json::to_string(&changes).unwrap_or_default()),
        created_at: Set(created_at.as_millis()),
    };
    audit_entry::Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}

fn fields(row: &webhook::Model) -> Result<WebhookFields, StoreError> {
    Ok(WebhookFields {
        url: row.url.clone(),
        enabled: row.enabled,
        events: read_filter(row.events.as_deref())?.entries(),
        description: row.description.clone(),
        rate_limit: read_rate(row.rate_limit).map(RateLimit::per_second),
        disabled_reason: read_reason(row.disabled_reason.as_deref())?,
    })
}

fn view(row: audit_entry::Model) -> Result<AuditEntry, StoreError> {
    let changes = serde_json::from_str(&row.changes).ok();
    Ok(AuditEntry {
        id: row.id,
        webhook_id: row.webhook_id,
        action: readable(AuditAction::parse(&row.action), "audit_entries.action", &row.action)?,
        actor: readable(AuditActor::parse(&row.actor), "audit_entries.actor", &row.actor)?,
        token_id: row.token_id,
        address: row.address,
        request_id: row.request_id,
        secret_rotated: row.secret_rotated,
        changes: readable(changes, "audit_entries.changes", &row.changes)?,
        created_at: Timestamp::from_millis(row.created_at),
    })
}
