//! Events as the API shows them. [`super::queue::publish`] records them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use sea_orm::{ConnectionTrait as _, EntityTrait as _, QueryResult, SelectModel, SelectorRaw, Statement, Value};
use serde_json::value::RawValue;

pub use super::queue::publish::record;
use super::{
    Database, StoreError,
    engine::among::{KeyType, found_among, texts_value},
    entity::{columns, event},
    page::{Page, PageLimit},
    search::{LOOKED_AT_MAX, LOOKED_AT_ONCE},
};
use crate::domain::{
    event::{Event, EventPosition},
    event_id::EventId,
    id::OrganizationId,
    timestamp::Timestamp,
};

/// The event with that id.
pub async fn find(db: &Database, org: OrganizationId, id: &EventId) -> Result<Option<Event>, StoreError> {
    let row = whole(db, org, BTreeSet::from([id.clone()])).one(&db.read()).await?;
    Ok(row.map(Event::from))
}

/// A page of the organization's events, newest first, starting after `after`; only those of `event_type`, if it is given.
///
/// They are ordered by their times, which may differ from the order of their ids: publishers may supply their own ids. No
/// index covers the types: if one is rare, the page ends after [`LOOKED_AT_MAX`] events.
pub async fn list(
    db: &Database,
    org: OrganizationId,
    event_type: Option<&str>,
    after: Option<EventPosition>,
    limit: PageLimit,
) -> Result<Page<Event, EventPosition>, StoreError> {
    let (rows, next) = walk(db, org, event_type, after, limit.fetch()).await?;
    let Page { items, next } = limit.page(rows, next, |row| row.position.clone(), |row| row.bytes);
    let ids = items.iter().map(|row| row.position.id.clone()).collect();
    let found = whole(db, org, ids).all(&db.read_long()).await?;
    let mut found: HashMap<EventId, event::Model> = found.into_iter().map(|row| (row.id.clone(), row)).collect();
    // Events that retention deleted meanwhile are omitted.
    let in_order = items.iter().filter_map(|row| found.remove(&row.position.id));
    Ok(Page {
        items: in_order.map(Event::from).collect(),
        next,
    })
}

/// An event of a list, before its payload is read.
struct Listed {
    position: EventPosition,
    event_type: String,
    bytes: u64,
}

/// The newest events after `after`, at most `rows_max`; and where the walk stopped, unless it reached the end or found
/// enough.
async fn walk(
    db: &Database,
    org: OrganizationId,
    event_type: Option<&str>,
    mut after: Option<EventPosition>,
    rows_max: u64,
) -> Result<(Vec<Listed>, Option<EventPosition>), StoreError> {
    let connection = db.read_long();
    let at_once = event_type.map_or(rows_max, |_| LOOKED_AT_ONCE);
    let (mut found, mut looked_at) = (Vec::new(), 0);
    loop {
        let rows = connection.query_all_raw(newest(db, org, after, at_once)).await?;
        let rows: Vec<Listed> = rows.iter().map(listed).collect::<Result<_, _>>()?;
        let is_last = event_type.is_none() || (rows.len() as u64) < at_once;
        looked_at += rows.len() as u64;
        after = rows.last().map(|row| row.position.clone());
        found.extend(
            rows.into_iter()
                .filter(|row| event_type.is_none_or(|wanted| row.event_type == wanted)),
        );
        if is_last || found.len() as u64 >= rows_max {
            return Ok((found, None));
        }
        if looked_at >= LOOKED_AT_MAX {
            return Ok((found, after));
        }
    }
}

/// The position of an event in the list: by its time, or by that in its id if the event no longer exists.
pub async fn position(db: &Database, org: OrganizationId, id: EventId) -> Result<EventPosition, StoreError> {
    let found = among(db, org, BTreeSet::from([id.clone()]), "found.created_at");
    let created_at = match db.read().query_one_raw(found).await? {
        Some(row) => row.try_get("", "created_at")?,
        None => id.made_at(),
    };
    Ok(EventPosition { created_at, id })
}

// Compared as a row value, time and id bound a range of the index, whose condition has to be repeated.
pub(in crate::store) const NEWEST: &str = "
    SELECT id, created_at, event_type, CAST(length(payload) AS BIGINT) AS bytes FROM events
    WHERE organization_id = $1 AND created_at >= 0 AND (created_at, id) < ($2, $3)
    ORDER BY created_at DESC, id DESC LIMIT $4";

/// Finds the next events, at most `rows_max`, and the sizes of their payloads.
pub(super) fn newest(db: &Database, org: OrganizationId, after: Option<EventPosition>, rows_max: u64) -> Statement {
    let (created_at, id) = match after {
        Some(EventPosition { created_at, id }) => (created_at, id.as_str().to_owned()),
        None => (Timestamp::from_millis(i64::MAX), String::new()),
    };
    let values: [Value; 4] = [
        org.into(),
        created_at.into(),
        id.into(),
        i64::try_from(rows_max).unwrap_or(i64::MAX).into(),
    ];
    Statement::from_sql_and_values(db.backend(), NEWEST, values)
}

fn listed(row: &QueryResult) -> Result<Listed, StoreError> {
    let position = EventPosition {
        created_at: row.try_get("", "created_at")?,
        id: row.try_get("", "id")?,
    };
    Ok(Listed {
        position,
        event_type: row.try_get("", "event_type")?,
        bytes: bytes(row)?,
    })
}

fn bytes(row: &QueryResult) -> Result<u64, StoreError> {
    let bytes: i64 = row.try_get("", "bytes")?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The sizes of these events' payloads.
pub(super) async fn payload_bytes(
    db: &Database,
    org: OrganizationId,
    ids: BTreeSet<EventId>,
) -> Result<HashMap<EventId, u64>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sizes = among(db, org, ids, "found.id, CAST(length(found.payload) AS BIGINT) AS bytes");
    let rows = db.read_long().query_all_raw(sizes).await?;
    let size = |row: &QueryResult| Ok((row.try_get("", "id")?, bytes(row)?));
    rows.iter().map(size).collect()
}

/// These events' payloads as JSON texts.
pub(super) async fn payloads(
    db: &Database,
    org: OrganizationId,
    ids: BTreeSet<EventId>,
) -> Result<HashMap<EventId, Arc<RawValue>>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = whole(db, org, ids).all(&db.read_long()).await?;
    let payload = |row: event::Model| Ok((row.id, payload_json(&row.payload)?.into()));
    rows.into_iter().map(payload).collect()
}

/// These events, with all of their columns.
fn whole(db: &Database, org: OrganizationId, ids: BTreeSet<EventId>) -> SelectorRaw<SelectModel<event::Model>> {
    event::Entity::find().from_raw_sql(among(db, org, ids, &columns::<event::Entity>("found")))
}

fn among(db: &Database, org: OrganizationId, ids: BTreeSet<EventId>, columns: &str) -> Statement {
    let backend = db.backend();
    let rows = found_among(backend, "events", "id", KeyType::Texts);
    let ids = ids.into_iter().map(String::from).collect();
    let values = [org.into(), texts_value(backend, ids)];
    Statement::from_sql_and_values(backend, format!("SELECT {columns} FROM {rows}"), values)
}

/// A stored payload as JSON text.
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
