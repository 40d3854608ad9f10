//! The schema of the first release.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

use crate::Dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for tables in [ACCOUNTS, WEBHOOKS, DELIVERIES, OPERATION] {
            Dialect::run(manager, tables).await?;
        }
        if manager.get_database_backend() == DbBackend::Postgres {
            Dialect::run(manager, VACUUM).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        Dialect::run(manager, DOWN).await
    }
}

// Times are milliseconds since the Unix epoch. Keys begin with the organization, so that the schema can be sharded
// by it.

const ACCOUNTS: &str = "
CREATE TABLE organizations (
    id {uuid} PRIMARY KEY,
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    requests_per_minute_max INTEGER CHECK (requests_per_minute_max >= 1),
    writes_per_month_max INTEGER CHECK (writes_per_month_max >= 1),
    created_at {bigint} NOT NULL
) {table_end};

CREATE TABLE quota_usage (
    organization_id {uuid} NOT NULL REFERENCES organizations (id),
    month_started_at {bigint} NOT NULL,
    writes {bigint} NOT NULL CHECK (writes >= 0),
    PRIMARY KEY (organization_id, month_started_at)
) {hot_table_end};

CREATE TABLE tokens (
    id {uuid} PRIMARY KEY,
    organization_id {uuid} REFERENCES organizations (id),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    digest {blob} NOT NULL UNIQUE CHECK (length(digest) = 32),
    scopes TEXT NOT NULL,
    created_at {bigint} NOT NULL,
    last_used_at {bigint},
    revoked_at {bigint}
) {table_end};
";

// `resume_at` is the time before which no automatic attempt starts: zero, the next probe of an open breaker, or when
// the rate limit allows the next attempt. `rate_state` is the state of the rate limiter (GCRA's theoretical arrival
// time, in nanoseconds since the Unix epoch). `deleted_at` marks a deleted webhook; the row is removed once the queue
// has nothing for it.
const WEBHOOKS: &str = "
CREATE TABLE webhooks (
    organization_id {uuid} NOT NULL REFERENCES organizations (id),
    id {uuid} NOT NULL UNIQUE,
    url TEXT NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    enabled {boolean} NOT NULL,
    events TEXT,
    description TEXT CHECK (length(description) BETWEEN 1 AND 256),
    secret {blob} NOT NULL,
    disabled_reason TEXT CHECK (disabled_reason IN ('gone', 'failing')),
    failing_since {bigint},
    consecutive_failures INTEGER NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
    failing_notices INTEGER NOT NULL DEFAULT 0 CHECK (failing_notices >= 0),
    recovery_owed {boolean} NOT NULL DEFAULT FALSE,
    exhausted_count INTEGER NOT NULL DEFAULT 0 CHECK (exhausted_count >= 0),
    exhausted_notice_at {bigint},
    resume_at {bigint} NOT NULL DEFAULT 0,
    rate_limit INTEGER CHECK (rate_limit BETWEEN 1 AND 1000),
    rate_state {bigint},
    created_at {bigint} NOT NULL,
    updated_at {bigint} NOT NULL,
    deleted_at {bigint},
    PRIMARY KEY (organization_id, id),
    CHECK (disabled_reason IS NULL OR NOT enabled),
    CHECK (deleted_at IS NULL OR NOT enabled)
) {hot_table_end};
CREATE INDEX webhooks_deleted ON webhooks (deleted_at) WHERE deleted_at IS NOT NULL;
";

// `deliveries` is history: a row is inserted with its event and updated when an attempt ends, in no indexed column as
// long as attempts succeed. Unfinished work also has a row in `queue`, which is deleted when it is done; so the table
// that is claimed from is as small as what is due, however long the history.
//
// A delivery has no foreign key to its webhook: its history outlives the webhook. `schedule_start` is how many attempts
// had been made when its current schedule began: zero, or more after a replay. `undelivered_at` is when it ended
// without success: those few are found by indexes of their own.
//
// `queue.due_at` is when a node may take the delivery: the time of the next attempt or, while an attempt is in progress
// (`lease_token` is set), the end of the lease. Most entries are leased when they are published and gone soon after:
// they are in no index that a claim walks, so their dead rows never slow a claim, even while somebody holds an old
// snapshot. `owed` is false for a manual retry of a delivery that has ended: then the row is only the lease.
//
// Some indexes have a condition that is always true. PostgreSQL assumes a single row for an organization that is newer
// than its statistics: then any index that begins with the organization looks as good as the primary key, and every check
// of a foreign key would read all rows of a new organization. Such a check does not imply the condition, the list that
// the index is for does.
const DELIVERIES: &str = "
CREATE TABLE events (
    organization_id {uuid} NOT NULL REFERENCES organizations (id),
    id TEXT NOT NULL CHECK (length(id) = 30),
    event_type TEXT NOT NULL,
    payload {blob} NOT NULL,
    traceparent TEXT CHECK (length(traceparent) = 55),
    created_at {bigint} NOT NULL,
    PRIMARY KEY (organization_id, id)
) {table_end};
CREATE INDEX events_newest_first ON events (organization_id, created_at, id) WHERE created_at >= 0;

