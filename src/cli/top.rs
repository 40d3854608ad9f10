//! `top`: which organizations and webhooks have work waiting, and what is wrong with them.

use std::{
    collections::HashMap,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use clap::Args;
use serde::Serialize;

use super::{
    CommandResult,
    deliveries::last,
    table::{NOTHING, Table, at_least, counted, optional, print_json},
};
use crate::{
    clock::Clock,
    domain::{
        delivery::Delivery,
        health::Health,
        id::{OrganizationId, WebhookId},
        outcome::ErrorWord,
        timestamp::Timestamp,
    },
    store::{
        Database, StoreError,
        deliveries::{self, DeliveryQuery},
        overview::{self, BusyWebhook, COUNTED_MAX, Load, WebhookQuery},
        page::PageLimit,
    },
};

/// Deliveries of a webhook that are looked at for its last error, at most.
const ERROR_LOOKED_AT: PageLimit = PageLimit {
    items: 20,
    bytes: 1024 * 1024,
};

/// Deliveries that are this much newer than the first failure may have failed with it.
const FAILURE_MARGIN: Duration = Duration::from_secs(1);

/// Goes to the corner of a terminal, and erases what is behind.
const REFRESH: &str = "\u{1b}[H\u{1b}[J";

#[derive(Args, Debug)]
pub(super) struct TopOptions {
    /// Show at most this many webhooks: those with the most due and leased deliveries, then those that are failing.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,

    /// Seconds between two refreshes of a terminal.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3600))]
    interval_s: u16,

    /// Print the tables once and exit, as when the output is not a terminal.
    #[arg(long)]
    once: bool,

    /// Print JSON once and exit.
    #[arg(long)]
    json: bool,
}

/// What is shown.
#[derive(Serialize)]
struct Top {
    at: Timestamp,
    organizations: Vec<OrganizationRow>,
    webhooks: Vec<WebhookRow>,
}

/// The webhooks of an organization that are shown, taken together.
#[derive(Serialize)]
struct OrganizationRow {
    organization_id: OrganizationId,
    organization: String,
    due: i64,
    in_flight: i64,
    failing_webhooks: usize,
    deliveries_last_minute: i64,
    /// Whether a webhook has more due deliveries than were counted, or more in the last minute.
    #[serde(skip)]
    has_more: (bool, bool),
}

#[derive(Serialize)]
struct WebhookRow {
    #[serde(flatten)]
    webhook: BusyWebhook,
    in_flight: i64,
    last_error: Option<ErrorWord>,
    last_response_status: Option<i32>,
    #[serde(skip)]
    last: String,
}

impl TopOptions {
    pub(super) async fn run(self, db: &Database, clock: &Clock) -> CommandResult {
        if self.json {
            return print_json(&self.look(db, clock).await?);
        }
        if self.once || !std::io::stdout().is_terminal() {
            print!("{}", self.look(db, clock).await?.tables());
            return Ok(());
        }
        loop {
            let tables = self.look(db, clock).await?.tables();
            print!("{REFRESH}{tables}");
            std::io::stdout().flush()?;
            tokio::time::sleep(Duration::from_secs(self.interval_s.into())).await;
        }
    }

    async fn look(&self, db: &Database, clock: &Clock) -> Result<Top, StoreError> {
        let now = clock.now();
        let limit = usize::from(self.limit);
        let mut loads = overview::loads(db, now).await?;
        loads.truncate(limit);
        let busy: HashMap<WebhookId, Load> = loads.iter().copied().collect();
        if loads.len() < limit {
            let failing = WebhookQuery {
                organization_id: None,
                is_failing: true,
                after: None,
                limit,
            };
            let (failing, _) = overview::webhooks(db, failing).await?;
            let ids = failing.into_iter().map(|webhook| webhook.id);
            let quiet = ids.filter(|id| !busy.contains_key(id));
            loads.extend(quiet.map(|id| (id, Load::default())));
            loads.truncate(limit);
        }
        let mut webhooks = Vec::new();
        for (id, load) in loads {
            if let Some(webhook) = overview::busy(db, id, now).await? {
                let failed = last_failed(db, &webhook).await?;
                webhooks.push(WebhookRow {
                    webhook,
                    in_flight: load.leased,
                    last_error: failed.as_ref().and_then(|delivery| delivery.error),
                    last_response_status: failed.as_ref().and_then(|delivery| delivery.response_status),
                    last: failed.as_ref().map_or_else(|| NOTHING.to_owned(), last),
                });
            }
        }
        webhooks
            .sort_by_key(|row| std::cmp::Reverse((row.webhook.due, row.in_flight, row.webhook.consecutive_failures)));
        Ok(Top {
            at: now,
            organizations: organizations(&webhooks),
            webhooks,
        })
    }
}

/// A delivery of a webhook whose last attempt failed: the newest one, or one from when the failures began. While the
/// breaker is open, the newest ones have not been attempted yet.
async fn last_failed(db: &Database, webhook: &BusyWebhook) -> Result<Option<Delivery>, StoreError> {
    let begin = webhook
        .failing_since
        .map(|since| since.plus(FAILURE_MARGIN).least_uuid().into());
    for after in [None].into_iter().chain(begin.map(Some)) {
        let query = DeliveryQuery {
            webhook_id: Some(webhook.webhook_id),
            after,
            ..DeliveryQuery::default()
        };
        let found = deliveries::list_bare(db, webhook.organization_id, &query, ERROR_LOOKED_AT).await?;
        if let Some(failed) = found.items.into_iter().find(|delivery| delivery.error.is_some()) {
            return Ok(Some(failed));
        }
    }
    Ok(None)
}

/// The organizations of the webhooks, those with most due deliveries first.
fn organizations(webhooks: &[WebhookRow]) -> Vec<OrganizationRow> {
    let mut rows: Vec<OrganizationRow> = Vec::new();
    for WebhookRow { webhook, in_flight, .. } in webhooks {
        let id = webhook.organization_id;
        let position = rows
            .iter()
            .position(|row| row.organization_id == id)
            .unwrap_or_else(|| {
                rows.push(OrganizationRow {
                    organization_id: id,
                    organization: webhook.organization.clone(),
                    due: 0,
                    in_flight: 0,
                    failing_webhooks: 0,
                    deliveries_last_minute: 0,
                    has_more: (false, false),
                });
                rows.len() - 1
            });
        let row = &mut rows[position];
        row.due += webhook.due;
        row.in_flight += in_flight;
        row.failing_webhooks += usize::from(webhook.failing_since.is_some() || webhook.disabled_reason.is_some());
        row.deliveries_last_minute += webhook.deliveries_last_minute;
        row.has_more.0 |= webhook.due >= COUNTED_MAX;
        row.has_more.1 |= webhook.deliveries_last_minute >= COUNTED_MAX;
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.due, row.in_flight, row.failing_webhooks)));
    rows
}

