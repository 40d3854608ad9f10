//! Code ⊇ document: tests every obligation in openapi.yaml against a running server.
//!
//! The requests are generated from the document: its examples, the edges of its constraints, and for each constraint
//! a request that breaks it. `support::validate` validates the responses, like all others.

use std::{collections::BTreeSet, io::Write as _, num::NonZeroU32};

use kallima_webhooks::{contract::Contract, domain::limits::Limits};
use serde_json::{Value, json};

use super::obligations::{
    Operation, body_bytes_max, body_probes, obligations, operations, parameter_probes, query, snake_case, with,
};
use crate::support::{
    App, Receiver,
    app::scopes_without,
    client::{ApiResponse, Ask},
};

/// A server, and which obligations it has met.
pub(super) struct Trial {
    pub(super) app: App,
    receiver: Receiver,
    pub(super) met: BTreeSet<String>,
}

/// An id for each path parameter.
pub(super) struct Ids {
    pub(super) webhook: String,
    pub(super) delivery: String,
    pub(super) event: String,
}

impl Ids {
    /// Ids that nothing has.
    pub(super) fn of_nobody() -> Self {
        let uuid = "0190a000-0000-7000-8000-000000000000".to_owned();
        Self {
            webhook: uuid.clone(),
            delivery: uuid,
            event: "evt_01JBAAAA000000000000000000".to_owned(),
        }
    }

    fn fill(&self, path: &str) -> String {
        path.replace("{webhook_id}", &self.webhook)
            .replace("{delivery_id}", &self.delivery)
            .replace("{event_id}", &self.event)
    }
}

impl Trial {
    pub(super) async fn start() -> Self {
        let mut app = Self::app().await;
        // Limits that are never reached, so that every response has their headers.
        let limits = Limits {
            requests_per_minute_max: NonZeroU32::new(1_000_000),
            writes_per_month_max: NonZeroU32::new(1_000_000),
        };
        (app.organization, app.token) = app.new_limited_organization(limits).await;
        Self {
            app,
            receiver: Receiver::start([]).await,
            met: BTreeSet::new(),
        }
    }

