//! `deliveries list`.

use clap::Subcommand;
use serde::Serialize;

use super::{
    CommandResult,
    table::{NOTHING, Table, optional, print_json},
    unknown_organization,
};
use crate::{
    domain::{
        delivery::{Delivery, DeliveryStatus},
        event_id::EventId,
        id::{DeliveryId, OrganizationId, WebhookId},
        word::Word as _,
    },
    store::{
        Database,
        deliveries::{self, DeliveryQuery},
        organizations,
        page::PageLimit,
    },
};

/// Bytes of the answers that a list shows, at most.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum DeliveriesCommand {
    /// List the deliveries of an organization, newest first.
    List {
        /// The organization's id.
        #[arg(long)]
        organization: OrganizationId,
        /// Only of this webhook.
        #[arg(long)]
        webhook: Option<WebhookId>,
        /// Only of this event.
        #[arg(long, value_parser = parse_event)]
        event: Option<EventId>,
        /// Only of events of this type.
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
        /// Only with this status: pending, delivered, failed or canceled.
        #[arg(long, value_parser = parse_status)]
        status: Option<DeliveryStatus>,
        /// The most deliveries to list.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Continue after this one, as the last line of a list says.
        #[arg(long, value_name = "DELIVERY")]
        after: Option<DeliveryId>,
        /// Print JSON, with the beginnings of answers.
        #[arg(long)]
        json: bool,
    },
}

/// A page of deliveries as JSON.
#[derive(Serialize)]
struct Page {
    deliveries: Vec<Delivery>,
    after: Option<DeliveryId>,
}

impl DeliveriesCommand {
    pub(super) async fn run(self, db: &Database) -> CommandResult {
        let Self::List {
            organization,
            webhook,
            event,
            event_type,
            status,
            limit,
            after,
            json,
        } = self;
        if !organizations::exists(db, organization).await? {
            return Err(unknown_organization(organization).into());
        }
        let query = DeliveryQuery {
            webhook_id: webhook,
            event_id: event,
            event_type,
            status,
            after,
            ..DeliveryQuery::default()
        };
        let limit = PageLimit {
            items: limit.into(),
            bytes: BYTES_MAX,
        };
        let page = deliveries::list_bare(db, organization, &query, limit).await?;
        if json {
            return print_json(&Page {
                deliveries: page.items,
                after: page.next,
            });
        }
        let mut table = Table::new([
            "CREATED",
            "DELIVERY",
            "WEBHOOK",
            "TYPE",
            "STATUS",
            "ATTEMPTS",
            "LAST",
            "NEXT ATTEMPT",
        ]);
        for delivery in page.items {
            table.row([
                delivery.created_at.to_string(),
                delivery.id.to_string(),
                delivery.webhook_id.to_string(),
                delivery.event_type.clone(),
                delivery.status.to_string(),
                delivery.attempt_count.to_string(),
                last(&delivery),
                optional(delivery.next_attempt_at),
            ]);
        }
        print!("{}", table.lines());
        if let Some(after) = page.next {
            println!("There are more: --after {after}");
        }
        Ok(())
    }
}

/// The result of the last attempt: the status of the response, or why there was none.
pub(super) fn last(delivery: &Delivery) -> String {
    match (delivery.response_status, delivery.error) {
        (Some(status), _) => status.to_string(),
        (None, Some(error)) => error.to_string(),
        (None, None) => NOTHING.to_owned(),
    }
}

fn parse_event(text: &str) -> Result<EventId, String> {
    EventId::parse(text).ok_or_else(|| "must be the id of an event, as evt_…".to_owned())
}

fn parse_status(text: &str) -> Result<DeliveryStatus, String> {
    DeliveryStatus::parse(text).ok_or_else(|| "must be pending, delivered, failed or canceled".to_owned())
}
