//! The database without the service: the same tables, written by the bare driver with the same durability.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use sea_orm::sqlx::{self, PgPool};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    database::Database,
    event::{self, EVENT_TYPE},
    seed::now_ms,
    server,
    settings::Settings,
};

/// Webhooks in the bare database.
pub(crate) const WEBHOOKS: usize = 100;

/// A database with the service's tables that the service does not run on.
pub(crate) struct Bare {
    writer: Writer,
    /// Kept until nothing writes to it.
    _database: Database,
}

#[derive(Clone)]
struct Writer {
    handle: Handle,
    organization: Uuid,
    webhooks: Arc<[Uuid]>,
    payload: Arc<str>,
}

#[derive(Clone)]
enum Handle {
    Sqlite(Arc<Mutex<Connection>>),
    Postgres(PgPool),
}

/// How long writing the rows of events and their deliveries took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Written {
    pub(crate) events: u64,
    pub(crate) deliveries: u64,
    /// Publishing and recording together.
    pub(crate) elapsed: Duration,
    /// Recording only.
    pub(crate) recording: Duration,
}

impl Bare {
    pub(crate) async fn create(settings: &Settings, database: Database) -> Self {
        server::command(&settings.binary, &database, &["migrate"]).await;
        let organization = server::command(
            &settings.binary,
            &database,
            &["organization", "create", "--name", "bare"],
        );
        let organization = organization.await.parse().unwrap();
        let handle = match database.pool() {
            Some(pool) => Handle::Postgres(pool.clone()),
            None => Handle::Sqlite(Arc::new(Mutex::new(database.open_file().unwrap()))),
        };
        let writer = Writer {
            handle,
            organization,
            webhooks: (0..WEBHOOKS).map(|_| Uuid::now_v7()).collect(),
            payload: event::payload(0).into(),
        };
        writer.insert_webhooks().await;
        Self {
            writer,
            _database: database,
        }
    }

    /// Single-row updates of webhooks per second, of all webhooks in turn or of one: on PostgreSQL over 32 connections,
    /// one transaction per update; on SQLite over one connection, with this many per commit.
    pub(crate) async fn updates(&self, one: bool, per_commit: usize, time: Duration) -> f64 {
        let (start, mut updating) = (Instant::now(), JoinSet::new());
        let connections: usize = match self.writer.handle {
            Handle::Sqlite(_) => 1,
            Handle::Postgres(_) => 32,
        };
        for connection in 0..connections {
            let writer = self.writer.clone();
            updating.spawn(async move {
                let mut updated = 0;
                while start.elapsed() < time {
                    let webhooks = (0..per_commit).map(|index| {
                        if one {
                            writer.webhooks[0]
                        } else {
                            writer.webhooks[(connection + (updated + index) * connections) % WEBHOOKS]
                        }
                    });
                    writer.update(&webhooks.collect::<Vec<_>>()).await;
                    updated += per_commit;
                }
                updated
            });
        }
        let updated: usize = updating.join_all().await.iter().sum();
        updated as f64 / start.elapsed().as_secs_f64()
    }

    /// Writes the rows that remain of events that are owed to this many webhooks and delivered at once, in batches of
    /// this many events: one commit publishes a batch, another records its deliveries. On PostgreSQL two batches are in
    /// progress at a time.
    pub(crate) async fn rows(&self, webhooks: usize, batch: usize, time: Duration) -> Written {
        let batches = match self.writer.handle {
            Handle::Sqlite(_) => 1,
            Handle::Postgres(_) => 2,
        };
        let (start, mut writing) = (Instant::now(), JoinSet::new());
        for _ in 0..batches {
            let (writer, events) = (self.writer.clone(), batch.div_ceil(batches));
            writing.spawn(async move {
                let mut written = Written::default();
                while start.elapsed() < time {
                    let batch = Batch::new(events, &writer.webhooks[..webhooks]);
                    writer.publish(&batch).await;
                    let recording = Instant::now();
                    writer.record(&batch).await;
                    written.recording += recording.elapsed();
                    written.events += events as u64;
                }
                written
            });
        }
        let written = writing.join_all().await;
        let events = written.iter().map(|part| part.events).sum();
        Written {
            events,
            deliveries: events * webhooks as u64,
            elapsed: start.elapsed(),
            recording: written.iter().map(|part| part.recording).sum::<Duration>() / u32::try_from(batches).unwrap(),
        }
    }

