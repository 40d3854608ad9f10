//! Logs once per minute how much was published and delivered, unless events and attempts are logged one by one.

use std::time::Duration;

use tokio::sync::watch;

use crate::metrics::{Metrics, Totals};

/// How often it is logged.
const INTERVAL: Duration = Duration::from_mins(1);

/// Logs each minute in which something happened, and the rest once `stop` is set.
pub(super) async fn run(metrics: Metrics, mut stop: watch::Receiver<bool>) {
    let mut reported = metrics.totals();
    loop {
        let is_over = tokio::select! {
            () = tokio::time::sleep(INTERVAL) => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        let now = metrics.totals();
        log_since(reported, now);
        if is_over {
            return;
        }
        reported = now;
    }
}

fn log_since(before: Totals, now: Totals) {
    if before == now {
        return;
    }
    tracing::info!(
        kallima.events.published = now.published - before.published,
        kallima.attempts.delivered = now.delivered - before.delivered,
        kallima.attempts.failed = now.failed - before.failed,
        kallima.deliveries.exhausted = now.exhausted - before.exhausted,
        "events and attempts since the last summary"
    );
}
