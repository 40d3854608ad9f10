//! The part of [`coverage`](super::coverage) about headers: those of requests, and the limits in those of responses.

use std::num::NonZeroU32;

use kallima_webhooks::domain::limits::Limits;
use sea_orm::ConnectionTrait as _;
use serde_json::json;

use super::{
    coverage::{Ids, Trial, check},
    obligations::{Operation, parameter_probes},
};
use crate::support::{App, client::ApiResponse};

/// Bytes of a page: more than a page of the default length has in these trials.
const PAGE_BYTES_MAX: usize = 64 * 1024;

impl Trial {
    /// A server whose pages can be filled.
    pub(super) async fn app() -> App {
        let bytes = PAGE_BYTES_MAX.to_string();
        let arguments = ["--dev", "--page-bytes-max", &bytes];
        App::builder().arguments(&arguments).start().await
    }

    /// An event that leaves no room for a second delivery in the response.
    async fn long_event(&mut self, operation: &Operation) {
        let ids = [self.ids().await, self.ids().await];
        let data = json!({ "job_id": ids[0].webhook, "text": "x".repeat(PAGE_BYTES_MAX) });
        let body = json!({ "type": "job.completed", "data": data });
        let event = self.app.post("/v1/events", &body).await.expect(202);
        let path = format!("/v1/events/{}", event["id"].as_str().unwrap());
        let ask = self.app.ask("GET", &path);
        self.try_out(operation, ask).await.expect(200);
    }

    pub(super) async fn header_parameters(&mut self, operation: &Operation) {
        if operation.id == "get_event" {
            self.long_event(operation).await;
        }
        for parameter in operation.parameters("header") {
            let name = parameter["name"].as_str().unwrap();
            let (fitting, other) = match name {
                "If-Match" => ("*", Some(("\"0\"", 412, "precondition_failed"))),
                "traceparent" => (parameter["schema"]["examples"][0].as_str().unwrap(), None),
                "Idempotency-Key" => {
                    self.idempotency(operation).await;
                    ("a key", None)
                }
                other => panic!("{other} is a header parameter that this test has no value for"),
            };
            let at = format!("{}/parameters/header {name}", operation.pointer);
            let response = self.with_header(operation, name, fitting).await;
            check(
                response.status.is_success(),
                &at,
                &format!("a success with {fitting}"),
                &response,
            );
            self.met.insert(at);
            if let Some((value, status, code)) = other {
                self.with_header(operation, name, value)
                    .await
                    .expect_problem(status, code);
            }
            for probe in parameter_probes(parameter, "header") {
                let value = probe.value.as_str().unwrap();
                let response = self.with_header(operation, name, value).await;
                let obligation = probe.obligation(operation);
                if probe.accepted {
                    check(
                        response.status.is_success(),
                        &obligation,
                        &format!("a success with {value}"),
                        &response,
                    );
                } else {
                    let named = response.status == 400 && response.json()["detail"].as_str().unwrap().contains(name);
                    let expected = format!("400 to {value}, and a detail that names {name}");
                    check(named, &obligation, &expected, &response);
                }
                self.met.insert(obligation);
            }
        }
    }

    /// One request with one key: done, done before, and as if it were still running.
    async fn idempotency(&mut self, operation: &Operation) {
        let ids = self.ids().await;
        let body = self.body(operation).unwrap();
        let ask = |trial: &Self| {
            let ask = trial.ask(operation, &ids, "").header("idempotency-key", "one");
            ask.json(&body)
        };
        let (first, again) = (ask(self), ask(self));
        let first = self.try_out(operation, first).await;
        let again = self.try_out(operation, again).await;
        assert_eq!(
            (first.status, &first.body),
            (again.status, &again.body),
            "{}",
            operation.id
        );
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{}", operation.id);
        let beside = self.app.database.connect().await;
        let running =
            "UPDATE idempotency_keys SET response = NULL, lease_token = organization_id, leased_until = expires_at";
        beside.execute_unprepared(running).await.unwrap();
        let running = ask(self);
        let running = self.try_out(operation, running).await;
        running.expect_problem(409, "conflict");
        assert_eq!(running.header("retry-after"), Some("1"));
        let other = self.ask(operation, &ids, "").header("idempotency-key", "one");
        let other = other.text(&format!(" {body}"));
        self.try_out(operation, other)
            .await
            .expect_problem(409, "idempotency_mismatch");
    }

    /// A valid request with an additional header.
    async fn with_header(&mut self, operation: &Operation, name: &str, value: &str) -> ApiResponse {
        let ids = self.ids().await;
        let ask = self.ask(operation, &ids, "").header(name, value);
        let ask = if let Some(body) = self.body(operation) {
            ask.json(&body)
        } else {
            ask
        };
        self.try_out(operation, ask).await
    }

    /// The second request of an organization that may make only one.
    pub(super) async fn limits(&mut self, operation: &Operation) {
        if !operation.statuses().contains(&"429".to_owned()) {
            return;
        }
        let limits = Limits {
            requests_per_minute_max: NonZeroU32::new(1),
            writes_per_month_max: NonZeroU32::new(1),
        };
        let (_, token) = self.app.new_limited_organization(limits).await;
        let nobody = Ids::of_nobody();
        let ask = || self.ask(operation, &nobody, "").token(&token);
        ask().send().await;
        let second = ask();
        self.try_out(operation, second)
            .await
            .expect_problem(429, "rate_limit_exceeded");
    }
}
