//! The kit for authors of receivers: `sign`, `verify`, `trigger`, `conform`. None of them needs a server or a database.

mod check;
pub(super) mod conform;
mod conform_cases;
mod example;
pub(super) mod finding;
mod input;
mod junit;
pub(super) mod sign;
pub(super) mod trigger;
pub(super) mod verify;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use url::Url;

use super::outbound;
use crate::{
    delivery::{
        resolver::Resolver,
        sender::{Exchange, Sender},
    },
    domain::{outcome::Outcome, secret::Secret},
};

/// How long a receiver may take to answer: as long as the service waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The secret that the kit signs with, or verifies by.
#[derive(Args, Debug)]
pub(super) struct SecretOption {
    /// The webhook's signing secret (`whsec_…`).
    #[arg(long, env = "KALLIMA_WEBHOOK_SECRET", hide_env_values = true, value_parser = parse_secret)]
    secret: Secret,
}

/// Reads a signing secret.
pub(super) fn parse_secret(text: &str) -> Result<Secret, &'static str> {
    Secret::parse(text).ok_or("must be whsec_ and 40 letters and digits")
}

/// The receiver that the kit sends to.
#[derive(Args, Debug)]
pub(super) struct ReceiverOptions {
    /// The receiver's URL (http or https, on any address).
    #[arg(long, value_parser = parse_url)]
    url: Url,

    /// PEM file of certificate authorities to trust, besides the public ones.
    #[arg(long, env = "KALLIMA_TLS_CA_FILE", value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,
}

impl ReceiverOptions {
    fn sender(&self) -> Result<Sender, Box<dyn std::error::Error>> {
        outbound::sender(Resolver::system(), ANSWER_TIMEOUT, self.tls_ca_file.as_deref())
    }
}

/// Reads the URL of a receiver.
pub(super) fn parse_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    url.ok_or("must be an http or https URL, such as http://127.0.0.1:3000/webhooks")
}

/// What a receiver answered. A machine that cannot send is an error, whatever the receiver would have said.
fn outcome(exchange: Exchange) -> Result<Outcome, String> {
    match exchange {
        Exchange::Ended(outcome) => Ok(outcome),
        Exchange::Local(cause) => Err(format!("cannot send from this machine: {cause}")),
    }
}

/// An answer in words: its status, or why there is none.
pub(super) fn described(outcome: &Outcome) -> String {
    match (outcome.response_status, outcome.error) {
        (Some(status), _) => status.to_string(),
        (None, Some(word)) => format!("no answer ({word})"),
        (None, None) => "no answer".to_owned(),
    }
}
