//! Webhooks: registered endpoints.

use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, IntoActiveModel as _,
    PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Set, Statement, Value,
};
use uuid::Uuid;

use super::{
    Database, StoreError,
    audit::{self, Origin},
    entity::{organization, webhook},
    error::readable,
    health,
    secrets::{open_secret, seal},
};
use crate::domain::{
    delivery::DisabledReason,
    destination::Destination,
    event_filter::EventFilter,
    health::Health,
    precondition::{EntityTag, IfMatch},
    rate::RateLimit,
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
    /// How many deliveries may start each second, if there is a limit.
    pub rate_limit: Option<RateLimit>,
    /// Why the service switched it off, if it did.
    pub disabled_reason: Option<DisabledReason>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When something about it last changed.
    pub updated_at: Timestamp,
}

impl Webhook {
    /// The tag of this version of it.
    #[must_use]
    pub fn tag(&self) -> EntityTag {
        EntityTag::of_version(self.updated_at)
    }
}

/// What came of changing a webhook that the client may have known in another version.
#[derive(Debug)]
pub enum Changed<T> {
    /// It is done.
    Done(T),
    /// There is no such webhook.
    NotFound,
    /// It is not what the client has seen; nothing was changed.
    Stale,
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
    /// How many deliveries may start each second, if there is to be a limit.
    pub rate_limit: Option<RateLimit>,
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
    /// How many deliveries may start each second from now on; the inner `None` takes the limit away.
    pub rate_limit: Option<Option<RateLimit>>,
    /// The secret that replaces the one before, which is invalid at once.
    pub secret: Option<Secret>,
}

/// Registers a webhook and answers with it and its secret, or with `None` where the organization has [`WEBHOOKS_MAX`] already.
pub async fn create(
    db: &Database,
    org: Uuid,
    new: NewWebhook,
    origin: Origin,
    now: Timestamp,
) -> Result<Option<(Webhook, Secret)>, StoreError> {
    let tx = db.begin().await?;
    // Two creations at once must not both take the last place: the organization's row makes them take turns.
    lock_organization(&tx, db.engine(), org).await?;
    // A creation that is done a second time, since nobody knew how the first one had ended.
    if let Some(before) = webhook::Entity::find_by_id((org, new.id)).one(&tx).await? {
        let secret = open_secret(db, &before)?;
        return Ok(Some((view(before)?, secret)));
    }
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
        rate_limit,
        secret,
    } = new;
    let mut row = webhook::ActiveModel {
        organization_id: Set(org),
        id: Set(id),
        url: Set(url.as_str().to_owned()),
        events: Set(events_column(&events)),
        description: Set(description),
        secret: Set(seal(db, org, id, &secret)?),
        rate_limit: Set(rate_limit.map(rate_column)),
        rate_state: Set(None),
        created_at: Set(now.as_millis()),
        updated_at: Set(now.as_millis()),
        ..Default::default()
    };
    health::set(&mut row, Health::new(enabled));
    let row = row.insert(&tx).await?;
    audit::record(&tx, origin, None, Some(&row), now).await?;
    tx.commit().await?;
    Ok(Some((view(row)?, secret)))
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

