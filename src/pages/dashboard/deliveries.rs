//! The list of deliveries, with its filters.

use maud::{Markup, html};

use super::{
    layout::Visitor,
    parts,
    view::{Delivery, Webhook},
};
use crate::{
    domain::{delivery::DeliveryStatus, word::Word as _},
    pages::links::WebPage,
};

/// What the list shows.
#[derive(Debug)]
pub struct Listing<'a> {
    /// The query as it was sent.
    pub query: &'a [(String, String)],
    /// The webhooks that can be chosen.
    pub webhooks: &'a [Webhook],
    /// The event types that can be chosen.
    pub event_types: &'a [&'a str],
    /// The deliveries; empty if the query was refused.
    pub deliveries: &'a [Delivery],
    /// The address of the next page, if there is one.
    pub next: Option<&'a str>,
    /// Why the query was refused.
    pub faults: &'a [String],
}

impl Listing<'_> {
    /// The page.
    #[must_use]
    pub fn page(&self, visitor: &Visitor) -> WebPage {
        let is_filtered = !self.query.is_empty();
        let content = html! {
            (self.filters())
            @if !self.faults.is_empty() {
                (parts::faults(self.faults))
            } @else if self.deliveries.is_empty() {
                p.empty {
                    @if self.next.is_some() {
                        "Nothing among those that were looked at. There are older ones."
                    } @else if is_filtered {
                        "No delivery matches. " a href="/dashboard/deliveries" { "Show all" }
                    } @else {
                        "There are no deliveries yet. Each event that is published makes one for each webhook that wants it."
                    }
                }
            } @else {
                (parts::deliveries(self.deliveries, Some(self.webhooks)))
            }
            @if let Some(next) = self.next {
                p { a.button href=(next) rel="next" { "Older deliveries" } }
            }
        };
        visitor.page("Deliveries", "/dashboard/deliveries", &content)
    }

    fn asked(&self, name: &str) -> &str {
        let found = self.query.iter().find(|(asked, _)| asked == name);
        found.map_or("", |(_, value)| value)
    }

    fn filters(&self) -> Markup {
        let webhooks: Vec<_> = self
            .webhooks
            .iter()
            .map(|webhook| (webhook.id.to_string(), webhook.url.as_str()))
            .collect();
        let statuses: Vec<_> = DeliveryStatus::written().map(DeliveryStatus::as_str).collect();
        html! {
            form.filters method="get" action="/dashboard/deliveries" role="search" aria-label="Filter deliveries" {
                (self.choice("webhook_id", "Webhook", &webhooks))
                (self.choice("status", "Status", &words(&statuses)))
                (self.choice("event_type", "Event type", &words(self.event_types)))
                (self.field("event_id", "Event id", "text"))
                (self.field("created_after", "From (UTC)", "datetime-local"))
                (self.field("created_before", "Before (UTC)", "datetime-local"))
                div.submit {
                    button type="submit" { "Filter" }
                    " "
                    a href="/dashboard/deliveries" { "Show all" }
                }
            }
        }
    }

    /// One of these values, each with the text that is shown for it. What was asked for stays, even if it is none of them.
    fn choice(&self, name: &str, label: &str, options: &[(String, &str)]) -> Markup {
        let asked = self.asked(name);
        let is_other = !asked.is_empty() && options.iter().all(|(value, _)| value != asked);
        html! {
            div {
                label for=(name) { (label) }
                select id=(name) name=(name) {
                    option value="" { "any" }
                    @if is_other { option value=(asked) selected { (asked) } }
                    @for (value, text) in options { option value=(value) selected[value == asked] { (text) } }
                }
            }
        }
    }

    fn field(&self, name: &str, label: &str, kind: &str) -> Markup {
        html! {
            div {
                label for=(name) { (label) }
                input id=(name) name=(name) type=(kind) value=(self.asked(name));
            }
        }
    }
}

/// Words that are shown as they are.
fn words<'a>(words: &[&'a str]) -> Vec<(String, &'a str)> {
    words.iter().map(|word| ((*word).to_owned(), *word)).collect()
}
