//! Webhooks: registered endpoints.

use rand::{rand_core::UnwrapErr, rngs::SysRng};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, IntoActiveModel as _,
    PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Set, sea_query::Expr,
};
use uuid::Uuid;

use super::{
    Database, StoreError,
    entity::{delivery, organization, webhook},
    error::readable,
};
use crate::domain::{
    delivery::{DeliveryStatus, DisabledReason},
    destination::Destination,
    event_filter::EventFilter,
    keyring::SecretOwner,
    secret::Secret,
    timestamp::Timestamp,
};

/// How many webhooks one organization may have.
pub const WEBHOOKS_MAX: u64 = 100;

/// A registered endpoint, without its secret.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its id.
    pub id: Uuid,
    /// Where deliveries go.
    pub url: Destination,
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Which events it wants.
    pub events: EventFilter,
    /// What the customer wrote about it.
    pub description: Option<String>,
    /// Why the service switched it off, if it did.
    pub disabled_reason: Option<DisabledReason>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When something about it last changed.
    pub updated_at: Timestamp,
}

/// A webhook to register.
#[derive(Debug)]
pub struct NewWebhook {
    /// Its id.
    pub id: Uuid,
    /// Where deliveries go.
    pub url: Destination,
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Which events it wants.
    pub events: EventFilter,
    /// What the customer wrote about it.
    pub description: Option<String>,
    /// What its deliveries are signed with.
    pub secret: Secret,
}

/// What a PATCH changes; `None` leaves a thing as it is.
#[derive(Debug, Default)]
pub struct WebhookChanges {
    /// Where deliveries go from now on.
    pub url: Option<Destination>,
    /// Which events it wants from now on.
    pub events: Option<EventFilter>,
    /// Whether deliveries are attempted from now on.
    pub enabled: Option<bool>,
    /// What the customer writes about it; the inner `None` clears it.
    pub description: Option<Option<String>>,
    /// The secret that replaces the one before, which is invalid at once.
    pub secret: Option<Secret>,
}

/// Registers a webhook, or answers `None` where the organization has [`WEBHOOKS_MAX`] already.
pub async fn create(db: &Database, org: Uuid, new: NewWebhook, now: Timestamp) -> Result<Option<Webhook>, StoreError> {
    let tx = db.begin().await?;
    // Two creations at once must not both take the last place: the organization's row makes them take turns.
    lock_organization(&tx, db.engine(), org).await?;
    let count = webhook::Entity::find()
        .filter(webhook::Column::OrganizationId.eq(org))
        .count(&tx)
        .await?;
    if count >= WEBHOOKS_MAX {
        return Ok(None);
    }
    let NewWebhook {
        id,
        url,
        enabled,
        events,
        description,
        secret,
    } = new;
    let row = webhook::ActiveModel {
        organization_id: Set(org),
        id: Set(id),
        url: Set(url.as_str().to_owned()),
        enabled: Set(enabled),
        events: Set(events_column(&events)),
        description: Set(description),
        secret: Set(seal(db, org, id, &secret)?),
        disabled_reason: Set(None),
        failing_since: Set(None),
        created_at: Set(now.as_millis()),
        updated_at: Set(now.as_millis()),
    };
    let row = row.insert(&tx).await?;
    tx.commit().await?;
    view(row).map(Some)
}

/// The webhook of that id.
pub async fn find(db: &Database, org: Uuid, id: Uuid) -> Result<Option<Webhook>, StoreError> {
    webhook::Entity::find_by_id((org, id))
        .one(&db.read)
        .await?
        .map(view)
        .transpose()
}

/// The organization's webhooks, newest first, from the one after `after`, at most `limit`.
pub async fn list(db: &Database, org: Uuid, after: Option<Uuid>, limit: u64) -> Result<Vec<Webhook>, StoreError> {
    let mut query = webhook::Entity::find().filter(webhook::Column::OrganizationId.eq(org));
    if let Some(after) = after {
        query = query.filter(webhook::Column::Id.lt(after));
    }
    let rows = query
        .order_by_desc(webhook::Column::Id)
        .limit(limit)
        .all(&db.read)
        .await?;
    rows.into_iter().map(view).collect()
}

