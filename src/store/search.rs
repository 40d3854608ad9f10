//! Which deliveries a list shows: walks over an index, newest first, each of which ends after a bounded number of rows.
//!
//! No index serves every combination of filters. The best one leads, the other filters select from what it finds, and
//! if they select too little, the page ends early and says where the next one continues.

use std::time::Duration;

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait as _, DbBackend, Statement, Value,
    prelude::Uuid,
    sea_query::{Expr, ExprTrait as _},
};

use super::{
    Database, StoreError,
    engine::among::{KeyType, found_among, ids_value},
    entity::delivery,
    shown,
};
use crate::domain::{
    delivery::{Delivery, DeliveryStatus},
    event_id::EventId,
    id::{DeliveryId, OrganizationId, WebhookId},
    timestamp::Timestamp,
};

/// Which deliveries to list; `None` means any.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// Of this webhook.
    pub webhook_id: Option<WebhookId>,
    /// Of this event.
    pub event_id: Option<EventId>,
    /// Of events of this type.
    pub event_type: Option<String>,
    /// With this status.
    pub status: Option<DeliveryStatus>,
    /// Created at this instant or later.
    pub created_after: Option<Timestamp>,
    /// Created before this instant.
    pub created_before: Option<Timestamp>,
    /// Older than this delivery; the id need not exist.
    pub after: Option<DeliveryId>,
}

/// The result of a walk.
#[derive(Debug)]
pub(super) struct WalkResult {
    /// The deliveries, newest first.
    pub(super) rows: Vec<Delivery>,
    /// The last delivery that was examined, unless the walk reached the end or has found all that it was to find.
    pub(super) next: Option<DeliveryId>,
}

/// The most deliveries or events that one page examines if the index also finds others than those requested. A few
/// milliseconds' worth.
pub const LOOKED_AT_MAX: u64 = 2000;

/// How many are examined together.
pub(super) const LOOKED_AT_ONCE: u64 = 500;

/// How much later the time in a delivery's id may be than its event's, or earlier if the clock was set back: the event
/// gets its time when the request is read, the delivery gets its id when it is recorded.
const ID_SLACK: Duration = Duration::from_mins(2);

/// The organization's newest deliveries that match `query`, at most as many as the page takes.
pub(super) async fn newest(
    db: &Database,
    org: OrganizationId,
    query: &DeliveryQuery,
    rows_max: u64,
) -> Result<WalkResult, StoreError> {
    let walk = Walk::of(org, query);
    let connection = db.read_long();
    if walk.is_exact() {
        let found = connection.query_all_raw(walk.rows(db.backend(), rows_max)).await?;
        let rows = found.iter().map(shown::delivery).collect::<Result<_, _>>()?;
        return Ok(WalkResult { rows, next: None });
    }
    let (mut rows, mut looked_at, mut after) = (Vec::new(), 0, query.after);
    loop {
        let found = connection.query_all_raw(walk.ids(db.backend(), after)).await?;
        let ids: Vec<DeliveryId> = found
            .iter()
            .map(|row| row.try_get_by_index(0))
            .collect::<Result<_, _>>()?;
        looked_at += ids.len() as u64;
        after = ids.last().copied();
        let is_last = !walk.continues() || (ids.len() as u64) < LOOKED_AT_ONCE;
        if !ids.is_empty() {
            let left = rows_max - rows.len() as u64;
            let chosen = connection.query_all_raw(walk.chosen(db.backend(), ids, left)).await?;
            for row in &chosen {
                rows.push(shown::delivery(row)?);
            }
        }
        if is_last || rows.len() as u64 >= rows_max {
            return Ok(WalkResult { rows, next: None });
        }
        if looked_at >= LOOKED_AT_MAX {
            return Ok(WalkResult { rows, next: after });
        }
    }
}

/// The index that leads the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    /// An event's deliveries: at most one per webhook, of which an organization has no more than a hundred.
    Event,
    /// The queue: its cost does not depend on the history.
    Queue,
    /// Deliveries that ended without success: few, as long as deliveries succeed.
    Undelivered,
    /// Those of one webhook.
    UndeliveredOfWebhook,
    /// All deliveries.
    History,
    /// All of one webhook.
    HistoryOfWebhook,
}

