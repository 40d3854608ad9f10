//! `webhooks list`.

use std::str::FromStr;

use clap::Subcommand;
use serde::Serialize;

use super::{
    CommandResult,
    table::{Table, optional, print_json},
};
use crate::{
    domain::{
        delivery::DisabledReason,
        id::{OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::{
        Database,
        overview::{self, ListedWebhook, WebhookQuery},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum WebhooksCommand {
    /// List webhooks with their health.
    List {
        /// Only of this organization.
        #[arg(long)]
        organization: Option<OrganizationId>,
        /// Only those that are failing, or that the service has disabled.
        #[arg(long)]
        failing: bool,
        /// The most webhooks to list.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Continue after this one, as the last line of a list says.
        #[arg(long, value_name = "ORGANIZATION/WEBHOOK")]
        after: Option<Position>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The webhook after which a list continues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position(OrganizationId, WebhookId);

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "must be two ids, as ORGANIZATION/WEBHOOK".to_owned();
        let (organization, webhook) = text.split_once('/').ok_or_else(wrong)?;
        let (organization, webhook) = (organization.parse(), webhook.parse());
        Ok(Self(organization.map_err(|_| wrong())?, webhook.map_err(|_| wrong())?))
    }
}

/// A webhook as JSON.
#[derive(Serialize)]
struct Row {
    organization_id: OrganizationId,
    id: WebhookId,
    url: String,
    state: &'static str,
    enabled: bool,
    disabled_reason: Option<DisabledReason>,
    failing_since: Option<Timestamp>,
    consecutive_failures: u32,
    created_at: Timestamp,
}

/// A page of webhooks as JSON.
#[derive(Serialize)]
struct Page {
    webhooks: Vec<Row>,
    after: Option<String>,
}

impl WebhooksCommand {
    pub(super) async fn run(self, db: &Database) -> CommandResult {
        let Self::List {
            organization,
            failing,
            limit,
            after,
            json,
        } = self;
        let query = WebhookQuery {
            organization_id: organization,
            is_failing: failing,
            after: after.map(|position| (position.0, position.1)),
            limit: limit.into(),
        };
        let (found, next) = overview::webhooks(db, query).await?;
        let webhooks: Vec<Row> = found.into_iter().map(row).collect();
        let after = next.map(|(organization, webhook)| format!("{organization}/{webhook}"));
        if json {
            return print_json(&Page { webhooks, after });
        }
        let mut table = Table::new(["ORGANIZATION", "WEBHOOK", "STATE", "FAILURES", "FAILING SINCE", "URL"]);
        for row in webhooks {
            table.row([
                row.organization_id.to_string(),
                row.id.to_string(),
                row.state.to_owned(),
                row.consecutive_failures.to_string(),
                optional(row.failing_since),
                row.url,
            ]);
        }
        print!("{}", table.lines());
        if let Some(after) = after {
            println!("There may be more: --after {after}");
        }
        Ok(())
    }
}

fn row(webhook: ListedWebhook) -> Row {
    let ListedWebhook {
        organization_id,
        id,
        url,
        health,
        created_at,
    } = webhook;
    Row {
        organization_id,
        id,
        url,
        state: health.word(),
        enabled: health.enabled,
        disabled_reason: health.disabled_reason,
        failing_since: health.failing_since,
        consecutive_failures: health.consecutive_failures,
        created_at,
    }
}
