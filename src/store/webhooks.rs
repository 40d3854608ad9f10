//! Webhooks: registered endpoints.

use std::{cmp::Reverse, collections::HashMap, sync::LazyLock, time::Duration};

use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, FromQueryResult as _, IntoActiveModel as _,
    Iterable as _, ModelTrait as _, PaginatorTrait as _, QueryFilter as _, QuerySelect as _, Set, Statement,
    TryIntoModel as _, Unchanged, sea_query::LockType,
};
use tokio::sync::Notify;

use super::{
    Database, StoreError,
    audit::{self, Entry},
    engine::Connection,
    entity::{columns, organization, webhook},
    health, idempotency,
    idempotency::Entered,
    once::{Keyed, Once},
    page::{Page, PageLimit},
    secrets::seal,
    upkeep::deletion,
};
use crate::domain::{
    audit::Origin,
    health::Health,
    id::{OrganizationId, WebhookId},
    precondition::{EntityTag, IfMatch},
    secret::Secret,
    timestamp::Timestamp,
    webhook::{Changed, NewWebhook, WEBHOOKS_MAX, Webhook, WebhookChange, WebhookChanges, WebhookObject},
};

/// The shortest time between two versions of a webhook: two changes within one millisecond must differ.
const MILLISECOND: Duration = Duration::from_millis(1);

/// The result of registering a webhook: the webhook and its secret, or `None` if the organization already has
/// [`WEBHOOKS_MAX`].
pub type Created = Option<(Webhook, Secret)>;

/// Registers a webhook.
pub async fn create(
    db: &Database,
    org: OrganizationId,
    new: NewWebhook,
    origin: Origin,
    now: Timestamp,
    key: Option<Keyed<Created>>,
) -> Result<Once<Created>, StoreError> {
    let inner = db.clone();
    let write = db.write_for(org, move |tx| {
        Box::pin(async move {
            if let Some(key) = &key
                && let Entered::InUse(before) = idempotency::enter(&inner, tx, &key.request, now).await?
            {
                return Ok(before);
            }
            let created = create_in(&inner, tx, org, new, origin, now).await?;
            if let Some(key) = &key {
                idempotency::keep(&inner, tx, key, &created, now).await?;
            }
            Ok::<_, StoreError>(Once::Now(created))
        })
    });
    write.await
}

async fn create_in(
    db: &Database,
    tx: &Connection<'_>,
    org: OrganizationId,
    new: NewWebhook,
    origin: Origin,
    now: Timestamp,
) -> Result<Created, StoreError> {
    // Two concurrent creations must not both take the last free slot, so they lock the organization's row. The lock
    // does not conflict with mere references to the row, which would make a creation wait for as long as new ones
    // arrive.
    organization::Entity::find_by_id(org)
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?;
    let count = of(org).count(tx).await?;
    if count >= WEBHOOKS_MAX {
        return Ok(None);
    }
    let row = new_row(db, org, &new, now)?;
    let row = row.insert(tx).await?;
    audit::insert(tx, Entry::of_request(origin, None, Some(&row), now)?).await?;
    Ok(Some((view(&row)?, new.secret)))
}

/// A new webhook's row.
pub(super) fn new_row(
    db: &Database,
    org: OrganizationId,
    new: &NewWebhook,
    now: Timestamp,
) -> Result<webhook::ActiveModel, StoreError> {
    let NewWebhook { id, settings, secret } = new;
    let mut row = webhook::ActiveModel {
        organization_id: Set(org),
        id: Set(*id),
        secret: Set(seal(db, org, *id, secret)?),
        rate_state: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        deleted_at: Set(None),
        ..Default::default()
    };
    row.set_settings(settings);
    health::set(&mut row, Health::new(settings.enabled));
    Ok(row)
}

/// The webhook with that id.
pub async fn find(db: &Database, org: OrganizationId, id: WebhookId) -> Result<Option<Webhook>, StoreError> {
    // One of the hottest statements, and so built once: that takes as long as running it.
    static FIND: LazyLock<String> = LazyLock::new(|| {
        let columns = columns::<webhook::Entity>("webhooks");
        format!("SELECT {columns} FROM webhooks WHERE organization_id = $1 AND id = $2")
    });
    let find = Statement::from_sql_and_values(db.backend(), FIND.as_str(), [org.into(), id.into()]);
    let row = webhook::Model::find_by_statement(find).one(&db.read()).await?;
    row.filter(|row| row.deleted_at.is_none())
        .as_ref()
        .map(view)
        .transpose()
}

