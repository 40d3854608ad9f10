//! Publishing on PostgreSQL, where a statement costs a round trip: one for a whole batch of publications, with their
//! idempotency keys, deliveries and queue entries.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use sea_orm::{ConnectionTrait as _, FromQueryResult, Statement, Value, prelude::Uuid};

use super::{
    owed::{LeaseAtOnce, Owed, Subscriber},
    publish::{Handed, compare},
};
use crate::{
    domain::{
        event::Recorded,
        id::{DeliveryId, LeaseToken, OrganizationId, WebhookId},
        rate::RateLimit,
    },
    store::{
        Database, StoreError,
        engine::among::array,
        health,
        idempotency::{self, Entered},
        once::{Keyed, Once, Publish},
    },
};

/// The keys come first: a concurrent user of the same key waits here, and then finds the response. An event whose key
/// or id is in use is not recorded. The ids of deliveries are `UUIDv7`s: the publisher generates the part that orders
/// them, the server the random rest.
///
/// Webhooks are locked in the order of their ids, but sorted by an expression: while there are few, an index of that order
/// would be cheaper than that of the organization, and a plan that is kept would then read the webhooks of everybody.
pub(in crate::store) const PUBLISH: &str = "
    WITH published AS MATERIALIZED (
        SELECT * FROM UNNEST($1::int[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::text[],
                             $8::text[], $9::text[], $10::bytea[], $11::bytea[])
            AS p(position, organization_id, id, event_type, payload, created_at, traceparent,
                 id_prefix, key, fingerprint, response)
    ), keys AS (
        INSERT INTO idempotency_keys (organization_id, key, fingerprint, response, expires_at)
        SELECT organization_id, key, fingerprint, response, $12 FROM published
        WHERE key <> '' ORDER BY organization_id, key
        ON CONFLICT (organization_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, seed = NULL,
            response = excluded.response, lease_token = NULL, leased_until = NULL, expires_at = excluded.expires_at
        WHERE idempotency_keys.expires_at <= $13
        RETURNING organization_id, key
    ), entered AS MATERIALIZED (
        SELECT * FROM published
        WHERE key = '' OR (organization_id, key) IN (SELECT organization_id, key FROM keys)
    ), recorded AS (
        INSERT INTO events (organization_id, id, event_type, payload, created_at, traceparent)
        SELECT organization_id, id, event_type, payload, created_at, NULLIF(traceparent, '') FROM entered
        ORDER BY organization_id, id
        ON CONFLICT DO NOTHING RETURNING organization_id, id
    ), subscribers AS MATERIALIZED (
        SELECT organization_id, id, url, secret, events, consecutive_failures, rate_limit FROM webhooks
        WHERE organization_id = ANY($14) AND enabled ORDER BY uuid_send(id) FOR KEY SHARE
    ), owed AS MATERIALIZED (
        SELECT entered.position, entered.organization_id, entered.id AS event_id, entered.event_type,
            entered.created_at, (id_prefix || substr(gen_random_uuid()::text, 20))::uuid AS delivery_id,
            subscribers.id AS webhook_id, url, secret, events, consecutive_failures, rate_limit,
            $15 AND consecutive_failures < $16 AND rate_limit IS NULL AND subscribers.id <> ALL($17)
                AND entered.organization_id <> ALL($21) AS is_leased
        FROM recorded JOIN entered USING (organization_id, id)
        JOIN subscribers ON subscribers.organization_id = entered.organization_id
        WHERE events IS NULL
            OR events::jsonb ?| ARRAY[entered.event_type, split_part(entered.event_type, '.', 1) || '.*']
    ), deliveries_made AS (
        INSERT INTO deliveries (organization_id, id, webhook_id, event_id, event_type, status, attempt_count, created_at)
        SELECT organization_id, delivery_id, webhook_id, event_id, event_type, 'pending', 0, created_at FROM owed
    ), entries_made AS (
        INSERT INTO queue (organization_id, delivery_id, webhook_id, owed, due_at, attempt_count, lease_token, lease_node)
        SELECT organization_id, delivery_id, webhook_id, TRUE, CASE WHEN is_leased THEN $18 ELSE created_at END,
            is_leased::int, CASE WHEN is_leased THEN $19::uuid END,
            CASE WHEN is_leased THEN $20::uuid END FROM owed
    )
    SELECT entered.position, recorded.id IS NOT NULL AS is_new, delivery_id, webhook_id, owed.organization_id, url,
        secret, events, consecutive_failures, rate_limit, is_leased
    FROM entered LEFT JOIN recorded USING (organization_id, id) LEFT JOIN owed USING (position)";

#[derive(FromQueryResult)]
struct Row {
    position: i32,
    is_new: bool,
    delivery_id: Option<DeliveryId>,
    webhook_id: Option<WebhookId>,
    organization_id: Option<OrganizationId>,
    url: Option<String>,
    secret: Option<Vec<u8>>,
    events: Option<String>,
    consecutive_failures: Option<i32>,
    rate_limit: Option<RateLimit>,
    is_leased: Option<bool>,
}

impl Row {
    fn owed(self) -> Option<Owed> {
        Some(Owed {
            delivery_id: self.delivery_id?,
            subscriber: Subscriber {
                organization_id: self.organization_id?,
                id: self.webhook_id?,
                url: self.url?,
                secret: self.secret?,
                events: self.events,
                consecutive_failures: self.consecutive_failures?,
                rate_limit: self.rate_limit,
            },
            is_leased: self.is_leased?,
        })
    }
}

/// What happened to one publication of a batch.
#[derive(Default)]
struct Fate {
    has_entered: bool,
    is_new: bool,
    owed: Vec<Owed>,
}

/// Records a batch in one statement, and hands over what this node has leased.
pub(in crate::store) async fn record_batch(
    db: Database,
    batch: Arc<[Publish]>,
) -> Result<Vec<Once<Recorded>>, StoreError> {
    let organizations: BTreeSet<_> = batch
        .iter()
        .map(|publish| publish.publication.organization_id)
        .collect();
    let organizations: Vec<OrganizationId> = organizations.into_iter().collect();
    let lease = LeaseAtOnce::of(&db, &organizations);
    // Of several with the same key or id only the first takes part; the others then find what it left.
    let (mut keys, mut ids) = (HashSet::new(), HashSet::new());
    let takes_part = |publish: &Publish| {
        let organization = publish.publication.organization_id;
        let key = publish.key.as_ref().map(|key| key.request.key.as_str().to_owned());
        let is_first = key.is_none_or(|key| keys.insert((organization, key)));
        is_first && ids.insert((organization, publish.publication.event_id.as_str().to_owned()))
    };
    let parts: Vec<bool> = batch.iter().map(takes_part).collect();
    let mut fates = run(&db, &batch, &parts, &organizations, lease.as_ref()).await?;
    let mut handed = Handed::default();
    for (position, publish) in batch.iter().enumerate() {
        if let Some(fate) = fates.get_mut(&position).filter(|fate| fate.is_new) {
            let owed = std::mem::take(&mut fate.owed);
            handed.add(&db, &publish.publication, owed, lease.as_ref());
        }
    }
    handed.hand_over(&db, lease);
    let mut results = Vec::with_capacity(batch.len());
    for (position, publish) in batch.iter().enumerate() {
        let result = match fates.get(&position) {
            Some(fate) if fate.is_new => Once::Now(Recorded::New),
            Some(fate) if fate.has_entered => known_event(&db, publish).await?,
            _ => late(&db, publish).await?,
        };
        results.push(result);
    }
    Ok(results)
}

/// The event exists already. The key that was recorded with the response for a new event is corrected.
async fn known_event(db: &Database, publish: &Publish) -> Result<Once<Recorded>, StoreError> {
    let recorded = compare(&db.read(), &publish.publication).await?;
    if let Some(key) = publish.key.clone() {
        let (inner, settled) = (db.clone(), recorded.clone());
        let write = db.write(move |tx| {
            Box::pin(async move { idempotency::keep(&inner, tx, &key, &settled, inner.clock.now()).await })
        });
        write.await?;
    }
    Ok(Once::Now(recorded))
}

/// Another request has the key, or another publication of this batch the id.
async fn late(db: &Database, publish: &Publish) -> Result<Once<Recorded>, StoreError> {
    if let Some(Keyed { request, .. }) = &publish.key
        && let Entered::InUse(before) = idempotency::look_up(db, &db.read(), request, db.clock.now()).await?
    {
        return Ok(before);
    }
    if publish.key.is_some() {
        // Another publication in this very batch had its id.
        return Ok(Once::Running);
    }
    compare(&db.read(), &publish.publication).await.map(Once::Now)
}

async fn run(
    db: &Database,
    batch: &[Publish],
    parts: &[bool],
    organizations: &[OrganizationId],
    lease: Option<&LeaseAtOnce>,
) -> Result<BTreeMap<usize, Fate>, StoreError> {
    let taking_part = || {
        (0_i32..)
            .zip(batch)
            .zip(parts)
            .filter(|(_, part)| **part)
            .map(|(publish, _)| publish)
    };
    let events = || taking_part().map(|(_, publish)| &publish.publication);
    let keys = || taking_part().map(|(_, publish)| publish.key.as_ref());
    let text = |key: Option<&Keyed<Recorded>>| key.map(|key| key.request.key.as_str().to_owned()).unwrap_or_default();
    let responses = keys()
        .map(|key| response_to_new(db, key))
        .collect::<Result<Vec<Vec<u8>>, _>>()?;
    let now = db.clock.now();
    let full = lease.map(|lease| &lease.full);
    let values: [Value; 21] = [
        array(taking_part(), |(position, _)| position),
        array(events(), |event| Uuid::from(event.organization_id)),
        array(events(), |event| event.event_id.as_str().to_owned()),
        array(events(), |event| event.event_type.clone()),
        array(events(), |event| event.payload.to_vec()),
        array(events(), |event| event.created_at.as_millis()),
        array(events(), |event| {
            event.traceparent.map(|parent| parent.to_string()).unwrap_or_default()
        }),
        array(events(), |_| id_prefix(db.clock.new_uuid())),
        array(keys(), text),
        array(keys(), |key| {
            key.map(|key| key.request.fingerprint.to_vec()).unwrap_or_default()
        }),
        responses.into(),
        now.plus(idempotency::REMEMBERED).as_millis().into(),
        now.as_millis().into(),
        uuids(organizations),
        lease.is_some().into(),
        health::breaker_failures_column().into(),
        uuids(full.iter().flat_map(|full| &full.webhooks)),
        lease.map_or(0, |lease| lease.until.as_millis()).into(),
        Uuid::from(lease.map_or(LeaseToken::NIL, |lease| lease.token)).into(),
        Uuid::from(db.node).into(),
        uuids(full.iter().flat_map(|full| &full.organizations)),
    ];
    let connection = db.read();
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), PUBLISH, values);
    let rows = Row::find_by_statement(statement)
        .all(&connection)
        .await
        .map_err(StoreError::of_commit)?;
    Ok(fates(rows))
}