    /// What makes one event durable: it is published, but not recorded.
    pub(crate) fn publisher(&self) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + use<> {
        let writer = self.writer.clone();
        move || {
            let writer = writer.clone();
            Box::pin(async move { writer.publish(&Batch::new(1, &writer.webhooks[..1])).await })
        }
    }
}

/// The ids of events and of their deliveries.
struct Batch {
    events: Vec<String>,
    deliveries: Vec<Uuid>,
    /// The event and the webhook of each delivery.
    of_event: Vec<String>,
    of_webhook: Vec<Uuid>,
}

impl Batch {
    fn new(events: usize, webhooks: &[Uuid]) -> Self {
        let events: Vec<String> = (0..events)
            .map(|_| format!("evt_{}", &Uuid::now_v7().simple().to_string()[..26]))
            .collect();
        let pairs = events
            .iter()
            .flat_map(|event| webhooks.iter().map(move |webhook| (event.clone(), *webhook)));
        let (of_event, of_webhook): (Vec<_>, Vec<_>) = pairs.unzip();
        Self {
            deliveries: of_event.iter().map(|_| Uuid::now_v7()).collect(),
            events,
            of_event,
            of_webhook,
        }
    }
}

impl Writer {
    async fn insert_webhooks(&self) {
        const INSERT: &str = "INSERT INTO webhooks (organization_id, id, url, enabled, secret, created_at, updated_at)
                              VALUES ($1, $2, 'http://127.0.0.1:1/', TRUE, $3, 0, 0)";
        for webhook in self.webhooks.iter() {
            match &self.handle {
                Handle::Sqlite(connection) => {
                    let ids = (self.organization.as_bytes(), webhook.as_bytes());
                    let row = params![ids.0, ids.1, [0_u8; 60]];
                    connection.lock().unwrap().execute(INSERT, row).unwrap();
                }
                Handle::Postgres(pool) => {
                    let insert = sqlx::query(INSERT).bind(self.organization).bind(webhook);
                    insert.bind([0_u8; 60].as_slice()).execute(pool).await.unwrap();
                }
            }
        }
    }

    async fn update(&self, webhooks: &[Uuid]) {
        // SQLite writes no page, and syncs no file, for an unchanged row.
        static CHANGES: AtomicU64 = AtomicU64::new(0);
        const UPDATE: &str =
            "UPDATE webhooks SET description = $1, updated_at = $2 WHERE organization_id = $3 AND id = $4";
        let now = now_ms();
        let description = || format!("change {}", CHANGES.fetch_add(1, Ordering::Relaxed));
        match &self.handle {
            Handle::Sqlite(connection) => {
                let connection = connection.lock().unwrap();
                let begin = "BEGIN IMMEDIATE";
                connection.prepare_cached(begin).unwrap().execute([]).unwrap();
                for webhook in webhooks {
                    let ids = (self.organization.as_bytes(), webhook.as_bytes());
                    let row = params![description(), now, ids.0, ids.1];
                    let updated = connection.prepare_cached(UPDATE).unwrap().execute(row).unwrap();
                    assert_eq!(updated, 1, "the row that was to be updated");
                }
                connection.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
            }
            Handle::Postgres(pool) => {
                for webhook in webhooks {
                    let update = sqlx::query(UPDATE).bind(description()).bind(now);
                    let update = update.bind(self.organization).bind(webhook);
                    let updated = update.execute(pool).await.unwrap().rows_affected();
                    assert_eq!(updated, 1, "the row that was to be updated");
                }
            }
        }
    }

    async fn publish(&self, batch: &Batch) {
        const PUBLISH: &str = "
            WITH published AS (
                INSERT INTO events (organization_id, id, event_type, payload, created_at)
                SELECT $1, e.id, $7, $8, $6 FROM UNNEST($2::text[]) AS e (id)),
            owed AS (
                INSERT INTO deliveries (organization_id, id, webhook_id, event_id, event_type, status, attempt_count,
                                        created_at)
                SELECT $1, d.id, d.webhook, d.event, $7, 'pending', 0, $6
                FROM UNNEST($3::uuid[], $4::uuid[], $5::text[]) AS d (id, webhook, event))
            INSERT INTO queue (organization_id, delivery_id, webhook_id, owed, due_at, attempt_count, lease_token,
                               lease_node)
            SELECT $1, d.id, d.webhook, TRUE, $6 + 20000, 1, $1, $1
            FROM UNNEST($3::uuid[], $4::uuid[]) AS d (id, webhook)";
        let now = now_ms();
        match &self.handle {
            Handle::Sqlite(connection) => self
                .publish_in_file(&mut connection.lock().unwrap(), batch, now)
                .unwrap(),
            Handle::Postgres(pool) => {
                let publish = sqlx::query(PUBLISH)
                    .bind(self.organization)
                    .bind(&batch.events)
                    .bind(&batch.deliveries)
                    .bind(&batch.of_webhook)
                    .bind(&batch.of_event)
                    .bind(now)
                    .bind(EVENT_TYPE)
                    .bind(self.payload.as_bytes());
                publish.execute(pool).await.unwrap();
            }
        }
    }

