//! `traceparent`: the trace of the request that published an event continues in its deliveries.

use std::collections::HashSet;

use serde_json::json;
use uuid::Uuid;

use crate::support::{App, Receiver, client::Ask, receiver::Reply};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn publish(app: &App) -> Ask {
    let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
    app.ask("POST", "/v1/events").json(&body)
}

#[tokio::test]
async fn the_trace_goes_on_with_a_new_span_for_each_attempt() {
    let app = App::builder()
        .arguments(&["--dev", "--retry-schedule-s", "0,0"])
        .start()
        .await;
    let receiver = Receiver::start([Reply::status(500), Reply::status(500)]).await;
    app.webhook(&receiver.url).await;
    for flags in ["01", "00"] {
        let before = receiver.arrivals().len();
        let traceparent = format!("00-{TRACE}-{SPAN}-{flags}");
        publish(&app)
            .header("traceparent", &traceparent)
            .send()
            .await
            .expect(202);
        let attempts = if before == 0 { 3 } else { 1 };
        let arrivals = receiver.wait_for(before + attempts).await.split_off(before);
        let mut spans = HashSet::new();
        for arrival in &arrivals {
            let fields: Vec<&str> = arrival.header("traceparent").split('-').collect();
            assert_eq!((fields[0], fields[1], fields[3]), ("00", TRACE, flags));
            assert_ne!(fields[2], SPAN, "the attempt is a span of its own");
            spans.insert(fields[2].to_owned());
        }
        assert_eq!(spans.len(), attempts, "so is each of them: {spans:?}");
    }
}

#[tokio::test]
async fn without_a_well_formed_traceparent_there_is_none() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    let well = format!("00-{TRACE}-{SPAN}-01");
    let asks = [
        publish(&app),
        publish(&app).header("traceparent", "nonsense"),
        publish(&app).header("traceparent", &format!("00-{}-{SPAN}-01", "0".repeat(32))),
        // Two of them are nobody's: which one would be right?
        publish(&app).header("traceparent", &well).header("traceparent", &well),
    ];
    for (index, ask) in asks.into_iter().enumerate() {
        ask.send().await.expect(202);
        let arrivals = receiver.wait_for(index + 1).await;
        assert!(
            arrivals[index].headers.get("traceparent").is_none(),
            "{index}: {:?}",
            arrivals[index].headers
        );
    }
}
