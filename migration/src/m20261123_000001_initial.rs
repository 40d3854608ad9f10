//! The first schema: organizations, tokens, webhooks, events, deliveries, attempts.

use sea_orm_migration::prelude::*;

use crate::Dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        Dialect::run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        Dialect::run(manager, DOWN).await
    }
}

// Times are milliseconds since the Unix epoch. Keys begin with the organization, so that the schema can
// be sharded by it. A delivery keeps no foreign key to its webhook: its history outlives the webhook.
//
// `deliveries.due_at` is when a node may take the delivery: the time of the next attempt or, while an
// attempt is under way (`lease_token` is set), the end of the lease. One column, so that one index
// finds both planned work and the work of a node that died.
const UP: &str = "
CREATE TABLE organizations (
    id {uuid} PRIMARY KEY,
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    created_at {bigint} NOT NULL
) {table_end};

CREATE TABLE tokens (
    id {uuid} PRIMARY KEY,
    organization_id {uuid} REFERENCES organizations (id),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    digest {blob} NOT NULL UNIQUE CHECK (length(digest) = 32),
    scopes TEXT NOT NULL,
    created_at {bigint} NOT NULL,
    revoked_at {bigint}
) {table_end};

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
    created_at {bigint} NOT NULL,
    updated_at {bigint} NOT NULL,
    PRIMARY KEY (organization_id, id),
    CHECK (disabled_reason IS NULL OR NOT enabled)
) {hot_table_end};

CREATE TABLE events (
    organization_id {uuid} NOT NULL REFERENCES organizations (id),
    id TEXT NOT NULL CHECK (length(id) = 30),
    event_type TEXT NOT NULL,
    payload {blob} NOT NULL,
    created_at {bigint} NOT NULL,
    PRIMARY KEY (organization_id, id)
) {table_end};
CREATE INDEX events_newest_first ON events (organization_id, created_at, id);

CREATE TABLE deliveries (
    organization_id {uuid} NOT NULL,
    id {uuid} NOT NULL,
    webhook_id {uuid} NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'failed', 'canceled')),
    attempt_count INTEGER NOT NULL CHECK (attempt_count >= 0),
    due_at {bigint},
    lease_token {uuid},
    response_status INTEGER CHECK (response_status BETWEEN 100 AND 599),
    response_body TEXT,
    error TEXT,
    created_at {bigint} NOT NULL,
    delivered_at {bigint},
    PRIMARY KEY (organization_id, id),
    FOREIGN KEY (organization_id, event_id) REFERENCES events (organization_id, id),
    CHECK ((status = 'delivered') = (delivered_at IS NOT NULL)),
    CHECK (status <> 'pending' OR due_at IS NOT NULL),
    CHECK (lease_token IS NULL OR due_at IS NOT NULL)
) {hot_table_end};
CREATE INDEX deliveries_due ON deliveries (webhook_id, due_at) WHERE status = 'pending';
CREATE INDEX deliveries_leased ON deliveries (webhook_id) WHERE lease_token IS NOT NULL;
CREATE INDEX deliveries_of_webhook ON deliveries (organization_id, webhook_id, id);
CREATE INDEX deliveries_of_event ON deliveries (organization_id, event_id);

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

const DOWN: &str = "
DROP TABLE attempts;
DROP TABLE deliveries;
DROP TABLE events;
DROP TABLE webhooks;
DROP TABLE tokens;
DROP TABLE organizations;
";
