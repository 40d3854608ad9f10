//! How the engines plan the lists: by the intended index, and by nothing that grows with the history, whether the
//! planner has statistics for the organization or not.

mod statements;

use sea_orm::{ConnectionTrait as _, DbBackend, QuerySelect as _, QueryTrait as _, Statement};
use uuid::Uuid;

use super::{
    Database, audit,
    engine::Connection,
    events,
    search::{self, DeliveryQuery, Planned},
};
use crate::{
    clock::Clock,
    config::DatabaseOptions,
    domain::{
        delivery::DeliveryStatus,
        event::EventPosition,
        event_id::EventId,
        id::{AuditEntryId, DeliveryId, OrganizationId, WebhookId},
        timestamp::Timestamp,
        word::Word as _,
    },
};

/// Deliveries of each organization: enough that reading all of them is not a plan.
const DELIVERIES: u32 = 20_000;

/// How each engine spells the values in test rows.
struct Forms {
    /// An item of FROM: the numbers `i` from 1 to [`DELIVERIES`].
    numbers: String,
    /// A UUID from the number substituted for `{}`.
    uuid: &'static str,
    /// 24 digits from `i`.
    hex: &'static str,
    blob: &'static str,
    /// 32 bytes.
    digest: &'static str,
}

impl Forms {
    fn of(backend: DbBackend) -> Self {
        if backend == DbBackend::Postgres {
            return Self {
                numbers: format!("generate_series(1, {DELIVERIES}) AS n(i)"),
                uuid: "lpad(to_hex({}), 32, '0')::uuid",
                hex: "lpad(upper(to_hex(i)), 24, '0')",
                blob: "'\\x00'",
                digest: "decode(repeat('00', 32), 'hex')",
            };
        }
        Self {
            numbers: format!(
                "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {DELIVERIES})
                  SELECT i FROM n)"
            ),
            uuid: "unhex(printf('%032x', {}))",
            hex: "printf('%024X', i)",
            blob: "x'00'",
            digest: "zeroblob(32)",
        }
    }
}

/// A database that is dropped at the end of a test that passes.
struct Scratch {
    db: Database,
    folder: Option<tempfile::TempDir>,
    server: Option<(sea_orm::DatabaseConnection, String)>,
}

impl Scratch {
    async fn open() -> Self {
        let (options, folder, server) = if let Ok(server) = std::env::var("TEST_DATABASE_URL") {
            let name = format!("kallima_plans_{}", Uuid::new_v4().simple());
            let admin = sea_orm::Database::connect(&server).await.unwrap();
            admin
                .execute_unprepared(&format!("CREATE DATABASE {name}"))
                .await
                .unwrap();
            let mut url = url::Url::parse(&server).unwrap();
            url.set_path(&name);
            let options = DatabaseOptions {
                master_key: Some("1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
                connections_max: 3,
                ..DatabaseOptions::of(url)
            };
            (options, None, Some((admin, name)))
        } else {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}", folder.path().join("plans.db").display());
            (DatabaseOptions::of(url), Some(folder), None)
        };
        let db = Database::open(&options, &Clock::system()).await.unwrap();
        db.migrate().await.unwrap();
        Self { db, folder, server }
    }

    async fn run(&self, script: Vec<String>) {
        let write = self.db.write(move |tx| {
            Box::pin(async move {
                for sql in script {
                    tx.execute_unprepared(&sql).await?;
                }
                Ok::<_, super::StoreError>(())
            })
        });
        write.await.unwrap();
    }