    fn publish_in_file(&self, connection: &mut Connection, batch: &Batch, now: i64) -> rusqlite::Result<()> {
        let organization = self.organization.as_bytes();
        let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for event in &batch.events {
            tx.prepare_cached(
                "INSERT INTO events (organization_id, id, event_type, payload, created_at) VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![organization, event, EVENT_TYPE, self.payload.as_bytes(), now])?;
        }
        let owed = batch.deliveries.iter().zip(&batch.of_webhook).zip(&batch.of_event);
        for ((delivery, webhook), event) in owed {
            let (delivery, webhook) = (delivery.as_bytes(), webhook.as_bytes());
            tx.prepare_cached(
                "INSERT INTO deliveries (organization_id, id, webhook_id, event_id, event_type, status, attempt_count,
                                         created_at) VALUES (?, ?, ?, ?, ?, 'pending', 0, ?)",
            )?
            .execute(params![organization, delivery, webhook, event, EVENT_TYPE, now])?;
            tx.prepare_cached(
                "INSERT INTO queue (organization_id, delivery_id, webhook_id, owed, due_at, attempt_count, lease_token,
                                    lease_node) VALUES (?1, ?2, ?3, TRUE, ?4, 1, ?1, ?1)",
            )?
            .execute(params![organization, delivery, webhook, now + 20_000])?;
        }
        tx.commit()
    }

    async fn record(&self, batch: &Batch) {
        const RECORD: &str = "
            WITH gone AS (
                DELETE FROM queue USING UNNEST($2::uuid[]) AS d (id)
                WHERE organization_id = $1 AND delivery_id = d.id AND lease_token = $1 RETURNING delivery_id),
            delivered AS (
                UPDATE deliveries SET status = 'delivered', attempt_count = 1, response_status = 200,
                    response_body = 'ok', delivered_at = $3
                FROM gone WHERE organization_id = $1 AND id = gone.delivery_id)
            INSERT INTO attempts (organization_id, delivery_id, number, \"trigger\", started_at, duration_ms,
                                  response_status, response_body)
            SELECT $1, delivery_id, 1, 'automatic', $3, 1, 200, 'ok' FROM gone";
        let now = now_ms();
        match &self.handle {
            Handle::Sqlite(connection) => self
                .record_in_file(&mut connection.lock().unwrap(), batch, now)
                .unwrap(),
            Handle::Postgres(pool) => {
                let record = sqlx::query(RECORD).bind(self.organization).bind(&batch.deliveries);
                let recorded = record.bind(now).execute(pool).await.unwrap().rows_affected();
                assert_eq!(
                    recorded,
                    batch.deliveries.len() as u64,
                    "the rows that were to be recorded"
                );
            }
        }
    }

    fn record_in_file(&self, connection: &mut Connection, batch: &Batch, now: i64) -> rusqlite::Result<()> {
        let organization = self.organization.as_bytes();
        let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for delivery in &batch.deliveries {
            let delivery = delivery.as_bytes();
            tx.prepare_cached(
                "DELETE FROM queue WHERE organization_id = ?1 AND delivery_id = ?2 AND lease_token = ?1",
            )?
            .execute(params![organization, delivery])?;
            tx.prepare_cached(
                "UPDATE deliveries SET status = 'delivered', attempt_count = 1, response_status = 200,
                     response_body = 'ok', delivered_at = ?3 WHERE organization_id = ?1 AND id = ?2",
            )?
            .execute(params![organization, delivery, now])?;
            tx.prepare_cached(
                "INSERT INTO attempts (organization_id, delivery_id, number, \"trigger\", started_at, duration_ms,
                                       response_status, response_body) VALUES (?, ?, 1, 'automatic', ?, 1, 200, 'ok')",
            )?
            .execute(params![organization, delivery, now])?;
        }
        tx.commit()
    }
}
