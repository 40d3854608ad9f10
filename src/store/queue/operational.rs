//! Operational events: the service's notices to an organization, recorded together with their cause.

use std::collections::{HashMap, HashSet};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    sea_query::LockType,
};

use super::{owed::Subscriber, publish_rows};
use crate::{
    domain::{
        event::{Envelope, Publication},
        id::OrganizationId,
        operational::OperationalEvent,
    },
    store::{
        Database, StoreError,
        engine::{Connection, among::among_ids},
        entity::webhook,
    },
};

/// The enabled webhooks that may be notified, by organization.
pub(super) type Subscribers = HashMap<OrganizationId, Vec<Subscriber>>;

/// Locks those enabled webhooks of these organizations that have a filter against deletion, and reads their filters.
/// The others are not notified.
pub(super) async fn lock_subscribers(
    tx: &Connection<'_>,
    organizations: HashSet<OrganizationId>,
) -> Result<Subscribers, StoreError> {
    if organizations.is_empty() {
        return Ok(Subscribers::new());
    }
    let rows = webhook::Entity::find()
        .filter(among_ids(tx.get_database_backend(), "organization_id", organizations))
        .filter(webhook::Column::Enabled.eq(true))
        .filter(webhook::Column::Events.is_not_null())
        .order_by_asc(webhook::Column::Id)
        .lock(LockType::KeyShare)
        .all(tx)
        .await?;
    let mut subscribers = Subscribers::new();
    for row in rows {
        subscribers.entry(row.organization_id).or_default().push(row.into());
    }
    Ok(subscribers)
}

/// Records operational events, each with a delivery to every webhook that wants it, except the one it is about.
pub(super) async fn record(
    db: &Database,
    tx: &Connection<'_>,
    subscribers: &Subscribers,
    news: Vec<(OrganizationId, OperationalEvent)>,
) -> Result<(), StoreError> {
    for (organization_id, event) in news {
        let (event_id, created_at) = (db.clock.new_event_id(), db.clock.now());
        let envelope = Envelope::new(event_id, event.event_type(), created_at, &event.data())?;
        let publication = Publication::new(organization_id, envelope)?;
        let others = subscribers.get(&organization_id).into_iter().flatten();
        let others = others.filter(|subscriber| subscriber.id != event.about());
        publish_rows::insert_event(tx, &publication).await?;
        publish_rows::insert_owed(db, tx, &publication, others.cloned(), None).await?;
    }
    Ok(())
}
