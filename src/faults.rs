//! Faults on purpose, for tests of the binary. They are not compiled into a release.

/// Names the background task that is to panic while the server serves.
const VARIABLE: &str = "FAULT_PANIC_TASK";

/// Whether this task is to panic.
pub(crate) fn is_wanted(task: &str) -> bool {
    std::env::var(VARIABLE).is_ok_and(|name| name == task)
}

/// Panics.
#[expect(clippy::panic, reason = "that is the fault")]
pub(crate) fn panic() {
    panic!("a fault on purpose");
}