/// A page of the organization's webhooks, newest first, starting after `after`. Their number and sizes are limited.
///
/// Ordered by creation time, not by id: the ids of example data do not start with the time.
pub async fn list(
    db: &Database,
    org: OrganizationId,
    after: Option<WebhookId>,
    limit: PageLimit,
) -> Result<Page<Webhook, WebhookId>, StoreError> {
    let mut rows = of(org).all(&db.read()).await?;
    rows.sort_unstable_by_key(|row| Reverse((row.created_at, row.id)));
    if let Some(after) = after {
        let found = rows.iter().find(|row| row.id == after);
        let position = (found.map_or_else(|| after.made_at(), |row| row.created_at), after);
        rows.retain(|row| (row.created_at, row.id) < position);
    }
    rows.truncate(usize::try_from(limit.fetch()).unwrap_or(usize::MAX));
    let webhooks = rows.iter().map(view).collect::<Result<_, _>>()?;
    Ok(limit.page(webhooks, None, |webhook: &Webhook| webhook.id, |_| 0))
}

/// How the deliveries of each of the organization's webhooks have gone recently.
pub async fn health(db: &Database, org: OrganizationId) -> Result<HashMap<WebhookId, Health>, StoreError> {
    let rows = of(org).all(&db.read()).await?;
    Ok(rows.iter().map(|row| (row.id, health::read(row))).collect())
}

/// The organization's webhooks that are not deleted.
fn of(org: OrganizationId) -> sea_orm::Select<webhook::Entity> {
    webhook::Entity::find()
        .filter(webhook::Column::OrganizationId.eq(org))
        .filter(webhook::Column::DeletedAt.is_null())
}

/// Changes a webhook, if `if_match` allows its version. `updated_at` moves only if something changes.
pub async fn update(
    db: &Database,
    change: WebhookChange,
    key: Option<Keyed<Changed<Webhook>>>,
) -> Result<Once<Changed<Webhook>>, StoreError> {
    let id = change.id;
    let updated = match (&db.shared, key) {
        (Some(shared), None) => shared.changes.submit(change).await.map(Once::Now),
        (_, key) => update_alone(db, change, key).await,
    };
    // This node's next attempt must read it again before the client sees the response.
    if let Some(lanes) = db.hand_over.get() {
        lanes.changed(id);
    }
    updated
}

async fn update_alone(
    db: &Database,
    change: WebhookChange,
    key: Option<Keyed<Changed<Webhook>>>,
) -> Result<Once<Changed<Webhook>>, StoreError> {
    let inner = db.clone();
    let write = db.write_for(change.organization_id, move |tx| {
        Box::pin(async move {
            if let Some(key) = &key
                && let Entered::InUse(before) = idempotency::enter(&inner, tx, &key.request, change.now).await?
            {
                return Ok(before);
            }
            let changed = update_in(&inner, tx, &change).await?;
            if let Some(key) = &key {
                idempotency::keep(&inner, tx, key, &changed, change.now).await?;
            }
            Ok::<_, StoreError>(Once::Now(changed))
        })
    });
    write.await
}

async fn update_in(db: &Database, tx: &Connection<'_>, change: &WebhookChange) -> Result<Changed<Webhook>, StoreError> {
    let before = match lock(tx, change.organization_id, change.id, change.if_match.as_ref()).await? {
        Changed::Done(row) => row,
        Changed::NotFound => return Ok(Changed::NotFound),
        Changed::Stale => return Ok(Changed::Stale),
    };
    let Some(after) = applied(db, &before, change)? else {
        return view(&before).map(Changed::Done);
    };
    let entry = Entry::of_request(change.origin.clone(), Some(&before), Some(&after), change.now)?;
    let mut update = before.into_active_model();
    for column in webhook::Column::iter() {
        let value = after.get(column);
        if *update.get(column).as_ref() != value {
            update.set(column, value);
        }
    }
    webhook::Entity::update(update).exec_without_returning(tx).await?;
    audit::insert(tx, entry).await?;
    view(&after).map(Changed::Done)
}

