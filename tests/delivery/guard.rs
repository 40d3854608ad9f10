//! No packet goes to a forbidden address, however the address is written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Parser as _;
use kallima_webhooks::config::ServeOptions;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::App;

/// A listener on this machine that counts who connects.
async fn counting() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, connections) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, connections)
}

#[tokio::test]
async fn names_that_resolve_to_refused_addresses_get_no_connection() {
    let (port, connections) = counting().await;
    let app = App::builder()
        .arguments(&["--allow-http"])
        // Where an alias (CNAME) leads, too: a resolver hands over the addresses at its end.
        .name("loopback.test", &["127.0.0.1"])
        .name("several.test", &["10.0.0.1", "127.0.0.1", "::1", "169.254.169.254"])
        .name("mapped.test", &["::ffff:127.0.0.1"])
        .name("nat64.test", &["64:ff9b::7f00:1"])
        .name("sixtofour.test", &["2002:7f00:1::"])
        .name("nowhere.test", &[])
        .start()
        .await;
    for (host, word) in [
        ("loopback.test", "address_blocked"),
        ("several.test", "address_blocked"),
        ("mapped.test", "address_blocked"),
        ("nat64.test", "address_blocked"),
        ("sixtofour.test", "address_blocked"),
        ("nowhere.test", "dns"),
        ("unknown.test", "dns"),
    ] {
        let webhook = app.webhook(&format!("http://{host}:{port}/")).await;
        let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
        let tested = app.ask("POST", &format!("{path}/test")).send().await.expect(200);
        assert_eq!(tested["error"], word, "/test to {host}");
        let retry = format!("/v1/webhook_deliveries/{}/retry", tested["id"].as_str().unwrap());
        assert_eq!(
            app.ask("POST", &retry).send().await.expect(200)["error"],
            word,
            "/retry to {host}"
        );
        let event = app.publish().await;
        let delivery = app.delivery_when(&event, |delivery| !delivery["error"].is_null()).await;
        assert_eq!(delivery["error"], word, "an attempt to {host}");
        app.delete(&path).await.expect(204);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn of_several_addresses_only_allowed_ones_are_tried() {
    let (port, connections) = counting().await;
    let app = App::builder()
        .arguments(&["--allow-http", "--allow-network", "127.0.0.2/32"])
        .name("mixed.test", &["127.0.0.1", "127.0.0.2"])
        .start()
        .await;
    let webhook = app.webhook(&format!("http://mixed.test:{port}/")).await;
    let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    // Nobody listens on 127.0.0.2: had 127.0.0.1 been tried, somebody would have been there.
    assert_eq!(
        app.ask("POST", &path).send().await.expect(200)["error"],
        "connection_refused"
    );
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_that_changes_is_checked_and_looked_up_once_for_each_connection() {
    // One port, on an address that is allowed and on one that is not.
    let allowed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = allowed.local_addr().unwrap().port();
    let refused = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let app = App::builder()
        .arguments(&["--allow-http", "--allow-network", "127.0.0.1/32"])
        .name("rebinding.test", &["127.0.0.1"])
        .name("rebinding.test", &["127.0.0.2"])
        .name("rebinding.test", &["127.0.0.2", "127.0.0.1"])
        .start()
        .await;
    let receiver = axum::Router::new().fallback(|| async { [("connection", "close")] });
    tokio::spawn(async move { axum::serve(allowed, receiver).await.unwrap() });
    let webhook = app.webhook(&format!("http://rebinding.test:{port}/")).await;
    let test = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    // A second look-up between check and connection would return the other address.
    let first = app.ask("POST", &test).send().await.expect(200);
    assert_eq!(first["status"], "delivered", "{first}");
    let retry = format!("/v1/webhook_deliveries/{}/retry", first["id"].as_str().unwrap());
    let second = app.ask("POST", &retry).send().await.expect(200);
    assert_eq!(second["error"], "address_blocked", "{second}");
    // Of several addresses, an allowed one is used, whatever the order.
    let third = app.ask("POST", &test).send().await.expect(200);
    assert_eq!(third["status"], "delivered", "{third}");
    let nobody = tokio::time::timeout(Duration::from_millis(100), refused.accept()).await;
    assert!(nobody.is_err(), "no packet went to the address that is refused");
}

#[tokio::test]
async fn an_address_that_was_registered_when_it_was_allowed_is_checked_again_when_it_is_used() {
    let (port, connections) = counting().await;
    let lenient = App::dev().await;
    let mut paths = Vec::new();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "[::ffff:127.0.0.1]",
        "127.0.0.1.",
    ] {
        let body = json!({ "url": format!("http://{host}:{port}/") });
        let created = lenient.post("/v1/webhooks", &body).await;
        // A spelling that is refused even by this policy needs no second check.
        if created.status == 201 {
            paths.push(format!("/v1/webhooks/{}/test", created.json()["id"].as_str().unwrap()));
        }
    }
    assert!(paths.len() >= 4, "{paths:?}");
    let (organization, database) = (lenient.organization, lenient.stop().await);
    let strict = App::builder().arguments(&["--allow-http"]).start_on(database).await;
    let (token, _) = strict
        .new_token(Some(organization), kallima_webhooks::domain::token::Scope::ALL)
        .await;
    for path in paths {
        let delivery = strict.ask("POST", &path).token(&token).send().await.expect(200);
        assert_eq!(delivery["error"], "address_blocked", "{path}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_scheme_or_port_that_is_no_longer_allowed_is_not_used() {
    let (port, connections) = counting().await;
    let url = format!("http://127.0.0.1:{port}/");
    let other_port = port.wrapping_add(1).max(1).to_string();
    let lenient = App::dev().await;
    let webhook = lenient.webhook(&url).await;
    let test = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    let organization = lenient.organization;
    let mut database = lenient.stop().await;
    for arguments in [
        &["--allow-network", "127.0.0.0/8"][..],
        &["--dev", "--allow-port", &other_port],
        &["--dev", "--deny-network", "127.0.0.1/32"],
    ] {
        let strict = App::builder().arguments(arguments).start_on(database).await;
        let (token, _) = strict
            .new_token(Some(organization), kallima_webhooks::domain::token::Scope::ALL)
            .await;
        let delivery = strict.ask("POST", &test).token(&token).send().await.expect(200);
        assert_eq!(delivery["error"], "address_blocked", "{arguments:?}");
        database = strict.stop().await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    // The destination is refused, not the test.
    let lenient = App::builder()
        .arguments(&["--dev", "--allow-port", &port.to_string()])
        .start_on(database)
        .await;
    let (token, _) = lenient
        .new_token(Some(organization), kallima_webhooks::domain::token::Scope::ALL)
        .await;
    lenient.ask("POST", &test).token(&token).send().await.expect(200);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_denied_network_is_refused_at_registration_and_when_sending() {
    let (port, connections) = counting().await;
    let app = App::builder()
        .arguments(&["--dev", "--deny-network", "127.0.0.1/32,203.0.113.0/24"])
        .name("denied.test", &["127.0.0.1"])
        .start()
        .await;
    for url in [format!("http://127.0.0.1:{port}/"), "https://203.0.113.9/".to_owned()] {
        let refused = app.post("/v1/webhooks", &json!({ "url": url })).await;
        assert_eq!(refused.expect_faults(), ["/url"], "{url}");
    }
    let webhook = app.webhook(&format!("http://denied.test:{port}/")).await;
    let test = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    let delivery = app.ask("POST", &test).send().await.expect(200);
    assert_eq!(delivery["error"], "address_blocked");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

/// The options of `serve`, as a command line.
#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeOptions,
}

#[test]
fn a_node_that_listens_on_every_address_refuses_all_of_its_own() {
    for (arguments, expected) in [
        (&["--listen", "0.0.0.0:8080"][..], true),
        (&["--listen", "[::]:8080"], true),
        (&["--metrics-listen", "0.0.0.0:9464"], true),
        (&["--listen", "8.8.4.4:8080", "--metrics-listen", "off"], false),
        (&[], false),
    ] {
        let Arguments { serve } = Arguments::parse_from(["test"].iter().chain(arguments));
        let policy = serve.destinations().addresses;
        // What its own addresses are depends on the machine, and a test's are not public: they are refused anyway.
        let looks = format!("{policy:?}").contains("is_own: Some");
        assert_eq!(looks, expected, "{arguments:?}");
        assert_eq!(policy.allows([8, 8, 4, 4].into()), !arguments.contains(&"8.8.4.4:8080"));
    }
}
