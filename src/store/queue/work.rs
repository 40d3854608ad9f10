//! What attempts need to know: the messages to send, and the current state of their webhooks.

use std::{collections::HashMap, sync::Arc};

use sea_orm::{
    ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult, QueryFilter as _, Statement, Value,
    prelude::Uuid,
};

use super::{
    lease::{Grant, Granted, Lease, Leased, Message, Target, WebhookState},
    leases,
};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        destination::Destination,
        event_id::EventId,
        id::{DeliveryId, OrganizationId, WebhookId},
        timestamp::Timestamp,
        trace::TraceParent,
    },
    store::{Database, StoreError, engine::among::among_ids, entity::webhook, health, secrets},
};

/// A delivery as its attempt needs it.
#[derive(FromQueryResult)]
struct DeliveryRow {
    id: DeliveryId,
    event_id: EventId,
    status: DeliveryStatus,
    schedule_start: i32,
}

#[derive(FromQueryResult)]
struct EventRow {
    organization_id: OrganizationId,
    id: EventId,
    event_type: String,
    payload: Vec<u8>,
    traceparent: Option<String>,
}

impl EventRow {
    fn message(self) -> Message {
        Message {
            event_id: self.id,
            event_type: self.event_type,
            payload: self.payload.into(),
            traceparent: self.traceparent.as_deref().and_then(TraceParent::parse),
        }
    }
}

/// Reads what leased deliveries send. If that fails, the leases are released.
pub(super) async fn with_messages(
    db: &Database,
    granted: Vec<Granted>,
    until: Timestamp,
) -> Result<Vec<Leased>, StoreError> {
    if granted.is_empty() {
        return Ok(Vec::new());
    }
    match messages(db, &granted, until).await {
        Ok(leased) => Ok(leased),
        Err(error) => {
            let leases = granted.into_iter().map(|(lease, _)| lease).collect();
            match db.hand_over.get() {
                Some(lanes) => lanes.not_made(leases),
                None => leases::release(db, leases, db.clock.now()).await?,
            }
            Err(error)
        }
    }
}

/// The delivery that was leased for a manual attempt.
pub async fn for_manual(db: &Database, lease: Lease, until: Timestamp) -> Result<Option<Leased>, StoreError> {
    Ok(messages(db, &[(lease, Grant::Manual)], until).await?.pop())
}

async fn messages(db: &Database, granted: &[Granted], until: Timestamp) -> Result<Vec<Leased>, StoreError> {
    let keys = granted
        .iter()
        .map(|(lease, _)| (lease.organization_id, lease.delivery_id));
    let mut deliveries: HashMap<DeliveryId, DeliveryRow> = deliveries(db, keys).await?;
    // By their keys, not by a join: as long as PostgreSQL's planner has no statistics for an organization, it joins by
    // reading all of its events for each delivery.
    let events = granted.iter().filter_map(|(lease, _)| {
        let row = deliveries.get(&lease.delivery_id)?;
        Some((lease.organization_id, row.event_id.clone()))
    });
    let events = events_of(db, events.collect()).await?;
    let leased = granted.iter().filter_map(|(lease, grant)| {
        let row = deliveries.remove(&lease.delivery_id)?;
        let message = events.get(&(lease.organization_id, row.event_id))?;
        Some(Leased {
            lease: lease.clone(),
            until,
            message: Arc::clone(message),
            status: row.status,
            schedule_start: u32::try_from(row.schedule_start).unwrap_or_default(),
            grant: *grant,
        })
    });
    Ok(leased.collect())
}

pub(in crate::store) const DELIVERIES: &str = "
    SELECT id, event_id, status, schedule_start FROM deliveries
    JOIN UNNEST($1::uuid[], $2::uuid[]) AS k(key_organization, key_id)
        ON organization_id = key_organization AND id = key_id";

