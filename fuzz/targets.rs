//! What must hold for whatever a customer or a receiver sends. A target takes any bytes, and panics when it does not hold.

use std::{
    net::IpAddr,
    sync::OnceLock,
    time::{Duration, UNIX_EPOCH},
};

use ipnet::IpNet;
use kallima_webhooks::{
    contract::{Contract, Fault, Faults},
    domain::{
        address::AddressPolicy,
        client_address::client_address,
        destination::{Destination, DestinationError, DestinationPolicy},
        event_filter::{EventFilter, FilterEntry, UnknownEventType},
        fault_code::FaultCode,
        idempotency_key::IdempotencyKey,
        outcome::{Outcome, RetryAfter},
        pointer,
        precondition::{EntityTag, IfMatch},
        retry::{Decision, RetryPolicy, decide},
        timestamp::Timestamp,
        trace::TraceParent,
    },
};
use serde_json::{Map, Value};
use url::Host;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets; each has a file of its name in `fuzz_targets`, and a folder in `corpus`.
pub const TARGETS: [Target; 4] = [
    ("destination", destination),
    ("event_filter", event_filter),
    ("pointer", pointer),
    ("headers", headers),
];

/// URLs that customers want deliveries to go to.
pub fn destination(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let strict = DestinationPolicy::default();
    let networks = ["127.0.0.0/8", "10.0.0.0/8", "::1/128"].map(|text| text.parse().unwrap());
    let open = DestinationPolicy {
        allow_http: true,
        addresses: AddressPolicy::new(networks.to_vec(), vec![]),
        allowed_ports: None,
    };
    let checked = Destination::parse(text, &strict);
    match &checked {
        Ok(destination) => is_public(destination),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if checked.is_ok() {
        let opened = Destination::parse(text, &open);
        assert_eq!(
            opened, checked,
            "whatever is allowed to all is allowed to an operator who allows more"
        );
    }
    for policy in [strict, open] {
        let Ok(destination) = Destination::parse(text, &policy) else {
            continue;
        };
        let written = if text.is_ascii() {
            text
        } else {
            destination.url().as_str()
        };
        assert_eq!(
            destination.as_str(),
            written,
            "it is written as the customer wrote it, or in its ASCII form"
        );
        assert_eq!(
            Destination::from_stored(written).as_ref(),
            Ok(&destination),
            "it is read back"
        );
        // As it is used it is the same destination; only the escapes may make it too long to be registered so.
        match Destination::parse(destination.url().as_str(), &policy) {
            Ok(again) => assert_eq!(again.url(), destination.url()),
            Err(error) => assert_eq!(error, DestinationError::TooLong),
        }
    }
}

/// What the strictest policy lets through is public as far as the URL tells, by rules that are not the policy's own.
fn is_public(destination: &Destination) {
    let url = destination.url();
    assert_eq!(url.scheme(), "https");
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    assert_ne!(destination.port(), 0);
    match destination.host() {
        Host::Ipv4(address) => assert!(!is_inside(IpAddr::V4(address)), "{url}"),
        Host::Ipv6(address) => assert!(!is_inside(IpAddr::V6(address)), "{url}"),
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            assert!(!name.is_empty() && name.parse::<IpAddr>().is_err(), "{url}");
            let last = name.rsplit('.').next().unwrap_or_default();
            assert!(
                !["localhost", "localdomain", "local", "internal"].contains(&last),
                "{url}"
            );
        }
    }
}

/// Addresses that the standard library, or the number itself, tells to be no public host's.
fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast()
                || address.is_documentation()
                || first == 0
                || first >= 240
                || (first == 100 && (64..128).contains(&second))
        }
        // Outside 2000::/3 there is nothing public; 2002::/16 carries IPv4.
        IpAddr::V6(address) => {
            let first = address.segments()[0];
            first >> 13 != 1 || first == 0x2002
        }
    }
}

/// Filter entries: the first line is an entry, the others are event types beside those of the catalog.
pub fn event_filter(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (entry, others) = text.split_once('\n').unwrap_or((text, ""));
    let catalog = || contract().event_type_names().chain(others.lines());
    let matches = |event_type: &str| match entry.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('.') => event_type.starts_with(prefix),
        _ => event_type == entry,
    };
    match FilterEntry::parse(entry, catalog()) {
        Ok(parsed) => {
            assert!(catalog().any(matches), "{entry:?} would be silent forever");
            let filter = EventFilter::from_entries(vec![parsed.clone()]);
            for event_type in catalog() {
                assert_eq!(
                    parsed.matches(event_type),
                    matches(event_type),
                    "{entry:?}, {event_type:?}"
                );
                assert_eq!(filter.wants(event_type), parsed.matches(event_type));
            }
            assert_eq!(FilterEntry::parse(parsed.as_str(), catalog()), Ok(parsed));
            assert_eq!(EventFilter::from_stored(filter.entries()), filter);
        }
        Err(unknown) => {
            assert!(!catalog().any(matches), "{entry:?} matches something");
            if let Some(nearest) = unknown.nearest.as_deref() {
                // A type without a dot has no group, and the catalog has none such.
                let group = nearest.strip_suffix(".*").unwrap_or(nearest);
                let known = FilterEntry::parse(nearest, catalog()).is_ok() || catalog().any(|known| known == group);
                assert!(known, "{nearest:?} is suggested for {entry:?}");
            }
            assert!(!unknown.to_string().is_empty());
        }
    }
    for event_type in catalog() {
        let own = FilterEntry::parse(event_type, catalog()).unwrap();
        assert!(own.matches(event_type), "{event_type:?} does not match itself");
        assert_eq!(UnknownEventType::check(event_type, catalog()), Ok(()));
    }
}

