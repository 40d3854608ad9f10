//! Events: what happened to an organization, as the API shows it. They are recorded by [`super::queue::publish`].

use sea_orm::{ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use serde_json::value::RawValue;

pub use super::queue::publish::record;
use super::{Database, StoreError, entity::event};
use crate::domain::{event::Event, event_id::EventId, id::OrganizationId};

/// The event of that id.
pub async fn find(db: &Database, org: OrganizationId, id: &EventId) -> Result<Option<Event>, StoreError> {
    let row = event::Entity::find_by_id((org, id.clone())).one(&db.read()).await?;
    Ok(row.map(Event::from))
}

/// The organization's events, newest first, from the one after `after`, at most `limit`.
///
/// An event `after` that is not there any more still has its place in the order: its id holds the time.
pub async fn list(
    db: &Database,
    org: OrganizationId,
    after: Option<&EventId>,
    limit: u64,
) -> Result<Vec<Event>, StoreError> {
    let mut query = event::Entity::find().filter(event::Column::OrganizationId.eq(org));
    if let Some(after) = after {
        let at = find(db, org, after)
            .await?
            .map_or_else(|| after.made_at(), |last| last.created_at);
        query = query.filter(
            Condition::any().add(event::Column::CreatedAt.lt(at)).add(
                Condition::all()
                    .add(event::Column::CreatedAt.eq(at))
                    .add(event::Column::Id.lt(after.clone())),
            ),
        );
    }
    let query = query
        .order_by_desc(event::Column::CreatedAt)
        .order_by_desc(event::Column::Id)
        .limit(limit);
    Ok(query.all(&db.read_long()).await?.into_iter().map(Event::from).collect())
}

/// A stored payload as the JSON text that it is.
pub fn payload_json(payload: &[u8]) -> Result<Box<RawValue>, StoreError> {
    serde_json::from_slice(payload).map_err(|cause| StoreError::Corrupt(format!("events.payload: {cause}")))
}

impl From<event::Model> for Event {
    fn from(row: event::Model) -> Self {
        Self {
            id: row.id,
            event_type: row.event_type,
            payload: row.payload.into(),
            created_at: row.created_at,
        }
    }
}
