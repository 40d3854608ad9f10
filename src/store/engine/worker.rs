//! The engines' background tasks: batches, the thread that writes to SQLite, the search for PostgreSQL's primary. A
//! store that has lost one of them hangs or refuses everything, so the server supervises them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

/// A database's background tasks. Clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Workers {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<Vec<&'static str>>,
    /// The first one that has ended, and whether it panicked.
    ended: watch::Sender<Option<(&'static str, bool)>>,
    is_watched: AtomicBool,
}

/// A running worker: it has ended when this is dropped.
pub(in crate::store) struct WorkerGuard {
    name: &'static str,
    shared: Arc<Shared>,
}

impl Workers {
    /// Registers a worker that starts.
    pub(in crate::store) fn begin(&self, name: &'static str) -> WorkerGuard {
        let mut names = self.shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(name);
        WorkerGuard {
            name,
            shared: Arc::clone(&self.shared),
        }
    }

    /// The names of all workers.
    pub(in crate::store) fn names(&self) -> Vec<&'static str> {
        let names = self.shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.clone()
    }

    /// Waits until one of them ends: returns its name, and whether it panicked.
    pub(in crate::store) async fn ended(&self) -> (&'static str, bool) {
        self.shared.is_watched.store(true, Ordering::SeqCst);
        let mut ended = self.shared.ended.subscribe();
        let first = ended.wait_for(Option::is_some).await.ok().and_then(|first| *first);
        match first {
            Some(first) => first,
            None => std::future::pending().await,
        }
    }
}

impl WorkerGuard {
    /// Panics if a test of the binary requests it, once the workers are supervised.
    pub(super) fn fail_on_purpose(&self) {
        #[cfg(debug_assertions)]
        if self.shared.is_watched.load(Ordering::SeqCst) && crate::faults::is_wanted(self.name) {
            crate::faults::panic();
        }
    }

    /// The same for a task that waits for work meanwhile: it never returns.
    pub(super) async fn fails_on_purpose(&self) {
        #[cfg(debug_assertions)]
        if crate::faults::is_wanted(self.name) {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                self.fail_on_purpose();
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let ended = (self.name, std::thread::panicking());
        self.shared.ended.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(ended);
            }
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_to_end_is_reported_with_whether_it_panicked() {
        let workers = Workers::default();
        let (one, two) = (workers.begin("one"), workers.begin("two"));
        assert_eq!(workers.names(), ["one", "two"]);
        let panicking = std::thread::spawn(move || {
            let _two = two;
            panic!("on purpose");
        });
        assert!(panicking.join().is_err());
        drop(one);
        assert_eq!(workers.ended().await, ("two", true));
    }

    #[tokio::test]
    async fn a_worker_that_returns_has_ended_too() {
        let workers = Workers::default();
        drop(workers.begin("one"));
        assert_eq!(workers.ended().await, ("one", false));
    }
}