CREATE TABLE deliveries (
    organization_id {uuid} NOT NULL,
    id {uuid} NOT NULL,
    webhook_id {uuid} NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'failed', 'canceled')),
    attempt_count INTEGER NOT NULL CHECK (attempt_count >= 0),
    schedule_start INTEGER NOT NULL DEFAULT 0 CHECK (schedule_start >= 0),
    response_status INTEGER CHECK (response_status BETWEEN 100 AND 599),
    response_body TEXT,
    error TEXT,
    created_at {bigint} NOT NULL,
    delivered_at {bigint},
    undelivered_at {bigint},
    PRIMARY KEY (organization_id, id),
    FOREIGN KEY (organization_id, event_id) REFERENCES events (organization_id, id),
    CHECK ((status = 'delivered') = (delivered_at IS NOT NULL)),
    CHECK ((status IN ('failed', 'canceled')) = (undelivered_at IS NOT NULL))
) {hot_table_end};
CREATE INDEX deliveries_of_webhook ON deliveries (organization_id, webhook_id, id) WHERE webhook_id IS NOT NULL;
CREATE INDEX deliveries_of_event ON deliveries (organization_id, event_id) WHERE event_id IS NOT NULL;
CREATE INDEX deliveries_undelivered ON deliveries (organization_id, id) WHERE undelivered_at IS NOT NULL;
CREATE INDEX deliveries_undelivered_of_webhook ON deliveries (organization_id, webhook_id, id)
    WHERE undelivered_at IS NOT NULL;

CREATE TABLE queue (
    organization_id {uuid} NOT NULL,
    delivery_id {uuid} NOT NULL,
    webhook_id {uuid} NOT NULL,
    owed {boolean} NOT NULL,
    due_at {bigint} NOT NULL,
    attempt_count INTEGER NOT NULL CHECK (attempt_count >= 0),
    lease_token {uuid},
    lease_node {uuid},
    PRIMARY KEY (organization_id, delivery_id),
    FOREIGN KEY (organization_id, delivery_id) REFERENCES deliveries (organization_id, id),
    CHECK (owed OR lease_token IS NOT NULL),
    CHECK (lease_node IS NULL OR lease_token IS NOT NULL)
) {hot_table_end};
CREATE INDEX queue_due ON queue (webhook_id, due_at) WHERE owed AND lease_token IS NULL;
CREATE INDEX queue_leased ON queue (lease_node, due_at) WHERE lease_token IS NOT NULL;

CREATE TABLE attempts (
    organization_id {uuid} NOT NULL,
    delivery_id {uuid} NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 1),
    \"trigger\" TEXT NOT NULL CHECK (\"trigger\" IN ('automatic', 'manual', 'test')),
    started_at {bigint} NOT NULL,
    duration_ms {bigint} NOT NULL CHECK (duration_ms >= 0),
    response_status INTEGER CHECK (response_status BETWEEN 100 AND 599),
    response_body TEXT,
    error TEXT,
    PRIMARY KEY (organization_id, delivery_id, number),
    FOREIGN KEY (organization_id, delivery_id) REFERENCES deliveries (organization_id, id)
) {table_end};
";

// `nodes.seen_at` is the database's time, so that the nodes' clocks need not agree. `last_run` has at most one row:
// when a server last ran, so that the next one notices that the clock has jumped.
const OPERATION: &str = "
CREATE TABLE nodes (
    id {uuid} PRIMARY KEY,
    seen_at {bigint} NOT NULL
) {table_end};

CREATE TABLE last_run (
    what TEXT NOT NULL PRIMARY KEY CHECK (what = 'server'),
    seen_at {bigint} NOT NULL
) {table_end};

CREATE TABLE idempotency_keys (
    organization_id {uuid} NOT NULL REFERENCES organizations (id),
    key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint {blob} NOT NULL CHECK (length(fingerprint) = 32),
    seed {uuid},
    lease_token {uuid},
    leased_until {bigint},
    response {blob},
    expires_at {bigint} NOT NULL,
    PRIMARY KEY (organization_id, key),
    CHECK ((response IS NULL) = (lease_token IS NOT NULL)),
    CHECK ((lease_token IS NULL) = (leased_until IS NULL))
) {hot_table_end};
CREATE INDEX idempotency_keys_expired ON idempotency_keys (expires_at);

CREATE TABLE audit_entries (
    organization_id {uuid} NOT NULL,
    id {uuid} NOT NULL,
    webhook_id {uuid} NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('created', 'updated', 'deleted', 'disabled')),
    actor TEXT NOT NULL CHECK (actor IN ('token', 'service')),
    token_id {uuid},
    address TEXT,
    request_id TEXT CHECK (length(request_id) = 30),
    secret_rotated {boolean} NOT NULL,
    changes TEXT NOT NULL,
    created_at {bigint} NOT NULL,
    PRIMARY KEY (organization_id, id),
    CHECK ((actor = 'token') = (token_id IS NOT NULL))
) {table_end};
CREATE INDEX audit_entries_of_webhook ON audit_entries (organization_id, webhook_id, id);
CREATE INDEX audit_entries_by_age ON audit_entries (created_at);
";

// By default PostgreSQL vacuums a table when a fifth of it is dead. A queue is soon nothing but dead rows, and every
// claim walks its indexes past them: a fixed number of dead rows keeps that walk short, and without the cost delay a
// vacuum ends before the next one is due. A fifth of ten million deliveries is two million, so that table gets a fixed
// number, too.
//
// Events and attempts are inserted and later deleted, never updated: the insert threshold makes vacuum run often enough
// to keep the visibility map, and retention's deletions trigger the rest.
const VACUUM: &str = "
ALTER TABLE queue SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE deliveries SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000);
ALTER TABLE webhooks SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0);
ALTER TABLE events SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000);
ALTER TABLE attempts SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000);
";

const DOWN: &str = "
DROP TABLE audit_entries;
DROP TABLE idempotency_keys;
DROP TABLE last_run;
DROP TABLE nodes;
DROP TABLE attempts;
DROP TABLE queue;
DROP TABLE deliveries;
DROP TABLE events;
DROP TABLE webhooks;
DROP TABLE tokens;
DROP TABLE quota_usage;
DROP TABLE organizations;
";
