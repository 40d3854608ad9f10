//! Rows that exist before a measurement begins: history, a backlog, dead versions.

use std::ops::Range;

use uuid::Uuid;

use super::database::{Database, Engine};

/// The most rows of a table that one statement inserts.
const CHUNK: u64 = 100_000;

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}

/// Finished deliveries of one webhook, each with its event and its attempt, one every 20 ms until a minute ago.
pub(crate) async fn history(database: &Database, organization: Uuid, webhook: Uuid, numbers: Range<u64>) {
    let webhooks = [webhook];
    let rows = Rows::new(database, organization, &webhooks, numbers, 20);
    for chunk in rows.chunks() {
        database
            .run(&[chunk.events(), chunk.deliveries("delivered"), chunk.attempts()])
            .await;
    }
    database.tidy().await;
}

/// Due deliveries: each event is owed to each webhook.
pub(crate) async fn backlog(database: &Database, organization: Uuid, webhooks: &[Uuid], events: Range<u64>) {
    let rows = Rows::new(database, organization, webhooks, events, 1);
    for chunk in rows.chunks() {
        database
            .run(&[chunk.events(), chunk.deliveries("pending"), chunk.queue()])
            .await;
    }
    database.tidy().await;
}

/// Dead versions of queue rows that were due before anything else of the webhook: their deliveries are history.
pub(crate) async fn dead_versions(database: &Database, organization: Uuid, webhook: Uuid, numbers: Range<u64>) {
    let webhooks = [webhook];
    let rows = Rows::new(database, organization, &webhooks, numbers, 1);
    for chunk in rows.chunks() {
        let gone = format!(
            "DELETE FROM queue WHERE organization_id = {} AND webhook_id = {} AND lease_token IS NULL
             AND delivery_id IN (SELECT {} FROM {})",
            chunk.literal(organization),
            chunk.literal(webhook),
            chunk.delivery_id(),
            chunk.pairs()
        );
        database
            .run(&[chunk.events(), chunk.deliveries("delivered"), chunk.queue(), gone])
            .await;
    }
}

/// Events with consecutive numbers, and a delivery to each webhook.
struct Rows<'a> {
    engine: &'a Engine,
    organization: Uuid,
    webhooks: &'a [Uuid],
    numbers: Range<u64>,
    /// When event 0 would have happened, in milliseconds since the Unix epoch.
    origin_ms: i64,
    /// Milliseconds between events.
    step_ms: u64,
}

impl<'a> Rows<'a> {
    fn new(
        database: &'a Database,
        organization: Uuid,
        webhooks: &'a [Uuid],
        numbers: Range<u64>,
        step_ms: u64,
    ) -> Self {
        let last = i64::try_from(numbers.end * step_ms).unwrap();
        Self {
            engine: &database.engine,
            organization,
            webhooks,
            numbers,
            origin_ms: now_ms() - 60_000 - last,
            step_ms,
        }
    }

    /// The same in parts that one statement can insert.
    fn chunks(&self) -> impl Iterator<Item = Self> {
        let events = (CHUNK / self.webhooks.len() as u64).max(1);
        let (numbers, step) = (self.numbers.clone(), usize::try_from(events).unwrap());
        numbers.clone().step_by(step).map(move |start| Self {
            numbers: start..(start + events).min(numbers.end),
            ..*self
        })
    }

    fn literal(&self, id: Uuid) -> String {
        match self.engine {
            Engine::Sqlite => format!("x'{}'", id.simple()),
            Engine::Postgres(_) => format!("'{id}'::uuid"),
        }
    }

