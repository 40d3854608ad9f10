//! An operator's overview of all organizations: which webhooks have work waiting, which fail, how much an organization
//! uses.
//!
//! Every count ends at a limit and every walk after a number of rows, so that a query has a bounded cost however long
//! the queue and the history are.

use std::{collections::HashMap, time::Duration};

use sea_orm::{ConnectionTrait as _, FromQueryResult, Statement, prelude::Uuid};
use serde::Serialize;

use super::{
    Database, StoreError,
    entity::{columns, webhook},
    health,
};
use crate::domain::{
    delivery::DisabledReason,
    health::Health,
    id::{OrganizationId, WebhookId},
    rate::RateLimit,
    timestamp::Timestamp,
};

/// The most webhooks with waiting deliveries that are visited.
const WEBHOOKS_MAX: i64 = 10_000;

/// The most deliveries that are counted per webhook to find the webhooks that have the most.
const RANKED_MAX: i64 = 200;

/// The most leased deliveries that are counted.
const LEASED_MAX: i64 = 100_000;

/// The most that is counted for one webhook that is shown, or for one organization.
pub const COUNTED_MAX: i64 = 10_000;

/// The most webhooks that a list visits, in total and at once.
const LOOKED_AT_MAX: usize = 100_000;
const LOOKED_AT_ONCE: u32 = 1000;

/// The period over which a webhook's rate is measured.
pub const RATE_SPAN: Duration = Duration::from_mins(1);

/// The period over which an organization's events are counted.
pub const USAGE_SPAN: Duration = Duration::from_hours(24);

/// How many deliveries of a webhook are due or leased, as far as they were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Due, and not leased.
    pub due: i64,
    /// Leased: attempts in progress, and deliveries that wait in a lane.
    pub leased: i64,
}

pub(in crate::store) const WAITING: &str = "
    WITH RECURSIVE walk(webhook_id) AS (
        SELECT (SELECT webhook_id FROM queue WHERE owed AND lease_token IS NULL AND webhook_id > $4
                ORDER BY webhook_id LIMIT 1)
        UNION ALL
        SELECT (SELECT webhook_id FROM queue WHERE owed AND lease_token IS NULL AND webhook_id > walk.webhook_id
                ORDER BY webhook_id LIMIT 1)
        FROM walk WHERE walk.webhook_id IS NOT NULL
    ),
    waiting AS (SELECT webhook_id FROM walk WHERE webhook_id IS NOT NULL LIMIT $1)
    SELECT waiting.webhook_id,
        (SELECT count(*) FROM (
            SELECT 1 FROM queue WHERE owed AND lease_token IS NULL AND queue.webhook_id = waiting.webhook_id
                AND due_at <= $2 ORDER BY due_at LIMIT $3) AS counted) AS due
    FROM waiting";

pub(in crate::store) const LEASED: &str = "
    SELECT webhook_id, count(*) AS leased FROM (
        SELECT webhook_id FROM queue WHERE lease_token IS NOT NULL AND lease_node > $2 ORDER BY lease_node LIMIT $1
    ) AS held GROUP BY webhook_id";

/// The webhooks that have due or leased deliveries, those with the most first.
pub async fn loads(db: &Database, now: Timestamp) -> Result<Vec<(WebhookId, Load)>, StoreError> {
    let nil = Uuid::nil();
    let waiting = [WEBHOOKS_MAX.into(), now.into(), RANKED_MAX.into(), nil.into()];
    let waiting = Statement::from_sql_and_values(db.backend(), WAITING, waiting);
    let leased = Statement::from_sql_and_values(db.backend(), LEASED, [LEASED_MAX.into(), nil.into()]);
    let mut loads: HashMap<WebhookId, Load> = HashMap::new();
    for row in db.read_long().query_all_raw(waiting).await? {
        loads.entry(row.try_get("", "webhook_id")?).or_default().due = row.try_get("", "due")?;
    }
    for row in db.read_long().query_all_raw(leased).await? {
        loads.entry(row.try_get("", "webhook_id")?).or_default().leased = row.try_get("", "leased")?;
    }
    let mut loads: Vec<_> = loads.into_iter().collect();
    loads.sort_by_key(|(id, load)| (std::cmp::Reverse((load.due, load.leased)), *id));
    Ok(loads)
}

