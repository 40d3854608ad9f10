//! A node whose master keys cannot open the signing secrets holds no work, and uses up no attempts.

use std::{fs, path::PathBuf, sync::Mutex, time::Duration};

use clap::Parser as _;
use kallima_webhooks::{
    clock::Clock,
    config::{DatabaseOptions, ServeOptions},
    delivery::resolver::Resolver,
    server,
    store::Database,
};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, Statement};
use serde_json::{Value, json};

use crate::support::{
    App, Gate, Receiver, Reply,
    app::eventually,
    client::Ask,
    database::{MASTER_KEY, TestDatabase},
};

const OTHER_KEY: &str = "1:AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

async fn readiness(base: &str) -> u16 {
    Ask::new("GET", base, "/readyz").send().await.status.into()
}

/// Makes the id of the key that every secret names another one.
async fn name_key(beside: &DatabaseConnection, id: u8) {
    let sql = match beside.get_database_backend() {
        DbBackend::Postgres => format!("UPDATE webhooks SET secret = set_byte(secret, 1, {id})"),
        _ => format!(
            "UPDATE webhooks SET secret = CAST(substr(secret, 1, 1) || x'{id:02x}' || substr(secret, 3) AS BLOB)"
        ),
    };
    beside.execute_unprepared(&sql).await.unwrap();
}

#[tokio::test]
async fn a_node_that_cannot_open_a_secret_is_not_ready_and_the_attempt_does_not_count() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let webhook = app.webhook(&receiver.url).await;
    let beside = app.database.connect().await;
    name_key(&beside, 9).await;
    let event = app.publish().await;
    eventually(async || (readiness(&app.base).await == 503).then_some(())).await;
    assert!(app.db.has_wrong_keys());
    // Nothing of it is held, and nothing is used up.
    let delivery = app
        .delivery_when(&event, |delivery| delivery["next_attempt_at"].is_string())
        .await;
    assert_eq!(delivery["attempt_count"], 0);
    let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    let test = app.ask("POST", &path).send().await;
    test.expect_problem(503, "service_unavailable");
    let body = json!({ "url": receiver.url });
    let sealed = app.post("/v1/webhooks", &body).await;
    sealed.expect_problem(503, "service_unavailable");

    name_key(&beside, 1).await;
    beside.close().await.unwrap();
    let arrivals = receiver.wait_for(2).await;
    for arrival in arrivals {
        assert_eq!(arrival.header("kallima-attempt"), "1");
        assert!(arrival.is_signed_with(webhook["secret"].as_str().unwrap()));
    }
    eventually(async || (readiness(&app.base).await == 200).then_some(())).await;
    assert!(!app.db.has_wrong_keys());
}

#[tokio::test]
async fn what_could_not_be_given_back_while_the_database_was_away_does_not_count_either() {
    let app = App::builder()
        .arguments(&["--dev", "--attempts-per-webhook-max", "1"])
        .patient()
        .manual_clock()
        .start()
        .await;
    let gate = Gate::new();
    let receiver = Receiver::start([Reply::status(200).held_by(&gate)]).await;
    app.webhook(&receiver.url).await;
    app.publish().await;
    receiver.wait_for(1).await;
    let second = app.publish().await;
    eventually(async || (app.db.load() == Some((1, 1))).then_some(())).await;
    // It waits behind the first, and then can be neither signed nor released.
    let beside = app.database.connect().await;
    name_key(&beside, 9).await;
    beside
        .execute_unprepared("ALTER TABLE queue RENAME TO away")
        .await
        .unwrap();
    app.clock.advance(Duration::from_secs(1));
    gate.open();
    eventually(async || (app.db.load() == Some((0, 0))).then_some(())).await;
    beside
        .execute_unprepared("ALTER TABLE away RENAME TO queue")
        .await
        .unwrap();
    let released = app
        .delivery_when(&second, |delivery| delivery["next_attempt_at"].is_string())
        .await;
    assert_eq!(released["attempt_count"], 0);
    name_key(&beside, 1).await;
    beside.close().await.unwrap();
    app.clock.advance(Duration::from_secs(1));
    let arrived = eventually(async || {
        let arrivals = receiver.arrivals();
        arrivals
            .into_iter()
            .find(|arrival| arrival.header("webhook-id") == second)
    });
    assert_eq!(arrived.await.header("kallima-attempt"), "1");
}

/// An app whose master keys are in a file.
async fn app_with_key_file(folder: &tempfile::TempDir) -> (App, PathBuf) {
    let mut database = TestDatabase::create().await;
    let file = folder.path().join("master.key");
    fs::write(&file, MASTER_KEY).unwrap();
    database.options.master_key = None;
    database.options.master_key_file = Some(file.clone());
    let app = App::builder().arguments(&["--dev"]).start_on(database).await;
    (app, file)
}

#[tokio::test]
async fn a_key_file_that_does_not_open_what_is_stored_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (app, file) = app_with_key_file(&folder).await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    for wrong in [OTHER_KEY, &OTHER_KEY.replacen("1:", "2:", 1)] {
        fs::write(&file, wrong).unwrap();
        eventually(async || app.db.has_wrong_keys().then_some(())).await;
        // The previous keys still sign, and still seal.
        let webhook = app.webhook(&receiver.url).await;
        let secret = webhook["secret"].as_str().unwrap();
        let before = receiver.arrivals().len();
        app.publish().await;
        eventually(async || {
            let arrivals = receiver.arrivals();
            arrivals[before..]
                .iter()
                .any(|arrival| arrival.is_signed_with(secret))
                .then_some(())
        })
        .await;
        assert_eq!(readiness(&app.base).await, 200);
        fs::write(&file, MASTER_KEY).unwrap();
        eventually(async || (!app.db.has_wrong_keys()).then_some(())).await;
    }
}

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeOptions,
}

