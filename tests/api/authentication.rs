//! Who may do what: tried on every `/v1` operation of the document.

use std::time::Duration;

use kallima_webhooks::{contract::Contract, domain::token::Scope, store::tokens};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{App, app::eventually};

/// An operation of the document.
struct Operation {
    verb: String,
    path: String,
    scope: String,
    /// A body that it takes, where it needs one.
    body: Option<Value>,
}

/// Every `/v1` operation, its parameters filled with ids that nobody has.
fn operations() -> Vec<Operation> {
    let document = Contract::load().unwrap().document().clone();
    let mut found = Vec::new();
    for (path, item) in document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(path, _)| path.starts_with("/v1"))
    {
        for (verb, operation) in item
            .as_object()
            .unwrap()
            .iter()
            .filter(|(verb, _)| *verb != "parameters")
        {
            let path = path
                .replace("{webhook_id}", "0190a000-0000-7000-8000-000000000000")
                .replace("{delivery_id}", "0190a000-0000-7000-8000-000000000000")
                .replace("{event_id}", "evt_01JBAAAA000000000000000000");
            let scope = operation["security"][0]["bearer"][0]
                .as_str()
                .expect("a scope")
                .to_owned();
            found.push(Operation {
                verb: verb.to_uppercase(),
                path,
                scope,
                body: operation
                    .pointer("/requestBody/content/application~1json/examples")
                    .and_then(|examples| examples.as_object()?.values().next())
                    .map(|example| example["value"].clone()),
            });
        }
    }
    assert!(found.len() >= 15, "the operations of the document: {}", found.len());
    found
}

#[tokio::test]
async fn without_a_valid_token_nothing_is_told() {
    let app = App::dev().await;
    let (revoked, id) = app.new_token(Some(app.organization), &Scope::ALL).await;
    tokens::revoke(&app.db, id, app.clock.now()).await.unwrap();
    let unknown = format!("ab_{}", "x".repeat(48));
    for Operation { verb, path, .. } in operations() {
        let anonymous = || app.ask(&verb, &path).anonymous();
        let refused = [
            anonymous(),
            anonymous().header("authorization", "Bearer"),
            anonymous().header("authorization", &app.token),
            anonymous().header("authorization", &format!("Basic {}", app.token)),
            anonymous().token("ab_short"),
            anonymous().token(&unknown),
            anonymous().token(&revoked),
            anonymous()
                .token(&app.token)
                .header("authorization", &format!("Bearer {}", app.token)),
        ];
        let mut said = Vec::new();
        for ask in refused {
            let answer = ask.send().await;
            let problem = answer.expect_problem(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            said.push(problem["detail"].clone());
        }
        said.dedup();
        assert_eq!(said.len(), 1, "{verb} {path} says which: {said:?}");
    }
}

#[tokio::test]
async fn a_token_without_the_scope_is_forbidden_to() {
    let app = App::dev().await;
    for Operation { verb, path, scope, .. } in operations() {
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|other| other.as_str() != scope).collect();
        let (token, _) = app.new_token(Some(app.organization), &others).await;
        let problem = app
            .ask(&verb, &path)
            .token(&token)
            .send()
            .await
            .expect_problem(403, "forbidden");
        assert!(
            problem["detail"].as_str().unwrap().contains(&scope),
            "{verb} {path}: {problem}"
        );
        let (own, _) = app.new_token(Some(app.organization), &[scope.parse().unwrap()]).await;
        let status = app.ask(&verb, &path).token(&own).send().await.status.as_u16();
        assert!(
            ![401, 403].contains(&status),
            "{verb} {path} answered {status} to a token with {scope}"
        );
    }
}