/// Pointers: of any member's name, and those of the faults of any body.
pub fn pointer(input: &[u8]) {
    if let Ok(name) = std::str::from_utf8(input) {
        let written = format!("/{}", pointer::escape(name));
        assert_eq!(pointer::first_token(&written), name);
        assert_eq!(pointer::first_token(&format!("{written}/0")), name);
        let body = Value::Object(Map::from_iter([(name.to_owned(), Value::Bool(true))]));
        assert_eq!(body.pointer(&written), Some(&Value::Bool(true)), "{written:?}");
    }
    let Ok(body) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    for name in contract().bodies() {
        let mut faults = Faults::default();
        contract().check_body(name, &body, &mut faults);
        for fault in faults.listed() {
            leads_somewhere(fault, &body, &fault.pointer);
        }
    }
    for event_type in contract().event_type_names() {
        let mut faults = Faults::default();
        contract().check_data(event_type, &body, &mut faults);
        for fault in faults.listed() {
            leads_somewhere(fault, &body, fault.pointer.strip_prefix("/data").unwrap());
        }
    }
}

/// A fault's pointer leads to a value in the body, or to one that is missing.
fn leads_somewhere(fault: &Fault, body: &Value, pointer: &str) {
    assert!(!fault.detail.is_empty(), "{fault:?}");
    if fault.code == FaultCode::Required {
        let (parent, _) = pointer.rsplit_once('/').unwrap();
        assert!(body.pointer(pointer).is_none(), "{fault:?} is there, in {body}");
        assert!(
            body.pointer(parent).is_some_and(Value::is_object),
            "{fault:?} points to nothing in {body}"
        );
    } else {
        assert!(body.pointer(pointer).is_some(), "{fault:?} points to nothing in {body}");
    }
}

/// Headers of requests, and of receivers' answers. Each line of the input is one line of `X-Forwarded-For`; the other
/// headers take it whole.
pub fn headers(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    retry_after(text);
    forwarded_for(text);
    if let Some(if_match) = IfMatch::parse(text) {
        let written = match &if_match {
            IfMatch::Any => "*".to_owned(),
            IfMatch::OneOf(tags) => tags.iter().map(EntityTag::as_str).collect::<Vec<_>>().join(", "),
        };
        // A list of weak tags alone allows nothing, and nothing is left of it to write.
        if !written.is_empty() {
            assert_eq!(IfMatch::parse(&written), Some(if_match.clone()));
        }
        if let IfMatch::OneOf(tags) = &if_match {
            assert!(tags.iter().all(|tag| if_match.allows(tag)));
        }
    }
    if let Some(parent) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        assert!(text[3..].starts_with(&parent.to_string()[3..52]), "the same two ids");
        let child = parent.child(!parent.span_id());
        assert_eq!(
            (child.trace_id(), child.sampled()),
            (parent.trace_id(), parent.sampled())
        );
        assert_eq!(TraceParent::parse(&child.to_string()), Some(child));
    }
    if let Some(key) = IdempotencyKey::parse(text) {
        assert_eq!(key.as_str(), text);
        assert!(text.len() <= 255 && text.trim() == text && text.is_ascii());
        assert_eq!(IdempotencyKey::parse(key.as_str()), Some(key));
    }
}

fn retry_after(text: &str) {
    let Some(asked) = RetryAfter::parse(text) else { return };
    let written = match asked {
        RetryAfter::Seconds(seconds) => seconds.to_string(),
        RetryAfter::At(unix_s) => {
            let since_epoch = Duration::from_secs(u64::try_from(unix_s).unwrap());
            httpdate::fmt_http_date(UNIX_EPOCH + since_epoch)
        }
    };
    assert_eq!(RetryAfter::parse(&written), Some(asked));
    // However absurd the wish, it delays the next attempt by no more than the policy's longest wait.
    let (policy, now) = (RetryPolicy::default(), Timestamp::from_millis(1_776_938_400_000));
    let outcome = Outcome {
        response_status: Some(503),
        retry_after: Some(asked),
        ..Outcome::default()
    };
    let Decision::RetryAt(due) = decide(&policy, 1, &outcome, now, 0.0) else {
        panic!("the schedule is not used up")
    };
    assert!(due > now && due <= now.plus(policy.retry_after_max));
}

fn forwarded_for(text: &str) {
    let proxy: IpAddr = "10.0.0.1".parse().unwrap();
    let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
    let found = client_address(proxy, text.lines(), &trusted);
    assert_eq!(found, found.to_canonical());
    assert_eq!(client_address(proxy, text.lines(), &[]), proxy, "nobody is trusted");
    // Whatever a client writes, the proxy adds whom it has seen, and that is who it was.
    let seen = "198.51.100.7";
    let client: IpAddr = seen.parse().unwrap();
    assert_eq!(client_address(proxy, text.lines().chain([seen]), &trusted), client);
    let joined = format!("{},{seen}", text.lines().next_back().unwrap_or_default());
    assert_eq!(client_address(proxy, [joined.as_str()].into_iter(), &trusted), client);
}

fn contract() -> &'static Contract {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    CONTRACT.get_or_init(|| Contract::load().unwrap())
}