async fn deliveries(
    db: &Database,
    keys: impl Iterator<Item = (OrganizationId, DeliveryId)> + Clone,
) -> Result<HashMap<DeliveryId, DeliveryRow>, StoreError> {
    const ONE: &str = "
        SELECT id, event_id, status, schedule_start FROM deliveries WHERE organization_id = $1 AND id = $2";
    let connection = db.read();
    let mut rows = Vec::new();
    if connection.get_database_backend() == DbBackend::Postgres {
        let (organizations, ids): (Vec<Uuid>, Vec<Uuid>) = keys
            .map(|(organization, id)| (Uuid::from(organization), Uuid::from(id)))
            .unzip();
        let statement =
            Statement::from_sql_and_values(DbBackend::Postgres, DELIVERIES, [organizations.into(), ids.into()]);
        rows = DeliveryRow::find_by_statement(statement).all(&connection).await?;
    } else {
        for (organization, id) in keys {
            let statement = Statement::from_sql_and_values(DbBackend::Sqlite, ONE, [organization.into(), id.into()]);
            rows.extend(DeliveryRow::find_by_statement(statement).one(&connection).await?);
        }
    }
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Events by their keys, as messages.
type Messages = HashMap<(OrganizationId, EventId), Arc<Message>>;

pub(in crate::store) const EVENTS: &str = "
    SELECT organization_id, id, event_type, payload, traceparent FROM events
    JOIN UNNEST($1::uuid[], $2::text[]) AS k(key_organization, key_id)
        ON organization_id = key_organization AND id = key_id";

async fn events_of(db: &Database, mut keys: Vec<(OrganizationId, EventId)>) -> Result<Messages, StoreError> {
    const ONE: &str = "
        SELECT organization_id, id, event_type, payload, traceparent FROM events
        WHERE organization_id = $1 AND id = $2";
    keys.sort_unstable();
    keys.dedup();
    let connection = db.read();
    let mut rows = Vec::new();
    if connection.get_database_backend() == DbBackend::Postgres {
        let (organizations, ids): (Vec<Uuid>, Vec<String>) = keys
            .into_iter()
            .map(|(organization, id)| (Uuid::from(organization), id.as_str().to_owned()))
            .unzip();
        let statement =
            Statement::from_sql_and_values(DbBackend::Postgres, EVENTS, [Value::from(organizations), ids.into()]);
        rows = EventRow::find_by_statement(statement).all(&connection).await?;
    } else {
        for (organization, id) in keys {
            let key: [Value; 2] = [organization.into(), id.as_str().into()];
            let statement = Statement::from_sql_and_values(DbBackend::Sqlite, ONE, key);
            rows.extend(EventRow::find_by_statement(statement).one(&connection).await?);
        }
    }
    let message = |row: EventRow| ((row.organization_id, row.id.clone()), Arc::new(row.message()));
    Ok(rows.into_iter().map(message).collect())
}

/// Reads the current state of webhooks, each as attempts need it.
pub async fn read_webhooks(
    db: &Database,
    webhooks: &[(OrganizationId, WebhookId)],
) -> Result<Vec<(WebhookId, WebhookState)>, StoreError> {
    let connection = db.read();
    let ids = webhooks.iter().map(|(_, id)| *id);
    let rows = webhook::Entity::find()
        .filter(among_ids(connection.get_database_backend(), "id", ids))
        .all(&connection)
        .await?;
    let rows: HashMap<WebhookId, webhook::Model> = rows.into_iter().map(|row| (row.id, row)).collect();
    let state = |(_, id): &(OrganizationId, WebhookId)| {
        let row = rows.get(id).filter(|row| row.deleted_at.is_none());
        (*id, row.map_or(WebhookState::Deleted, |row| state(db, row)))
    };
    Ok(webhooks.iter().map(state).collect())
}

fn state(db: &Database, row: &webhook::Model) -> WebhookState {
    let secret = secrets::open_secret(db, row);
    let (Ok(url), Ok(secret)) = (Destination::from_stored(&row.url), secret) else {
        tracing::error!(kallima.webhook.id = %row.id, "a webhook cannot be read: its URL is not valid, or no master key opens its secret");
        return WebhookState::Unreadable;
    };
    WebhookState::Present(Arc::new(Target {
        url,
        secret,
        enabled: row.enabled,
        breaker_open: health::read(row).breaker_open(),
        rated: row.rate_limit.is_some(),
    }))
}
