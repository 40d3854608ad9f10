//! Walks through every operation in the document: who may call it, and which audit entries its writes leave.

use kallima_webhooks::{domain::token::Scope, store::tokens};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement};
use serde_json::{Value, json};

use super::{
    coverage::{Ids, Trial},
    obligations::{Operation, operations},
};
use crate::support::{
    app::scopes_without,
    client::{ApiResponse, Ask},
};

/// How the description of a mutating operation begins the paragraph that says why it leaves no audit entry.
const NOT_AUDITED: &str = "Not audited: ";

impl Trial {
    /// A valid request, except for its token.
    fn valid(&self, operation: &Operation, ids: &Ids, query: &str) -> Ask {
        let ask = self.ask(operation, ids, query);
        match self.body(operation) {
            Some(body) => ask.json(&body),
            None => ask,
        }
    }

    /// Every way of having no valid token is refused in the same words.
    async fn refuses_everyone_without_a_token(&self, operation: &Operation, ids: &Ids, revoked: &str) {
        let own = &self.app.token;
        let anonymous = || self.valid(operation, ids, "").anonymous();
        let mut details = Vec::new();
        for ask in [
            anonymous(),
            anonymous().header("authorization", "Bearer"),
            anonymous().header("authorization", own),
            anonymous().header("authorization", &format!("Basic {own}")),
            anonymous().token("ab_short"),
            anonymous().token(&format!("ab_{}", "x".repeat(48))),
            anonymous().token(revoked),
            anonymous().token(own).header("authorization", &format!("Bearer {own}")),
        ] {
            let response = ask.send().await;
            let problem = response.expect_problem(401, "unauthorized");
            assert_eq!(response.header("www-authenticate"), Some("Bearer"));
            details.push(problem["detail"].clone());
        }
        details.dedup();
        assert_eq!(details.len(), 1, "{} says which: {details:?}", operation.id);
    }

    /// A typo in a query is refused by every operation with a token, also by those that have no parameters. What anybody
    /// may ask, such as whether the service lives, takes what proxies and browsers put there.
    pub(super) async fn unknown_parameter(&mut self, operation: &Operation) {
        let ask = self.valid(operation, &Ids::of_nobody(), "?colour=red");
        let response = self.try_out(operation, ask).await;
        if operation.scope().is_none() {
            assert_eq!(response.status, 200, "{}", operation.id);
            return;
        }
        let problem = response.expect_problem(400, "bad_request");
        let fault = json!({
            "pointer": "query/colour",
            "code": "unknown_parameter",
            "detail": "is not a parameter of this operation",
        });
        assert_eq!(problem["errors"], json!([fault]), "{}", operation.id);
    }

    async fn needs_its_scope(&self, operation: &Operation, scope: &str) {
        let nobody = Ids::of_nobody();
        let others = scopes_without(scope);
        for (scopes, is_enough) in [(others, false), (vec![scope.parse().unwrap()], true)] {
            let (token, _) = self.app.new_token(Some(self.app.organization), &scopes).await;
            let response = self.ask(operation, &nobody, "").token(&token).send().await;
            if is_enough {
                let is_allowed = ![401, 403].contains(&response.status.as_u16());
                assert!(is_allowed, "{} refuses a token with {scope}", operation.id);
            } else {
                let problem = response.expect_problem(403, "forbidden");
                assert!(
                    problem["detail"].as_str().unwrap().contains(scope),
                    "{}: {problem}",
                    operation.id
                );
            }
        }
    }

    /// What belongs to another organization looks as if it did not exist.
    async fn hides_what_is_anothers(&self, operation: &Operation, ids: &Ids, stranger: &str) {
        let theirs = self.valid(operation, ids, "").token(stranger).send().await;
        if operation.parameters("path").is_empty() {
            let text = String::from_utf8(theirs.body.to_vec()).unwrap();
            let seen = [&ids.webhook, &ids.delivery, &ids.event]
                .into_iter()
                .find(|id| text.contains(*id));
            assert!(theirs.status.is_success(), "{}: {text}", operation.id);
            assert_eq!(seen, None, "{}: {text}", operation.id);
            return;
        }
        let missing = self
            .valid(operation, &Ids::of_nobody(), "")
            .token(stranger)
            .send()
            .await;
        assert_eq!(not_found(&theirs), not_found(&missing), "{}", operation.id);
    }

