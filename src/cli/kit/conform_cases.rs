//! What `conform` sends: what a receiver must accept, and what it must refuse.

use bytes::Bytes;
use hyper::header::HeaderName;
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use serde_json::{Value, json};

use super::{
    check::Group,
    example::{self, Example},
};
use crate::{
    clock::Clock,
    contract::Contract,
    delivery::{HeaderSpelling, sender::DeliveryHeaders},
    domain::{secret::Secret, timestamp::Timestamp, verification::Scheme},
};

/// The largest event that can be published: the body limit of `POST /v1/events`.
const EVENT_BYTES_MAX: usize = 256 * 1024;

/// How far off a timestamp is that must be refused, in seconds: a minute beyond the tolerance.
const OFF_S: i64 = 360;

/// A request to send.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) headers: DeliveryHeaders,
    pub(super) body: Bytes,
    pub(super) spelling: HeaderSpelling,
}

/// What is sent for one check: every request of it must be accepted, or refused.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) group: Group,
    pub(super) name: String,
    pub(super) parcels: Vec<Parcel>,
}

/// Makes the requests.
pub(super) struct Cases<'a> {
    pub(super) secret: &'a Secret,
    pub(super) event_type: &'a str,
    pub(super) contract: &'a Contract,
    pub(super) clock: &'a Clock,
}

/// Any failure to make a request.
type Made<T> = Result<T, Box<dyn std::error::Error>>;

impl Cases<'_> {
    /// A delivery as the service sends it.
    pub(super) fn delivered(&self) -> Made<Case> {
        Ok(accepted(
            "a delivery, signed by both schemes",
            vec![self.parcel(&self.example()?, 1)],
        ))
    }

    /// A delivery that is signed by one scheme alone: it shows whether the receiver checks that one.
    pub(super) fn signed_by(&self, scheme: Scheme) -> Made<Case> {
        let mut parcel = self.parcel(&self.example()?, 1);
        keep_only(&mut parcel.headers, scheme);
        Ok(accepted(format!("signed by {scheme} alone"), vec![parcel]))
    }

    /// What a receiver must accept.
    pub(super) fn accepted(&self) -> Made<Vec<Case>> {
        let title_case = Parcel {
            spelling: HeaderSpelling::TitleCase,
            ..self.parcel(&self.example()?, 1)
        };
        let twice = self.example()?;
        let now = self.clock.now();
        let earlier = Timestamp::from_millis(now.as_millis() - 60_000);
        let in_order = [self.event(&self.data()?, earlier)?, self.event(&self.data()?, now)?];
        Ok(vec![
            accepted("header names in lower case", vec![self.parcel(&self.example()?, 1)]),
            accepted("header names in Mixed-Case", vec![title_case]),
            accepted(
                "members of data that it does not know",
                vec![self.with_member("a_member_added_later", json!({ "nested": [1, null, "x"] }))?],
            ),
            accepted(
                "text that is not ASCII",
                vec![self.with_member("note", json!("café ☕ 抗体 \u{1f9ec} \u{2028}"))?],
            ),
            accepted("the test event (webhook.test)", vec![self.test_event()?]),
            accepted(
                "a duplicate (the same event again, as attempt 2)",
                vec![self.parcel(&twice, 1), self.parcel(&twice, 2)],
            ),
            accepted(
                "two events out of order",
                in_order.iter().rev().map(|event| self.parcel(event, 1)).collect(),
            ),
            accepted("the largest event (256 KiB)", vec![self.largest()?]),
        ])
    }

    /// What a receiver must refuse that checks `scheme`. Each is an event that it does not know yet.
    pub(super) fn refused(&self, scheme: Scheme) -> Made<Vec<Case>> {
        let mut cases = Vec::new();
        let mut add = |what: &str, change: &dyn Fn(&mut Parcel)| -> Made<()> {
            let mut parcel = self.parcel(&self.example()?, 1);
            change(&mut parcel);
            keep_only(&mut parcel.headers, scheme);
            cases.push(Case {
                group: Group::Refuses,
                name: format!("{what} ({scheme})"),
                parcels: vec![parcel],
            });
            Ok(())
        };
        add("signed with another secret", &|parcel| {
            let other = Secret::generate(&mut UnwrapErr(SysRng));
            *parcel = self.signed_at(&other, 0).unwrap_or_else(|_| parcel.clone());
        })?;
        add("a body with one letter changed", &|parcel| {
            parcel.body = replaced(&parcel.body, "event", "evenT");
        })?;
        add("a body that was parsed and written again", &|parcel| {
            parcel.body = replaced(&parcel.body, "\":", "\": ");
        })?;
        add("a body whose end is cut off", &|parcel| {
            parcel.body.truncate(parcel.body.len() / 2);
        })?;
        add("an empty body", &|parcel| parcel.body = Bytes::new())?;
        add("a timestamp six minutes old", &|parcel| {
            *parcel = self.signed_at(self.secret, -OFF_S).unwrap_or_else(|_| parcel.clone());
        })?;
        add("a timestamp six minutes ahead", &|parcel| {
            *parcel = self.signed_at(self.secret, OFF_S).unwrap_or_else(|_| parcel.clone());
        })?;
        add("an old signature with a new timestamp", &|parcel| {
            let old = self.signed_at(self.secret, -OFF_S).unwrap_or_else(|_| parcel.clone());
            *parcel = old;
            rewrite_time(&mut parcel.headers, &self.clock.now().as_unix_seconds().to_string());
        })?;
        add("a timestamp that is no number", &|parcel| {
            rewrite_time(&mut parcel.headers, "yesterday");
        })?;
        add("a signature of another version", &|parcel| {
            rewrite(&mut parcel.headers, SIGNATURES, |value| value.replace("v1", "v0"));
        })?;
        add("words instead of a signature", &|parcel| {
            rewrite(&mut parcel.headers, SIGNATURES, |_| "not a signature".to_owned());
        })?;
        add("an empty signature", &|parcel| {
            rewrite(&mut parcel.headers, SIGNATURES, |_| String::new());
        })?;
        add("no signature", &|parcel| {
            parcel.headers.retain(|(name, _)| !SIGNATURES.contains(&name.as_str()));
        })?;
        if scheme == Scheme::StandardWebhooks {
            add("another event's id", &|parcel| {
                let other = self.clock.new_event_id().to_string();
                rewrite(&mut parcel.headers, ["webhook-id"; 2], |_| other.clone());
            })?;
            add("no timestamp", &|parcel| {
                parcel.headers.retain(|(name, _)| name != "webhook-timestamp");
            })?;
        }
        Ok(cases)
    }

    /// What every receiver must refuse, whatever it checks.
    pub(super) fn refused_always(&self) -> Made<Vec<Case>> {
        let mut parcel = self.parcel(&self.example()?, 1);
        parcel.headers.clear();
        let bare = Parcel {
            body: Bytes::new(),
            ..parcel.clone()
        };
        let case = |name: &str, parcel| Case {
            group: Group::Refuses,
            name: name.to_owned(),
            parcels: vec![parcel],
        };
        Ok(vec![
            case("an event without any of our headers", parcel),
            case("an empty request", bare),
        ])
    }

    fn data(&self) -> Result<Value, String> {
        example::data(self.contract, self.event_type)
    }

    fn event(&self, data: &Value, created_at: Timestamp) -> Made<Example> {
        Ok(Example::new(self.event_type, data, created_at, self.clock)?)
    }

    fn example(&self) -> Made<Example> {
        self.event(&self.data()?, self.clock.now())
    }

    fn parcel(&self, example: &Example, attempt: u32) -> Parcel {
        let now_s = self.clock.now().as_unix_seconds();
        Parcel {
            headers: example.headers(self.secret, &example.body, attempt, now_s),
            body: example.body.clone(),
            spelling: HeaderSpelling::LowerCase,
        }
    }

    fn signed_at(&self, secret: &Secret, offset_s: i64) -> Made<Parcel> {
        let example = self.example()?;
        let at_s = self.clock.now().as_unix_seconds() + offset_s;
        Ok(Parcel {
            headers: example.headers(secret, &example.body, 1, at_s),
            body: example.body,
            spelling: HeaderSpelling::LowerCase,
        })
    }

    fn with_member(&self, name: &str, value: Value) -> Made<Parcel> {
        let mut data = self.data()?;
        data[name] = value;
        Ok(self.parcel(&self.event(&data, self.clock.now())?, 1))
    }

    fn test_event(&self) -> Made<Parcel> {
        const TEST: &str = "webhook.test";
        let data = example::data(self.contract, TEST)?;
        Ok(self.parcel(&Example::new(TEST, &data, self.clock.now(), self.clock)?, 1))
    }

    /// An event whose `type` and `data` are as long as `POST /v1/events` takes them.
    fn largest(&self) -> Made<Parcel> {
        let mut data = self.data()?;
        data["padding"] = json!("");
        let length = json!({ "type": self.event_type, "data": &data }).to_string().len();
        data["padding"] = json!("x".repeat(EVENT_BYTES_MAX.saturating_sub(length)));
        Ok(self.parcel(&self.event(&data, self.clock.now())?, 1))
    }
}