/// A webhook as an operator sees it.
#[derive(Clone, Debug, FromQueryResult, Serialize)]
pub struct BusyWebhook {
    /// Its id.
    pub webhook_id: WebhookId,
    /// The organization that owns it.
    pub organization_id: OrganizationId,
    /// The organization's display name.
    pub organization: String,
    /// Its URL.
    pub url: String,
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Why the service disabled it, if it did.
    pub disabled_reason: Option<DisabledReason>,
    /// When the first failure since the last success happened.
    pub failing_since: Option<Timestamp>,
    /// Failures since the last success.
    pub consecutive_failures: i32,
    /// Deliveries that may start per second.
    pub rate_limit: Option<RateLimit>,
    /// Deliveries that are due and not leased, up to [`COUNTED_MAX`].
    pub due: i64,
    /// When the oldest of them became due.
    pub oldest_due_at: Option<Timestamp>,
    /// Deliveries made in the last [`RATE_SPAN`], up to [`COUNTED_MAX`].
    pub deliveries_last_minute: i64,
}

pub(in crate::store) const BUSY: &str = "
    SELECT webhooks.id AS webhook_id, webhooks.organization_id, organizations.name AS organization, url, enabled,
        disabled_reason, failing_since, consecutive_failures, rate_limit,
        (SELECT count(*) FROM (
            SELECT 1 FROM queue WHERE owed AND lease_token IS NULL AND queue.webhook_id = webhooks.id AND due_at <= $2
            ORDER BY due_at LIMIT $3) AS counted) AS due,
        (SELECT due_at FROM queue WHERE owed AND lease_token IS NULL AND queue.webhook_id = webhooks.id
            AND due_at <= $2 ORDER BY due_at LIMIT 1) AS oldest_due_at,
        (SELECT count(*) FROM (
            SELECT 1 FROM deliveries WHERE deliveries.organization_id = webhooks.organization_id
                AND deliveries.webhook_id = webhooks.id AND deliveries.id > $4
            ORDER BY deliveries.id LIMIT $3) AS made) AS deliveries_last_minute
    FROM webhooks JOIN organizations ON organizations.id = webhooks.organization_id WHERE webhooks.id = $1";

/// The webhook with that id, with what waits for it; `None` if it does not exist.
pub async fn busy(db: &Database, id: WebhookId, now: Timestamp) -> Result<Option<BusyWebhook>, StoreError> {
    let since = now.minus(RATE_SPAN).least_uuid();
    let values = [id.into(), now.into(), COUNTED_MAX.into(), since.into()];
    let statement = Statement::from_sql_and_values(db.backend(), BUSY, values);
    Ok(BusyWebhook::find_by_statement(statement).one(&db.read_long()).await?)
}

/// A webhook with its health.
#[derive(Clone, Debug)]
pub struct ListedWebhook {
    /// The organization that owns it.
    pub organization_id: OrganizationId,
    /// Its id.
    pub id: WebhookId,
    /// Its URL.
    pub url: String,
    /// How its deliveries have gone recently.
    pub health: Health,
    /// When it was registered.
    pub created_at: Timestamp,
}

pub(in crate::store) fn webhooks_sql() -> String {
    let columns = columns::<webhook::Entity>("webhooks");
    format!(
        "SELECT {columns} FROM webhooks
         WHERE (organization_id, id) > ($1, $2) ORDER BY organization_id, id LIMIT $3"
    )
}

