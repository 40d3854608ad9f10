//! Clocks that are wrong or jump.

use std::time::Duration;

use kallima_webhooks::{
    clock::Clock,
    domain::timestamp::Timestamp,
    store::upkeep::{
        clamp::TOLERANCE,
        retention::{self, Pruned},
    },
};
use sea_orm::{ConnectionTrait as _, Statement, Value as SqlValue};
use serde_json::{Value, json};

use crate::support::{
    App, Receiver, Reply,
    app::{Builder, eventually},
};

const START: Timestamp = Timestamp::from_millis(1_776_938_400_000);
const HOUR_MS: i64 = 3_600_000;
const DAY: Duration = Duration::from_hours(24);

async fn readiness(app: &App) -> u16 {
    app.ask("GET", "/readyz").anonymous().send().await.status.into()
}

fn time(value: &Value) -> Timestamp {
    Timestamp::parse(value.as_str().unwrap()).unwrap()
}

/// Runs a statement behind the store's back.
async fn execute(app: &App, sql: &str, values: Vec<SqlValue>) {
    let beside = app.database.connect().await;
    let statement = Statement::from_sql_and_values(beside.get_database_backend(), sql, values);
    beside.execute_raw(statement).await.unwrap();
    beside.close().await.unwrap();
}

async fn number(app: &App, sql: &str) -> i64 {
    let beside = app.database.connect().await;
    let statement = Statement::from_string(beside.get_database_backend(), sql);
    let row = beside.query_one_raw(statement).await.unwrap().unwrap();
    beside.close().await.unwrap();
    row.try_get("", "number").unwrap()
}

#[tokio::test]
async fn a_wall_clock_that_jumps_moves_nothing_that_is_stored() {
    let machine = Clock::manual(Clock::system().now());
    let clock = machine.of_node(0);
    let app = App::builder().arguments(&["--dev"]).clock(clock.clone()).start().await;
    let receiver = Receiver::start([Reply::status(500)]).await;
    app.webhook(&receiver.url).await;
    clock.jump(40 * 24 * HOUR_MS);
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    let (created, next) = (time(&delivery["created_at"]), time(&delivery["next_attempt_at"]));
    let wait = next.since(created);
    assert!(
        (Duration::from_secs(5)..Duration::from_mins(1)).contains(&wait),
        "{wait:?} after {created}"
    );
    assert!(next.since(machine.now()) < Duration::from_mins(10));
    let signed_at: i64 = receiver.arrivals()[0].header("webhook-timestamp").parse().unwrap();
    if app.database.is_postgres() {
        assert!(
            (signed_at - created.as_unix_seconds()).abs() <= 60,
            "by the database's clock"
        );
        assert_eq!(readiness(&app).await, 503);
        clock.jump(-40 * 24 * HOUR_MS);
        // The database's clock has advanced in the meantime, and the test's has not.
        clock.advance(Clock::system().now().since(clock.wall()));
        assert_eq!(readiness(&app).await, 200);
    } else {
        assert_eq!(
            signed_at,
            clock.wall().as_unix_seconds(),
            "an SQLite server has nothing better"
        );
        assert_eq!(readiness(&app).await, 200, "there is nobody else to send requests to");
    }
}

#[tokio::test]
async fn a_node_whose_clock_is_an_hour_off_goes_by_the_databases() {
    let clock = Clock::manual(Clock::system().now()).of_node(HOUR_MS);
    let app = App::builder().arguments(&["--dev"]).clock(clock.clone()).start().await;
    if !app.database.is_postgres() {
        return;
    }
    let now = Clock::system().now();
    let apart = now.since(app.clock.now()).max(app.clock.now().since(now));
    assert!(apart < Duration::from_mins(10), "{apart:?}");
    assert_eq!(readiness(&app).await, 503, "the machine's clock is wrong all the same");
}

fn by_manual_clock() -> Builder {
    App::builder().arguments(&["--dev", "--retention-days", "1"])
}