impl Top {
    fn tables(&self) -> String {
        let mut table = Table::new(["ORGANIZATION", "DUE", "IN FLIGHT", "FAILING", "PER MINUTE", "NAME"]);
        for row in &self.organizations {
            table.row([
                row.organization_id.to_string(),
                at_least(row.due, row.has_more.0),
                row.in_flight.to_string(),
                row.failing_webhooks.to_string(),
                at_least(row.deliveries_last_minute, row.has_more.1),
                row.organization.clone(),
            ]);
        }
        let organizations = table.lines();
        let mut table = Table::new([
            "WEBHOOK",
            "DUE",
            "OLDEST DUE",
            "IN FLIGHT",
            "PER MINUTE",
            "STATE",
            "FAILURES",
            "LAST ERROR",
            "ORGANIZATION",
            "URL",
        ]);
        for row in &self.webhooks {
            let webhook = &row.webhook;
            let age = webhook
                .oldest_due_at
                .map(|due| format!("{} s", self.at.since(due).as_secs()));
            table.row([
                webhook.webhook_id.to_string(),
                counted(webhook.due, COUNTED_MAX),
                optional(age),
                row.in_flight.to_string(),
                counted(webhook.deliveries_last_minute, COUNTED_MAX),
                health(webhook).word().to_owned(),
                webhook.consecutive_failures.to_string(),
                row.last.clone(),
                webhook.organization.clone(),
                webhook.url.clone(),
            ]);
        }
        format!("{}\n\n{organizations}\n{}", self.at, table.lines())
    }
}

/// What is known of a webhook's health here.
fn health(webhook: &BusyWebhook) -> Health {
    Health {
        disabled_reason: webhook.disabled_reason,
        failing_since: webhook.failing_since,
        consecutive_failures: webhook.consecutive_failures.unsigned_abs(),
        ..Health::new(webhook.enabled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(organization_id: OrganizationId, due: i64, deliveries_last_minute: i64) -> WebhookRow {
        let webhook = BusyWebhook {
            webhook_id: WebhookId::NIL,
            organization_id,
            organization: "Lab".to_owned(),
            url: "https://example.com/".to_owned(),
            enabled: true,
            disabled_reason: None,
            failing_since: None,
            consecutive_failures: 0,
            rate_limit: None,
            due,
            oldest_due_at: None,
            deliveries_last_minute,
        };
        WebhookRow {
            webhook,
            in_flight: 1,
            last_error: None,
            last_response_status: None,
            last: NOTHING.to_owned(),
        }
    }

    #[test]
    fn what_was_not_counted_to_the_end_of_a_webhook_is_not_of_its_organization_either() {
        let webhooks = [(7, 1), (COUNTED_MAX, 2)].map(|(due, made)| webhook(OrganizationId::NIL, due, made));
        let top = Top {
            at: Timestamp::from_millis(0),
            organizations: organizations(&webhooks),
            webhooks: webhooks.into(),
        };
        let tables = top.tables();
        let row: Vec<_> = tables.lines().nth(3).unwrap_or_default().split_whitespace().collect();
        assert_eq!(row[1..], ["10007+", "2", "0", "3", "Lab"], "{tables}");
    }
}
