//! Events: what happened to an organization, recorded together with the deliveries it owes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Set,
    sea_query::{LockType, OnConflict},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Database, StoreError, database,
    entity::{delivery, event, queued, webhook},
    error::readable,
    webhooks::read_filter,
};
use crate::{
    clock::Clock,
    domain::{
        delivery::DeliveryStatus, event_filter::EventFilter, event_id::EventId, operational::OperationalEvent,
        timestamp::Timestamp, trace::TraceParent,
    },
};

/// Rows in one INSERT, so that the parameters stay below both engines' limits.
const ROWS_AN_INSERT_MAX: usize = 500;

/// An event to record.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Whom it happened to.
    pub organization_id: Uuid,
    /// Its id.
    pub event_id: EventId,
    /// Its type.
    pub event_type: String,
    /// The exact bytes that every attempt signs and sends.
    pub payload: Vec<u8>,
    /// When it was published.
    pub created_at: Timestamp,
    /// The trace that the publisher named.
    pub traceparent: Option<TraceParent>,
}

/// What became of a publication.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// It is durable, and so are its deliveries.
    New,
    /// An event of the same id, type and data was recorded before; here it is.
    Before(Event),
    /// An event of the same id says something else.
    Conflict,
}

/// A recorded event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: String,
    /// The exact bytes that every attempt signs and sends.
    pub payload: Vec<u8>,
    /// When it was published.
    pub created_at: Timestamp,
}

/// Records an event and one delivery for each enabled webhook that wants it, in one transaction shared with
/// other publications. When this returns, all of it is durable.
pub async fn record(db: &Database, publication: Publication) -> Result<Recorded, StoreError> {
    db.publisher.submit(publication).await
}

/// The event of that id.
pub async fn find(db: &Database, org: Uuid, id: &EventId) -> Result<Option<Event>, StoreError> {
    event::Entity::find_by_id((org, id.as_str().to_owned()))
        .one(&db.read)
        .await?
        .map(view)
        .transpose()
}

/// The organization's events, newest first, from the one after `after`, at most `limit`.
///
/// An event `after` that is not there any more still has its place in the order: its id holds the time.
pub async fn list(db: &Database, org: Uuid, after: Option<&EventId>, limit: u64) -> Result<Vec<Event>, StoreError> {
    let mut query = event::Entity::find().filter(event::Column::OrganizationId.eq(org));
    if let Some(after) = after {
        let at = find(db, org, after)
            .await?
            .map_or_else(|| after.made_at(), |last| last.created_at)
            .as_millis();
        query = query.filter(
            Condition::any().add(event::Column::CreatedAt.lt(at)).add(
                Condition::all()
                    .add(event::Column::CreatedAt.eq(at))
                    .add(event::Column::Id.lt(after.as_str())),
            ),
        );
    }
    let query = query
        .order_by_desc(event::Column::CreatedAt)
        .order_by_desc(event::Column::Id)
        .limit(limit);
    query.all(&db.read).await?.into_iter().map(view).collect()
}

/// Records a batch in one transaction: all events by one statement, then all their deliveries.
pub(super) async fn record_batch(
    write: DatabaseConnection,
    clock: Clock,
    batch: Arc<[Publication]>,
) -> Result<Vec<Recorded>, StoreError> {
    let tx = database::begin(&write).await?;
    let mut inserted = insert_events(&tx, &batch).await?;
    let organizations = batch.iter().map(|publication| publication.organization_id).collect();
    let filters = load_filters(&tx, write.get_database_backend(), organizations).await?;
    let mut results = Vec::with_capacity(batch.len());
    let mut owed = Vec::new();
    for publication in batch.iter() {
        let key = (publication.organization_id, publication.event_id.as_str().to_owned());
        // Removed, not looked up: of two publications with one id in a batch, only the first is new.
        if inserted.remove(&key) {
            let wanting = wanting(&filters, publication);
            owed.extend(wanting.map(|webhook_id| Owed::new(publication, webhook_id, &clock)));
            results.push(Recorded::New);
        } else {
            results.push(compare(&tx, key, publication).await?);
        }
    }
    insert_owed(&tx, owed).await?;
    tx.commit().await?;
    Ok(results)
}

