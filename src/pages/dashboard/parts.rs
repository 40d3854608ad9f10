//! What pages of the dashboard have in common: states, times, forms.

use maud::{Markup, html};

use super::view::{Delivery, Webhook};
use crate::domain::{health::Health, timestamp::Timestamp};

/// The deepest indentation of JSON, so that a page is not much longer than what it shows.
const DEPTH_MAX: usize = 16;

/// The longest JSON that is indented.
const INDENTED_BYTES_MAX: usize = 16 * 1024;

/// The hidden field that proves that a form is of this session.
pub(super) fn token(form_token: &str) -> Markup {
    html! { input type="hidden" name="form" value=(form_token); }
}

/// A list of what is wrong with a request.
pub(super) fn faults(faults: &[String]) -> Markup {
    html! {
        div.notice role="alert" {
            p { "This is not right yet:" }
            ul { @for fault in faults { li { (fault) } } }
        }
    }
}

/// An instant, to the second.
pub(super) fn time(at: Timestamp) -> Markup {
    let whole = at.to_string();
    let (date, time) = whole.split_once('T').unwrap_or((whole.as_str(), ""));
    html! { time datetime=(whole) { (date) " " (time.get(..8).unwrap_or(time)) " UTC" } }
}

/// A word for a state, in its colour: good, bad, or waiting.
pub(super) fn state(word: &str) -> Markup {
    let kind = match word {
        "delivered" | "ok" => "good",
        "failed" | "failing" | "breaker open" | "disabled by service" => "bad",
        _ => "waiting",
    };
    html! { span.state data-kind=(kind) { (word) } }
}

/// The state of a webhook.
pub(super) fn webhook_state(webhook: &Webhook, health: Option<&Health>) -> Markup {
    match health {
        Some(health) => state(health.word()),
        None if webhook.enabled => state("enabled"),
        None => state("disabled"),
    }
}

/// What the last attempt led to. That it failed by its status need not be said beside the status.
pub(super) fn result(response_status: Option<u16>, error: Option<&str>) -> Markup {
    let error = error.filter(|error| *error != "response_status" || response_status.is_none());
    html! {
        @match (response_status, error) {
            (Some(status), Some(error)) => { (status) " " code { (error) } }
            (Some(status), None) => (status),
            (None, Some(error)) => code { (error) },
            (None, None) => "none yet",
        }
    }
}

/// Deliveries as a table, newest first; `webhooks` names those that they are owed to, if that is to be shown.
pub(super) fn deliveries(deliveries: &[Delivery], webhooks: Option<&[Webhook]>) -> Markup {
    html! {
        table.cards {
            thead {
                tr {
                    th scope="col" { "Event" }
                    th scope="col" { "Status" }
                    @if webhooks.is_some() { th scope="col" { "Webhook" } }
                    th scope="col" { "Attempts" }
                    th scope="col" { "Last response" }
                    th scope="col" { "Published" }
                }
            }
            tbody {
                @for delivery in deliveries {
                    tr {
                        td data-label="Event" {
                            a href={ "/dashboard/deliveries/" (delivery.id) } { (delivery.event_type) }
                        }
                        td data-label="Status" { (state(&delivery.status)) }
                        @if let Some(webhooks) = webhooks {
                            td.url data-label="Webhook" { (webhook_of(delivery, webhooks)) }
                        }
                        td data-label="Attempts" { (delivery.attempt_count) }
                        td data-label="Last response" {
                            (result(delivery.response_status, delivery.error.as_deref()))
                        }
                        td data-label="Published" { (time(delivery.created_at)) }
                    }
                }
            }
        }
    }
}

fn webhook_of(delivery: &Delivery, webhooks: &[Webhook]) -> Markup {
    let found = webhooks.iter().find(|webhook| webhook.id == delivery.webhook_id);
    html! {
        @match found {
            Some(webhook) => a href={ "/dashboard/webhooks/" (webhook.id) } { (webhook.url) },
            None => "deleted",
        }
    }
}

/// JSON for people, every token as it is. What is long is shown as it is.
pub(super) fn indented(json: &str) -> String {
    if json.len() > INDENTED_BYTES_MAX {
        return json.to_owned();
    }
    let (mut text, mut depth, mut in_string, mut is_escaped) = (String::with_capacity(json.len() * 2), 0, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth.min(DEPTH_MAX)));
    };
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        if in_string {
            in_string = letter != '"' || is_escaped;
            is_escaped = letter == '\\' && !is_escaped;
            text.push(letter);
            continue;
        }
        match letter {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                text.push(letter);
                while letters.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(letter);
            }
            ',' => {
                text.push(letter);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                in_string = letter == '"';
                text.push(letter);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_each_token_stays_as_it_is() {
        let json = r#"{"a\"{":[1.50,1e400,{}, [ ] ],"b":"x: [\\","c":{"d":null}}"#;
        let shown = "{\n  \"a\\\"{\": [\n    1.50,\n    1e400,\n    {},\n    []\n  ],\n  \"b\": \"x: [\\\\\",\n  \"c\": {\n    \
                     \"d\": null\n  }\n}";
        assert_eq!(indented(json), shown);
    }

    #[test]
    fn the_worst_json_becomes_few_times_longer() {
        let deep = format!("{}{}1{}", "[".repeat(100), "1,".repeat(8000), "]".repeat(100));
        assert!(deep.len() <= INDENTED_BYTES_MAX);
        assert!(indented(&deep).len() < 20 * deep.len());
        let long = format!("[{}1]", "1,".repeat(INDENTED_BYTES_MAX));
        assert_eq!(indented(&long), long);
    }

    #[test]
    fn a_status_that_failed_an_attempt_needs_no_word_beside_it() {
        for (status, error, shown) in [
            (Some(500), Some("response_status"), "500"),
            (Some(302), Some("redirect"), "302 <code>redirect</code>"),
            (None, Some("timeout"), "<code>timeout</code>"),
            (Some(200), None, "200"),
            (None, None, "none yet"),
        ] {
            assert_eq!(result(status, error).into_string(), shown);
        }
    }

    #[test]
    fn a_time_is_shown_to_the_second() {
        let shown = time(Timestamp::from_millis(1_776_938_400_007)).into_string();
        assert_eq!(
            shown,
            "<time datetime=\"2026-04-23T10:00:00.007+00:00\">2026-04-23 10:00:00 UTC</time>"
        );
    }
}
