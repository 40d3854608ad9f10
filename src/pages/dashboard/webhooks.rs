//! The pages of webhooks.

use maud::{Markup, html};

use super::{
    layout::Visitor,
    parts,
    view::{Delivery, Rotated, Webhook},
};
use crate::{
    domain::{health::Health, pass::Action},
    pages::links::WebPage,
};

/// All webhooks, each with its health.
#[must_use]
pub fn list(visitor: &Visitor, webhooks: &[(Webhook, Option<Health>)]) -> WebPage {
    let content = html! {
        @if webhooks.is_empty() {
            p.empty {
                "No webhook is registered yet. " a href="/reference/create_webhook" { "Create one" }
                " with the API; its deliveries are shown here."
            }
        } @else {
            table.cards {
                thead {
                    tr {
                        th scope="col" { "URL" }
                        th scope="col" { "Health" }
                        th scope="col" { "Failing since" }
                        th scope="col" { "Events" }
                        th scope="col" { "Deliveries" }
                    }
                }
                tbody { @for (webhook, health) in webhooks { (row(webhook, health.as_ref())) } }
            }
        }
    };
    visitor.page("Webhooks", "/dashboard", &content)
}

fn row(webhook: &Webhook, health: Option<&Health>) -> Markup {
    html! {
        tr {
            td.url data-label="URL" {
                a href={ "/dashboard/webhooks/" (webhook.id) } { (webhook.url) }
                @if let Some(description) = &webhook.description { div.quiet { (description) } }
            }
            td data-label="Health" { (parts::webhook_state(webhook, health)) }
            td data-label="Failing since" {
                @match health.and_then(|health| health.failing_since) {
                    Some(since) => (parts::time(since)),
                    None => "–",
                }
            }
            td data-label="Events" { (filter(webhook)) }
            td.whole data-label="Deliveries" {
                a href={ "/dashboard/deliveries?webhook_id=" (webhook.id) } { "Deliveries" }
                " · "
                a href={ "/dashboard/deliveries?status=failed&webhook_id=" (webhook.id) } { "failed" }
            }
        }
    }
}

fn filter(webhook: &Webhook) -> Markup {
    html! {
        @match webhook.events.as_deref() {
            None | Some([]) => "all",
            Some(entries) => @for (index, entry) in entries.iter().enumerate() {
                @if index > 0 { ", " }
                (entry)
            },
        }
    }
}

/// One webhook, its latest deliveries, and what can be done with it.
#[must_use]
pub fn one(
    visitor: &Visitor,
    webhook: &Webhook,
    health: Option<&Health>,
    deliveries: &[Delivery],
    event_types: &[&str],
) -> WebPage {
    let content = html! {
        p.subject { code { (webhook.url) } }
        (facts(webhook, health))
        (actions(visitor, webhook, event_types))
        h2 { "Latest deliveries" }
        @if deliveries.is_empty() {
            p.empty { "Nothing has been delivered yet, or retention has deleted it. A test sends a first event." }
        } @else {
            (parts::deliveries(deliveries, None))
            p { a href={ "/dashboard/deliveries?webhook_id=" (webhook.id) } { "All deliveries of this webhook" } }
        }
    };
    visitor.page("Webhook", "", &content)
}

fn facts(webhook: &Webhook, health: Option<&Health>) -> Markup {
    html! {
        dl.facts {
            dt { "Health" }
            dd {
                (parts::webhook_state(webhook, health))
                @if let Some(health) = health { " " (said(health)) }
            }
            @if let Some(description) = &webhook.description {
                dt { "Description" } dd { (description) }
            }
            dt { "Events" } dd { (filter(webhook)) }
            dt { "Rate limit" }
            dd {
                @match webhook.rate_limit {
                    Some(limit) => { (limit) " per second" }
                    None => "none",
                }
            }
            dt { "Created" } dd { (parts::time(webhook.created_at)) }
            dt { "Changed" } dd { (parts::time(webhook.updated_at)) }
            dt { "Id" } dd { code { (webhook.id) } }
        }
    }
}

/// What the health means, in words.
fn said(health: &Health) -> Markup {
    html! {
        @if !health.enabled {
            @match health.disabled_reason {
                Some(reason) => { "The service disabled it: " (reason.said()) " Pending deliveries are held." }
                None => "It was disabled; pending deliveries are held.",
            }
        } @else if let Some(since) = health.failing_since {
            "Failures in a row: " (health.consecutive_failures) ", since " (parts::time(since)) "."
            @if health.breaker_open() {
                " Only one attempt at a time is made; the next not before " (parts::time(health.resume_at)) "."
            }
        }
    }
}

fn actions(visitor: &Visitor, webhook: &Webhook, event_types: &[&str]) -> Markup {
    if !visitor.may(Action::Change) {
        return html! {};
    }
    let path = format!("/dashboard/webhooks/{}", webhook.id);
    let types = html! {
        label for="event_type" { "Event type" }
        select id="event_type" name="event_type" {
            @for name in event_types { option selected[*name == "webhook.test"] { (name) } }
        }
    };
    html! {
        h2 { "Actions" }
        div.actions {
            @if !webhook.enabled {
                section.card {
                    h3 { "Enable" }
                    p { "Deliveries start again, those that are held first." }
                    (visitor.form(&format!("{path}/enable"), "Enable", &html! {}))
                }
            }
            section.card {
                h3 { "Test" }
                p { "The example of an event type is sent now, even if the webhook is disabled." }
                (visitor.form(&format!("{path}/test"), "Send a test", &types))
            }
            section.card {
                h3 { "Rotate the secret" }
                p { "The old secret is invalid at once: the receiver refuses deliveries until it has the new one. They are retried." }
                (visitor.form(&format!("{path}/rotate"), "Rotate the secret", &html! {}))
            }
        }
    }
}

/// The new secret of a webhook.
#[must_use]
pub fn rotated(visitor: &Visitor, rotated: &Rotated) -> WebPage {
    let Rotated { id, url, secret } = rotated;
    let content = html! {
        p.subject { code { (url) } }
        div.card {
            p { "The new secret, which signs every attempt from now on:" }
            pre { code { (secret) } }
            p { strong { "No other page shows it." } " Copy it to the receiver before you leave this one." }
        }
        p { a href={ "/dashboard/webhooks/" (id) } { "Back to the webhook" } }
    };
    visitor.page("The secret was rotated", "", &content)
}