#[tokio::test]
async fn authentication_is_decided_before_anything_else_is_judged() {
    let app = App::dev().await;
    let ask = app
        .ask("PATCH", "/v1/webhooks/nonsense?rotate_secret=nonsense")
        .anonymous()
        .text("{nonsense");
    ask.send().await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn the_case_of_the_scheme_does_not_matter() {
    let app = App::dev().await;
    let ask = app
        .ask("GET", "/v1/webhooks")
        .anonymous()
        .header("authorization", &format!("bearer {}", app.token));
    ask.send().await.expect(200);
}

/// A problem without what is different in every one.
fn comparable(mut problem: Value) -> Value {
    let fields = problem.as_object_mut().unwrap();
    fields.remove("request_id");
    fields.remove("instance");
    problem
}

#[tokio::test]
async fn what_is_somebody_elses_is_as_if_it_were_not_there() {
    let app = App::dev().await;
    let webhook = app.webhook("http://127.0.0.1:9/").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let event = app.publish().await;
    let delivery = app.delivery_of(&event).await["id"].as_str().unwrap().to_owned();
    let (_, stranger) = app.new_organization().await;
    let nobody = Uuid::now_v7().to_string();
    for Operation { verb, path, body, .. } in operations() {
        let real = path
            .replace(
                "webhooks/0190a000-0000-7000-8000-000000000000",
                &format!("webhooks/{webhook}"),
            )
            .replace(
                "webhook_deliveries/0190a000-0000-7000-8000-000000000000",
                &format!("webhook_deliveries/{delivery}"),
            )
            .replace("evt_01JBAAAA000000000000000000", &event);
        if real == path {
            continue;
        }
        let ask = |path: &str| {
            let ask = app.ask(&verb, path).token(&stranger);
            match &body {
                Some(body) => ask.json(body),
                None => ask,
            }
        };
        let theirs = ask(&real).send().await.expect_problem(404, "not_found");
        let none = path.replace("0190a000-0000-7000-8000-000000000000", &nobody);
        let missing = ask(&none).send().await.expect_problem(404, "not_found");
        assert_eq!(comparable(theirs), comparable(missing), "{verb} {path}");
    }
    for list in ["/v1/webhooks", "/v1/events", "/v1/webhook_deliveries"] {
        assert_eq!(
            app.ask("GET", list).token(&stranger).send().await.expect(200),
            serde_json::json!([]),
            "{list}"
        );
    }
    app.get(&format!("/v1/webhooks/{webhook}")).await.expect(200);
}

#[tokio::test]
async fn a_platform_token_names_whom_the_event_happened_to_and_may_do_nothing_else() {
    let app = App::dev().await;
    let (platform, _) = app.new_token(None, &Scope::ALL).await;
    let event = |org: Value| serde_json::json!({ "type": "webhook.test", "data": {}, "org_id": org });
    let publish = |org: Value| app.ask("POST", "/v1/events").token(&platform).json(&event(org)).send();
    let published = publish(app.organization.to_string().into()).await.expect(202);
    app.get(&format!("/v1/events/{}", published["id"].as_str().unwrap()))
        .await
        .expect(200);
    assert_eq!(publish(Value::Null).await.expect_faults(), ["/org_id"]);
    assert_eq!(
        publish(Uuid::now_v7().to_string().into()).await.expect_faults(),
        ["/org_id"]
    );
    app.ask("GET", "/v1/webhooks")
        .token(&platform)
        .send()
        .await
        .expect_problem(403, "forbidden");
    let (other, _) = app.new_organization().await;
    assert_eq!(
        app.post("/v1/events", &event(other.to_string().into()))
            .await
            .expect_faults(),
        ["/org_id"]
    );
    app.post("/v1/events", &event(app.organization.to_string().into()))
        .await
        .expect(202);
}

#[tokio::test]
async fn the_last_use_of_a_token_is_noted_once_a_minute() {
    let app = App::builder().manual_clock().start().await;
    let (token, id) = app.new_token(Some(app.organization), &Scope::ALL).await;
    let last_used_at = async || {
        let all = tokens::list(&app.db).await.unwrap();
        all.into_iter().find(|record| record.id == id).unwrap().last_used_at
    };
    let use_it = async || app.ask("GET", "/v1/webhooks").token(&token).send().await.expect(200);
    assert_eq!(last_used_at().await, None);
    let first = app.clock.now();
    // Many at once are one use.
    tokio::join!(use_it(), use_it(), use_it(), use_it());
    eventually(|| async { (last_used_at().await == Some(first)).then_some(()) }).await;
    app.advance(Duration::from_secs(59)).await;
    use_it().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        last_used_at().await,
        Some(first),
        "less than a minute later it is not noted"
    );
    // Where a token is believed for two seconds, it is looked up again by then.
    app.advance(Duration::from_secs(2)).await;
    use_it().await;
    let second = app.clock.now();
    eventually(|| async { (last_used_at().await == Some(second)).then_some(()) }).await;
}
