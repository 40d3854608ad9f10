use super::*;
use crate::domain::{
    signature::sign,
    signing_vectors::{SIGNING_VECTORS, SigningVectors},
};

const BODY: &[u8] = br#"{"hello":"kallima"}"#;
const ID: &str = "evt_01JBAAAA000000000000000000";
const NOW_S: i64 = 1_776_938_400;

fn secret() -> Secret {
    Secret::parse("whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF").unwrap()
}

/// What a delivery carries whose body is signed now.
fn signed(body: &[u8]) -> SignedHeaders {
    let signed = sign(&secret(), ID, NOW_S, body);
    SignedHeaders {
        kallima_signature: Some(signed.kallima_signature),
        webhook_id: Some(ID.to_owned()),
        webhook_timestamp: Some(NOW_S.to_string()),
        webhook_signature: Some(signed.webhook_signature),
    }
}

fn kallima(header: &str, body: &[u8], now_s: i64) -> Result<(), Refusal> {
    let headers = SignedHeaders {
        kallima_signature: Some(header.to_owned()),
        ..SignedHeaders::default()
    };
    verify(Scheme::Kallima, &secret(), &headers, body, now_s, TOLERANCE_S)
}

fn vectors() -> SigningVectors {
    serde_json::from_str(SIGNING_VECTORS).unwrap()
}

#[test]
fn the_known_answers_verify() {
    for vector in vectors().known_answers {
        let headers = SignedHeaders {
            kallima_signature: Some(vector.kallima_signature),
            webhook_id: Some(vector.id),
            webhook_timestamp: Some(vector.timestamp.to_string()),
            webhook_signature: Some(vector.webhook_signature),
        };
        let secret = Secret::parse(&vector.secret).unwrap();
        for scheme in Scheme::ALL {
            let checked = verify(scheme, &secret, &headers, vector.body.as_bytes(), vector.timestamp, 0);
            assert_eq!(checked, Ok(()), "{scheme}: {headers:?}");
        }
    }
}

