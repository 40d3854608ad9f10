//! `/metrics`, for Prometheus, on a listener of its own: it is for the operator, not for customers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio::sync::Mutex;

use crate::{
    clock::Clock,
    store::{Database, backlog},
};

/// How long the database may take to say how much is due.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(2);

/// The media type of `OpenMetrics` text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Scrape {
    db: Database,
    clock: Clock,
    /// One question to the database at a time, however many ask.
    turn: Arc<Mutex<()>>,
}

/// The router of the listener for metrics.
pub fn router(db: Database, clock: Clock) -> Router {
    let turn = Arc::new(Mutex::new(()));
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(Scrape { db, clock, turn })
}

async fn metrics(State(Scrape { db, clock, turn }): State<Scrape>) -> Response {
    let _turn = turn.lock().await;
    let asked = tokio::time::timeout(BACKLOG_TIMEOUT, backlog::backlog(&db, clock.now())).await;
    let backlog = match asked {
        Ok(Ok(backlog)) => Some(backlog),
        Ok(Err(error)) => {
            tracing::warn!(%error, "metrics are told without the backlog");
            None
        }
        Err(_) => {
            tracing::warn!("metrics are told without the backlog: the database took too long");
            None
        }
    };
    db.metrics().set_backlog(backlog);
    db.metrics().set_pools(&backlog::pools(&db));
    match db.metrics().encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
