//! The page of a delivery: what it sends, and every attempt with its request and response.

use maud::{Markup, html};

use super::{
    layout::Visitor,
    parts,
    view::{Attempt, Delivery, Payload, Webhook},
};
use crate::{domain::pass::Action, pages::links::WebPage};

/// A delivery with everything about it.
#[derive(Debug)]
pub struct Whole {
    /// The delivery.
    pub delivery: Delivery,
    /// What it sends.
    pub payload: Payload,
    /// The webhook it is owed to; `None` if that was deleted.
    pub webhook: Option<Webhook>,
    /// A page of its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// The address of the next page of attempts, if there is one.
    pub next: Option<String>,
}

impl Whole {
    /// The page.
    #[must_use]
    pub fn page(&self, visitor: &Visitor) -> WebPage {
        let content = html! {
            (self.facts())
            @if visitor.may(Action::Retry) { (self.retry(visitor)) }
            h2 { "Attempts" }
            @if self.attempts.is_empty() {
                p.empty { "No attempt has ended yet. Reload this page in a while." }
            }
            @for attempt in &self.attempts { (self.attempt(attempt)) }
            @if let Some(next) = &self.next {
                p { a.button href=(next) rel="next" { "Later attempts" } }
            }
            h2 id="payload" { "Payload" }
            p { "The body of every attempt; spaces and line breaks were added here." }
            pre { code { (parts::indented(self.payload.payload.get())) } }
        };
        visitor.page("Delivery", "", &content)
    }

    fn facts(&self) -> Markup {
        let delivery = &self.delivery;
        html! {
            dl.facts {
                dt { "Status" }
                dd {
                    (parts::state(&delivery.status))
                    @if let Some(at) = delivery.next_attempt_at { " next attempt " (parts::time(at)) }
                    @if let Some(at) = delivery.delivered_at { " " (parts::time(at)) }
                }
                dt { "Event type" } dd { code { (delivery.event_type) } }
                dt { "Event" }
                dd { a href={ "/dashboard/deliveries?event_id=" (delivery.event_id) } { code { (delivery.event_id) } } }
                dt { "Webhook" }
                dd {
                    @match &self.webhook {
                        Some(webhook) => a href={ "/dashboard/webhooks/" (webhook.id) } { (webhook.url) },
                        None => { "deleted " code { (delivery.webhook_id) } }
                    }
                }
                dt { "Published" } dd { (parts::time(delivery.created_at)) }
                dt { "Id" } dd { code { (delivery.id) } }
            }
        }
    }

    fn retry(&self, visitor: &Visitor) -> Markup {
        if self.webhook.is_none() {
            return html! {};
        }
        let path = format!("/dashboard/deliveries/{}/retry", self.delivery.id);
        html! {
            div.actions {
                section.card {
                    h2 { "Retry" }
                    p { "One attempt is made now. The receiver gets the same event again, under the same id." }
                    (visitor.form(&path, "Retry now", &html! {}))
                }
            }
        }
    }

    fn attempt(&self, attempt: &Attempt) -> Markup {
        let is_delivered = attempt.error.is_none();
        html! {
            section.card.attempt {
                h3 {
                    "Attempt " (attempt.number) " "
                    (parts::state(if is_delivered { "delivered" } else { "failed" }))
                }
                p {
                    (parts::time(attempt.started_at)) " · " (attempt.trigger) " · " (attempt.duration_ms) " ms · "
                    (parts::result(attempt.response_status, attempt.error.as_deref()))
                }
                details {
                    summary { "Request" }
                    pre { code { (self.request(attempt)) } }
                    p.quiet {
                        "The address is the webhook's of today. The headers Kallima-Signature and webhook-signature are made for \
                         each attempt and not kept. The body is the " a href="#payload" { "payload" } "."
                    }
                }
                h4 { "Response" }
                @match (attempt.response_status, attempt.response_body.as_deref()) {
                    (None, _) => p.quiet { "There was none." },
                    (Some(_), None | Some("")) => p.quiet { "It had no body." },
                    (Some(_), Some(body)) => { pre { code { (body) } } }
                }
            }
        }
    }

    /// The head of the request, as far as it is known.
    fn request(&self, attempt: &Attempt) -> String {
        let delivery = &self.delivery;
        let url = self
            .webhook
            .as_ref()
            .map_or("(deleted)", |webhook| webhook.url.as_str());
        format!(
            "POST {url}\nContent-Type: application/json\nwebhook-id: {}\nwebhook-timestamp: {}\nKallima-Event: {}\n\
             Kallima-Delivery: {}\nKallima-Attempt: {}",
            delivery.event_id,
            attempt.started_at.as_unix_seconds(),
            delivery.event_type,
            delivery.id,
            attempt.number,
        )
    }
}