#[test]
fn every_refusal_of_the_vectors_is_refused_for_its_reason_by_both_schemes() {
    let mut seen = Vec::new();
    for refused in vectors().refusals {
        let headers = SignedHeaders::read(|name| {
            let found = refused
                .headers
                .iter()
                .find(|(given, _)| given.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        });
        let secret = Secret::parse(&refused.secret).unwrap();
        for scheme in Scheme::ALL {
            let checked = verify(
                scheme,
                &secret,
                &headers,
                refused.body.as_bytes(),
                refused.now,
                TOLERANCE_S,
            );
            assert_eq!(checked.unwrap_err().reason(), refused.reason, "{scheme}: {refused:?}");
        }
        seen.push(refused.reason);
    }
    for reason in [
        Reason::MissingHeader,
        Reason::MalformedHeader,
        Reason::SignatureMismatch,
        Reason::TimestampTooOld,
        Reason::TimestampInFuture,
    ] {
        assert!(seen.contains(&reason), "no refusal for {reason:?}");
    }
}

#[test]
fn another_secret_body_or_time_does_not_match_and_what_it_would_have_been_is_said() {
    let other = Secret::parse("whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEf").unwrap();
    let expected = signed(BODY).kallima_signature.unwrap();
    let refused = verify(Scheme::Kallima, &other, &signed(BODY), BODY, NOW_S, TOLERANCE_S).unwrap_err();
    assert!(matches!(&refused, Refusal::Mismatch { expected: other } if *other != expected));
    for (header, body) in [
        (expected.clone(), &br#"{"hello":"Kallima"}"#[..]),
        (expected.clone(), b""),
        (expected.replace("t=1776938400", "t=1776938401"), BODY),
        (expected.replace("t=", "t=0"), BODY),
        (format!("{}0", expected.strip_suffix('b').unwrap()), BODY),
    ] {
        let refused = kallima(&header, body, NOW_S).unwrap_err();
        assert_eq!(refused.reason(), Reason::SignatureMismatch, "{header}");
        if body == BODY && header.starts_with("t=1776938400,") {
            assert_eq!(
                refused,
                Refusal::Mismatch {
                    expected: expected.clone()
                }
            );
        }
    }
}

#[test]
fn a_header_of_another_form_is_malformed() {
    let good = signed(BODY).kallima_signature.unwrap();
    let digest = good.split_once("v1=").unwrap().1;
    for header in [
        String::new(),
        "t=,v1=".to_owned(),
        format!("t=,v1={digest}"),
        format!("t=-,v1={digest}"),
        format!("t=+1776938400,v1={digest}"),
        format!("t=99999999999999999999,v1={digest}"),
        format!("t=1776938400, v1={digest}"),
        format!(" t=1776938400,v1={digest}"),
        format!("v1={digest},t=1776938400"),
        format!("t=1776938400,v0={digest}"),
        format!("t=1776938400,v1={digest},v1={digest}"),
        format!("t=1776938400,v1={}", digest.to_uppercase()),
        format!("t=1776938400,v1={}", &digest[1..]),
    ] {
        let refused = kallima(&header, BODY, NOW_S).unwrap_err();
        assert_eq!(refused.reason(), Reason::MalformedHeader, "{header}");
    }
}

#[test]
fn standard_webhooks_takes_a_list_of_signatures() {
    let check = |signatures: &str| {
        let headers = SignedHeaders {
            webhook_signature: Some(signatures.to_owned()),
            ..signed(BODY)
        };
        verify(Scheme::StandardWebhooks, &secret(), &headers, BODY, NOW_S, TOLERANCE_S)
    };
    let right = signed(BODY).webhook_signature.unwrap();
    assert_eq!(check(&format!("v1a,x v1,AAAA {right}")), Ok(()));
    assert_eq!(check("v1,AAAA").unwrap_err().reason(), Reason::SignatureMismatch);
    for malformed in ["", "v1,", "v1a,AAAA", "AAAA"] {
        assert_eq!(check(malformed).unwrap_err().reason(), Reason::MalformedHeader);
    }
}

#[test]
fn the_time_is_tolerated_in_either_direction() {
    let header = signed(BODY).kallima_signature.unwrap();
    for (now_s, expected) in [
        (NOW_S - 301, Err(Refusal::InFuture { ahead_s: 301 })),
        (NOW_S - 300, Ok(())),
        (NOW_S, Ok(())),
        (NOW_S + 300, Ok(())),
        (NOW_S + 301, Err(Refusal::TooOld { age_s: 301 })),
    ] {
        assert_eq!(kallima(&header, BODY, now_s), expected, "{now_s}");
    }
    assert!(kallima(&header, BODY, i64::MIN).is_err());
    assert!(kallima(&header, BODY, i64::MAX).is_err());
}

#[test]
fn the_usual_mistakes_are_recognized() {
    let cause = |scheme, headers: &SignedHeaders, body: &[u8]| likely_cause(scheme, &secret(), headers, body);
    for scheme in Scheme::ALL {
        let with_break = [BODY, b"\n"].concat();
        assert!(
            cause(scheme, &signed(BODY), &with_break)
                .unwrap()
                .contains("without the line break")
        );
        assert!(
            cause(scheme, &signed(&with_break), BODY)
                .unwrap()
                .contains("with a line break")
        );
        let spaced = br#"{ "hello": "kallima" }"#;
        assert!(cause(scheme, &signed(BODY), spaced).unwrap().contains("raw bytes"));
        assert_eq!(cause(scheme, &signed(BODY), b"something else"), None);
        assert_eq!(cause(scheme, &SignedHeaders::default(), BODY), None);
    }
    let time = NOW_S.to_string();
    let with = |key: &[u8]| SignedHeaders {
        kallima_signature: Some(format!("t={time},v1={}", kallima_digest(key, &time, BODY))),
        webhook_signature: Some(format!("v1,{}", standard_digest(key, ID, &time, BODY))),
        ..signed(BODY)
    };
    for (scheme, headers, said) in [
        (
            Scheme::Kallima,
            with(secret().expose().as_bytes()),
            "leave the prefix out",
        ),
        (
            Scheme::StandardWebhooks,
            with(secret().expose().as_bytes()),
            "leave the prefix out",
        ),
        (
            Scheme::Kallima,
            with(&standard_webhooks_key(&secret())),
            "base64-decoded",
        ),
        (
            Scheme::StandardWebhooks,
            with(&kallima_key(&secret())),
            "decodes them as base64",
        ),
    ] {
        assert!(cause(scheme, &headers, BODY).unwrap().contains(said), "{said}");
    }
}