impl Lead {
    fn of(query: &DeliveryQuery) -> Self {
        let is_of_webhook = query.webhook_id.is_some();
        match query.status {
            _ if query.event_id.is_some() => Self::Event,
            Some(DeliveryStatus::Pending) => Self::Queue,
            Some(DeliveryStatus::Failed | DeliveryStatus::Canceled) if is_of_webhook => Self::UndeliveredOfWebhook,
            Some(DeliveryStatus::Failed | DeliveryStatus::Canceled) => Self::Undelivered,
            _ if is_of_webhook => Self::HistoryOfWebhook,
            Some(DeliveryStatus::Delivered | DeliveryStatus::Unknown) | None => Self::History,
        }
    }

    /// Table, id and index; and the condition, beyond the organization and the span, for a row to be in the index.
    const fn parts(self) -> (&'static str, &'static str, &'static str, &'static str) {
        let (index, condition) = match self {
            Self::Event => ("deliveries_of_event", ""),
            Self::Queue => return ("queue", "delivery_id", "queue_pkey", ""),
            Self::Undelivered => ("deliveries_undelivered", "AND found.undelivered_at IS NOT NULL"),
            Self::UndeliveredOfWebhook => (
                "deliveries_undelivered_of_webhook",
                "AND found.undelivered_at IS NOT NULL AND found.webhook_id = $5",
            ),
            Self::History => ("deliveries_pkey", ""),
            Self::HistoryOfWebhook => ("deliveries_of_webhook", "AND found.webhook_id = $5"),
        };
        ("deliveries", "id", index, condition)
    }
}

/// How a query is executed.
struct Walk<'a> {
    org: OrganizationId,
    query: &'a DeliveryQuery,
    lead: Lead,
}

impl<'a> Walk<'a> {
    fn of(org: OrganizationId, query: &'a DeliveryQuery) -> Self {
        let lead = Lead::of(query);
        Self { org, query, lead }
    }

    /// Whether the index finds only what is requested.
    fn is_exact(&self) -> bool {
        let DeliveryQuery {
            webhook_id: _,
            event_id: _,
            event_type,
            status,
            created_after,
            created_before,
            after: _,
        } = self.query;
        let is_history = matches!(self.lead, Lead::History | Lead::HistoryOfWebhook);
        let no_time = created_after.is_none() && created_before.is_none();
        is_history && event_type.is_none() && status.is_none() && no_time
    }

    /// Whether there may be more ids than one statement finds.
    fn continues(&self) -> bool {
        self.lead != Lead::Event
    }

    /// The next ids after `after`, by the leading index alone.
    fn ids(&self, backend: DbBackend, after: Option<DeliveryId>) -> Statement {
        let (_, id, ..) = self.lead.parts();
        self.walk(backend, &format!("found.{id}"), "", after, LOOKED_AT_ONCE)
    }

    /// The deliveries of a walk whose index finds only what is requested.
    fn rows(&self, backend: DbBackend, rows_max: u64) -> Statement {
        let join = shown::entries(backend);
        self.walk(backend, shown::COLUMNS, join, self.query.after, rows_max)
    }

    fn walk(
        &self,
        backend: DbBackend,
        columns: &str,
        join: &str,
        after: Option<DeliveryId>,
        rows_max: u64,
    ) -> Statement {
        let (table, id, index, condition) = self.lead.parts();
        // SQLite needs the index's name: among indexes with the same prefix it picks any. It finds primary keys by
        // itself.
        let by = match backend {
            DbBackend::Sqlite if !index.ends_with("_pkey") => format!(" INDEXED BY {index}"),
            _ => String::new(),
        };
        let DeliveryQuery {
            webhook_id,
            event_id,
            created_after,
            created_before,
            ..
        } = self.query;
        if self.lead == Lead::Event {
            // All of them, unordered: with an order the planner might use the primary key and walk over all of the
            // history.
            let sql =
                format!("SELECT {columns} FROM {table} AS found{by} WHERE organization_id = $1 AND event_id = $2");
            return Statement::from_sql_and_values(backend, sql, [self.org.into(), event_id.clone().into()]);
        }
        let since = created_after.map(|instant| instant.minus(ID_SLACK).least_uuid());
        let until = created_before.map(|instant| instant.plus(ID_SLACK).least_uuid());
        let before = [until, after.map(Uuid::from)].into_iter().flatten().min();
        let sql = format!(
            "SELECT {columns} FROM {table} AS found{by} {join}
             WHERE found.organization_id = $1 AND found.{id} >= $2 AND found.{id} < $3 {condition}
             ORDER BY found.{id} DESC LIMIT $4"
        );
        let span: [Value; 4] = [
            self.org.into(),
            since.unwrap_or(Uuid::nil()).into(),
            before.unwrap_or(Uuid::max()).into(),
            i64::try_from(rows_max).unwrap_or(i64::MAX).into(),
        ];
        let webhook = webhook_id.filter(|_| condition.contains("$5")).map(Value::from);
        Statement::from_sql_and_values(backend, sql, span.into_iter().chain(webhook))
    }

