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

/// Any failure to make a request.
type Made<T> = Result<T, Box<dyn std::error::Error>>;

/// What is sent for one check: every request of it must be accepted, or refused.
pub(super) struct Case<'a> {
    pub(super) group: Group,
    pub(super) name: String,
    make: Box<dyn Fn() -> Made<Vec<Parcel>> + 'a>,
}

impl<'a> Case<'a> {
    fn new(group: Group, name: impl Into<String>, make: impl Fn() -> Made<Vec<Parcel>> + 'a) -> Self {
        Self {
            group,
            name: name.into(),
            make: Box::new(make),
        }
    }

    /// The requests, made now: a receiver may be slow, and a timestamp that was too far ahead when the examination began
    /// may be right when it is sent.
    pub(super) fn parcels(&self) -> Made<Vec<Parcel>> {
        (self.make)()
    }
}

/// Makes the requests.
pub(super) struct Cases<'a> {
    pub(super) secret: &'a Secret,
    pub(super) event_type: &'a str,
    /// The `data` of the events.
    pub(super) data: Value,
    pub(super) contract: &'a Contract,
    pub(super) clock: &'a Clock,
}

impl Cases<'_> {
    /// The length of the longest name of a case.
    pub(super) fn name_width(&self) -> usize {
        let of_schemes = Scheme::ALL.into_iter().flat_map(|scheme| {
            let refused = self.refused(scheme).into_iter();
            refused.chain([self.signed_by(scheme)])
        });
        let of_all = [self.accepted(), self.refused_always()].into_iter().flatten();
        let cases = of_schemes.chain(of_all).chain([self.delivered()]);
        cases.map(|case| case.name.chars().count()).max().unwrap_or_default()
    }

    /// A delivery as the service sends it.
    pub(super) fn delivered(&self) -> Case<'_> {
        accepted("a delivery, signed by both schemes", || self.delivery())
    }

    /// A delivery that is signed by one scheme alone: it shows whether the receiver checks that one.
    pub(super) fn signed_by(&self, scheme: Scheme) -> Case<'_> {
        accepted(format!("signed by {scheme} alone"), move || {
            let mut parcel = self.delivery()?;
            keep_only(&mut parcel.headers, scheme);
            Ok(parcel)
        })
    }

    /// What a receiver must accept.
    pub(super) fn accepted(&self) -> Vec<Case<'_>> {
        vec![
            accepted("header names in lower case", || self.delivery()),
            accepted("header names in Mixed-Case", || {
                self.changed(|parcel| parcel.spelling = HeaderSpelling::TitleCase)
            }),
            accepted("members of data that it does not know", || {
                self.with_member("a_member_added_later", json!({ "nested": [1, null, "x"] }))
            }),
            accepted("text that is not ASCII", || {
                self.with_member("note", json!("café ☕ 抗体 \u{1f9ec} \u{2028}"))
            }),
            accepted("the test event (webhook.test)", || self.test_event()),
            Case::new(
                Group::Accepts,
                "a duplicate (the same event again, as attempt 2)",
                || {
                    let twice = self.example()?;
                    Ok(vec![self.parcel(&twice, 1), self.parcel(&twice, 2)])
                },
            ),
            Case::new(Group::Accepts, "two events out of order", || {
                let now = self.clock.now();
                let earlier = self.event(&self.data, Timestamp::from_millis(now.as_millis() - 60_000))?;
                let later = self.event(&self.data, now)?;
                Ok(vec![self.parcel(&later, 1), self.parcel(&earlier, 1)])
            }),
            accepted("the largest event (256 KiB)", || self.largest()),
        ]
    }

    /// What a receiver must refuse that checks `scheme`. Each is an event that it does not know yet.
    pub(super) fn refused(&self, scheme: Scheme) -> Vec<Case<'_>> {
        let mut cases = vec![
            refused(scheme, "signed with another secret", || {
                self.signed_at(&Secret::generate(&mut UnwrapErr(SysRng)), 0)
            }),
            refused(scheme, "a body with one letter changed", || {
                self.changed(|parcel| parcel.body = replaced(&parcel.body, "event", "evenT"))
            }),
            refused(scheme, "a body that was parsed and written again", || {
                self.changed(|parcel| parcel.body = replaced(&parcel.body, "\":", "\": "))
            }),
            refused(scheme, "a body whose end is cut off", || {
                self.changed(|parcel| parcel.body.truncate(parcel.body.len() / 2))
            }),
            refused(scheme, "an empty body", || {
                self.changed(|parcel| parcel.body = Bytes::new())
            }),
            refused(scheme, "a timestamp six minutes old", || {
                self.signed_at(self.secret, -OFF_S)
            }),
            refused(scheme, "a timestamp six minutes ahead", || {
                self.signed_at(self.secret, OFF_S)
            }),
            refused(scheme, "an old signature with a new timestamp", || {
                let mut parcel = self.signed_at(self.secret, -OFF_S)?;
                rewrite_time(&mut parcel.headers, &self.clock.now().as_unix_seconds().to_string());
                Ok(parcel)
            }),
            refused(scheme, "a timestamp that is no number", || {
                self.changed(|parcel| rewrite_time(&mut parcel.headers, "yesterday"))
            }),
            refused(scheme, "a signature of another version", || {
                self.with_signature(|signature| signature.replace("v1", "v0"))
            }),
            refused(scheme, "words instead of a signature", || {
                self.with_signature(|_| "not a signature".to_owned())
            }),
            refused(scheme, "an empty signature", || self.with_signature(|_| String::new())),
            refused(scheme, "no signature", || self.without(&SIGNATURES)),
        ];
        if scheme == Scheme::StandardWebhooks {
            cases.push(refused(scheme, "another event's id", || {
                let other = self.clock.new_event_id().to_string();
                self.changed(|parcel| rewrite(&mut parcel.headers, &["webhook-id"], |_| other.clone()))
            }));
            cases.push(refused(scheme, "no timestamp", || self.without(&["webhook-timestamp"])));
        }
        cases
    }

    /// What every receiver must refuse, whatever it checks.
    pub(super) fn refused_always(&self) -> Vec<Case<'_>> {
        vec![
            Case::new(Group::Refuses, "an event without any of our headers", || {
                Ok(vec![self.changed(|parcel| parcel.headers.clear())?])
            }),
            Case::new(Group::Refuses, "an empty request", || {
                let bare = self.changed(|parcel| {
                    parcel.headers.clear();
                    parcel.body = Bytes::new();
                });
                Ok(vec![bare?])
            }),
        ]
    }

    fn event(&self, data: &Value, created_at: Timestamp) -> Made<Example> {
        Ok(Example::new(self.event_type, data, created_at, self.clock)?)
    }

    fn example(&self) -> Made<Example> {
        self.event(&self.data, self.clock.now())
    }

    fn delivery(&self) -> Made<Parcel> {
        Ok(self.parcel(&self.example()?, 1))
    }

    /// A delivery with a change that is made after it was signed.
    fn changed(&self, change: impl FnOnce(&mut Parcel)) -> Made<Parcel> {
        let mut parcel = self.delivery()?;
        change(&mut parcel);
        Ok(parcel)
    }

    fn with_signature(&self, change: impl Fn(&str) -> String) -> Made<Parcel> {
        self.changed(|parcel| rewrite(&mut parcel.headers, &SIGNATURES, change))
    }

    fn without(&self, names: &[&str]) -> Made<Parcel> {
        self.changed(|parcel| parcel.headers.retain(|(name, _)| !names.contains(&name.as_str())))
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
        let mut data = self.data.clone();
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
        let mut data = self.data.clone();
        data["padding"] = json!("");
        let length = json!({ "type": self.event_type, "data": &data }).to_string().len();
        data["padding"] = json!("x".repeat(EVENT_BYTES_MAX.saturating_sub(length)));
        Ok(self.parcel(&self.event(&data, self.clock.now())?, 1))
    }
}