/// Records what the service itself has to tell, each with a delivery to every webhook that wants it but the one that
/// it is about.
pub(super) async fn record_operational(
    tx: &impl ConnectionTrait,
    clock: &Clock,
    filters: &Filters,
    told: Vec<(Uuid, OperationalEvent)>,
) -> Result<(), StoreError> {
    let mut publications = Vec::with_capacity(told.len());
    let mut owed = Vec::new();
    for (organization_id, event) in told {
        let (event_id, created_at) = (clock.new_event_id(), clock.now());
        let publication = Publication {
            organization_id,
            payload: event.payload(&event_id, created_at),
            event_id,
            event_type: event.event_type().to_owned(),
            created_at,
            traceparent: None,
        };
        let others = wanting(filters, &publication).filter(|webhook_id| *webhook_id != event.about());
        owed.extend(others.map(|webhook_id| Owed::new(&publication, webhook_id, clock)));
        publications.push(publication);
    }
    insert_events(tx, &publications).await?;
    insert_owed(tx, owed).await
}

/// The webhooks of the event's organization that want it.
fn wanting<'a>(filters: &'a Filters, publication: &'a Publication) -> impl Iterator<Item = Uuid> + 'a {
    let webhooks = filters.get(&publication.organization_id).into_iter().flatten();
    let wanting = webhooks.filter(|(_, filter)| filter.wants(&publication.event_type));
    wanting.map(|(webhook_id, _)| *webhook_id)
}

/// A delivery that an event owes to a webhook, and its place in the queue: due at once.
struct Owed {
    delivery: delivery::ActiveModel,
    place: queued::ActiveModel,
}

impl Owed {
    fn new(publication: &Publication, webhook_id: Uuid, clock: &Clock) -> Self {
        let id = clock.new_uuid();
        Self {
            delivery: delivery_row(publication, webhook_id, id),
            place: queued_row(publication, webhook_id, id),
        }
    }
}