/// The headers that hold a signature.
const SIGNATURES: [&str; 2] = ["kallima-signature", "webhook-signature"];

fn accepted(name: impl Into<String>, parcels: Vec<Parcel>) -> Case {
    Case {
        group: Group::Accepts,
        name: name.into(),
        parcels,
    }
}

/// Takes the other scheme's signature away.
fn keep_only(headers: &mut DeliveryHeaders, scheme: Scheme) {
    headers.retain(|(name, _)| match scheme {
        Scheme::Kallima => !["webhook-signature", "webhook-timestamp"].contains(&name.as_str()),
        Scheme::StandardWebhooks => name != "kallima-signature",
    });
}

fn rewrite(headers: &mut DeliveryHeaders, names: [&str; 2], change: impl Fn(&str) -> String) {
    let is_meant = |name: &HeaderName| names.contains(&name.as_str());
    for (_, value) in headers.iter_mut().filter(|(name, _)| is_meant(name)) {
        *value = change(value);
    }
}

/// Writes another time where both schemes have it, and leaves the signatures as they are.
fn rewrite_time(headers: &mut DeliveryHeaders, time: &str) {
    rewrite(headers, ["webhook-timestamp"; 2], |_| time.to_owned());
    rewrite(headers, ["kallima-signature"; 2], |value| {
        let digest = value.split_once(',').map(|(_, digest)| digest).unwrap_or_default();
        format!("t={time},{digest}")
    });
}

fn replaced(body: &Bytes, from: &str, to: &str) -> Bytes {
    String::from_utf8_lossy(body).replacen(from, to, 1).into()
}
