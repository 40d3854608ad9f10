//! `trigger`: sends a signed example of an event type to a URL, as a delivery would arrive.

use std::time::Instant;

use clap::Args;
use serde_json::Value;

use super::{
    ReceiverOptions, SecretOption, described,
    example::{self, Example},
    outcome,
};
use crate::{
    cli::CommandResult,
    clock::Clock,
    contract::{Contract, Faults},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct TriggerOptions {
    /// The event's type, one of the catalog.
    #[arg(default_value = "webhook.test")]
    event_type: String,

    #[command(flatten)]
    receiver: ReceiverOptions,

    #[command(flatten)]
    secret: SecretOption,

    /// The event's `data`, a JSON object (default: the document's example).
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
}

/// Sends it, and prints what came back. Fails where the answer is not 2xx.
pub(in crate::cli) async fn run(options: TriggerOptions, clock: &Clock) -> CommandResult {
    let contract = Contract::load()?;
    let mut data = example::data(&contract, &options.event_type)?;
    if let Some(text) = &options.data {
        data = serde_json::from_str(text).map_err(|cause| format!("--data: {cause}"))?;
        check(&contract, &options.event_type, &data)?;
    }
    let example = Example::new(&options.event_type, &data, clock.now(), clock)?;
    let headers = example.headers(&options.secret.secret, &example.body, 1, clock.now().as_unix_seconds());
    let began = Instant::now();
    let sender = options.receiver.sender()?;
    let exchange = sender.post(&options.receiver.url, &headers, example.body.clone()).await;
    let outcome = outcome(exchange)?;
    let answer = described(&outcome);
    println!(
        "{}  {}  →  {answer} in {} ms",
        example.event_type,
        example.id,
        began.elapsed().as_millis()
    );
    if let Some(body) = outcome.response_body.as_deref().filter(|body| !body.is_empty()) {
        println!("{body}");
    }
    match outcome.error {
        None => Ok(()),
        Some(_) => Err(format!("the receiver did not accept it: {answer}").into()),
    }
}

fn check(contract: &Contract, event_type: &str, data: &Value) -> Result<(), String> {
    let mut faults = Faults::default();
    contract.check_data(event_type, data, &mut faults);
    match faults.listed().first() {
        None => Ok(()),
        Some(fault) => Err(format!("--data: {} {}", fault.pointer, fault.detail)),
    }
}
