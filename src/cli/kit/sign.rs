//! `sign`: the headers of a delivery for a body, to try a receiver with any HTTP client.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{SecretOption, input};
use crate::{
    cli::CommandResult,
    clock::Clock,
    domain::{event_id::EventId, signature},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct SignOptions {
    #[command(flatten)]
    secret: SecretOption,

    /// The body; `-` is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    body: PathBuf,

    /// The event's id, for `webhook-id` (default: the body's `id`, or a new one).
    #[arg(long)]
    id: Option<String>,

    /// The time of the signature in unix seconds (default: now).
    #[arg(long, value_name = "SECONDS")]
    at: Option<i64>,
}

/// Prints four header lines, as `curl -H @FILE` takes them.
pub(in crate::cli) fn run(options: SignOptions, clock: &Clock) -> CommandResult {
    let body = input::read(&options.body)?;
    let id = options.id.unwrap_or_else(|| id_of(&body, clock));
    let at = options.at.unwrap_or_else(|| clock.now().as_unix_seconds());
    let signed = signature::sign(&options.secret.secret, &id, at, &body);
    println!("Kallima-Signature: {}", signed.kallima_signature);
    println!("webhook-id: {id}");
    println!("webhook-timestamp: {at}");
    println!("webhook-signature: {}", signed.webhook_signature);
    Ok(())
}

/// The id of the event that the body is, or a new one if it is none.
fn id_of(body: &[u8], clock: &Clock) -> String {
    let event: Value = serde_json::from_slice(body).unwrap_or_default();
    let id = event.get("id").and_then(Value::as_str).and_then(EventId::parse);
    id.unwrap_or_else(|| clock.new_event_id()).to_string()
}
