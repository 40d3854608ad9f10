//! The tasks that run as long as the server. The first that ends before it should, by a panic or otherwise, ends the
//! process: a server without its dispatcher or its heartbeat would go on reporting that it is ready.

use std::{collections::HashMap, fmt, future::Future};

use tokio::task::{Id, JoinError, JoinSet};

/// Named tasks, aborted when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// A task that ended although it was not stopped.
#[derive(Debug, thiserror::Error)]
pub struct TaskFailure {
    /// Which one.
    pub task: &'static str,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Returned,
    Panicked,
    Failed(JoinError),
}

impl TaskFailure {
    /// The failure of a task that the store runs.
    pub(super) fn of_store(task: &'static str, has_panicked: bool) -> Self {
        let cause = if has_panicked { Cause::Panicked } else { Cause::Returned };
        Self { task, cause }
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, cause } = self;
        match cause {
            Cause::Returned => write!(
                formatter,
                "background task {task} ended although nothing had stopped it"
            ),
            // The panic hook has logged its message and location.
            Cause::Panicked => write!(formatter, "background task {task} panicked"),
            Cause::Failed(cause) => write!(formatter, "background task {task} failed: {cause}"),
        }
    }
}

impl Supervisor {
    /// Starts a task.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(async move {
            #[cfg(debug_assertions)]
            if crate::faults::is_wanted(name) {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                crate::faults::panic();
            }
            task.await;
        });
        self.names.insert(handle.id(), name);
    }

    /// The names of the tasks that have not been reported as ended, in alphabetical order.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.names.values().copied().collect();
        names.sort_unstable();
        names
    }

    /// Waits until one of the tasks ends; forever if there are none.
    pub(super) async fn failure(&mut self) -> TaskFailure {
        let (id, cause) = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => (id, Cause::Returned),
            Some(Err(cause)) if cause.is_panic() => (cause.id(), Cause::Panicked),
            Some(Err(cause)) => (cause.id(), Cause::Failed(cause)),
            None => std::future::pending().await,
        };
        TaskFailure {
            task: self.name(id),
            cause,
        }
    }

    /// Waits until all tasks have ended. They must have been stopped.
    pub(super) async fn finished(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(cause) = ended {
                let task = self.name(cause.id());
                tracing::error!(kallima.task = task, exception.message = %cause, "background task failed while the server was stopping");
            }
        }
    }

    fn name(&mut self, id: Id) -> &'static str {
        self.names.remove(&id).unwrap_or("unknown")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_a_failure_of_that_name() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("waits", std::future::pending());
        supervisor.spawn("returns", async {});
        assert_eq!(supervisor.names(), ["returns", "waits"]);
        let failure = supervisor.failure().await;
        assert_eq!(failure.task, "returns");
        assert!(failure.to_string().contains("returns ended"), "{failure}");
        supervisor.spawn("panics", async { panic!("on purpose") });
        let failure = supervisor.failure().await;
        assert_eq!(failure.to_string(), "background task panics panicked");
        assert_eq!(supervisor.names(), ["waits"]);
    }

    #[tokio::test]
    async fn tasks_that_are_stopped_finish_even_where_one_panics_meanwhile() {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut supervisor = Supervisor::default();
        for name in ["one", "two"] {
            let mut stopped = stopped.clone();
            supervisor.spawn(name, async move {
                drop(stopped.wait_for(|stopped| *stopped).await);
                assert_ne!(name, "one", "on purpose");
            });
        }
        stop.send_replace(true);
        supervisor.finished().await;
    }
}
