//! Migrations: the first node applies them, once, and older nodes keep working alongside newer ones.

use kallima_webhooks::domain::token::Scope;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::json;

use super::{Process, run};
use crate::support::{App, Receiver, Reply, client::Ask, database::TestDatabase};

#[tokio::test]
async fn four_nodes_that_migrate_an_empty_database_at_once_apply_each_migration_once() {
    let database = TestDatabase::empty().await;
    let migrate = || run(&database, &["migrate"]);
    let (first, second, third, fourth) = tokio::join!(migrate(), migrate(), migrate(), migrate());
    for (done, output, complaint) in [first, second, third, fourth] {
        assert!(done, "{complaint}");
        assert!(output.contains("All migrations are applied"), "{output}");
    }
    let connection = database.connect().await;
    let count = "SELECT COUNT(*) - COUNT(DISTINCT version) FROM seaql_migrations";
    let count = Statement::from_string(connection.get_database_backend(), count);
    let twice: i64 = connection
        .query_one_raw(count)
        .await
        .unwrap()
        .unwrap()
        .try_get_by_index(0)
        .unwrap();
    assert_eq!(twice, 0);
    let server = Process::start(&database.options.url, &[]).await;
    assert_eq!(Ask::new("GET", &server.base, "/readyz").send().await.status, 200);
}

#[tokio::test]
async fn an_older_node_serves_on_when_a_newer_one_has_migrated() {
    let receiver = Receiver::start([Reply::status(500), Reply::status(500)]).await;
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let webhook = app.webhook(&receiver.url).await["id"].as_str().unwrap().to_owned();
    let known = app.publish().await;
    let delivery = app.after_attempt(&known, 1).await["id"].as_str().unwrap().to_owned();
    // Prepared now, and used again later. A token that is not cached is looked up.
    let read_all = async || {
        let (token, _) = app.new_token(Some(app.organization), Scope::ALL).await;
        for path in [
            "webhooks",
            &format!("webhooks/{webhook}"),
            &format!("webhooks/{webhook}/audit"),
            "webhook_deliveries",
            "webhook_deliveries?status=pending",
            &format!("webhook_deliveries/{delivery}"),
            &format!("webhook_deliveries/{delivery}/attempts"),
            "events",
            &format!("events/{known}"),
        ] {
            app.ask("GET", &format!("/v1/{path}"))
                .token(&token)
                .send()
                .await
                .expect(200);
        }
    };
    read_all().await;
    // What version N+1 does: it adds, and removes nothing.
    let newer = app.database.connect().await;
    for sql in [
        "ALTER TABLE organizations ADD COLUMN of_a_newer_version TEXT",
        "ALTER TABLE tokens ADD COLUMN of_a_newer_version TEXT",
        "ALTER TABLE idempotency_keys ADD COLUMN of_a_newer_version TEXT",
        "ALTER TABLE audit_entries ADD COLUMN of_a_newer_version TEXT",
        "ALTER TABLE webhooks ADD COLUMN of_a_newer_version TEXT DEFAULT 'x'",
        "ALTER TABLE events ADD COLUMN of_a_newer_version TEXT",
        "ALTER TABLE deliveries ADD COLUMN of_a_newer_version TEXT",
        "ALTER TABLE queue ADD COLUMN of_a_newer_version TEXT NOT NULL DEFAULT 'x'",
        "ALTER TABLE attempts ADD COLUMN of_a_newer_version TEXT NOT NULL DEFAULT ''",
        "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29991231_000001_newer', 0)",
    ] {
        newer.execute_unprepared(sql).await.unwrap();
    }
    assert_eq!(app.ask("GET", "/readyz").anonymous().send().await.status, 200);
    read_all().await;
    let event = app.publish().await;
    let delivery = app
        .delivery_in_time(&event, |delivery| delivery["status"] == "delivered")
        .await;
    assert_eq!(delivery["attempt_count"], 2);
    app.post("/v1/webhooks", &json!({ "url": receiver.url }))
        .await
        .expect(201);

    // A restart of the older version beside it, or a command of it, finds nothing to do and nothing to complain of.
    let (done, _, complaint) = run(&app.database, &["migrate"]).await;
    assert!(done, "{complaint}");
}

#[tokio::test]
async fn a_statement_that_hangs_ends_with_service_unavailable() {
    let database = TestDatabase::create().await;
    if !database.is_postgres() {
        return;
    }
    // Behind a pooler the server's own timeouts count. A wait for a lock ends after half of it; a statement that waits for
    // nothing must not take as long, even on a busy machine.
    let timeout_ms = if database.options.statement_timeout_ms == 0 {
        "0"
    } else {
        "4000"
    };
    let mut server = Process::start(&database.options.url, &["--statement-timeout-ms", timeout_ms]).await;
    // Every query of its webhooks fails.
    server.log.expect("the database is not available");
    server.log.allow("due deliveries could not be claimed; retrying soon");
    server.log.allow("retrying later");
    let token = server.printed_token().await;
    let blocker = database.connect().await;
    let hold = sea_orm::TransactionTrait::begin(&blocker).await.unwrap();
    hold.execute_unprepared("LOCK TABLE webhooks IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let list = || Ask::new("GET", &server.base, "/v1/webhooks").token(&token).send();
    list().await.expect_problem(503, "service_unavailable");
    hold.rollback().await.unwrap();
    list().await.expect(200);
}
