//! `listen`: a receiver that prints, verifies, and answers as configured.

use std::{process::Stdio, time::Duration};

use bytes::Bytes;
use kallima_webhooks::{
    clock::Clock,
    delivery::{
        headers::{self, Signing},
        resolver::Resolver,
        sender::Sender,
    },
    domain::{address::AddressPolicy, destination::DestinationPolicy, id::DeliveryId, secret::Secret},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
};

use super::{command, finish, kit::SECRET};
use crate::support::receiver::{Receiver, Reply};

/// A listener that prints JSON. It ends when this is dropped.
struct Listener {
    url: String,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Listener {
    async fn start(arguments: &[&str]) -> Self {
        let mut command = command("sqlite://unused.db", &std::env::temp_dir());
        command.args(["listen", "--port", "0", "--json", "--secret", SECRET]);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = said.next_line().await.unwrap().unwrap();
        let url = first.split_whitespace().find(|word| word.starts_with("http://"));
        Self {
            url: url.unwrap().to_owned(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    /// What it prints of the next request.
    async fn printed(&mut self) -> Value {
        serde_json::from_str(&self.output.next_line().await.unwrap().unwrap()).unwrap()
    }
}

/// Sends an example signed with this secret. Returns whether it was accepted, and what was printed about the response.
async fn trigger(url: &str, secret: &str) -> (bool, String) {
    let command = command("sqlite://unused.db", &std::env::temp_dir());
    let (done, said, _) = finish(command, &["trigger", "--url", url, "--secret", secret]).await;
    (done, said)
}

#[tokio::test]
async fn what_does_not_verify_is_answered_401_and_explained() {
    let mut listener = Listener::start(&[]).await;
    assert!(trigger(&listener.url, SECRET).await.0);
    let good = listener.printed().await;
    assert_eq!((&good["verified"], &good["answer"]), (&Value::Bool(true), &200.into()));
    assert_eq!(good["payload"]["type"], "webhook.test");
    assert_eq!(good["payload"]["id"], good["event_id"]);
    let other = SECRET.replace("AbCd", "XbCd");
    assert!(trigger(&listener.url, &other).await.1.contains("→  401"));
    let bad = listener.printed().await;
    assert_eq!((&bad["verified"], &bad["answer"]), (&Value::Bool(false), &401.into()));
    assert_eq!(bad["signatures"][0]["reason"], "signature_mismatch");
    assert_eq!(bad["signatures"][1]["reason"], "signature_mismatch");
}

#[tokio::test]
async fn it_fails_as_often_as_configured() {
    let mut listener = Listener::start(&["--status", "503", "--times", "2", "--delay", "1ms"]).await;
    for status in [503, 503, 200, 200] {
        let (done, said) = trigger(&listener.url, SECRET).await;
        assert_eq!(done, status == 200, "{said}");
        assert_eq!(listener.printed().await["answer"], status);
    }
    let mut listener = Listener::start(&["--close", "--times", "1"]).await;
    let (done, said) = trigger(&listener.url, SECRET).await;
    assert!(!done && said.contains("no answer (connection_closed)"), "{said}");
    assert_eq!(listener.printed().await["answer"], Value::Null);
    assert!(trigger(&listener.url, SECRET).await.0);
}

#[tokio::test]
async fn a_delivery_is_forwarded_and_the_response_comes_back() {
    let behind = Receiver::start([Reply::status(418).body("short and stout")]).await;
    let mut listener = Listener::start(&["--forward", &behind.url]).await;
    let (done, said) = trigger(&listener.url, SECRET).await;
    assert!(
        !done && said.contains("→  418") && said.contains("short and stout"),
        "{said}"
    );
    assert_eq!(listener.printed().await["answer"], 418);
    assert!(behind.arrivals()[0].is_signed_with(SECRET), "as it came");
    let other = SECRET.replace("AbCd", "XbCd");
    assert!(trigger(&listener.url, &other).await.1.contains("→  401"));
    assert_eq!(behind.arrivals().len(), 1, "what does not verify is not passed on");
}

#[tokio::test]
async fn retries_and_duplicates_are_marked() {
    let mut listener = Listener::start(&["--status", "500", "--times", "1"]).await;
    let policy = DestinationPolicy {
        allow_http: true,
        addresses: AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new()),
        allowed_ports: None,
    };
    let sender = Sender::new(Resolver::system(), policy, Duration::from_secs(15), Vec::new()).unwrap();
    let clock = Clock::system();
    let (event_id, body) = (clock.new_event_id(), Bytes::from_static(b"{}"));
    let mut seen = Vec::new();
    // The same event three times: a failure, its retry, and once more after that was accepted.
    for attempt in 1..=3 {
        let headers = headers::signed(&Signing {
            secret: &Secret::parse(SECRET).unwrap(),
            event_id: &event_id,
            event_type: "webhook.test",
            delivery_id: DeliveryId::NIL,
            attempt,
            timestamp_s: clock.now().as_unix_seconds(),
            body: &body,
        });
        let url = listener.url.parse().unwrap();
        sender.post(&url, &headers, body.clone()).await;
        let printed = listener.printed().await;
        seen.push((
            printed["attempt"].clone(),
            printed["duplicate"].clone(),
            printed["answer"].clone(),
        ));
    }
    let expected = [(1, false, 500), (2, false, 200), (3, true, 200)];
    assert_eq!(
        seen,
        expected.map(|(attempt, duplicate, response)| (attempt.into(), duplicate.into(), response.into()))
    );
}
