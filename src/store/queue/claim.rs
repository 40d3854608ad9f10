//! Claiming due deliveries, fairly and without reading the whole queue.
//!
//! Two steps. [`ready`] walks an index from webhook to webhook, a bounded number of steps after a cursor that wraps
//! around, and finds those with something due. [`claim`] then leases from each no more than this node's lanes have room
//! for. However long the queue of one webhook, the others' turn comes after the same few steps.
//!
//! Leased entries are in no index that a claim reads: most are leased when they are published, and gone soon.

use std::time::Duration;

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult, QueryFilter as _,
    QuerySelect as _, Set, Statement, Unchanged, Value,
    prelude::Uuid,
    sea_query::{LockBehavior, LockType},
};

use super::{
    lease::{Grant, Granted, Lease, Leased},
    work,
};
use crate::{
    domain::{
        id::{DeliveryId, LeaseToken, OrganizationId, WebhookId},
        rate,
        timestamp::Timestamp,
    },
    store::{
        Database, StoreError,
        engine::{Connection, among::array},
        entity::webhook,
        health,
    },
};

/// The most webhooks that one walk visits: each costs three look-ups in an index.
const STEPS_MAX: i32 = 1024;

/// A webhook that has something due and may be attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The organization that owns it.
    pub organization_id: OrganizationId,
    /// Its id.
    pub webhook_id: WebhookId,
    /// What a lease would be granted for.
    pub grant: Grant,
}

/// The result of a walk.
#[derive(Debug, Default)]
pub struct ReadyWalk {
    /// The webhooks with something due, in the order of their ids.
    pub ready: Vec<Ready>,
    /// Where the next walk continues; `None` if this one reached the end.
    pub cursor: Option<WebhookId>,
    /// When the first delivery that is not due yet will be due, among the visited webhooks.
    pub next_at: Option<Timestamp>,
}

/// `$1` is the cursor, `$2` the most steps, `$3` now, `$4` the failures that open a breaker.
pub(in crate::store) const WALK: &str = "
    WITH RECURSIVE walk(webhook_id, step) AS (
        SELECT (SELECT webhook_id FROM queue WHERE owed AND lease_token IS NULL AND webhook_id > $1
                ORDER BY webhook_id LIMIT 1), 1
        UNION ALL
        SELECT (SELECT webhook_id FROM queue WHERE owed AND lease_token IS NULL AND webhook_id > walk.webhook_id
                ORDER BY webhook_id LIMIT 1), step + 1
        FROM walk WHERE walk.webhook_id IS NOT NULL AND step < $2
    ), visited(organization_id, webhook_id, step, is_open, is_rated, is_ready, next_at) AS (
        SELECT organization_id, webhook_id, step, is_open, is_rated,
            CASE WHEN due_at <= $3 AND resume_at <= $3 THEN 1 ELSE 0 END,
            CASE WHEN due_at < resume_at THEN resume_at ELSE due_at END
        FROM (
            SELECT webhooks.organization_id, walk.webhook_id, step, webhooks.resume_at,
                CASE WHEN consecutive_failures >= $4 THEN 1 ELSE 0 END AS is_open,
                CASE WHEN rate_limit IS NULL THEN 0 ELSE 1 END AS is_rated,
                (SELECT due_at FROM queue WHERE owed AND lease_token IS NULL
                    AND queue.webhook_id = walk.webhook_id AND webhooks.enabled ORDER BY due_at LIMIT 1) AS due_at
            FROM walk JOIN webhooks ON webhooks.id = walk.webhook_id
        ) AS first
    )
    SELECT organization_id, webhook_id, step AS number, is_open, is_rated, is_ready, next_at FROM visited
    WHERE is_ready = 1 OR step = $2 OR next_at = (SELECT min(next_at) FROM visited WHERE is_ready = 0)
    ORDER BY webhook_id";

/// Walks over the webhooks with due deliveries, after `cursor`.
///
/// A loose index scan: each step jumps to the next webhook, however long the queue of one of them is.
pub async fn ready(db: &Database, cursor: Option<WebhookId>, now: Timestamp) -> Result<ReadyWalk, StoreError> {
    #[derive(FromQueryResult)]
    struct Step {
        organization_id: OrganizationId,
        webhook_id: WebhookId,
        number: Number,
        is_open: Number,
        is_rated: Number,
        is_ready: Number,
        next_at: Option<Timestamp>,
    }
    let connection = db.read_long();
    let values: [Value; 4] = [
        cursor.map_or(Uuid::nil(), Into::into).into(),
        STEPS_MAX.into(),
        now.as_millis().into(),
        health::breaker_failures_column().into(),
    ];
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), WALK, values);
    let steps = Step::find_by_statement(statement).all(&connection).await?;
    let last = steps.iter().find(|step| step.number.0 == i64::from(STEPS_MAX));
    let cursor = last.map(|step| step.webhook_id);
    let waiting = steps.iter().filter(|step| step.is_ready.0 == 0);
    let next_at = waiting.filter_map(|step| step.next_at).min();
    let ready = steps.into_iter().filter(|step| step.is_ready.0 == 1).map(|step| Ready {
        organization_id: step.organization_id,
        webhook_id: step.webhook_id,
        grant: match (step.is_open.0, step.is_rated.0) {
            (1, _) => Grant::Probe,
            (_, 1) => Grant::Rated,
            _ => Grant::Plain,
        },
    });
    Ok(ReadyWalk {
        ready: ready.collect(),
        cursor,
        next_at,
    })
}