#[tokio::test]
async fn beside_a_good_node_one_with_a_wrong_key_holds_nothing() {
    let app = App::dev().await;
    if !app.database.is_postgres() {
        return;
    }
    let options = DatabaseOptions {
        master_key: Some(OTHER_KEY.to_owned()),
        ..app.database.options.clone()
    };
    let arguments = ["test", "--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"];
    let start = async || {
        let db = Database::open(&options, &Clock::system()).await.unwrap();
        let Arguments { serve } = Arguments::parse_from(arguments);
        server::start(&serve, db, Clock::system(), Resolver::system()).await
    };
    // There is no secret yet that would show it.
    let wrong = start().await.unwrap();
    let base = format!("http://{}", wrong.address);
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    let events = Mutex::new(Vec::new());
    let publish = async || {
        for at in [&base, &app.base] {
            let body = json!({ "type": "humanization.completed", "data": { "job_id": uuid::Uuid::new_v4() } });
            let publish = Ask::new("POST", at, "/v1/events").token(&app.token).json(&body);
            let event = publish.send().await.expect(202);
            events.lock().unwrap().push(event["id"].as_str().unwrap().to_owned());
        }
    };
    // It takes its first delivery some seconds after its start, and then it knows.
    eventually(async || {
        publish().await;
        (readiness(&base).await == 503).then_some(())
    })
    .await;
    for _ in 0..10 {
        publish().await;
    }
    let events = events.into_inner().unwrap();
    for event in &events {
        let delivered = app
            .delivery_when(event, |delivery| delivery["status"] == "delivered")
            .await;
        assert_eq!(delivered["attempt_count"], 1, "{delivered}");
    }
    assert_eq!(receiver.arrivals().len(), events.len());
    assert_eq!(readiness(&app.base).await, 200);
    wrong.stop().await;

    let refused = start().await.unwrap_err().to_string();
    assert!(refused.contains("master key 1 "), "{refused}");
}

/// Changes the webhook's sealed secret, as another key of the same id would have sealed it.
async fn damage(app: &App, webhook: &Value) {
    let beside = app.database.connect().await;
    let id: uuid::Uuid = webhook["id"].as_str().unwrap().parse().unwrap();
    let damage = match beside.get_database_backend() {
        DbBackend::Postgres => {
            "UPDATE webhooks SET secret = set_byte(secret, 40, 255 - get_byte(secret, 40)) WHERE id = $1"
        }
        _ => {
            "UPDATE webhooks SET secret = CAST(substr(secret, 1, 40) || x'00' || x'00' || substr(secret, 43) AS BLOB) WHERE id = $1"
        }
    };
    let damage = Statement::from_sql_and_values(beside.get_database_backend(), damage, [id.into()]);
    beside.execute_raw(damage).await.unwrap();
    beside.close().await.unwrap();
}

#[tokio::test]
async fn one_damaged_secret_stops_its_webhook_alone() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let (damaged, well) = (Receiver::start([]).await, Receiver::start([]).await);
    let webhook = app.webhook(&damaged.url).await;
    app.webhook(&well.url).await;
    app.publish().await;
    damaged.wait_for(1).await;
    well.wait_for(1).await;
    app.at_rest().await;
    damage(&app, &webhook).await;
    app.clock.advance(Duration::from_secs(1));
    app.publish().await;
    well.wait_for(2).await;
    let pending = eventually(async || {
        let pending = app.get("/v1/webhook_deliveries?status=pending").await.expect(200);
        pending[0]["next_attempt_at"].is_string().then(|| pending[0].clone())
    })
    .await;
    assert_eq!(
        (&pending["attempt_count"], &pending["webhook_id"]),
        (&json!(0), &webhook["id"])
    );
    app.engine_has_looked().await;
    assert_eq!(readiness(&app.base).await, 200);
    assert_eq!(damaged.arrivals().len(), 1);
    assert!(!app.db.has_wrong_keys(), "one is damaged, its key is right");
}

#[tokio::test]
async fn a_key_that_opens_some_secrets_and_not_others_is_reported() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([]).await;
    let webhooks = [app.webhook(&receiver.url).await, app.webhook(&receiver.url).await];
    let well = Receiver::start([]).await;
    app.webhook(&well.url).await;
    app.publish().await;
    well.wait_for(1).await;
    app.at_rest().await;
    for webhook in &webhooks {
        damage(&app, webhook).await;
    }
    app.clock.advance(Duration::from_secs(1));
    app.publish().await;
    eventually(async || app.db.has_wrong_keys().then_some(())).await;
    // What it opens is delivered as ever.
    well.wait_for(2).await;
    assert_eq!(readiness(&app.base).await, 200);
    // A secret that opens again says nothing against its key.
    let path = format!(
        "/v1/webhooks/{}?rotate_secret=true",
        webhooks[0]["id"].as_str().unwrap()
    );
    app.ask("PATCH", &path).json(&json!({})).send().await.expect(200);
    app.clock.advance(Duration::from_mins(1));
    eventually(async || (!app.db.has_wrong_keys()).then_some(())).await;
}