    /// Those of `ids` that match the query.
    fn chosen(&self, backend: DbBackend, ids: Vec<DeliveryId>, rows_max: u64) -> Statement {
        let DeliveryQuery {
            webhook_id,
            event_id: _,
            event_type,
            status,
            created_after,
            created_before,
            after,
        } = self.query;
        let (columns, join) = (shown::COLUMNS, shown::entries(backend));
        let rows = found_among(backend, "deliveries", "id", KeyType::Ids);
        let chosen = format!(
            "SELECT {columns} FROM {rows} {join}
             WHERE (found.webhook_id = $3 OR $3 IS NULL) AND (found.event_type = $4 OR $4 IS NULL)
                AND (found.status = $5 OR $5 IS NULL)
                AND (found.created_at >= $6 OR $6 IS NULL) AND (found.created_at < $7 OR $7 IS NULL)
                AND (found.id < $8 OR $8 IS NULL)
             ORDER BY found.id DESC LIMIT $9"
        );
        let values: [Value; 9] = [
            self.org.into(),
            ids_value(backend, ids),
            (*webhook_id).into(),
            event_type.clone().into(),
            (*status).into(),
            (*created_after).into(),
            (*created_before).into(),
            (*after).into(),
            i64::try_from(rows_max).unwrap_or(i64::MAX).into(),
        ];
        Statement::from_sql_and_values(backend, chosen, values)
    }
}

/// A statement of a list, the index it must use, and whether that index must suffice.
#[cfg(test)]
pub(super) struct Planned {
    pub(super) statement: Statement,
    pub(super) index: &'static str,
    pub(super) is_walk: bool,
}

/// Every statement that finds deliveries for a query.
#[cfg(test)]
pub(super) fn planned(
    backend: DbBackend,
    org: OrganizationId,
    query: &DeliveryQuery,
    ids: Vec<DeliveryId>,
) -> Vec<Planned> {
    let walk = Walk::of(org, query);
    let (_, _, index, _) = walk.lead.parts();
    let walking = |statement| Planned {
        statement,
        index,
        is_walk: true,
    };
    if walk.is_exact() {
        return vec![walking(walk.rows(backend, LOOKED_AT_ONCE))];
    }
    let chosen = Planned {
        statement: walk.chosen(backend, ids, LOOKED_AT_ONCE),
        index: "deliveries_pkey",
        is_walk: false,
    };
    vec![walking(walk.ids(backend, query.after)), chosen]
}

/// Matches deliveries with this status. The few that ended without success are found by columns that only they have,
/// not by walking past all the others.
pub(super) fn has_status(status: DeliveryStatus) -> Expr {
    let is = delivery::Column::Status.eq(status);
    match status {
        DeliveryStatus::Failed | DeliveryStatus::Canceled => is.and(delivery::Column::UndeliveredAt.is_not_null()),
        DeliveryStatus::Pending | DeliveryStatus::Delivered | DeliveryStatus::Unknown => is,
    }
}

/// Matches deliveries of events that were published in a span of time. The ids, which begin with a time, bound the walk
/// over the index; the events' times decide.
pub(super) fn published_between(since: Option<Timestamp>, until: Option<Timestamp>) -> Condition {
    let id = delivery::Column::Id;
    Condition::all()
        .add_option(since.map(|instant| id.gte(instant.minus(ID_SLACK).least_uuid())))
        .add_option(until.map(|instant| id.lt(instant.plus(ID_SLACK).least_uuid())))
        .add_option(since.map(|instant| delivery::Column::CreatedAt.gte(instant)))
        .add_option(until.map(|instant| delivery::Column::CreatedAt.lt(instant)))
}