/// The headers that hold a signature.
const SIGNATURES: [&str; 2] = ["kallima-signature", "webhook-signature"];

fn accepted<'a>(name: impl Into<String>, make: impl Fn() -> Made<Parcel> + 'a) -> Case<'a> {
    Case::new(Group::Accepts, name, move || Ok(vec![make()?]))
}

fn refused<'a>(scheme: Scheme, what: &str, make: impl Fn() -> Made<Parcel> + 'a) -> Case<'a> {
    Case::new(Group::Refuses, format!("{what} ({scheme})"), move || {
        let mut parcel = make()?;
        keep_only(&mut parcel.headers, scheme);
        Ok(vec![parcel])
    })
}

/// Takes the other scheme's signature away.
fn keep_only(headers: &mut DeliveryHeaders, scheme: Scheme) {
    headers.retain(|(name, _)| match scheme {
        Scheme::Kallima => !["webhook-signature", "webhook-timestamp"].contains(&name.as_str()),
        Scheme::StandardWebhooks => name != "kallima-signature",
    });
}

fn rewrite(headers: &mut DeliveryHeaders, names: &[&str], change: impl Fn(&str) -> String) {
    let is_meant = |name: &HeaderName| names.contains(&name.as_str());
    for (_, value) in headers.iter_mut().filter(|(name, _)| is_meant(name)) {
        *value = change(value);
    }
}

/// Writes another time where both schemes have it, and leaves the signatures as they are.
fn rewrite_time(headers: &mut DeliveryHeaders, time: &str) {
    rewrite(headers, &["webhook-timestamp"], |_| time.to_owned());
    rewrite(headers, &["kallima-signature"], |value| {
        let digest = value.split_once(',').map(|(_, digest)| digest).unwrap_or_default();
        format!("t={time},{digest}")
    });
}

fn replaced(body: &Bytes, from: &str, to: &str) -> Bytes {
    String::from_utf8_lossy(body).replacen(from, to, 1).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_timestamp_is_as_far_off_when_it_is_sent_however_long_the_checks_before_it_took() {
        let clock = Clock::manual(Timestamp::from_millis(1_776_938_400_000));
        let contract = Contract::load().unwrap();
        let event_type = "humanization.completed";
        let cases = Cases {
            secret: &Secret::parse("whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF").unwrap(),
            event_type,
            data: example::data(&contract, event_type).unwrap(),
            contract: &contract,
            clock: &clock,
        };
        let refused = cases.refused(Scheme::Kallima);
        clock.advance(Duration::from_mins(10));
        let ahead = refused.iter().find(|case| case.name.contains("six minutes ahead"));
        let parcels = ahead.unwrap().parcels().unwrap();
        let headers = &parcels[0].headers;
        let (_, signature) = headers.iter().find(|(name, _)| name == "kallima-signature").unwrap();
        let time = format!("t={},", clock.now().as_unix_seconds() + OFF_S);
        assert!(signature.starts_with(&time), "{signature}");
    }
}
