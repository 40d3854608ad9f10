//! A publisher that hangs up delays nothing.

use std::{future::poll_fn, task::Poll};

use kallima_webhooks::store::events;

use crate::support::{App, Receiver};

#[tokio::test]
async fn what_is_published_is_sent_although_its_publisher_does_not_wait_for_the_commit() {
    // The clock stands still: a lease that was lost would never end.
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    for number in 1..=20 {
        let publication = app.publication(app.organization, "job.completed");
        let mut recording = Box::pin(events::record(&app.db, publication, None));
        // Submitted for commit, and then nobody waits for the result.
        drop(poll_fn(|context| Poll::Ready(recording.as_mut().poll(context))).await);
        drop(recording);
        receiver.wait_for(number).await;
    }
}