fn uuids<'a, T: Copy + Into<Uuid> + 'a>(ids: impl IntoIterator<Item = &'a T>) -> Value {
    ids.into_iter().map(|id| (*id).into()).collect::<Vec<Uuid>>().into()
}

/// What the rows say about each publication, by its position.
fn fates(rows: Vec<Row>) -> BTreeMap<usize, Fate> {
    let mut fates: BTreeMap<usize, Fate> = BTreeMap::new();
    for row in rows {
        let position = usize::try_from(row.position).unwrap_or(usize::MAX);
        let fate = fates.entry(position).or_default();
        fate.has_entered = true;
        fate.is_new = row.is_new;
        fate.owed.extend(row.owed());
    }
    fates
}

/// The response that a key keeps if its event is new, sealed; empty without a key.
fn response_to_new(db: &Database, key: Option<&Keyed<Recorded>>) -> Result<Vec<u8>, StoreError> {
    let response = key.and_then(|key| Some((key, (key.respond)(&Recorded::New)?)));
    let sealed = response.map(|(key, response)| idempotency::seal(db, &key.request, &response));
    Ok(sealed.transpose()?.unwrap_or_default())
}

/// The part of a `UUIDv7` that orders it: the time and the sequence, with the version between them.
fn id_prefix(id: Uuid) -> String {
    let mut text = id.to_string();
    text.truncate(19);
    text
}
