//! The audit log: who changed a webhook, when, from where, and how. An entry is written in the transaction of the
//! change itself.

use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select, Set,
};

use super::{
    Database, StoreError,
    engine::Connection,
    entity::{audit_entry, webhook},
    error::readable,
    page::{Page, PageLimit},
};
use crate::{
    clock::Clock,
    domain::{
        audit::{AuditAction, AuditActor, AuditEntry, AuditEntryObject, Origin},
        delivery::DisabledReason,
        id::{AuditEntryId, OrganizationId, WebhookId},
        timestamp::Timestamp,
        webhook_settings::{Change, FieldChanges},
    },
};

/// How many entries are read together: the changes of one can be ten thousand bytes.
const READ_AT_ONCE: u64 = 50;

/// A page of a webhook's entries, newest first, starting after `after`.
///
/// `None` if the organization has no such webhook and no entry of a former one.
pub async fn list(
    db: &Database,
    org: OrganizationId,
    webhook_id: WebhookId,
    after: Option<AuditEntryId>,
    limit: PageLimit,
) -> Result<Option<Page<AuditEntry, AuditEntryId>>, StoreError> {
    let (mut rows, mut bytes_read, mut last) = (Vec::new(), 0, after);
    loop {
        let left = limit.fetch() - rows.len() as u64;
        let batch = newest(org, webhook_id, last).limit(left.min(READ_AT_ONCE));
        let batch = batch.all(&db.read_long()).await?;
        let is_end = (batch.len() as u64) < READ_AT_ONCE;
        last = batch.last().map(|row| row.id);
        bytes_read += batch.iter().map(row_bytes).sum::<u64>();
        rows.extend(batch);
        if is_end || rows.len() as u64 >= limit.fetch() || bytes_read > limit.bytes {
            break;
        }
    }
    if rows.is_empty() {
        let webhook = webhook::Entity::find_by_id((org, webhook_id)).one(&db.read()).await?;
        let is_gone = webhook.is_none_or(|row| row.deleted_at.is_some());
        if is_gone && newest(org, webhook_id, None).one(&db.read()).await?.is_none() {
            return Ok(None);
        }
    }
    let Page { items, next } = limit.page(rows, None, |row| row.id, row_bytes);
    let items = items.into_iter().map(view).collect::<Result<_, _>>()?;
    Ok(Some(Page { items, next }))
}

/// A webhook's entries that are older than `after`, newest first.
pub(super) fn newest(
    org: OrganizationId,
    webhook_id: WebhookId,
    after: Option<AuditEntryId>,
) -> Select<audit_entry::Entity> {
    audit_entry::Entity::find()
        .filter(audit_entry::Column::OrganizationId.eq(org))
        .filter(audit_entry::Column::WebhookId.eq(webhook_id))
        .filter(Condition::all().add_option(after.map(|after| audit_entry::Column::Id.lt(after))))
        .order_by_desc(audit_entry::Column::Id)
}

fn row_bytes(row: &audit_entry::Model) -> u64 {
    row.changes.len() as u64
}

/// An entry to write.
pub(super) struct Entry {
    pub(super) organization_id: OrganizationId,
    pub(super) entry: AuditEntry,
}

impl Entry {
    /// The entry for a request's write: a creation has no `before`, a deletion no `after`.
    pub(super) fn of_request(
        origin: Origin,
        before: Option<&webhook::Model>,
        after: Option<&webhook::Model>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let (action, row) = match (before, after) {
            (None, Some(row)) => (AuditAction::Created, row),
            (Some(_), Some(row)) => (AuditAction::Updated, row),
            (Some(row), None) => (AuditAction::Deleted, row),
            (None, None) => return Err(StoreError::Corrupt("a write to no webhook at all".to_owned())),
        };
        let settings = |row: Option<&webhook::Model>| row.map(webhook::Model::settings).transpose();
        let reason = |row: Option<&webhook::Model>| row.and_then(|row| row.disabled_reason);
        let changes = FieldChanges {
            disabled_reason: Change::between(reason(before), reason(after)),
            ..FieldChanges::between(settings(before)?.as_ref(), settings(after)?.as_ref())
        };
        let Origin {
            entry_id,
            token_id,
            address,
            request_id,
        } = origin;
        let entry = AuditEntry {
            id: entry_id,
            object: AuditEntryObject::AuditEntry,
            webhook_id: row.id,
            action,
            actor: AuditActor::Token,
            token_id: Some(token_id),
            address: address.map(|address| address.to_string()),
            request_id,
            secret_rotated: before
                .zip(after)
                .is_some_and(|(before, after)| before.secret != after.secret),
            changes,
            created_at: now,
        };
        Ok(Self {
            organization_id: row.organization_id,
            entry,
        })
    }

    /// The entry for a webhook that the service disabled.
    pub(super) fn of_disabling(
        clock: &Clock,
        organization_id: OrganizationId,
        webhook_id: WebhookId,
        reason: DisabledReason,
    ) -> Self {
        let entry = AuditEntry {
            id: clock.new_id(),
            object: AuditEntryObject::AuditEntry,
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
        Self { organization_id, entry }
    }

    /// The changes as stored in the column.
    pub(super) fn changes_column(&self) -> String {
        serde_json::to_string(&self.entry.changes).unwrap_or_default()
    }
}

/// Writes an entry, in the transaction of the change it describes.
pub(super) async fn insert(tx: &Connection<'_>, entry: Entry) -> Result<(), StoreError> {
    let changes = entry.changes_column();
    let Entry { organization_id, entry } = entry;
    let row = audit_entry::ActiveModel {
        organization_id: Set(organization_id),
        id: Set(entry.id),
        webhook_id: Set(entry.webhook_id),
        action: Set(entry.action),
        actor: Set(entry.actor),
        token_id: Set(entry.token_id),
        address: Set(entry.address),
        request_id: Set(entry.request_id),
        secret_rotated: Set(entry.secret_rotated),
        changes: Set(changes),
        created_at: Set(entry.created_at),
    };
    audit_entry::Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}

fn view(row: audit_entry::Model) -> Result<AuditEntry, StoreError> {
    let changes = serde_json::from_str(&row.changes).ok();
    Ok(AuditEntry {
        id: row.id,
        object: AuditEntryObject::AuditEntry,
        webhook_id: row.webhook_id,
        action: row.action,
        actor: row.actor,
        token_id: row.token_id,
        address: row.address,
        request_id: row.request_id,
        secret_rotated: row.secret_rotated,
        changes: readable(changes, "audit_entries.changes", &row.changes)?,
        created_at: row.created_at,
    })
}
