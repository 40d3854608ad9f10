//! Every number in the introduction of openapi.yaml, and in the guides for people, is one of the configuration, of the code,
//! or of a standard.

use std::time::Duration;

use clap::Parser;
use kallima_webhooks::{
    api::problem::POINTER_BYTES_MAX,
    config::ServeOptions,
    contract::{Contract, FAULTS_MAX},
    delivery::sender::RESPONSE_BODY_BYTES_MAX,
    domain::{
        destination::URL_LENGTH_MAX, health::FAILING_MAX, limits::Limits, retry::RetryPolicy, webhook::WEBHOOKS_MAX,
    },
    store::{deliveries::LOOKED_AT_MAX, idempotency::REMEMBERED},
};
use serde_json::Value;

use super::obligations::body_bytes_max;

/// Other numbers of the introduction, which no option changes: standards, statuses, and numbers in code samples.
const OTHERS: [&str; 9] = [
    "RFC 8288",
    "RFC 9457",
    "RFC 6901",
    "RFC 8259, section 4",
    "ISO-8601",
    "+00:00",
    "/v1",
    // The format of tokens, which their schema's pattern states.
    "`ab_` and 48 letters and digits",
    // An example of a message.
    "and 412 more",
];

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeOptions,
}

fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        _ => (seconds / 3600, "hour"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

fn thousands(number: u64) -> String {
    if number < 1000 {
        number.to_string()
    } else {
        format!("{},{:03}", number / 1000, number % 1000)
    }
}

/// The schedule in one sentence.
fn schedule(policy: &RetryPolicy) -> String {
    let delays: Vec<String> = policy.schedule.iter().copied().map(words).collect();
    let (last, others) = delays.split_last().unwrap();
    let minutes = policy.schedule.iter().sum::<Duration>().as_secs() / 60;
    format!(
        "{} attempts over about {} hours and {} minutes: at once, then after {} and {last}, each up to {} % later",
        delays.len() + 1,
        minutes / 60,
        minutes % 60,
        others.join(", "),
        policy.jitter_max_percent
    )
}

/// The passages of the introduction that name a number, with the number that is in force where nothing is configured.
fn passages(document: &Value) -> Vec<String> {
    let Arguments { serve } = Arguments::parse_from(["serve"]);
    let policy = serve.engine.retry_policy();
    let limit = |limit: Option<std::num::NonZeroU32>| thousands(limit.unwrap().get().into());
    let entries_max = &document["components"]["schemas"]["CreateWebhook"]["properties"]["events"]["maxItems"];
    vec![
        format!("within {} seconds", serve.engine.attempt_timeout().as_secs()),
        schedule(&policy),
        format!(
            "at least {}, at most {}",
            words(policy.retry_after_min),
            words(policy.retry_after_max)
        ),
        format!("failed for {} days without a success", FAILING_MAX.as_secs() / 86_400),
        format!(
            "before it is larger than {} MiB",
            serve.http.page_bytes_max / (1024 * 1024)
        ),
        format!(
            "ends after {} deliveries or events were looked at",
            thousands(LOOKED_AT_MAX)
        ),
        format!("remembered for {}", words(REMEMBERED)),
        format!("At most {FAULTS_MAX} are listed"),
        format!("more than {POINTER_BYTES_MAX} bytes"),
        format!("| webhooks of an organization | {WEBHOOKS_MAX} |"),
        format!("| filter entries of a webhook | {entries_max} |"),
        format!("| URL | {URL_LENGTH_MAX} characters |"),
        format!(
            "{} KiB for `POST /v1/events`, {} KiB elsewhere",
            body_bytes_max("publish_event") / 1024,
            body_bytes_max("create_webhook") / 1024
        ),
        format!(
            "in the plan `team` they are {} and {}",
            limit(Limits::TEAM.requests_per_minute_max),
            limit(Limits::TEAM.writes_per_month_max)
        ),
    ]
}

/// A page without its code samples, each paragraph in one line.
fn prose(page: &str) -> String {
    let text: String = page.split("```").step_by(2).collect();
    text.split('\n').fold(String::new(), |text, line| {
        let is_paragraphs = line.is_empty() || line.trim_start().starts_with(['-', '|', '#']) || text.is_empty();
        text + if is_paragraphs { "\n" } else { " " } + line.trim_start()
    })
}

/// The introduction and the guide for requests, in which tests check every number.
fn introduction(document: &Value) -> String {
    let text = document["info"]["description"].as_str().unwrap();
    prose(text) + &prose(include_str!("../../docs/requests.md"))
}

/// Whether a word is a status, or a class of them.
fn is_status(word: &str) -> bool {
    let (class, rest) = word.split_at(1);
    ("1"..="5").contains(&class) && rest.len() == 2 && (rest == "xx" || rest.parse::<u8>().is_ok())
}

#[test]
fn every_number_of_the_introduction_is_the_one_in_force() {
    let document = Contract::load().unwrap().document().clone();
    let mut text = introduction(&document);
    let guide = prose(include_str!("../../docs/receiving.md"));
    for passage in passages(&document) {
        assert!(
            text.contains(&passage) || guide.contains(&passage),
            "neither openapi.yaml, info.description, nor a guide says {passage:?}"
        );
        text = text.replace(&passage, "");
    }
    for other in OTHERS {
        text = text.replace(other, "");
    }
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    let unknown: Vec<&str> = words
        .filter(|word| word.starts_with(|letter: char| letter.is_ascii_digit()) && !is_status(word))
        .collect();
    assert!(
        unknown.is_empty(),
        "numbers of the introduction that nothing holds: {unknown:?} in {text}"
    );
}

#[test]
fn the_numbers_of_descriptions_are_those_in_force() {
    let document = Contract::load().unwrap().document().clone();
    let policy = RetryPolicy::default();
    let days = FAILING_MAX.as_secs() / 86_400;
    let body = format!("The first {RESPONSE_BODY_BYTES_MAX} bytes of the");
    for (pointer, passage) in [
        ("/components/schemas/Attempt/properties/response_body", body.clone()),
        ("/components/schemas/Delivery/properties/response_body", body.clone()),
        ("/components/schemas/EventDelivery/properties/response_body", body),
        ("/components/schemas/DisabledReason", format!("failed for {days} days")),
        (
            "/components/headers/ReceiverRetryAfter",
            format!("Less than {} counts", words(policy.retry_after_min)),
        ),
        (
            "/components/headers/ReceiverRetryAfter",
            format!("more than {}", words(policy.retry_after_max)),
        ),
        (
            "/components/parameters/Idempotency-Key",
            format!("for {}", words(REMEMBERED)),
        ),
        (
            "/components/responses/PayloadTooLarge",
            format!(
                "{} KiB for `POST /v1/events`, or {} KiB elsewhere",
                body_bytes_max("publish_event") / 1024,
                body_bytes_max("create_webhook") / 1024
            ),
        ),
        (
            "/components/schemas/Problem/properties/errors",
            format!("Past {FAULTS_MAX} faults"),
        ),
        (
            "/components/schemas/FieldError/properties/pointer",
            format!("At most {POINTER_BYTES_MAX} bytes"),
        ),
    ] {
        let description = document.pointer(pointer).unwrap()["description"].as_str().unwrap();
        assert!(
            description.contains(&passage),
            "{pointer} does not say {passage:?}: {description}"
        );
    }
}