    /// The numbers, as `n (i)`.
    fn series(&self) -> String {
        let Range { start, end } = self.numbers;
        let last = end - 1;
        match self.engine {
            Engine::Sqlite => format!(
                "(WITH RECURSIVE n (i) AS (SELECT {start} UNION ALL SELECT i + 1 FROM n WHERE i < {last})
                  SELECT i FROM n) AS n"
            ),
            Engine::Postgres(_) => format!("generate_series({start}::bigint, {last}::bigint) AS n (i)"),
        }
    }

    /// Each number with each webhook, as `n (i)` and `w (column1, column2)`: position and id.
    fn pairs(&self) -> String {
        let webhooks = (0..).zip(self.webhooks);
        let values: Vec<String> = webhooks
            .map(|(position, id): (u64, _)| format!("({position}, {})", self.literal(*id)))
            .collect();
        format!("{} CROSS JOIN (VALUES {}) AS w", self.series(), values.join(", "))
    }

    /// When an event happened.
    fn time(&self) -> String {
        format!("({} + i * {})", self.origin_ms, self.step_ms)
    }

    fn event_id(&self) -> &str {
        self.engine
            .pick("printf('evt_%026d', i)", "'evt_' || lpad(i::text, 26, '0')")
    }

    /// An id with the event's time.
    fn delivery_id(&self) -> String {
        let (time, number) = (self.time(), format!("(i * {} + column1)", self.webhooks.len()));
        match self.engine {
            Engine::Sqlite => format!("unhex(printf('%012x70008%015x', {time}, {number}))"),
            Engine::Postgres(_) => {
                format!("(lpad(to_hex({time}), 12, '0') || '70008' || lpad(to_hex({number}), 15, '0'))::uuid")
            }
        }
    }

    /// What would have been published under this number.
    fn payload(&self) -> String {
        let (before, after) = super::event::data_around_number();
        let before = format!(
            "\",\"object\":\"event\",\"type\":\"{}\",\"created_at\":\"2026-04-23T10:00:00.000+00:00\",\"data\":{before}",
            super::event::EVENT_TYPE
        );
        let id = self.event_id();
        match self.engine {
            Engine::Sqlite => {
                format!("CAST('{{\"id\":\"' || {id} || '{before}' || printf('%012x', i) || '{after}}}' AS BLOB)")
            }
            Engine::Postgres(_) => format!(
                "convert_to('{{\"id\":\"' || {id} || '{before}' || lpad(to_hex(i), 12, '0') || '{after}}}', 'UTF8')"
            ),
        }
    }

    /// A statement that fills a table that others refer to. As long as the planner has no statistics for the
    /// organization, it assumes that it has a single row, and checks each reference by reading all of them.
    fn with_statistics(&self, insert: &str, table: &str) -> String {
        match self.engine {
            Engine::Sqlite => insert.to_owned(),
            Engine::Postgres(_) => format!("{insert}; ANALYZE {table}"),
        }
    }

    fn events(&self) -> String {
        let insert = format!(
            "INSERT INTO events (organization_id, id, event_type, payload, created_at)
             SELECT {}, {}, '{}', {}, {} FROM {}",
            self.literal(self.organization),
            self.event_id(),
            super::event::EVENT_TYPE,
            self.payload(),
            self.time(),
            self.series()
        );
        self.with_statistics(&insert, "events")
    }

    fn deliveries(&self, status: &str) -> String {
        let (attempts, response, delivered_at) = match status {
            "delivered" => ("1", "200, 'ok'", self.time()),
            _ => ("0", "NULL, NULL", self.engine.pick("NULL", "NULL::bigint").to_owned()),
        };
        let response = match self.engine {
            Engine::Postgres(_) if attempts == "0" => "NULL::integer, NULL",
            _ => response,
        };
        let insert = format!(
            "INSERT INTO deliveries (organization_id, id, webhook_id, event_id, event_type, status, attempt_count,
                                     response_status, response_body, created_at, delivered_at)
             SELECT {}, {}, column2, {}, '{}', '{status}', {attempts}, {response}, {}, {delivered_at} FROM {}",
            self.literal(self.organization),
            self.delivery_id(),
            self.event_id(),
            super::event::EVENT_TYPE,
            self.time(),
            self.pairs()
        );
        self.with_statistics(&insert, "deliveries")
    }

    fn attempts(&self) -> String {
        format!(
            "INSERT INTO attempts (organization_id, delivery_id, number, \"trigger\", started_at, duration_ms,
                                   response_status, response_body)
             SELECT {}, {}, 1, 'automatic', {}, 2, 200, 'ok' FROM {}",
            self.literal(self.organization),
            self.delivery_id(),
            self.time(),
            self.pairs()
        )
    }

    fn queue(&self) -> String {
        format!(
            "INSERT INTO queue (organization_id, delivery_id, webhook_id, owed, due_at, attempt_count)
             SELECT {}, {}, column2, TRUE, {}, 0 FROM {}",
            self.literal(self.organization),
            self.delivery_id(),
            self.time(),
            self.pairs()
        )
    }
}
