//! `/metrics`, for Prometheus, on a listener of its own: it is for the operator, not for customers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio::sync::Mutex;

use crate::{
    clock::Clock,
    domain::framing::UnclearFraming,
    metrics::{Backlog, Metrics, ProcessUse},
    store::{Database, upkeep::backlog},
    telemetry,
};

/// How long the database may take to say how much is due.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(2);

/// The media type of `OpenMetrics` text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns how many API requests are in progress.
pub type RequestsRunning = Arc<dyn Fn() -> usize + Send + Sync>;

#[derive(Clone)]
struct Scrape {
    db: Database,
    clock: Clock,
    metrics: Metrics,
    requests_running: RequestsRunning,
    /// One query to the database at a time, however many clients scrape.
    turn: Arc<Mutex<()>>,
}

/// The router of the listener for metrics.
pub fn router(db: Database, clock: Clock, metrics: Metrics, requests_running: RequestsRunning) -> Router {
    let turn = Arc::new(Mutex::new(()));
    Router::new()
        .route("/metrics", get(serve_metrics))
        .layer(middleware::from_fn(refuse_unclear_framing))
        .with_state(Scrape {
            db,
            clock,
            metrics,
            requests_running,
            turn,
        })
}

/// Refuses a request with ambiguous framing, as the API does.
async fn refuse_unclear_framing(request: Request, next: Next) -> Response {
    match request.extensions().get::<UnclearFraming>() {
        Some(_) => StatusCode::BAD_REQUEST.into_response(),
        None => next.run(request).await,
    }
}

async fn serve_metrics(State(scrape): State<Scrape>) -> Response {
    let Scrape {
        db,
        clock,
        metrics,
        requests_running,
        turn,
    } = scrape;
    let _turn = turn.lock().await;
    metrics.set_backlog(backlog_of(&db, &clock).await);
    metrics.set_pools(&backlog::pools(&db));
    if let Some((statements, commits)) = backlog::sqlite_counts(&db) {
        metrics.set_sqlite(statements, commits);
    }
    if let Some((running, waiting)) = db.load() {
        metrics.set_load(running, waiting);
    }
    metrics.set_requests_running(requests_running());
    metrics.set_node(clock.skew_ms(), db.has_wrong_keys());
    metrics.set_dropped(telemetry::log::lines_dropped(), telemetry::spans_dropped());
    match ProcessUse::read() {
        Ok(used) => metrics.set_process(&used),
        Err(cause) => tracing::debug!(exception.message = %cause, "cannot read what this process uses"),
    }
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What the database knows; `None` if it does not answer in time.
async fn backlog_of(db: &Database, clock: &Clock) -> Option<Backlog> {
    match tokio::time::timeout(BACKLOG_TIMEOUT, backlog::backlog(db, clock.now())).await {
        Ok(Ok(backlog)) => Some(backlog),
        Ok(Err(error)) => {
            tracing::warn!(exception.message = %error, "serving metrics without the backlog");
            None
        }
        Err(_) => {
            tracing::warn!("serving metrics without the backlog: database did not answer in time");
            None
        }
    }
}