#[tokio::test]
async fn what_a_clock_that_was_ahead_has_left_is_brought_back_at_the_start() {
    const FAR: &str = "UPDATE webhooks SET resume_at = $1, failing_since = $1, consecutive_failures = 10";
    let clock = Clock::manual(START);
    let app = by_manual_clock().clock(clock.clone()).start().await;
    let receiver = Receiver::start([Reply::status(500)]).await;
    app.webhook(&receiver.url).await;
    let (organization, token) = (app.organization, app.token.clone());
    clock.jump(40 * 24 * HOUR_MS);
    let body = json!({ "type": "humanization.completed", "data": { "job_id": uuid::Uuid::new_v4() } });
    let publish = app
        .ask("POST", "/v1/events")
        .header("idempotency-key", "one")
        .json(&body);
    let event = publish.send().await.expect(202)["id"].as_str().unwrap().to_owned();
    app.after_attempt(&event, 1).await;
    execute(&app, FAR, vec![clock.now().as_millis().into()]).await;
    let database = app.stop().await;
    clock.jump(-40 * 24 * HOUR_MS);

    let mut app = by_manual_clock().clock(clock.clone()).start_on(database).await;
    (app.organization, app.token) = (organization, token);
    let now = clock.now().plus(TOLERANCE);
    let at_most = |ahead: Duration| now.plus(ahead).as_millis();
    for (sql, most) in [
        (
            "SELECT max(due_at) AS number FROM queue",
            at_most(Duration::from_mins(1584)),
        ),
        (
            "SELECT max(resume_at) AS number FROM webhooks",
            at_most(Duration::from_mins(5)),
        ),
        (
            "SELECT max(failing_since) AS number FROM webhooks",
            at_most(Duration::ZERO),
        ),
        ("SELECT max(expires_at) AS number FROM idempotency_keys", at_most(DAY)),
    ] {
        assert_eq!(number(&app, sql).await, most, "{sql}");
    }
    app.advance(Duration::from_mins(1584) + TOLERANCE).await;
    receiver.wait_for(2).await;
    app.after_attempt(&event, 2).await;
}

/// One pass of retention, of an app that keeps a day.
async fn pass(app: &App, clock: &Clock) -> Pruned {
    retention::pass(&app.db, clock, Some(DAY), &app.measured).await.unwrap()
}

fn is_paused(app: &App) -> bool {
    app.measured.encode().unwrap().contains("kallima_retention_paused 1")
}

#[tokio::test]
async fn retention_deletes_nothing_after_a_jump_until_somebody_accepts_it() {
    let clock = Clock::manual(START);
    let app = by_manual_clock().clock(clock.clone()).start().await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    app.delivery_when(&event, |delivery| delivery["status"] == "delivered")
        .await;
    let (organization, token) = (app.organization, app.token.clone());

    // As long as it runs, a day is no jump.
    app.advance(DAY).await;
    assert_eq!(pass(&app, &clock).await, Pruned::default());
    let database = app.stop().await;
    clock.advance(2 * DAY);

    // Off for two days, or a clock that is two days ahead: there is no telling which.
    let mut app = by_manual_clock().clock(clock.clone()).start_on(database).await;
    (app.organization, app.token) = (organization, token.clone());
    eventually(async || is_paused(&app).then_some(())).await;
    for _ in 0..3 {
        assert_eq!(pass(&app, &clock).await, Pruned::default());
        clock.advance(DAY);
    }
    app.get(&format!("/v1/events/{event}")).await.expect(200);
    let second = app.publish().await;
    app.delivery_when(&second, |delivery| delivery["status"] == "delivered")
        .await;
    let database = app.stop().await;

    let accepting = by_manual_clock().arguments(&["--accept-clock-jump"]);
    let mut app = accepting.clock(clock.clone()).start_on(database).await;
    (app.organization, app.token) = (organization, token);
    // The server's own first pass and this one.
    pass(&app, &clock).await;
    eventually(async || (app.get(&format!("/v1/events/{event}")).await.status == 404).then_some(())).await;
    app.get(&format!("/v1/events/{second}")).await.expect(200);
    assert!(!is_paused(&app));
}

#[tokio::test]
async fn a_clock_that_was_behind_for_a_while_has_not_jumped() {
    let clock = Clock::manual(START);
    let app = by_manual_clock().clock(clock.clone()).start().await;
    pass(&app, &clock).await;
    clock.jump(-40 * 24 * HOUR_MS);
    pass(&app, &clock).await;
    clock.jump(40 * 24 * HOUR_MS);
    pass(&app, &clock).await;
    assert!(!is_paused(&app));
    clock.jump(25 * HOUR_MS);
    pass(&app, &clock).await;
    assert!(is_paused(&app));
    clock.jump(-2 * HOUR_MS);
    pass(&app, &clock).await;
    assert!(!is_paused(&app), "the clock is right again");
}
