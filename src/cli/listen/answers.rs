//! What `listen` answers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use hyper::{
    StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING},
};
use url::Url;

use super::arrival::Arrival;
use crate::{
    cli::{kit, outbound},
    delivery::{
        resolver::Resolver,
        sender::{DeliveryHeaders, Exchange, Sender},
    },
};

/// How long the receiver behind `--forward` may take: a second less than the service waits for us.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(14);

/// What to answer.
#[derive(Args, Debug)]
pub(super) struct AnswerOptions {
    /// Answer with this status.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,

    /// Give that answer (or close) this many times, then answer 200.
    #[arg(long, value_name = "N")]
    times: Option<u64>,

    /// Wait before answering: `500ms`, `20s`, or seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_delay)]
    delay: Option<Duration>,

    /// Close the connection instead of answering.
    #[arg(long, conflicts_with_all = ["status", "forward"])]
    close: bool,

    /// Forward each delivery that verifies to this URL, and return its response.
    #[arg(long, value_name = "URL", value_parser = kit::parse_url, conflicts_with = "status")]
    forward: Option<Url>,
}

/// One answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// A status and a body.
    Status(StatusCode, Bytes),
    /// None: the connection is closed.
    Close,
}

impl Answer {
    /// Its status; `None` if there is no answer.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status, _) => Some(status.as_u16()),
            Self::Close => None,
        }
    }
}

/// The answers that were asked for.
pub(super) struct Answers {
    status: StatusCode,
    closes: bool,
    delay: Option<Duration>,
    /// How often the answer that was asked for is still given; `None` is always.
    left: Option<AtomicU64>,
    forward: Option<(Sender, Url)>,
}

impl Answers {
    pub(super) fn new(options: &AnswerOptions) -> Result<Self, Box<dyn std::error::Error>> {
        let forward = match &options.forward {
            Some(url) => Some((
                outbound::sender(Resolver::system(), FORWARD_TIMEOUT, None)?,
                url.clone(),
            )),
            None => None,
        };
        Ok(Self {
            status: StatusCode::from_u16(options.status)?,
            closes: options.close,
            delay: options.delay,
            left: options.times.map(AtomicU64::new),
            forward,
        })
    }

    /// The answer to a delivery, when it is time to give it, and a note for whoever watches.
    pub(super) async fn give(&self, arrival: &Arrival) -> (Answer, Option<String>) {
        if let Some(delay) = self.delay {
            tokio::time::sleep(delay).await;
        }
        if !arrival.is_acceptable() {
            return (Answer::Status(StatusCode::UNAUTHORIZED, Bytes::new()), None);
        }
        if !self.takes_a_turn() {
            return (Answer::Status(StatusCode::OK, Bytes::new()), None);
        }
        if self.closes {
            return (Answer::Close, None);
        }
        let Some((sender, url)) = &self.forward else {
            return (Answer::Status(self.status, Bytes::new()), None);
        };
        let exchange = sender.post(url, &forwarded(arrival), arrival.body.clone()).await;
        let Exchange::Ended(outcome) = exchange else {
            return bad_gateway("this machine cannot send");
        };
        let status = outcome
            .response_status
            .and_then(|status| StatusCode::from_u16(status).ok());
        match status {
            Some(status) => (
                Answer::Status(status, outcome.response_body.unwrap_or_default().into()),
                None,
            ),
            None => bad_gateway(&kit::described(&outcome)),
        }
    }

    /// Whether the answer that was asked for is given this time.
    fn takes_a_turn(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        self.left
            .as_ref()
            .is_none_or(|left| left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok())
    }
}

fn bad_gateway(cause: &str) -> (Answer, Option<String>) {
    let note = format!("could not be passed on: {cause}");
    (Answer::Status(StatusCode::BAD_GATEWAY, Bytes::new()), Some(note))
}

/// The headers as they are passed on: all but those that are about one connection.
fn forwarded(arrival: &Arrival) -> DeliveryHeaders {
    const OF_A_CONNECTION: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING];
    let passed_on = arrival
        .headers
        .iter()
        .filter(|(name, _)| !OF_A_CONNECTION.contains(name));
    passed_on
        .filter_map(|(name, value)| Some((name.clone(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// Reads a time: `500ms`, `20s`, or seconds. At most an hour.
pub(super) fn parse_delay(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "must be a time such as 500ms, 20s or 1.5, of an hour at most";
    let (number, unit_ms) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1000.0),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let millis = number.parse::<f64>().ok().filter(|_| is_number).ok_or(WRONG)? * unit_ms;
    let delay = Duration::try_from_secs_f64(millis / 1000.0).map_err(|_| WRONG)?;
    if delay <= Duration::from_hours(1) {
        Ok(delay)
    } else {
        Err(WRONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_has_a_unit_or_is_in_seconds() {
        for (text, millis) in [
            ("500ms", 500),
            ("20s", 20_000),
            ("1.5", 1500),
            ("0", 0),
            ("3600s", 3_600_000),
        ] {
            assert_eq!(parse_delay(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "ms", "-1", "3601", "1m", "NaN", "inf", "1e3", "1.2.3"] {
            assert!(parse_delay(text).is_err(), "{text}");
        }
    }
}