/// Whether the customer enabled the webhook, which resets its health.
pub(super) fn was_enabled(before: &webhook::Model, after: &webhook::Model) -> bool {
    after.enabled && !before.enabled
}

/// A webhook's row as a change leaves it; `None` if it changes nothing.
pub(super) fn applied(
    db: &Database,
    before: &webhook::Model,
    change: &WebhookChange,
) -> Result<Option<webhook::Model>, StoreError> {
    let WebhookChanges {
        settings: changes,
        secret,
    } = &change.changes;
    let mut settings = before.settings()?;
    changes.apply_to(&mut settings);
    let mut row = before.clone().into_active_model();
    row.set_settings(&settings);
    let mut row = row.try_into_model()?;
    if let Some(secret) = secret {
        row.secret = seal(db, row.organization_id, row.id, secret)?;
    }
    if row == *before {
        return Ok(None);
    }
    if was_enabled(before, &row) {
        let mut health = health::read(before);
        health.enable();
        row = health::with(row, health)?;
    }
    row.updated_at = change.now.max(before.updated_at.plus(MILLISECOND));
    Ok(Some(row))
}

/// Locks a webhook's row until the transaction ends, if `if_match` allows its version.
async fn lock(
    tx: &Connection<'_>,
    org: OrganizationId,
    id: WebhookId,
    if_match: Option<&IfMatch>,
) -> Result<Changed<webhook::Model>, StoreError> {
    let row = webhook::Entity::find_by_id((org, id))
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?;
    let row = row.filter(|row| row.deleted_at.is_none());
    Ok(row.map_or(Changed::NotFound, |row| {
        if allows(if_match, &row) {
            Changed::Done(row)
        } else {
            Changed::Stale
        }
    }))
}

/// Whether the client named the row's version, or named none.
pub(super) fn allows(if_match: Option<&IfMatch>, row: &webhook::Model) -> bool {
    let current = EntityTag::of_version(row.updated_at);
    if_match.is_none_or(|condition| condition.allows(&current))
}

/// Deletes a webhook, if `if_match` allows its version: it disappears for every reader and for every claim. Its pending
/// deliveries are canceled in batches in the background, the first batch before this returns.
pub async fn delete(
    db: &Database,
    org: OrganizationId,
    id: WebhookId,
    if_match: Option<IfMatch>,
    origin: Origin,
    now: Timestamp,
) -> Result<Changed<()>, StoreError> {
    let write = db.write_for(org, move |tx| {
        Box::pin(async move {
            let before = match lock(tx, org, id, if_match.as_ref()).await? {
                Changed::Done(row) => row,
                Changed::NotFound => return Ok(Changed::NotFound),
                Changed::Stale => return Ok(Changed::Stale),
            };
            let mark = webhook::ActiveModel {
                organization_id: Unchanged(org),
                id: Unchanged(id),
                enabled: Set(false),
                deleted_at: Set(Some(now)),
                ..Default::default()
            };
            webhook::Entity::update(mark).exec_without_returning(tx).await?;
            audit::insert(tx, Entry::of_request(origin, Some(&before), None, now)?).await?;
            Ok::<_, StoreError>(Changed::Done(()))
        })
    });
    let deleted = write.await?;
    if matches!(deleted, Changed::Done(())) {
        if let Some(lanes) = db.hand_over.get() {
            lanes.changed(id);
        }
        // Only then: the background task would hold the locks of rows that are canceled here. Also if the caller goes away.
        let _then = NotifyWhenDropped(&db.deleted);
        // It is deleted, whether or not this succeeds: the rest is done in the background, and again after a crash.
        if let Err(error) = deletion::cancel_batch(db, org, id, now, None).await {
            tracing::warn!(exception.message = %error, kallima.webhook.id = %id, "pending deliveries of a deleted webhook could not be canceled; retrying later");
        }
    }
    Ok(deleted)
}

struct NotifyWhenDropped<'a>(&'a Notify);

impl Drop for NotifyWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A webhook as stored in its row.
pub(super) fn view(row: &webhook::Model) -> Result<Webhook, StoreError> {
    Ok(Webhook {
        id: row.id,
        object: WebhookObject::Webhook,
        settings: row.settings()?,
        disabled_reason: row.disabled_reason,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}