    /// A new webhook with a delivery of an event, so that no request disturbs another.
    pub(super) async fn ids(&self) -> Ids {
        let webhook = self.app.webhook(&self.receiver.url).await["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let delivery = self
            .app
            .ask("POST", &format!("/v1/webhooks/{webhook}/test"))
            .send()
            .await
            .expect(200);
        let text = |name: &str| delivery[name].as_str().unwrap().to_owned();
        // Two attempts, and two writes to the webhook, so that a page of one has a next.
        let change = json!({ "description": "Tried by the contract." });
        self.app
            .patch(&format!("/v1/webhooks/{webhook}"), &change)
            .await
            .expect(200);
        self.app
            .ask("POST", &format!("/v1/webhook_deliveries/{}/retry", text("id")))
            .send()
            .await
            .expect(200);
        Ids {
            webhook,
            delivery: text("id"),
            event: text("event_id"),
        }
    }

    pub(super) fn ask(&self, operation: &Operation, ids: &Ids, query: &str) -> Ask {
        self.app
            .ask(&operation.verb, &format!("{}{query}", ids.fill(&operation.path)))
    }

    /// A body that the operation accepts.
    pub(super) fn body(&self, operation: &Operation) -> Option<Value> {
        operation
            .body_examples()
            .into_iter()
            .next()
            .map(|(_, body)| self.at_home(body))
    }

    /// The document's example, with the organization of this test.
    fn at_home(&self, mut body: Value) -> Value {
        if let Some(organization) = body.get_mut("org_id") {
            *organization = self.app.organization.to_string().into();
        }
        body
    }

    /// Marks what a response shows: its status, its headers, its media type.
    fn seen(&mut self, operation: &Operation, response: &ApiResponse) {
        let here = format!("{}/responses/{}", operation.pointer, response.status.as_str());
        for name in response.headers.keys() {
            let documented = operation.item["responses"][response.status.as_str()]["headers"].as_object();
            let spelled = documented
                .into_iter()
                .flatten()
                .find(|(header, _)| header.eq_ignore_ascii_case(name.as_str()));
            self.met
                .extend(spelled.map(|(header, _)| format!("{here}/headers/{header}")));
        }
        if let Some(media) = response.header("content-type") {
            let media = media.split(';').next().unwrap();
            self.met.insert(format!("{here}/content/{}", media.replace('/', "~1")));
        }
        self.met.insert(here);
    }

    /// Sends a request, marks what its response shows, and returns it.
    pub(super) async fn try_out(&mut self, operation: &Operation, ask: Ask) -> ApiResponse {
        let response = ask.send().await;
        self.seen(operation, &response);
        response
    }

    async fn examples(&mut self, operation: &Operation) {
        for (name, body) in operation.body_examples() {
            let ids = self.ids().await;
            let ask = self.ask(operation, &ids, "").json(&self.at_home(body));
            let response = self.try_out(operation, ask).await;
            let obligation = format!("{}/requestBody/{name}", operation.pointer);
            check(
                response.status.is_success(),
                &obligation,
                "a success: it is the document's own example",
                &response,
            );
            self.met.insert(obligation);
        }
        let ids = self.ids().await;
        let ask = self.ask(operation, &ids, "");
        let ask = if let Some(body) = self.body(operation) {
            ask.json(&body)
        } else {
            ask
        };
        let response = self.try_out(operation, ask).await;
        check(
            response.status.is_success(),
            &operation.pointer,
            "a success: it is a valid request",
            &response,
        );
        for parameter in operation.parameters("path") {
            self.met.insert(format!(
                "{}/parameters/path {}",
                operation.pointer,
                parameter["name"].as_str().unwrap()
            ));
        }
    }

    async fn query_parameters(&mut self, operation: &Operation) {
        for parameter in operation.parameters("query") {
            let name = parameter["name"].as_str().unwrap();
            let at = format!("{}/parameters/query {name}", operation.pointer);
            let value = self.query_value(name, parameter).await;
            let ids = self.ids().await;
            let response = self.ask(operation, &ids, &query(name, &value)).send().await;
            check(
                response.status == 200,
                &at,
                &format!("200 to the value {value}"),
                &response,
            );
            self.seen(operation, &response);
            self.met.insert(at.clone());
            if let Some(default) = parameter["schema"].get("default") {
                self.default_is(operation, name, default).await;
                self.met.insert(format!("{at}/schema/default"));
            }
            for probe in parameter_probes(parameter, "query") {
                let ids = self.ids().await;
                let response = self.ask(operation, &ids, &query(name, &probe.value)).send().await;
                self.seen(operation, &response);
                let obligation = probe.obligation(operation);
                if probe.accepted {
                    // No event type of that length is in the catalog, but the length is right.
                    let own = snake_case(probe.constraint.rsplit('/').next().unwrap());
                    let is_named = codes(&response, &format!("query/{name}")).contains(&own);
                    let taken = response.status == 200 || response.status == 422 && !is_named;
                    check(taken, &obligation, &format!("no {own} of {}", probe.value), &response);
                } else {
                    let (pointer, errors) = (format!("query/{name}"), &response.json()["errors"]);
                    let named = errors[0]["pointer"] == pointer.as_str() && errors[1].is_null();
                    let refused = named && [400, 422].contains(&response.status.as_u16());
                    let expected = format!("400 or 422 to {}, and one fault, at {pointer}", probe.value);
                    check(refused, &obligation, &expected, &response);
                }
                self.met.insert(obligation);
            }
        }
    }

    /// A value that the parameter accepts: the document's example, or one that exists.
    async fn query_value(&self, name: &str, parameter: &Value) -> Value {
        if name == "after" && parameter["schema"]["pattern"].is_string() {
            return self.app.publish().await.into();
        }
        parameter
            .get("example")
            .or_else(|| parameter["schema"].get("default"))
            .or_else(|| parameter["schema"]["examples"].get(0))
            .cloned()
            .unwrap_or_else(|| json!(1))
    }

    /// The same request with the default spelled out has the same response.
    async fn default_is(&self, operation: &Operation, name: &str, default: &Value) {
        let ids = self.ids().await;
        // One more than a page takes by default, so that another default would show. An organization cannot have more
        // webhooks than a page, and so many attempts of one delivery would take too long.
        if name == "limit" && matches!(operation.id.as_str(), "list_events" | "list_deliveries") {
            for _ in 0..=default.as_u64().unwrap() {
                self.app.publish().await;
            }
        }
        if name == "limit" && operation.id == "list_audit_entries" {
            for turn in 0..=default.as_u64().unwrap() {
                let change = json!({ "enabled": turn % 2 == 0, "description": turn.to_string() });
                self.app
                    .patch(&format!("/v1/webhooks/{}", ids.webhook), &change)
                    .await
                    .expect(200);
            }
        }
        let comparable = |response: ApiResponse| {
            (
                response.status,
                ids_of(&response.json()),
                response.header("link").is_some(),
            )
        };
        let silent = comparable(self.ask(operation, &ids, "").send().await);
        let spelled = comparable(self.ask(operation, &ids, &query(name, default)).send().await);
        assert_eq!(
            silent, spelled,
            "{}/parameters/query {name}/schema/default",
            operation.pointer
        );
    }

    async fn path_parameters(&mut self, operation: &Operation) {
        for parameter in operation.parameters("path") {
            let name = parameter["name"].as_str().unwrap();
            for probe in parameter_probes(parameter, "path") {
                let nonsense = operation.path.replace(&format!("{{{name}}}"), "nonsense");
                let response = self.app.ask(&operation.verb, &nonsense).send().await;
                self.seen(operation, &response);
                let obligation = probe.obligation(operation);
                let named = response.status == 422 && response.json()["errors"][0]["pointer"] == format!("path/{name}");
                check(
                    named,
                    &obligation,
                    &format!("422 with a fault at path/{name}"),
                    &response,
                );
                self.met.insert(obligation);
            }
            let ask = self.ask(operation, &Ids::of_nobody(), "");
            let ask = if let Some(body) = self.body(operation) {
                ask.json(&body)
            } else {
                ask
            };
            self.try_out(operation, ask).await.expect_problem(404, "not_found");
        }
    }

    async fn bodies(&mut self, operation: &Operation) {
        let Some(valid) = self.body(operation) else { return };
        let ids = self.ids().await;
        for probe in body_probes(operation) {
            let response = self.ask(operation, &ids, "").json(&with(&valid, &probe)).send().await;
            self.seen(operation, &response);
            let obligation = probe.obligation(operation);
            let codes = codes(&response, &probe.pointer);
            if probe.accepted {
                // A text of that length may have a wrong meaning, but not a wrong length.
                let own = snake_case(probe.constraint.rsplit('/').next().unwrap());
                check(
                    !codes.contains(&own),
                    &obligation,
                    &format!("no {own} at {}", probe.pointer),
                    &response,
                );
            } else {
                check(
                    !codes.is_empty(),
                    &obligation,
                    &format!("422 with a fault at {:?}", probe.pointer),
                    &response,
                );
            }
            self.met.insert(obligation);
        }
        let bytes_max = body_bytes_max(&operation.id);
        for (ask, status) in [
            (self.ask(operation, &ids, "").text("{"), 400),
            (
                self.ask(operation, &ids, "")
                    .text(&format!("{valid}{}", " ".repeat(bytes_max))),
                413,
            ),
            (self.ask(operation, &ids, "").bytes(&valid.to_string()), 415),
        ] {
            let response = self.try_out(operation, ask).await;
            let obligation = format!("{}/responses/{status}", operation.pointer);
            check(response.status == status, &obligation, &status.to_string(), &response);
        }
    }

    async fn security(&mut self, operation: &Operation) {
        let Some(scope) = operation.scope() else { return };
        let others = scopes_without(scope);
        let (token, _) = self.app.new_token(Some(self.app.organization), &others).await;
        let nobody = Ids::of_nobody();
        let ask = self.ask(operation, &nobody, "").anonymous();
        self.try_out(operation, ask).await.expect_problem(401, "unauthorized");
        self.met
            .insert(format!("{}/security: refused without a token", operation.pointer));
        let ask = self.ask(operation, &nobody, "").token(&token);
        self.try_out(operation, ask).await.expect_problem(403, "forbidden");
        self.met
            .insert(format!("{}/security: refused without the scope", operation.pointer));
    }

    /// A delivery of every event type; the receiver compares it with the `webhooks` section.
    async fn deliveries(&mut self) {
        let ids = self.ids().await;
        for event_type in Contract::load().unwrap().event_types() {
            let path = format!("/v1/webhooks/{}/test", ids.webhook);
            self.app
                .post(&path, &json!({ "event_type": event_type.name }))
                .await
                .expect(200);
            let arrival = self.receiver.arrivals().pop().unwrap();
            self.met
                .insert(format!("/webhooks/{}", arrival.payload()["type"].as_str().unwrap()));
        }
    }
}

/// The codes of the faults at a pointer.
fn codes(response: &ApiResponse, pointer: &str) -> Vec<String> {
    let problem = response.json();
    let errors = problem["errors"].as_array().into_iter().flatten();
    let here = errors.filter(|error| error["pointer"] == pointer);
    here.map(|error| error["code"].as_str().unwrap().to_owned()).collect()
}

/// The ids of a list's items, or the whole of anything else.
fn ids_of(body: &Value) -> Value {
    match body {
        Value::Array(items) => items
            .iter()
            .map(|item| item.get("id").unwrap_or(item).clone())
            .collect(),
        other => other.clone(),
    }
}

/// Fails with what, where, expected, seen and the one thing to do, if the server does not keep an obligation.
#[track_caller]
pub(super) fn check(kept: bool, obligation: &str, expected: &str, response: &ApiResponse) {
    assert!(
        kept,
        "the server does not keep what openapi.yaml promises\n  where:    {obligation}\n  expected: {expected}\n  seen:     {} \
         {}\n  do:       mend the handler, or change the document first if the promise itself is to change",
        response.status,
        String::from_utf8_lossy(&response.body)
    );
}

#[tokio::test]
async fn every_obligation_of_the_document_is_met() {
    let mut met = BTreeSet::new();
    for operation in operations() {
        // A server for each operation, so that none uses up another's limits.
        let mut trial = Trial::start().await;
        trial.examples(&operation).await;
        trial.query_parameters(&operation).await;
        trial.path_parameters(&operation).await;
        trial.header_parameters(&operation).await;
        trial.bodies(&operation).await;
        trial.security(&operation).await;
        trial.unknown_parameter(&operation).await;
        trial.limits(&operation).await;
        trial.conflict(&operation).await;
        met.extend(trial.met);
    }
    let mut trial = Trial::start().await;
    trial.deliveries().await;
    trial.failures().await;
    met.extend(trial.met);

    let all = obligations();
    let missing: Vec<&String> = all.difference(&met).collect();
    // Not `println!`, which the harness keeps to itself when a test passes: this number is to be seen.
    let report = format!(
        "contract coverage: {} of {} obligations\n",
        all.len() - missing.len(),
        all.len()
    );
    std::io::stdout().write_all(report.as_bytes()).unwrap();
    let unknown: Vec<&String> = met.difference(&all).collect();
    assert!(
        unknown.is_empty(),
        "the server shows what the document does not oblige it to: {unknown:#?}"
    );
    assert!(
        missing.is_empty(),
        "openapi.yaml promises what no generated request has seen.\n  where: {missing:#?}\n  do:    make the server keep it, \
         or teach tests/contract/coverage.rs how to bring it about"
    );
}
