//! Changes to webhooks on PostgreSQL, where a statement costs a round trip: two for all changes that arrive together.
//!
//! The rows are read, changed in memory in the order of arrival, and written back only if nobody else has changed them
//! since: `updated_at` is their version. A change that was overtaken starts again from the row's new state. So no lock
//! is held between the two round trips, and many changes to one webhook do not wait for each other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use sea_orm::{
    ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult, IdenStatic as _, ModelTrait as _,
    QueryFilter as _, Statement, Value, prelude::Uuid,
};

use super::{
    Database, StoreError,
    audit::Entry,
    engine::among::{among_ids, array},
    entity::webhook,
    webhooks::{allows, applied, view, was_enabled},
};
use crate::domain::{
    id::WebhookId,
    webhook::{Changed, Webhook, WebhookChange},
};

/// How many times a change that was overtaken starts again. Each time, another change has gone through.
const TRIES_MAX: usize = 20;

/// A webhook as a batch leaves it.
struct Row {
    before: webhook::Model,
    after: webhook::Model,
    was_enabled: bool,
}

/// Changes a batch of webhooks.
pub(super) async fn change_batch(
    db: Database,
    batch: Arc<[WebhookChange]>,
) -> Result<Vec<Changed<Webhook>>, StoreError> {
    let mut results: Vec<Option<Changed<Webhook>>> = batch.iter().map(|_| None).collect();
    for _ in 0..TRIES_MAX {
        let left: Vec<usize> = (0..batch.len())
            .filter(|index| results.get(*index).is_some_and(Option::is_none))
            .collect();
        if left.is_empty() {
            break;
        }
        try_all(&db, &batch, &left, &mut results).await?;
    }
    let overtaken = || StoreError::Unavailable(sea_orm::DbErr::Custom("others keep changing this webhook".to_owned()));
    results.into_iter().map(|result| result.ok_or_else(overtaken)).collect()
}

async fn try_all(
    db: &Database,
    batch: &[WebhookChange],
    left: &[usize],
    results: &mut [Option<Changed<Webhook>>],
) -> Result<(), StoreError> {
    let changes = || left.iter().filter_map(|index| Some((*index, batch.get(*index)?)));
    let ids: BTreeSet<WebhookId> = changes().map(|(_, change)| change.id).collect();
    let connection = db.read();
    let rows = webhook::Entity::find()
        .filter(among_ids(connection.get_database_backend(), "id", ids))
        .all(&connection)
        .await?;
    let mut rows: HashMap<WebhookId, Row> = rows
        .into_iter()
        .filter(|row| row.deleted_at.is_none())
        .map(|row| {
            let id = row.id;
            let row = Row {
                after: row.clone(),
                before: row,
                was_enabled: false,
            };
            (id, row)
        })
        .collect();
    let mut entries = Vec::new();
    let mut outcomes: BTreeMap<usize, Changed<Webhook>> = BTreeMap::new();
    for (index, change) in changes() {
        let row = rows
            .get_mut(&change.id)
            .filter(|row| row.before.organization_id == change.organization_id);
        let outcome = match row {
            None => Changed::NotFound,
            Some(row) if !allows(change.if_match.as_ref(), &row.after) => Changed::Stale,
            Some(row) => {
                if let Some(after) = applied(db, &row.after, change)? {
                    entries.push(Entry::of_request(
                        change.origin.clone(),
                        Some(&row.after),
                        Some(&after),
                        change.now,
                    )?);
                    row.was_enabled |= was_enabled(&row.after, &after);
                    row.after = after;
                }
                Changed::Done(view(&row.after)?)
            }
        };
        outcomes.insert(index, outcome);
    }
    rows.retain(|_, row| row.before != row.after);
    let written = if rows.is_empty() {
        BTreeSet::new()
    } else {
        write(db, rows.values(), &entries).await?
    };
    for (index, outcome) in outcomes {
        let is_overtaken = batch
            .get(index)
            .is_some_and(|change| rows.contains_key(&change.id) && !written.contains(&change.id));
        if let Some(result) = results.get_mut(index).filter(|_| !is_overtaken) {
            *result = Some(outcome);
        }
    }
    Ok(())
}