/// Changes a webhook. `updated_at` moves only when something changes; `None` where there is no such webhook.
pub async fn update(
    db: &Database,
    org: Uuid,
    id: Uuid,
    changes: WebhookChanges,
    now: Timestamp,
) -> Result<Option<Webhook>, StoreError> {
    let tx = db.begin().await?;
    let mut query = webhook::Entity::find_by_id((org, id));
    if db.engine() == DbBackend::Postgres {
        query = query.lock_exclusive();
    }
    let Some(before) = query.one(&tx).await? else {
        return Ok(None);
    };
    let mut row = before.clone();
    let WebhookChanges {
        url,
        events,
        enabled,
        description,
        secret,
    } = changes;
    if let Some(url) = url {
        url.as_str().clone_into(&mut row.url);
    }
    if let Some(events) = events {
        row.events = events_column(&events);
    }
    if let Some(enabled) = enabled {
        row.enabled = enabled;
    }
    if let Some(description) = description {
        row.description = description;
    }
    if let Some(secret) = secret {
        row.secret = seal(db, org, id, &secret)?;
    }
    // A customer who switches a webhook on again says that it works: the count of failing days starts anew.
    if enabled == Some(true) && !before.enabled {
        row.disabled_reason = None;
        row.failing_since = None;
    }
    if row != before {
        // Two changes within one millisecond are two changes.
        row.updated_at = now.as_millis().max(before.updated_at + 1);
        let every_column = row.clone().into_active_model().reset_all();
        webhook::Entity::update(every_column).exec(&tx).await?;
        tx.commit().await?;
    }
    view(row).map(Some)
}

/// Deletes a webhook and cancels its pending deliveries. False where there is no such webhook.
pub async fn delete(db: &Database, org: Uuid, id: Uuid) -> Result<bool, StoreError> {
    let tx = db.begin().await?;
    // The webhook goes first: a publication that still holds its row commits before this statement returns, so
    // the next one sees the delivery it made.
    if webhook::Entity::delete_by_id((org, id)).exec(&tx).await?.rows_affected == 0 {
        return Ok(false);
    }
    delivery::Entity::update_many()
        .col_expr(delivery::Column::Status, Expr::value(DeliveryStatus::Canceled.as_str()))
        .col_expr(delivery::Column::DueAt, Expr::value(None::<i64>))
        .col_expr(delivery::Column::LeaseToken, Expr::value(None::<Uuid>))
        .filter(delivery::Column::OrganizationId.eq(org))
        .filter(delivery::Column::WebhookId.eq(id))
        .filter(delivery::Column::Status.eq(DeliveryStatus::Pending.as_str()))
        .exec(&tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// A secret as the column keeps it.
fn seal(db: &Database, organization_id: Uuid, webhook_id: Uuid, secret: &Secret) -> Result<Vec<u8>, StoreError> {
    let owner = SecretOwner {
        organization_id,
        webhook_id,
    };
    let sealed = db.keys.seal(&mut UnwrapErr(SysRng), owner, secret);
    sealed.ok_or_else(|| StoreError::Corrupt("a secret could not be sealed".to_owned()))
}

/// The secret of a webhook's row.
pub(super) fn open_secret(db: &Database, row: &webhook::Model) -> Result<Secret, StoreError> {
    let owner = SecretOwner {
        organization_id: row.organization_id,
        webhook_id: row.id,
    };
    let opened = db.keys.open(owner, &row.secret);
    opened.ok_or_else(|| StoreError::Corrupt("webhooks.secret does not open with any master key given".to_owned()))
}

async fn lock_organization(tx: &impl ConnectionTrait, engine: DbBackend, org: Uuid) -> Result<(), StoreError> {
    if engine == DbBackend::Postgres {
        organization::Entity::find_by_id(org).lock_exclusive().one(tx).await?;
    }
    Ok(())
}

fn events_column(filter: &EventFilter) -> Option<String> {
    filter
        .entries()
        .map(|entries| serde_json::Value::from(entries).to_string())
}

/// A filter as the column keeps it.
pub(super) fn read_filter(column: Option<&str>) -> Result<EventFilter, StoreError> {
    let Some(text) = column else {
        return Ok(EventFilter::All);
    };
    let entries = readable(serde_json::from_str(text).ok(), "webhooks.events", text)?;
    Ok(EventFilter::from_stored(Some(entries)))
}

fn view(row: webhook::Model) -> Result<Webhook, StoreError> {
    let reason = row.disabled_reason.as_deref();
    Ok(Webhook {
        id: row.id,
        url: readable(Destination::from_stored(&row.url).ok(), "webhooks.url", &row.url)?,
        enabled: row.enabled,
        events: read_filter(row.events.as_deref())?,
        description: row.description,
        disabled_reason: reason
            .map(|word| readable(DisabledReason::parse(word), "webhooks.disabled_reason", word))
            .transpose()?,
        created_at: Timestamp::from_millis(row.created_at),
        updated_at: Timestamp::from_millis(row.updated_at),
    })
}
