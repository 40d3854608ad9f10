//! Compares every long SQL statement's plan with a snapshot: which index serves which condition. None reads a large
//! table as a whole.
//!
//! `WRITE_PLANS=1` replaces the snapshots by the engine's current plans.

use std::{collections::BTreeMap, path::PathBuf};

use sea_orm::{ConnectionTrait as _, DbBackend, Statement, Value};

use super::Scratch;
use crate::store::{
    Database, StoreError, events, idempotency, overview,
    queue::{claim, finish_batch, finish_rows, leases, nodes, publish_batch, replay, work},
    quota, secrets,
    upkeep::{backlog, checks, clamp, deletion},
    webhook_batch,
};

/// The tables that grow with the organizations and their use.
const LARGE: [&str; 8] = [
    "attempts",
    "audit_entries",
    "deliveries",
    "events",
    "idempotency_keys",
    "queue",
    "quota_usage",
    "webhooks",
];

/// Why a deletion may read the whole index of leases.
const LEASES: &str =
    "nodes hold few leases, and a deletion reads them once when nothing of the webhook waits any longer";

/// Statements that read a whole table, or everything that an organization has in it, and why they may.
const WHOLE: [(&str, &str); 7] = [
    ("CANCEL_BATCH", LEASES),
    ("leased_sql", LEASES),
    ("STILL_QUEUED", LEASES),
    (
        "overview::USAGE",
        "an operator looks up what an organization uses: it has a hundred webhooks at most",
    ),
    ("key_use_sql", "an operator lists which master keys are in use"),
    ("clamp_webhooks_sql", "once, when a server starts"),
    ("clamp_keys_sql", "once, when a server starts"),
];

/// The endings of accesses to all rows of a table, or of an organization.
const WHOLE_ENDINGS: [&str; 3] = ["whole index", " (organization_id = $1)", " (organization_id=?)"];

/// The statements of both engines.
fn of_both(backend: DbBackend) -> Vec<(&'static str, String)> {
    vec![
        ("events::NEWEST", events::NEWEST.to_owned()),
        ("idempotency::ENTER", idempotency::ENTER.to_owned()),
        ("claim::WALK", claim::WALK.to_owned()),
        ("replay::requeue_sql", replay::requeue_sql(backend)),
        ("overview::WAITING", overview::WAITING.to_owned()),
        ("overview::LEASED", overview::LEASED.to_owned()),
        ("overview::BUSY", overview::BUSY.to_owned()),
        ("overview::webhooks_sql", overview::webhooks_sql()),
        ("overview::USAGE", overview::USAGE.to_owned()),
        ("deletion::STILL_QUEUED", deletion::STILL_QUEUED.to_owned()),
        ("quota::RESERVE", quota::RESERVE.to_owned()),
        ("quota::REFUND", quota::REFUND.to_owned()),
        ("secrets::key_use_sql", secrets::key_use_sql(backend)),
        ("backlog::backlog_sql", backlog::backlog_sql(backend)),
        ("clamp::clamp_webhooks_sql", clamp::clamp_webhooks_sql(backend)),
        ("clamp::clamp_keys_sql", clamp::clamp_keys_sql(backend)),
    ]
}

fn statements(backend: DbBackend) -> BTreeMap<&'static str, String> {
    let own = if backend == DbBackend::Postgres {
        vec![
            ("claim::TAKE_AT_ONCE", claim::TAKE_AT_ONCE.to_owned()),
            ("finish_batch::RECORD", finish_batch::RECORD.clone()),
            ("finish_batch::RECORD_PLAIN", finish_batch::RECORD_PLAIN.clone()),
            ("leases::RELEASE", leases::RELEASE.clone()),
            ("leases::RENEW", leases::RENEW.clone()),
            ("nodes::BEAT", nodes::BEAT.clone()),
            ("publish_batch::PUBLISH", publish_batch::PUBLISH.to_owned()),
            ("work::DELIVERIES", work::DELIVERIES.to_owned()),
            ("work::EVENTS", work::EVENTS.to_owned()),
            ("backlog::DEAD_ROWS", backlog::DEAD_ROWS.to_owned()),
            ("checks::SETTINGS", checks::SETTINGS.to_owned()),
            ("deletion::CANCEL_BATCH", deletion::CANCEL_BATCH.clone()),
            ("webhook_batch::WRITE", webhook_batch::WRITE.clone()),
        ]
    } else {
        vec![
            ("claim::TAKE_OF_ONE", claim::TAKE_OF_ONE.to_owned()),
            ("finish_rows::LEAVE_IF_WELL", finish_rows::LEAVE_IF_WELL.to_owned()),
            ("finish_rows::UPDATE_DELIVERY", finish_rows::UPDATE_DELIVERY.to_owned()),
            ("finish_rows::INSERT_ATTEMPT", finish_rows::INSERT_ATTEMPT.to_owned()),
            ("leases::UNCOUNT_ONE", leases::UNCOUNT_ONE.to_owned()),
            ("deletion::CANCEL_ONE", deletion::CANCEL_ONE.to_owned()),
            ("deletion::leased_sql", deletion::leased_sql(backend, "")),
            ("deletion::waiting_sql", deletion::waiting_sql(backend)),
        ]
    };
    of_both(backend).into_iter().chain(own).collect()
}

/// How many values a statement takes.
fn values_count(sql: &str) -> usize {
    let number = |rest: &str| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok();
    sql.split('$').skip(1).filter_map(number).max().unwrap_or(0)
}