/// When a customer enables a webhook, its health starts from scratch; otherwise only the engine changes it. The
/// settings of a webhook come as one JSON object, which PostgreSQL expands to columns.
pub(in crate::store) static WRITE: LazyLock<String> = LazyLock::new(|| {
    let set: Vec<String> = webhook::SETTINGS
        .iter()
        .map(|column| format!("{0} = (changed.settings).{0}", column.as_str()))
        .collect();
    format!(
        "
    WITH changed AS MATERIALIZED (
        SELECT c.organization_id, c.id, version, jsonb_populate_record(NULL::webhooks, c.settings::jsonb) AS settings,
            c.secret, c.updated_at, is_on
        FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::bytea[], $6::bigint[], $7::bool[])
            AS c(organization_id, id, version, settings, secret, updated_at, is_on)
    ), locked AS MATERIALIZED (
        SELECT webhooks.id FROM webhooks JOIN changed USING (organization_id, id)
        WHERE webhooks.updated_at = version AND deleted_at IS NULL ORDER BY webhooks.id FOR NO KEY UPDATE OF webhooks
    ), written AS (
        UPDATE webhooks SET {set}, secret = changed.secret, updated_at = changed.updated_at,
            disabled_reason = CASE WHEN is_on THEN NULL ELSE disabled_reason END,
            failing_since = CASE WHEN is_on THEN NULL ELSE failing_since END,
            consecutive_failures = CASE WHEN is_on THEN 0 ELSE consecutive_failures END,
            failing_notices = CASE WHEN is_on THEN 0 ELSE failing_notices END,
            resume_at = CASE WHEN is_on THEN 0 ELSE resume_at END
        FROM changed JOIN locked USING (id)
        WHERE webhooks.organization_id = changed.organization_id AND webhooks.id = changed.id
            AND webhooks.updated_at = version
        RETURNING webhooks.id
    ), noted AS (
        INSERT INTO audit_entries (organization_id, id, webhook_id, action, actor, token_id, address, request_id,
            secret_rotated, changes, created_at)
        SELECT organization_id, e.id, webhook_id, 'updated', 'token', token_id, NULLIF(address, ''),
            NULLIF(request_id, ''), secret_rotated, changes, created_at
        FROM UNNEST($8::uuid[], $9::uuid[], $10::uuid[], $11::uuid[], $12::text[], $13::text[], $14::bool[],
                    $15::text[], $16::bigint[])
            AS e(organization_id, id, webhook_id, token_id, address, request_id, secret_rotated, changes, created_at)
        JOIN written ON written.id = webhook_id
    )
    SELECT id FROM written",
        set = set.join(", ")
    )
});

/// A row's settings as a JSON object of columns.
fn settings_column(row: &webhook::Model) -> Result<String, StoreError> {
    let mut columns = serde_json::Map::new();
    for column in webhook::SETTINGS.iter() {
        let value = match row.get(*column) {
            Value::Bool(value) => value.into(),
            Value::Int(value) => value.into(),
            Value::BigInt(value) => value.into(),
            Value::String(value) => value.into(),
            other => {
                return Err(StoreError::Corrupt(format!(
                    "webhooks.{}: {other:?} is no JSON",
                    column.as_str()
                )));
            }
        };
        columns.insert(column.as_str().to_owned(), value);
    }
    Ok(serde_json::Value::Object(columns).to_string())
}

/// Writes back the rows that nobody else has changed, with their audit entries. Returns which were written.
async fn write<'a>(
    db: &Database,
    rows: impl Iterator<Item = &'a Row> + Clone,
    entries: &[Entry],
) -> Result<BTreeSet<WebhookId>, StoreError> {
    #[derive(FromQueryResult)]
    struct Written {
        id: WebhookId,
    }
    let after = || rows.clone().map(|row| &row.after);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let settings: Vec<String> = after().map(settings_column).collect::<Result<_, _>>()?;
    let id = |id: Option<crate::domain::id::TokenId>| id.map(Uuid::from).unwrap_or_default();
    let values: [Value; 16] = [
        array(after(), |row| Uuid::from(row.organization_id)),
        array(after(), |row| Uuid::from(row.id)),
        array(rows.clone(), |row| row.before.updated_at.as_millis()),
        settings.into(),
        array(after(), |row| row.secret.clone()),
        array(after(), |row| row.updated_at.as_millis()),
        array(rows.clone(), |row| row.was_enabled),
        array(entries, |entry| Uuid::from(entry.organization_id)),
        array(entries, |entry| Uuid::from(entry.entry.id)),
        array(entries, |entry| Uuid::from(entry.entry.webhook_id)),
        array(entries, |entry| id(entry.entry.token_id)),
        array(entries, |entry| text(&entry.entry.address)),
        array(entries, |entry| text(&entry.entry.request_id)),
        array(entries, |entry| entry.entry.secret_rotated),
        array(entries, Entry::changes_column),
        array(entries, |entry| entry.entry.created_at.as_millis()),
    ];
    let connection = db.read();
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, WRITE.as_str(), values);
    let written = Written::find_by_statement(statement)
        .all(&connection)
        .await
        .map_err(StoreError::of_commit)?;
    Ok(written.into_iter().map(|row| row.id).collect())
}
