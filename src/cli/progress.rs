//! Progress bars on standard error, where that is a terminal; elsewhere nothing is written.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a stopwatch moves.
const TICK: Duration = Duration::from_millis(100);

/// A bar of work whose size is known.
pub(super) fn bar(what: &'static str, total: u64) -> ProgressBar {
    styled(
        ProgressBar::new(total),
        what,
        "{msg} [{bar:40}] {pos}/{len}, {eta} left",
    )
}

/// A counter of work whose size is not known.
pub(super) fn counter(what: &'static str) -> ProgressBar {
    styled(ProgressBar::no_length(), what, "{spinner} {msg}: {pos}, {elapsed}")
}

/// A stopwatch for work that says nothing until it is done.
pub(super) fn stopwatch(what: &'static str) -> ProgressBar {
    let stopwatch = styled(ProgressBar::no_length(), what, "{spinner} {msg}, {elapsed}");
    // It is moved by a thread, which is not worth it where nobody looks.
    if !stopwatch.is_hidden() {
        stopwatch.enable_steady_tick(TICK);
    }
    stopwatch
}

fn styled(bar: ProgressBar, what: &'static str, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.set_message(what);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_how_far_it_is_and_nothing_where_nobody_looks() {
        for bar in [bar("pages", 10), counter("rows"), stopwatch("reading")] {
            assert!(bar.is_hidden(), "a test has no terminal");
            bar.inc(3);
            assert_eq!(bar.position(), 3);
        }
    }
}
