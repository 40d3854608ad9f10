//! What arrived at `listen`, and how it is shown.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::{Value, json};

use crate::{
    cli::{
        color,
        kit::finding::{self, Finding},
    },
    domain::{
        secret::Secret,
        timestamp::Timestamp,
        verification::{SignedHeaders, TOLERANCE_S},
    },
};

/// How much of a body is shown, in characters.
const SHOWN_MAX: usize = 4000;

/// How many events are remembered, to recognize duplicates.
const EVENTS_MAX: usize = 10_000;

/// A request, and what its signatures say.
pub(super) struct Arrival {
    at: Timestamp,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// `None` if no secret was given to check by.
    findings: Option<[Finding; 2]>,
    /// Whether its event was accepted before.
    pub(super) is_duplicate: bool,
}

impl Arrival {
    pub(super) fn new(at: Timestamp, headers: HeaderMap, body: Bytes, secret: Option<&Secret>) -> Self {
        let signed = SignedHeaders::read(|name| headers.get(name)?.to_str().ok().map(str::to_owned));
        let check = |secret| finding::findings(secret, &signed, &body, at.as_unix_seconds(), TOLERANCE_S);
        Self {
            at,
            findings: secret.map(check),
            headers,
            body,
            is_duplicate: false,
        }
    }

    /// Whether it is from the service, as far as that is checked.
    pub(super) fn is_acceptable(&self) -> bool {
        self.findings
            .as_ref()
            .is_none_or(|findings| finding::is_genuine(findings))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The number of the attempt; 1 where none is named.
    fn attempt(&self) -> u32 {
        self.header("kallima-attempt")
            .and_then(|number| number.parse().ok())
            .unwrap_or(1)
    }

    /// Prints it with the answer that it gets; `None` is none.
    pub(super) fn print(&self, as_json: bool, answer: Option<u16>, note: Option<&str>) {
        if as_json {
            println!("{}", self.as_json(answer, note));
        } else {
            let lines = self.lines(answer, note);
            anstream::println!("\n{}", lines.join("\n"));
        }
    }

    fn lines(&self, answer: Option<u16>, note: Option<&str>) -> Vec<String> {
        let named = |name: &str| self.header(name).unwrap_or("-").to_owned();
        let mut head = format!("{}  {}  attempt {}", self.at, named("kallima-event"), self.attempt());
        if self.attempt() > 1 {
            head.push_str("  ");
            head.push_str(&color::notable("RETRY").to_string());
        }
        if self.is_duplicate {
            head.push_str("  ");
            head.push_str(&color::notable("DUPLICATE").to_string());
        }
        let mut lines = vec![head];
        lines.push(format!(
            "  event {}  delivery {}",
            named("webhook-id"),
            named("kallima-delivery")
        ));
        let findings = self.findings.iter().flatten().flat_map(Finding::lines);
        lines.extend(findings.map(|line| format!("  {line}")));
        lines.extend(shown(&self.body).lines().map(|line| format!("  {line}")));
        let answer = match answer {
            Some(status @ 200..=299) => color::good(status).to_string(),
            Some(status) => color::bad(status).to_string(),
            None => color::bad("closed without an answer").to_string(),
        };
        let note = note.map(|note| format!("  {note}")).unwrap_or_default();
        lines.push(format!("  → {answer}{note}"));
        lines
    }

    fn as_json(&self, answer: Option<u16>, note: Option<&str>) -> Value {
        let payload: Value = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| String::from_utf8_lossy(&self.body).into_owned().into());
        let findings = self.findings.as_ref();
        json!({
            "received_at": self.at,
            "event_type": self.header("kallima-event"),
            "event_id": self.header("webhook-id"),
            "delivery_id": self.header("kallima-delivery"),
            "attempt": self.attempt(),
            "duplicate": self.is_duplicate,
            "verified": findings.map(|findings| finding::is_genuine(findings)),
            "signatures": findings.map(|findings| findings.iter().map(Finding::as_json).collect::<Value>()),
            "answer": answer,
            "note": note,
            "payload": payload,
        })
    }
}

/// A body for people: JSON is laid out, and what could control a terminal is left out.
fn shown(body: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let text = value.and_then(|value| serde_json::to_string_pretty(&value).ok());
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let harmless = |letter: char| {
        if letter.is_control() && letter != '\n' {
            '\u{fffd}'
        } else {
            letter
        }
    };
    let shown: String = text.chars().take(SHOWN_MAX).map(harmless).collect();
    let more = text.chars().count().saturating_sub(SHOWN_MAX);
    if more > 0 {
        format!("{shown}\n… and {more} characters more")
    } else {
        shown
    }
}

/// The events that were accepted, the oldest forgotten first.
#[derive(Default)]
pub(super) struct History(Mutex<(HashSet<String>, VecDeque<String>)>);

impl History {
    /// Whether its event was accepted before.
    pub(super) fn is_known(&self, arrival: &Arrival) -> bool {
        let (known, _) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrival.header("webhook-id").is_some_and(|id| known.contains(id))
    }

    /// Its event was accepted.
    pub(super) fn remember(&self, arrival: &Arrival) {
        let Some(id) = arrival.header("webhook-id") else { return };
        let (known, order) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.insert(id.to_owned()) {
            order.push_back(id.to_owned());
        }
        if order.len() > EVENTS_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_cannot_control_the_terminal_nor_fill_it() {
        assert_eq!(shown(b"{\"a\":1}"), "{\n  \"a\": 1\n}");
        assert_eq!(shown(b"\x1b[2Jx\r\n"), "\u{fffd}[2Jx\u{fffd}\n");
        assert!(!shown(b"{\"a\":\"\\u001b[2J\"}").contains('\u{1b}'));
        let long = shown("x".repeat(SHOWN_MAX + 7).as_bytes());
        assert!(long.ends_with("… and 7 characters more"));
    }

    #[test]
    fn the_oldest_event_is_forgotten_first() {
        let arrival = |number: usize| {
            let mut headers = HeaderMap::new();
            headers.insert("webhook-id", number.to_string().parse().unwrap());
            Arrival::new(Timestamp::from_millis(0), headers, Bytes::new(), None)
        };
        let history = History::default();
        (0..=EVENTS_MAX).for_each(|number| history.remember(&arrival(number)));
        assert!(!history.is_known(&arrival(0)));
        assert!(history.is_known(&arrival(1)) && history.is_known(&arrival(EVENTS_MAX)));
        assert!(!history.is_known(&Arrival::new(
            Timestamp::from_millis(0),
            HeaderMap::new(),
            Bytes::new(),
            None
        )));
    }
}