/// A webhook to claim from, and how many deliveries at most.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The webhook.
    pub ready: Ready,
    /// The most deliveries to claim.
    pub room: usize,
}

/// Leases these webhooks' due deliveries, oldest first, with the message that each one sends.
pub async fn claim(
    db: &Database,
    wanted: Vec<Wanted>,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<Leased>, StoreError> {
    let (rated, others): (Vec<Wanted>, Vec<Wanted>) = wanted
        .into_iter()
        .partition(|wanted| wanted.ready.grant == Grant::Rated);
    let term = Term {
        token: LeaseToken::new(Uuid::new_v4()),
        now,
        until: now.plus(lease),
    };
    let mut leases = Vec::new();
    let mut failed = None;
    if !others.is_empty() {
        let inner = db.clone();
        let taken = db.write(move |tx| Box::pin(async move { take(&inner, tx, &others, term).await }));
        leases.extend(taken.await?);
    }
    for wanted in rated {
        let inner = db.clone();
        let taken = db.write(move |tx| Box::pin(async move { take_rated(&inner, tx, wanted, term).await }));
        match taken.await {
            Ok(taken) => leases.extend(taken),
            // What was leased so far belongs to this node, and must not wait for the end of its lease.
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let claimed = work::with_messages(db, leases, term.until).await?;
    match failed {
        Some(error) if claimed.is_empty() => Err(error),
        _ => Ok(claimed),
    }
}

/// The leases of one claim: they share a token and an end.
#[derive(Clone, Copy)]
struct Term {
    token: LeaseToken,
    now: Timestamp,
    until: Timestamp,
}

/// A claimed entry.
#[derive(FromQueryResult)]
struct ClaimedEntry {
    organization_id: OrganizationId,
    delivery_id: DeliveryId,
    webhook_id: WebhookId,
    attempt_count: i32,
}

impl ClaimedEntry {
    fn lease(self, token: LeaseToken) -> Lease {
        Lease {
            organization_id: self.organization_id,
            delivery_id: self.delivery_id,
            webhook_id: self.webhook_id,
            token,
            number: u32::try_from(self.attempt_count).unwrap_or(u32::MAX),
        }
    }
}

/// Leases what is due, if the webhook still allows what the lease is for.
async fn take(db: &Database, tx: &Connection<'_>, wanted: &[Wanted], term: Term) -> Result<Vec<Granted>, StoreError> {
    let grant_of = |webhook: WebhookId| {
        let wanted = wanted.iter().find(|wanted| wanted.ready.webhook_id == webhook);
        wanted.map_or(Grant::Plain, |wanted| wanted.ready.grant)
    };
    let rows = if tx.get_database_backend() == DbBackend::Postgres {
        take_at_once(db, tx, wanted, term).await?
    } else {
        take_one_by_one(db, tx, wanted, term).await?
    };
    let granted = rows.into_iter().map(|row| {
        let grant = grant_of(row.webhook_id);
        (row.lease(term.token), grant)
    });
    Ok(granted.collect())
}

/// A grant's condition in SQL: a probe may be sent by any breaker, other attempts only by a closed one.
fn grant_column(grant: Grant) -> i32 {
    match grant {
        Grant::Plain | Grant::Manual => 0,
        Grant::Probe => 1,
        Grant::Rated => 2,
    }
}

fn room_column(room: usize) -> i64 {
    i64::try_from(room).unwrap_or(i64::MAX)
}

pub(in crate::store) const TAKE_AT_ONCE: &str = "
    WITH wanted AS (
        SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::int[]) AS w(webhook_id, room, grant_kind)
    ), due AS (
        SELECT next.organization_id, next.delivery_id
        FROM wanted JOIN webhooks ON webhooks.id = wanted.webhook_id AND enabled AND resume_at <= $4
            AND (grant_kind = 1 OR consecutive_failures < $5 AND (grant_kind = 2 OR rate_limit IS NULL))
        CROSS JOIN LATERAL (
            SELECT organization_id, delivery_id FROM queue
            WHERE owed AND lease_token IS NULL AND queue.webhook_id = wanted.webhook_id AND due_at <= $4
            ORDER BY due_at LIMIT wanted.room FOR UPDATE SKIP LOCKED) AS next
    )
    UPDATE queue SET lease_token = $6, lease_node = $7, due_at = $8, attempt_count = attempt_count + 1
    FROM due WHERE queue.organization_id = due.organization_id AND queue.delivery_id = due.delivery_id
    RETURNING queue.organization_id, queue.delivery_id, webhook_id, attempt_count";

async fn take_at_once(
    db: &Database,
    tx: &Connection<'_>,
    wanted: &[Wanted],
    term: Term,
) -> Result<Vec<ClaimedEntry>, StoreError> {
    let values: [Value; 8] = [
        array(wanted, |wanted| Uuid::from(wanted.ready.webhook_id)),
        array(wanted, |wanted| room_column(wanted.room)),
        array(wanted, |wanted| grant_column(wanted.ready.grant)),
        term.now.as_millis().into(),
        health::breaker_failures_column().into(),
        term.token.into(),
        db.node.into(),
        term.until.as_millis().into(),
    ];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, TAKE_AT_ONCE, values);
    Ok(ClaimedEntry::find_by_statement(statement).all(tx).await?)
}

pub(in crate::store) const TAKE_OF_ONE: &str = "
    UPDATE queue SET lease_token = $1, lease_node = $2, due_at = $3, attempt_count = attempt_count + 1
    WHERE (organization_id, delivery_id) IN (
        SELECT organization_id, delivery_id FROM queue
        WHERE owed AND lease_token IS NULL AND webhook_id = $4 AND due_at <= $5 ORDER BY due_at LIMIT $6
    ) AND EXISTS (
        SELECT 1 FROM webhooks WHERE id = $4 AND enabled AND resume_at <= $5
            AND ($7 = 1 OR consecutive_failures < $8 AND ($7 = 2 OR rate_limit IS NULL)))
    RETURNING organization_id, delivery_id, webhook_id, attempt_count";

/// Takes what is due, webhook by webhook: SQLite has no LATERAL, and its statements cost no round trip.
async fn take_one_by_one(
    db: &Database,
    tx: &Connection<'_>,
    wanted: &[Wanted],
    term: Term,
) -> Result<Vec<ClaimedEntry>, StoreError> {
    let mut all = Vec::new();
    for Wanted { ready, room } in wanted {
        let values: [Value; 8] = [
            term.token.into(),
            db.node.into(),
            term.until.as_millis().into(),
            ready.webhook_id.into(),
            term.now.as_millis().into(),
            room_column(*room).into(),
            grant_column(ready.grant).into(),
            health::breaker_failures_column().into(),
        ];
        let statement = Statement::from_sql_and_values(DbBackend::Sqlite, TAKE_OF_ONE, values);
        all.extend(ClaimedEntry::find_by_statement(statement).all(tx).await?);
    }
    Ok(all)
}

/// Leases what a webhook's rate limit lets start, and records what was used of it and, if the limit is why no more was
/// taken, when the next token is available. Skips a webhook that another node is claiming from.
async fn take_rated(
    db: &Database,
    tx: &Connection<'_>,
    wanted: Wanted,
    term: Term,
) -> Result<Vec<Granted>, StoreError> {
    let Wanted { ready, room } = wanted;
    let row = webhook::Entity::find()
        .filter(webhook::Column::OrganizationId.eq(ready.organization_id))
        .filter(webhook::Column::Id.eq(ready.webhook_id))
        .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked)
        .one(tx)
        .await?;
    let Some((row, limit)) = row.and_then(|row| row.rate_limit.map(|limit| (row, limit))) else {
        return Ok(Vec::new());
    };
    let room_without_rate = u64::try_from(room).unwrap_or(u64::MAX);
    let tokens = rate::admit(limit, row.rate_state, term.now, room_without_rate).count;
    let room = usize::try_from(tokens).unwrap_or(usize::MAX);
    let taken = if room > 0 {
        take(db, tx, &[Wanted { ready, room }], term).await?
    } else {
        Vec::new()
    };
    let used = rate::admit(limit, row.rate_state, term.now, taken.len() as u64);
    let held_up = taken.len() as u64 == tokens && tokens < room_without_rate;
    let next = held_up
        .then(|| rate::admit(limit, used.state, term.now, 1).resume_at)
        .flatten();
    let update = webhook::ActiveModel {
        organization_id: Unchanged(row.organization_id),
        id: Unchanged(row.id),
        rate_state: Set(used.state),
        resume_at: Set(next.unwrap_or(row.resume_at)),
        ..Default::default()
    };
    webhook::Entity::update(update).exec_without_returning(tx).await?;
    Ok(taken)
}

/// An expression's number, which is 32 bits long on one engine and 64 on the other.
struct Number(i64);

impl sea_orm::TryGetable for Number {
    fn try_get_by<I: sea_orm::ColIdx>(row: &sea_orm::QueryResult, index: I) -> Result<Self, sea_orm::TryGetError> {
        let long = <i64 as sea_orm::TryGetable>::try_get_by(row, index);
        long.or_else(|_| <i32 as sea_orm::TryGetable>::try_get_by(row, index).map(i64::from))
            .map(Self)
    }
}