/// The steps of a plan that is made without knowing the values.
async fn plan(db: &Database, sql: String) -> Vec<String> {
    let count = values_count(&sql);
    if db.backend() != DbBackend::Postgres {
        let nulls = vec![Value::from(None::<i64>); count];
        let explain = Statement::from_sql_and_values(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {sql}"), nulls);
        let rows = db.read().query_all_raw(explain).await.unwrap();
        return rows.iter().map(|row| row.try_get("", "detail").unwrap()).collect();
    }
    let write = db.write(move |tx| {
        let nulls = vec!["NULL"; count].join(", ");
        let execute = if count == 0 {
            "planned".to_owned()
        } else {
            format!("planned({nulls})")
        };
        let (prepare, explain) = (
            format!("PREPARE planned AS {sql}"),
            format!("EXPLAIN (COSTS OFF) EXECUTE {execute}"),
        );
        Box::pin(async move {
            // With these settings there is a sequential scan only if no index can be used, whatever the statistics say.
            tx.execute_unprepared("SET LOCAL plan_cache_mode = force_generic_plan")
                .await?;
            for step in ["seqscan", "hashjoin", "mergejoin"] {
                tx.execute_unprepared(&format!("SET LOCAL enable_{step} = off")).await?;
            }
            tx.execute_unprepared(&prepare).await?;
            let rows = tx
                .query_all_raw(Statement::from_string(DbBackend::Postgres, explain))
                .await?;
            tx.execute_unprepared("DEALLOCATE planned").await?;
            let steps = rows.iter().map(|row| row.try_get("", "QUERY PLAN"));
            Ok::<_, StoreError>(steps.collect::<Result<Vec<String>, _>>()?)
        })
    });
    write.await.unwrap()
}

/// The condition of an index scan on PostgreSQL: the line after the scan.
fn condition(line: &str) -> &str {
    line.strip_prefix("Index Cond: ").unwrap_or("whole index")
}

/// How a plan accesses tables, without duplicates: the index and its condition, or the table that is read as a whole.
fn accesses(steps: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (position, step) in steps.iter().enumerate() {
        let step = step.trim_start_matches([' ', '-', '>']);
        let next = steps.get(position + 1).map(|next| next.trim()).unwrap_or_default();
        let is_table = |name: &str| LARGE.contains(&name);
        if let Some(rest) = step.strip_prefix("Seq Scan on ") {
            found.extend(
                rest.split(' ')
                    .next()
                    .filter(|name| is_table(name))
                    .map(|name| format!("all of {name}")),
            );
        } else if let Some(index) = step.strip_prefix("Bitmap Index Scan on ") {
            let is_large = LARGE.iter().any(|table| index.starts_with(table));
            found.extend(is_large.then(|| format!("{index} {}", condition(next))));
        } else if let Some((_, rest)) = step.split_once(" using ") {
            let (index, table) = rest.split_once(" on ").unwrap();
            let is_large = table.split(' ').next().is_some_and(is_table);
            found.extend(is_large.then(|| format!("{index} {}", condition(next))));
        } else if let Some(rest) = step.strip_prefix("SCAN ") {
            let is_large = rest.split(' ').next().is_some_and(is_table);
            found.extend(is_large.then(|| format!("all of {rest}")));
        } else if let Some(rest) = step.strip_prefix("SEARCH ") {
            found.extend(rest.split(' ').next().is_some_and(is_table).then(|| rest.to_owned()));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Publishing keeps its plan, which may be made while there are few webhooks: it must not be one that reads all of them.
pub(super) async fn check_publishing_to_few(scratch: &Scratch) {
    let few = "INSERT INTO webhooks (organization_id, id, url, enabled, secret, created_at, updated_at)
        SELECT id, gen_random_uuid(), 'https://example.com/', TRUE, '', 0, 0 FROM organizations LIMIT 3";
    scratch.run(vec![few.to_owned(), "ANALYZE webhooks".to_owned()]).await;
    let accesses = accesses(&plan(&scratch.db, publish_batch::PUBLISH.to_owned()).await);
    assert_eq!(accesses, ["webhooks_pkey (organization_id = ANY ($14))"]);
    scratch.run(vec!["DELETE FROM webhooks".to_owned()]).await;
}

/// Compares every statement's plan with the engine's snapshot.
pub(super) async fn check(scratch: &Scratch) {
    let backend = scratch.db.backend();
    let mut lines = Vec::new();
    for (name, sql) in statements(backend) {
        let steps = plan(&scratch.db, sql).await;
        let accesses = accesses(&steps);
        let may_be_whole = WHOLE.iter().any(|(whole, _)| name.ends_with(whole));
        let whole = accesses
            .iter()
            .find(|way| WHOLE_ENDINGS.iter().any(|ending| way.ends_with(ending)) || way.starts_with("all of "));
        assert!(
            may_be_whole || whole.is_none(),
            "{name} reads {whole:?}:\n{}",
            steps.join("\n")
        );
        lines.push(name.to_owned());
        lines.extend(accesses.into_iter().map(|way| format!("    {way}")));
    }
    let text = lines.join("\n") + "\n";
    let file = if backend == DbBackend::Postgres {
        "postgres.txt"
    } else {
        "sqlite.txt"
    };
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/store/plans")
        .join(file);
    if std::env::var_os("WRITE_PLANS").is_some() {
        std::fs::write(path, text).unwrap();
        return;
    }
    let snapshot = std::fs::read_to_string(&path).unwrap();
    let line = |text: &str, number: usize| text.lines().nth(number).unwrap_or_default().to_owned();
    let lines = snapshot.lines().count().max(text.lines().count());
    let change = (0..lines).find(|number| line(&snapshot, *number) != line(&text, *number));
    if let Some(number) = change {
        let (before, now) = (line(&snapshot, number), line(&text, number));
        panic!(
            "{}:{}: {before:?} is planned as {now:?} now:\n{text}",
            path.display(),
            number + 1
        );
    }
}