    /// An organization with a history, an eighth of which is pending (half of that leased), and another eighth of which
    /// has failed.
    async fn fill(&self, organization: u8) {
        let Forms {
            numbers,
            uuid,
            hex,
            blob,
            ..
        } = Forms::of(self.db.backend());
        let uuid = |number: &str| uuid.replace("{}", number);
        let (org, id, webhook) = (uuid(&organization.to_string()), uuid("i"), uuid("i % 100"));
        let event = format!("'evt_01' || {hex}");
        self.run(vec![
            format!("INSERT INTO organizations (id, name, created_at) VALUES ({org}, 'plans', 0)"),
            format!(
                "INSERT INTO events (organization_id, id, event_type, payload, created_at)
                 SELECT {org}, {event}, 'job.completed', {blob}, i FROM {numbers}"
            ),
            format!(
                "INSERT INTO deliveries (organization_id, id, webhook_id, event_id, event_type, status, attempt_count,
                                         created_at, delivered_at, undelivered_at)
                 SELECT {org}, {id}, {webhook}, {event}, 'job.completed',
                        CASE i % 8 WHEN 0 THEN 'pending' WHEN 1 THEN 'failed' ELSE 'delivered' END, 1, i,
                        CASE WHEN i % 8 > 1 THEN i END, CASE WHEN i % 8 = 1 THEN i END FROM {numbers}"
            ),
            format!(
                "INSERT INTO queue (organization_id, delivery_id, webhook_id, owed, due_at, attempt_count, lease_token,
                                    lease_node)
                 SELECT {org}, {id}, {webhook}, TRUE, i, 1, CASE WHEN i % 16 = 0 THEN {id} END,
                        CASE WHEN i % 16 = 0 THEN {webhook} END FROM {numbers} WHERE i % 8 = 0"
            ),
            format!(
                "INSERT INTO audit_entries (organization_id, id, webhook_id, action, actor, secret_rotated, changes,
                                            created_at)
                 SELECT {org}, {id}, {webhook}, 'disabled', 'service', FALSE, '{{}}', i FROM {numbers}"
            ),
        ])
        .await;
    }

    /// The rest of the first organization's history, and that of others, so that every table is large.
    async fn fill_rest(&self) {
        let Forms {
            numbers,
            uuid,
            hex,
            blob,
            digest,
        } = Forms::of(self.db.backend());
        let uuid = |number: &str| uuid.replace("{}", number);
        let (org, id) = (uuid("1"), uuid("i"));
        let owner = uuid("1000 + (i + 99) / 100");
        self.run(vec![
            // A hundred webhooks each, as many as an organization may have.
            format!(
                "INSERT INTO organizations (id, name, created_at)
                 SELECT {owner}, 'plans', 0 FROM {numbers} WHERE i % 100 = 0"
            ),
            format!(
                "INSERT INTO webhooks (organization_id, id, url, enabled, secret, created_at, updated_at)
                 SELECT {owner}, {id}, 'https://example.com/', TRUE, {blob}, 0, 0 FROM {numbers}"
            ),
            format!(
                "INSERT INTO attempts (organization_id, delivery_id, number, \"trigger\", started_at, duration_ms)
                 SELECT {org}, {id}, 1, 'automatic', i, 1 FROM {numbers} WHERE i % 8 > 0"
            ),
            format!(
                "INSERT INTO idempotency_keys (organization_id, key, fingerprint, seed, response, expires_at)
                 SELECT {org}, {hex}, {digest}, {id}, {blob}, i FROM {numbers}"
            ),
            format!(
                "INSERT INTO quota_usage (organization_id, month_started_at, writes)
                 SELECT {org}, i, 1 FROM {numbers}"
            ),
        ])
        .await;
    }

    /// The engine's plan for a statement, one step per line.
    async fn plan(&self, statement: &Statement) -> Vec<String> {
        let (verb, column) = match self.db.backend() {
            DbBackend::Postgres => ("EXPLAIN", "QUERY PLAN"),
            _ => ("EXPLAIN QUERY PLAN", "detail"),
        };
        let explain = Statement {
            sql: format!("{verb} {}", statement.sql),
            ..statement.clone()
        };
        let connection: Connection<'_> = self.db.read();
        let rows = connection.query_all_raw(explain).await.unwrap();
        rows.iter().map(|row| row.try_get("", column).unwrap()).collect()
    }

    /// # Panics
    /// If a statement is not planned as it must be.
    async fn check(&self, planned: &Planned) {
        let Planned {
            statement,
            index,
            is_walk,
        } = planned;
        let plan = self.plan(statement).await;
        let has = |word: &str| plan.iter().any(|step| step.contains(word));
        let what = || format!("{}\n{}", statement.sql, plan.join("\n"));
        let index = match self.db.backend() {
            DbBackend::Postgres => (*index).to_owned(),
            // SQLite names the index of a key itself.
            _ => index
                .strip_suffix("_pkey")
                .map_or((*index).to_owned(), |table| format!("sqlite_autoindex_{table}_1")),
        };
        let is_by_index = plan.iter().any(|step| step.split([' ', '(']).any(|word| word == index));
        assert!(is_by_index, "not by {index}:\n{}", what());
        let is_scan =
            |step: &String| step.contains("Seq Scan") || step.contains("SCAN ") && !step.contains("json_each");
        assert!(!plan.iter().any(is_scan), "reads a table:\n{}", what());
        if *is_walk {
            // A one-time filter decides whether a step runs at all.
            let reads_more = ["Sort", "  Filter", "Join Filter", "TEMP B-TREE"];
            let reads_more = reads_more.into_iter().find(|word| has(word));
            assert_eq!(reads_more, None, "reads more than it returns:\n{}", what());
        }
        let is_whole = |step: &String| step.ends_with("(organization_id=?)");
        assert!(!plan.iter().any(is_whole), "reads an organization:\n{}", what());
    }
}