async fn insert_owed(tx: &impl ConnectionTrait, owed: Vec<Owed>) -> Result<(), StoreError> {
    let (deliveries, places): (Vec<_>, Vec<_>) = owed.into_iter().map(|owed| (owed.delivery, owed.place)).unzip();
    for rows in deliveries.chunks(ROWS_AN_INSERT_MAX) {
        delivery::Entity::insert_many(rows.to_vec())
            .exec_without_returning(tx)
            .await?;
    }
    for rows in places.chunks(ROWS_AN_INSERT_MAX) {
        queued::Entity::insert_many(rows.to_vec())
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}

/// Inserts the events that are not there yet and says which those are.
async fn insert_events(
    tx: &impl ConnectionTrait,
    batch: &[Publication],
) -> Result<HashSet<(Uuid, String)>, StoreError> {
    let mut inserted = HashSet::new();
    // In the order of their keys: two nodes that are told of the same events wait for each other, but not in a ring.
    let mut ordered: Vec<&Publication> = batch.iter().collect();
    ordered.sort_unstable_by_key(|publication| (publication.organization_id, publication.event_id.as_str()));
    for publications in ordered.chunks(ROWS_AN_INSERT_MAX) {
        let rows = publications.iter().copied().map(event_row);
        let known = OnConflict::columns([event::Column::OrganizationId, event::Column::Id])
            .do_nothing()
            .to_owned();
        let new = event::Entity::insert_many(rows)
            .on_conflict(known)
            .exec_with_returning_keys(tx)
            .await?;
        inserted.extend(new);
    }
    Ok(inserted)
}

/// The filters of webhooks, by organization.
pub(super) type Filters = HashMap<Uuid, Vec<(Uuid, EventFilter)>>;

/// The filters of the enabled webhooks of these organizations.
pub(super) async fn load_filters(
    tx: &impl ConnectionTrait,
    engine: DbBackend,
    organizations: HashSet<Uuid>,
) -> Result<Filters, StoreError> {
    if organizations.is_empty() {
        return Ok(Filters::new());
    }
    let mut query = webhook::Entity::find()
        .filter(webhook::Column::OrganizationId.is_in(organizations))
        .filter(webhook::Column::Enabled.eq(true));
    if engine == DbBackend::Postgres {
        // A webhook that is being deleted must not be owed a new delivery that nobody cancels.
        query = query.lock(LockType::KeyShare);
    }
    let mut filters = Filters::new();
    for row in query.all(tx).await? {
        let filter = read_filter(row.events.as_deref())?;
        filters.entry(row.organization_id).or_default().push((row.id, filter));
    }
    Ok(filters)
}

/// The row of a published event.
pub(super) fn event_row(publication: &Publication) -> event::ActiveModel {
    event::ActiveModel {
        organization_id: Set(publication.organization_id),
        id: Set(publication.event_id.as_str().to_owned()),
        event_type: Set(publication.event_type.clone()),
        payload: Set(publication.payload.clone()),
        created_at: Set(publication.created_at.as_millis()),
        traceparent: Set(publication.traceparent.map(|parent| parent.to_string())),
    }
}

/// The row of a delivery that a published event owes to a webhook.
pub(super) fn delivery_row(publication: &Publication, webhook_id: Uuid, id: Uuid) -> delivery::ActiveModel {
    delivery::ActiveModel {
        organization_id: Set(publication.organization_id),
        id: Set(id),
        webhook_id: Set(webhook_id),
        event_id: Set(publication.event_id.as_str().to_owned()),
        event_type: Set(publication.event_type.clone()),
        status: Set(DeliveryStatus::Pending.as_str().to_owned()),
        attempt_count: Set(0),
        schedule_start: Set(0),
        response_status: Set(None),
        response_body: Set(None),
        error: Set(None),
        created_at: Set(publication.created_at.as_millis()),
        delivered_at: Set(None),
        undelivered_at: Set(None),
    }
}

/// Its place in the queue.
pub(super) fn queued_row(publication: &Publication, webhook_id: Uuid, delivery_id: Uuid) -> queued::ActiveModel {
    queued::ActiveModel {
        organization_id: Set(publication.organization_id),
        delivery_id: Set(delivery_id),
        webhook_id: Set(webhook_id),
        owed: Set(true),
        due_at: Set(publication.created_at.as_millis()),
        attempt_count: Set(0),
        lease_token: Set(None),
        lease_node: Set(None),
    }
}

/// Holds a publication against the event recorded under its id.
async fn compare(
    tx: &impl ConnectionTrait,
    key: (Uuid, String),
    publication: &Publication,
) -> Result<Recorded, StoreError> {
    let row = event::Entity::find_by_id(key).one(tx).await?;
    let Some(row) = row else {
        return Err(StoreError::Corrupt(
            "an event vanished while it was published".to_owned(),
        ));
    };
    let same = row.event_type == publication.event_type && data(&row.payload)? == data(&publication.payload)?;
    if same {
        view(row).map(Recorded::Before)
    } else {
        Ok(Recorded::Conflict)
    }
}

/// The `data` member of a payload. Two are the same when they hold the same values, however they are written.
fn data(payload: &[u8]) -> Result<serde_json::Value, StoreError> {
    #[derive(Deserialize)]
    struct Payload {
        data: serde_json::Value,
    }
    serde_json::from_slice::<Payload>(payload)
        .map(|payload| payload.data)
        .map_err(|cause| StoreError::Corrupt(format!("events.payload: {cause}")))
}

impl Event {
    /// The payload as the JSON text that it is.
    pub fn payload_json(&self) -> Result<Box<RawValue>, StoreError> {
        payload_json(&self.payload)
    }
}

/// A stored payload as the JSON text that it is.
pub(super) fn payload_json(payload: &[u8]) -> Result<Box<RawValue>, StoreError> {
    serde_json::from_slice(payload).map_err(|cause| StoreError::Corrupt(format!("events.payload: {cause}")))
}

fn view(row: event::Model) -> Result<Event, StoreError> {
    Ok(Event {
        id: readable(EventId::parse(&row.id), "events.id", &row.id)?,
        event_type: row.event_type,
        payload: row.payload,
        created_at: Timestamp::from_millis(row.created_at),
    })
}
