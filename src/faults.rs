//! Injected faults, for tests of the binary. Not compiled into a release.

/// Names the background task that panics while the server is serving.
const VARIABLE: &str = "FAULT_PANIC_TASK";

/// Whether this task should panic.
pub(crate) fn is_wanted(task: &str) -> bool {
    std::env::var(VARIABLE).is_ok_and(|name| name == task)
}

/// Panics.
#[expect(clippy::panic, reason = "that is the fault")]
pub(crate) fn panic() {
    panic!("a fault on purpose");
}
