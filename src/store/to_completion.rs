//! Work that continues after its caller has gone away.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;

/// Work that runs to completion even if its caller goes away: what it has reserved, begun or committed is settled in
/// any case. Only then does it need a task of its own.
pub struct ToCompletion<T: Send + 'static>(Option<Work<T>>);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<T: Send + 'static> ToCompletion<T> {
    /// Wraps work that has not started.
    pub fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<T: Send + 'static> Future for ToCompletion<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that nothing is left to continue after a panic.
        let Some(mut work) = self.0.take() else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToCompletion<T> {
    fn drop(&mut self) {
        let Some(work) = self.0.take() else { return };
        // Without a runtime the process is about to end.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn abandoned_work_runs_to_completion() {
        let (go, going) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let mut work = ToCompletion::new(async {
            going.await.unwrap();
            end.send(()).unwrap();
        });
        let begun = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut work).poll(context))).await;
        assert!(begun.is_pending());
        drop(work);
        go.send(()).unwrap();
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn work_that_panics_is_not_resumed() {
        let work = ToCompletion::new(async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        });
        let ended: Result<(), _> = tokio::spawn(work).await;
        assert!(ended.unwrap_err().is_panic());
    }
}
