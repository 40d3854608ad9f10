//! Publishing on SQLite, where a statement costs no round trip: one per row, each text prepared once.

use sea_orm::{ConnectionTrait as _, FromQueryResult as _, Statement, Value};

use super::owed::{LeaseAtOnce, Owed, Subscriber};
use crate::{
    domain::{
        event::Publication,
        id::{DeliveryId, OrganizationId},
    },
    store::{Database, StoreError, engine::Connection},
};

const INSERT_EVENT: &str = "
    INSERT INTO events (organization_id, id, event_type, payload, created_at, traceparent)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
const SUBSCRIBERS: &str = "
    SELECT organization_id, id, url, secret, events, consecutive_failures, rate_limit FROM webhooks
    WHERE organization_id = $1 AND enabled ORDER BY id";
const INSERT_DELIVERY: &str = "
    INSERT INTO deliveries (organization_id, id, webhook_id, event_id, event_type, status, attempt_count, created_at)
    VALUES ($1, $2, $3, $4, $5, 'pending', 0, $6)";
const INSERT_ENTRY: &str = "
    INSERT INTO queue (organization_id, delivery_id, webhook_id, owed, due_at, attempt_count, lease_token, lease_node)
    VALUES ($1, $2, $3, TRUE, $4, $5, $6, $7)";

/// Inserts an event. Returns false if one with this id exists.
pub(super) async fn insert_event(tx: &Connection<'_>, publication: &Publication) -> Result<bool, StoreError> {
    let values: [Value; 6] = [
        publication.organization_id.into(),
        publication.event_id.as_str().into(),
        publication.event_type.as_str().into(),
        publication.payload.to_vec().into(),
        publication.created_at.into(),
        publication.traceparent.map(|parent| parent.to_string()).into(),
    ];
    let insert = Statement::from_sql_and_values(tx.get_database_backend(), INSERT_EVENT, values);
    Ok(tx.execute_raw(insert).await?.rows_affected() == 1)
}

/// The enabled webhooks of an organization.
pub(super) async fn subscribers(
    tx: &Connection<'_>,
    organization: OrganizationId,
) -> Result<Vec<Subscriber>, StoreError> {
    let all = Statement::from_sql_and_values(tx.get_database_backend(), SUBSCRIBERS, [organization.into()]);
    Ok(Subscriber::find_by_statement(all).all(tx).await?)
}

/// Inserts an event's deliveries to those of the webhooks that want it.
pub(super) async fn insert_owed(
    db: &Database,
    tx: &Connection<'_>,
    publication: &Publication,
    subscribers: impl Iterator<Item = Subscriber> + Send,
    lease: Option<&LeaseAtOnce>,
) -> Result<Vec<Owed>, StoreError> {
    let backend = tx.get_database_backend();
    let organization: Value = publication.organization_id.into();
    let mut all = Vec::new();
    for subscriber in subscribers {
        if !subscriber.filter()?.wants(&publication.event_type) {
            continue;
        }
        let lease =
            lease.filter(|lease| subscriber.is_plain() && !lease.full.has(subscriber.organization_id, subscriber.id));
        let delivery_id: DeliveryId = db.clock.new_id();
        let delivery: [Value; 6] = [
            organization.clone(),
            delivery_id.into(),
            subscriber.id.into(),
            publication.event_id.as_str().into(),
            publication.event_type.as_str().into(),
            publication.created_at.into(),
        ];
        tx.execute_raw(Statement::from_sql_and_values(backend, INSERT_DELIVERY, delivery))
            .await?;
        let entry: [Value; 7] = [
            organization.clone(),
            delivery_id.into(),
            subscriber.id.into(),
            lease.map_or(publication.created_at, |lease| lease.until).into(),
            i32::from(lease.is_some()).into(),
            lease.map(|lease| lease.token).into(),
            lease.map(|_| db.node).into(),
        ];
        tx.execute_raw(Statement::from_sql_and_values(backend, INSERT_ENTRY, entry))
            .await?;
        all.push(Owed {
            delivery_id,
            subscriber,
            is_leased: lease.is_some(),
        });
    }
    Ok(all)
}