    /// The webhook, the delivery and the event as their organization sees them.
    async fn view(&self, ids: &Ids) -> Vec<Value> {
        let mut views = Vec::new();
        for path in [
            format!("/v1/webhooks/{}", ids.webhook),
            format!("/v1/webhook_deliveries/{}", ids.delivery),
            format!("/v1/events/{}", ids.event),
        ] {
            views.push(self.app.get(&path).await.expect(200));
        }
        views
    }
}

/// A 404 without what is different in each.
fn not_found(response: &ApiResponse) -> Value {
    let mut problem = response.expect_problem(404, "not_found");
    let fields = problem.as_object_mut().unwrap();
    fields.remove("request_id");
    fields.remove("instance");
    problem
}

#[tokio::test]
async fn every_operation_is_open_only_to_those_who_may_call_it() {
    let trial = Trial::start().await;
    let ids = trial.ids().await;
    let before = trial.view(&ids).await;
    let (revoked, id) = trial.app.new_token(Some(trial.app.organization), Scope::ALL).await;
    tokens::revoke(&trial.app.db, id, trial.app.clock.now()).await.unwrap();
    let (_, stranger) = trial.app.new_organization().await;
    for operation in operations() {
        let Some(scope) = operation.scope() else {
            assert!(!operation.path.starts_with("/v1"), "{} needs no scope", operation.id);
            let response = trial.ask(&operation, &ids, "").anonymous().send().await;
            assert_eq!(response.status, 200, "{}", operation.id);
            continue;
        };
        trial.refuses_everyone_without_a_token(&operation, &ids, &revoked).await;
        trial.needs_its_scope(&operation, scope).await;
        trial.hides_what_is_anothers(&operation, &ids, &stranger).await;
    }
    assert_eq!(
        trial.view(&ids).await,
        before,
        "a request that was refused changed something"
    );
}

/// How many audit entries there are, whoever's.
async fn audit_entries(beside: &DatabaseConnection) -> i64 {
    let sql = "SELECT COUNT(*) AS number FROM audit_entries";
    let statement = Statement::from_string(beside.get_database_backend(), sql);
    let row = beside.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get("", "number").unwrap()
}

#[tokio::test]
async fn every_operation_that_writes_leaves_an_audit_entry_or_says_why_not() {
    let trial = Trial::start().await;
    let beside = trial.app.database.connect().await;
    let (mut audited, mut not_audited) = (Vec::new(), Vec::new());
    for operation in operations().into_iter().filter(|operation| operation.verb != "GET") {
        let ids = trial.ids().await;
        let before = audit_entries(&beside).await;
        let response = trial.valid(&operation, &ids, "").send().await;
        assert!(response.status.is_success(), "{}: {:?}", operation.id, response.body);
        let written = audit_entries(&beside).await - before;
        let mut paragraphs = operation.item["description"].as_str().unwrap().lines();
        let reason = paragraphs.find_map(|line| line.strip_prefix(NOT_AUDITED));
        if let Some(reason) = reason {
            assert_eq!(
                written, 0,
                "{} leaves an entry, but says why not: {reason}",
                operation.id
            );
            assert!(reason.len() > 20, "{}: {reason:?} is no reason", operation.id);
            not_audited.push(operation.id);
            continue;
        }
        assert_eq!(
            written, 1,
            "{} leaves no audit entry and does not say why",
            operation.id
        );
        let created = if operation.id == "create_webhook" {
            Some(response.json())
        } else {
            None
        };
        let webhook = created
            .as_ref()
            .map_or(ids.webhook.as_str(), |webhook| webhook["id"].as_str().unwrap());
        let entries = trial
            .app
            .get(&format!("/v1/webhooks/{webhook}/audit"))
            .await
            .expect(200);
        assert_eq!(
            entries[0]["request_id"],
            response.header("x-request-id").unwrap(),
            "{}",
            operation.id
        );
        audited.push(operation.id);
    }
    assert_eq!(audited, ["create_webhook", "update_webhook", "delete_webhook"]);
    assert_eq!(not_audited.len(), 5, "{not_audited:?}");
}