/// Which webhooks to list.
#[derive(Clone, Copy, Debug)]
pub struct WebhookQuery {
    /// Only webhooks of this organization.
    pub organization_id: Option<OrganizationId>,
    /// Only those that fail, or that the service has disabled.
    pub is_failing: bool,
    /// After this webhook.
    pub after: Option<(OrganizationId, WebhookId)>,
    /// The most webhooks to return.
    pub limit: usize,
}

/// Webhooks ordered by organization and id, and where the list continues, if it does.
pub async fn webhooks(
    db: &Database,
    query: WebhookQuery,
) -> Result<(Vec<ListedWebhook>, Option<(OrganizationId, WebhookId)>), StoreError> {
    let first = (query.organization_id.unwrap_or(OrganizationId::NIL), WebhookId::NIL);
    let (mut found, mut after, mut looked_at) = (Vec::new(), query.after.unwrap_or(first), 0);
    loop {
        let values = [after.0.into(), after.1.into(), LOOKED_AT_ONCE.into()];
        let statement = Statement::from_sql_and_values(db.backend(), webhooks_sql(), values);
        let rows = webhook::Model::find_by_statement(statement)
            .all(&db.read_long())
            .await?;
        let is_last = rows.len() < LOOKED_AT_ONCE as usize;
        for row in rows {
            if query
                .organization_id
                .is_some_and(|wanted| wanted != row.organization_id)
            {
                return Ok((found, None));
            }
            if found.len() == query.limit || looked_at == LOOKED_AT_MAX {
                return Ok((found, Some(after)));
            }
            looked_at += 1;
            after = (row.organization_id, row.id);
            let health = health::read(&row);
            let is_failing = health.failing_since.is_some() || health.disabled_reason.is_some();
            if row.deleted_at.is_none() && (is_failing || !query.is_failing) {
                found.push(ListedWebhook {
                    organization_id: row.organization_id,
                    id: row.id,
                    url: row.url,
                    health,
                    created_at: row.created_at,
                });
            }
        }
        if is_last {
            return Ok((found, None));
        }
    }
}

/// What an organization uses.
#[derive(Clone, Copy, Debug, FromQueryResult, Serialize)]
pub struct Usage {
    /// Webhooks that are registered.
    pub webhooks: i64,
    /// Writes in this calendar month, counted only if there is a quota.
    pub writes_this_month: i64,
    /// Events published in the last [`USAGE_SPAN`], up to [`COUNTED_MAX`].
    pub events_last_day: i64,
    /// Pending deliveries, up to [`COUNTED_MAX`].
    pub deliveries_pending: i64,
}

pub(in crate::store) const USAGE: &str = "
    SELECT
        (SELECT count(*) FROM webhooks WHERE organization_id = $1 AND deleted_at IS NULL) AS webhooks,
        COALESCE((SELECT writes FROM quota_usage WHERE organization_id = $1 AND month_started_at = $2), 0)
            AS writes_this_month,
        (SELECT count(*) FROM (
            SELECT 1 FROM events WHERE organization_id = $1 AND created_at >= 0 AND created_at >= $3
            ORDER BY created_at, id LIMIT $4) AS published) AS events_last_day,
        (SELECT count(*) FROM (
            SELECT 1 FROM queue WHERE organization_id = $1 AND delivery_id > $5
            ORDER BY delivery_id LIMIT $4) AS owed) AS deliveries_pending";

/// What an organization uses now.
pub async fn usage(db: &Database, org: OrganizationId, now: Timestamp) -> Result<Usage, StoreError> {
    let values = [
        org.into(),
        now.month_start().into(),
        now.minus(USAGE_SPAN).into(),
        COUNTED_MAX.into(),
        Uuid::nil().into(),
    ];
    let statement = Statement::from_sql_and_values(db.backend(), USAGE, values);
    let usage = Usage::find_by_statement(statement).one(&db.read_long()).await?;
    usage.ok_or_else(|| StoreError::Corrupt("a count returned no row".to_owned()))
}
