//! One organization's requests never crowd out another's: the limits, by counting.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{App, Gate, Receiver, Reply, app::eventually, client::Ask};

/// A request that is in progress as long as its connection is open: it was admitted, and its body never arrives. `None` if
/// it is refused.
async fn hold(app: &App, token: &str) -> Option<TcpStream> {
    let address = app.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/webhooks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = [0; 1024];
    let length = stream.read(&mut response).await.unwrap();
    let response = String::from_utf8_lossy(&response[..length]).to_lowercase();
    // `100 Continue` is sent once the caller is known.
    if response.starts_with("http/1.1 100") {
        return Some(stream);
    }
    assert!(
        response.starts_with("http/1.1 503") && response.contains("retry-after: 1\r\n"),
        "{response}"
    );
    None
}

#[tokio::test]
async fn one_organization_may_use_all_requests_and_leaves_a_reserve_that_fills_up_to_the_fair_share() {
    let arguments = ["--dev", "--requests-max", "8", "--body-read-timeout-ms", "120000"];
    let app = App::builder().arguments(&arguments).start().await;
    let (busy, other) = (app.token.clone(), app.new_organization().await.1);
    let is_refused = async |token: &str| hold(&app, token).await.is_none();
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(hold(&app, &busy).await.expect("alone, it may use all"));
    }
    assert!(is_refused(&busy).await);
    let mut others = vec![hold(&app, &other).await.expect("the reserve, an eighth, is for others")];
    assert!(is_refused(&other).await && is_refused(&busy).await, "there are no more");
    // Released permits go to the other organization until it has its fair share, four of eight.
    for _ in 0..3 {
        drop(held.pop());
        others.push(eventually(async || hold(&app, &other).await).await);
        assert!(is_refused(&other).await && is_refused(&busy).await);
    }
    // From then on, a third organization gets them.
    let third = app.new_organization().await.1;
    drop(held.pop());
    let newcomer = eventually(async || {
        assert!(
            is_refused(&other).await && is_refused(&busy).await,
            "both have their share"
        );
        hold(&app, &third).await
    });
    let newcomer = newcomer.await;
    drop((held, others, newcomer));
    drop(eventually(async || hold(&app, &busy).await).await);
}

#[tokio::test]
async fn tests_that_wait_for_slow_receivers_fill_neither_the_requests_nor_the_attempts_nor_anothers_tests() {
    let arguments = ["--dev", "--requests-max", "8", "--attempts-max", "32"];
    let app = App::builder().arguments(&arguments).patient().start().await;
    let gate = Gate::new();
    // An eighth of the attempts are for tests and retries, and half of the requests: four, and a reserve of one.
    let slow = Receiver::start((0..4).map(|_| Reply::status(200).held_by(&gate))).await;
    let webhook = app
        .post("/v1/webhooks", &json!({ "url": slow.url, "events": ["job.failed"] }))
        .await
        .expect(201);
    let quick = Receiver::start([]).await;
    app.webhook(&quick.url).await;
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    let test = |app: &App| {
        let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
        app.ask("POST", &path)
    };
    let retry: Ask = app.ask(
        "POST",
        &format!("/v1/webhook_deliveries/{}/retry", delivery["id"].as_str().unwrap()),
    );
    let held: Vec<_> = (0..4).map(|_| tokio::spawn(test(&app).send())).collect();
    slow.wait_for(4).await;
    let refused = test(&app).send().await;
    refused.expect_problem(503, "service_unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    retry.send().await.expect_problem(503, "service_unavailable");
    let events = app.get("/v1/events").await.expect(200);
    assert_eq!(events.as_array().unwrap().len(), 5, "what was refused has left nothing");
    // Requests and automatic attempts go on, and so do the tests of others.
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    let other = app.new_organization().await.1;
    let own = app
        .ask("POST", "/v1/webhooks")
        .token(&other)
        .json(&json!({ "url": quick.url }))
        .send()
        .await
        .expect(201);
    for _ in 0..3 {
        let path = format!("/v1/webhooks/{}/test", own["id"].as_str().unwrap());
        let tested = app.ask("POST", &path).token(&other).send().await.expect(200);
        assert_eq!(tested["status"], "delivered");
    }
    assert_eq!(slow.arrivals().len(), 4);
    gate.open();
    for test in held {
        assert_eq!(test.await.unwrap().expect(200)["status"], "delivered");
    }
    test(&app).send().await.expect(200);
}

#[tokio::test]
async fn a_platform_tokens_requests_are_those_of_the_organizations_that_it_speaks_for() {
    let arguments = ["--dev", "--requests-max", "8", "--body-read-timeout-ms", "120000"];
    let app = App::builder().arguments(&arguments).start().await;
    let busy = app.token.clone();
    let (platform, _) = app
        .new_token(None, &[kallima_webhooks::domain::token::Scope::EventsPublish])
        .await;
    let (other, _) = app.new_organization().await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(hold(&app, &busy).await.unwrap());
    }
    let publish = async |organization| {
        let body = json!({ "type": "webhook.test", "data": {}, "org_id": organization });
        app.ask("POST", "/v1/events").token(&platform).json(&body).send().await
    };
    publish(other).await.expect(202);
    let refused = publish(app.organization).await;
    refused.expect_problem(503, "service_unavailable");
    drop(held);
}