/// Changes a webhook, where it is a version that `if_match` allows. `updated_at` moves only when something changes.
pub async fn update(
    db: &Database,
    org: Uuid,
    id: Uuid,
    changes: WebhookChanges,
    if_match: Option<&IfMatch>,
    origin: Origin,
    now: Timestamp,
) -> Result<Changed<Webhook>, StoreError> {
    let tx = db.begin().await?;
    let before = match lock(&tx, db.engine(), org, id, if_match).await? {
        Changed::Done(row) => row,
        Changed::NotFound => return Ok(Changed::NotFound),
        Changed::Stale => return Ok(Changed::Stale),
    };
    let mut row = before.clone();
    let WebhookChanges {
        url,
        events,
        enabled,
        description,
        rate_limit,
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
    if let Some(rate_limit) = rate_limit {
        row.rate_limit = rate_limit.map(rate_column);
    }
    if let Some(secret) = secret {
        row.secret = seal(db, org, id, &secret)?;
    }
    if row == before {
        return view(row).map(Changed::Done);
    }
    // Two changes within one millisecond are two changes.
    row.updated_at = now.as_millis().max(before.updated_at + 1);
    let mut every_column = row.into_active_model().reset_all();
    if enabled == Some(true) && !before.enabled {
        let mut health = health::read(&before)?;
        health.enable();
        health::set(&mut every_column, health);
    }
    let row = webhook::Entity::update(every_column).exec(&tx).await?;
    audit::record(&tx, origin, Some(&before), Some(&row), now).await?;
    tx.commit().await?;
    view(row).map(Changed::Done)
}

/// The row of a webhook, as nobody else can change it until the transaction ends, where `if_match` allows its version.
async fn lock(
    tx: &impl ConnectionTrait,
    engine: DbBackend,
    org: Uuid,
    id: Uuid,
    if_match: Option<&IfMatch>,
) -> Result<Changed<webhook::Model>, StoreError> {
    let mut query = webhook::Entity::find_by_id((org, id));
    if engine == DbBackend::Postgres {
        query = query.lock_exclusive();
    }
    let Some(row) = query.one(tx).await? else {
        return Ok(Changed::NotFound);
    };
    let current = EntityTag::of_version(Timestamp::from_millis(row.updated_at));
    let allowed = if_match.is_none_or(|condition| condition.allows(&current));
    Ok(if allowed { Changed::Done(row) } else { Changed::Stale })
}

/// Deletes a webhook, where it is a version that `if_match` allows, and cancels its pending deliveries.
pub async fn delete(
    db: &Database,
    org: Uuid,
    id: Uuid,
    if_match: Option<&IfMatch>,
    origin: Origin,
    now: Timestamp,
) -> Result<Changed<()>, StoreError> {
    let tx = db.begin().await?;
    // The webhook goes first: a publication that still holds its row commits before this lock is given, so
    // the next statement sees the delivery it made.
    let before = match lock(&tx, db.engine(), org, id, if_match).await? {
        Changed::Done(row) => row,
        Changed::NotFound => return Ok(Changed::NotFound),
        Changed::Stale => return Ok(Changed::Stale),
    };
    webhook::Entity::delete_by_id((org, id)).exec(&tx).await?;
    audit::record(&tx, origin, Some(&before), None, now).await?;
    cancel(&tx, org, id, now).await?;
    tx.commit().await?;
    Ok(Changed::Done(()))
}

/// Cancels what is owed to a webhook that nobody can publish to any more.
async fn cancel(tx: &impl ConnectionTrait, org: Uuid, webhook_id: Uuid, now: Timestamp) -> Result<(), StoreError> {
    // In the order in which the records of attempts lock them, so that neither waits for the other in a ring.
    const LOCK: &str = "SELECT count(*) FROM (
        SELECT 1 FROM queue WHERE organization_id = $1 AND webhook_id = $2 AND owed
        ORDER BY delivery_id FOR UPDATE) AS locked";
    const CANCEL: &str = "
        UPDATE deliveries SET status = 'canceled', undelivered_at = $3, attempt_count = queue.attempt_count
        FROM queue
        WHERE queue.organization_id = $1 AND queue.webhook_id = $2 AND owed
            AND deliveries.organization_id = queue.organization_id AND deliveries.id = queue.delivery_id";
    const REMOVE: &str = "DELETE FROM queue WHERE organization_id = $1 AND webhook_id = $2 AND owed";
    let engine = tx.get_database_backend();
    let webhook: [Value; 2] = [org.into(), webhook_id.into()];
    if engine == DbBackend::Postgres {
        tx.execute_raw(Statement::from_sql_and_values(engine, LOCK, webhook.clone()))
            .await?;
    }
    let canceled = webhook.clone().into_iter().chain([now.as_millis().into()]);
    tx.execute_raw(Statement::from_sql_and_values(engine, CANCEL, canceled))
        .await?;
    tx.execute_raw(Statement::from_sql_and_values(engine, REMOVE, webhook))
        .await?;
    Ok(())
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

/// Why the service switched a webhook off, as the column keeps it.
pub(super) fn read_reason(column: Option<&str>) -> Result<Option<DisabledReason>, StoreError> {
    column
        .map(|word| readable(DisabledReason::parse(word), "webhooks.disabled_reason", word))
        .transpose()
}

fn rate_column(rate: RateLimit) -> i32 {
    i32::try_from(rate.per_second()).unwrap_or(i32::MAX)
}

/// A rate as the column keeps it.
pub(super) fn read_rate(column: Option<i32>) -> Option<RateLimit> {
    column.and_then(|per_second| RateLimit::new(u32::try_from(per_second).ok()?))
}

fn view(row: webhook::Model) -> Result<Webhook, StoreError> {
    Ok(Webhook {
        id: row.id,
        url: readable(Destination::from_stored(&row.url).ok(), "webhooks.url", &row.url)?,
        enabled: row.enabled,
        events: read_filter(row.events.as_deref())?,
        description: row.description,
        rate_limit: read_rate(row.rate_limit),
        disabled_reason: read_reason(row.disabled_reason.as_deref())?,
        created_at: Timestamp::from_millis(row.created_at),
        updated_at: Timestamp::from_millis(row.updated_at),
    })
}