/// Every combination of filters.
fn queries() -> Vec<DeliveryQuery> {
    let instant = |millis| Some(Timestamp::from_millis(millis));
    let mut all = vec![DeliveryQuery::default()];
    let mut vary = |change: &dyn Fn(&mut DeliveryQuery)| {
        let mut changed = all.clone();
        changed.iter_mut().for_each(change);
        all.extend(changed);
    };
    vary(&|query| query.webhook_id = Some(WebhookId::new(Uuid::from_u128(7))));
    vary(&|query| query.event_type = Some("job.failed".to_owned()));
    vary(&|query| (query.created_after, query.created_before) = (instant(1000), instant(9000)));
    vary(&|query| query.after = Some(DeliveryId::new(Uuid::from_u128(9000))));
    vary(&|query| query.event_id = EventId::parse("evt_01000000000000000000000A00"));
    let of_status = |status| {
        let with = |query: &DeliveryQuery| DeliveryQuery {
            status,
            ..query.clone()
        };
        all.iter().map(with).collect::<Vec<_>>()
    };
    let statuses = DeliveryStatus::written().map(Some).chain([None]);
    statuses.flat_map(of_status).collect()
}

async fn check_all(scratch: &Scratch, organization: u8) {
    let (db, org) = (&scratch.db, OrganizationId::new(Uuid::from_u128(organization.into())));
    let ids: Vec<DeliveryId> = (1..=500)
        .map(|number| DeliveryId::new(Uuid::from_u128(number)))
        .collect();
    for query in queries() {
        for planned in search::planned(db.backend(), org, &query, ids.clone()) {
            scratch.check(&planned).await;
        }
    }
    let position = EventPosition {
        created_at: Timestamp::from_millis(9000),
        id: EventId::parse("evt_01000000000000000000000A00").unwrap(),
    };
    for after in [None, Some(position)] {
        let (statement, index) = (events::newest(db, org, after, 50), "events_newest_first");
        scratch
            .check(&Planned {
                statement,
                index,
                is_walk: true,
            })
            .await;
    }
    for after in [None, Some(AuditEntryId::new(Uuid::from_u128(9000)))] {
        let entries = audit::newest(org, WebhookId::new(Uuid::from_u128(7)), after).limit(50);
        let (statement, index) = (entries.build(db.backend()), "audit_entries_of_webhook");
        scratch
            .check(&Planned {
                statement,
                index,
                is_walk: true,
            })
            .await;
    }
}

/// What PostgreSQL runs for each inserted row that refers to another one: it must not read the organization's others.
async fn check_foreign_keys(scratch: &Scratch, organization: u8) {
    let event = "evt_0100000000000000000000002A";
    let (organization, delivery) = (Uuid::from_u128(organization.into()), Uuid::from_u128(42));
    for (table, index, id) in [
        ("events", "events_pkey", sea_orm::Value::from(event)),
        ("deliveries", "deliveries_pkey", delivery.into()),
    ] {
        let sql = format!("SELECT 1 FROM ONLY {table} x WHERE organization_id = $1 AND id = $2 FOR KEY SHARE OF x");
        let values = [organization.into(), id];
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        scratch
            .check(&Planned {
                statement,
                index,
                is_walk: true,
            })
            .await;
    }
}

#[tokio::test]
async fn every_list_is_a_walk_over_the_index_it_is_meant_for() {
    let scratch = Scratch::open().await;
    if scratch.server.is_some() {
        let tables = ["events", "deliveries", "queue", "audit_entries"];
        let by_hand = |table| format!("ALTER TABLE {table} SET (autovacuum_enabled = false)");
        scratch.run(tables.map(by_hand).into()).await;
    }
    scratch.fill(1).await;
    if scratch.server.is_none() {
        // SQLite never has statistics. PostgreSQL has them before the history is large.
        check_all(&scratch, 1).await;
    }
    scratch.run(vec!["ANALYZE".to_owned()]).await;
    check_all(&scratch, 1).await;
    if scratch.server.is_some() {
        statements::check_publishing_to_few(&scratch).await;
    }
    scratch.fill_rest().await;
    scratch.run(vec!["ANALYZE".to_owned()]).await;
    statements::check(&scratch).await;
    // The planner has no statistics for this one.
    scratch.fill(2).await;
    check_all(&scratch, 2).await;
    if scratch.server.is_some() {
        check_foreign_keys(&scratch, 2).await;
    }
    let Scratch { db, folder, server } = scratch;
    db.close().await.unwrap();
    drop(folder);
    if let Some((admin, name)) = server {
        admin
            .execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)"))
            .await
            .unwrap();
    }
}
