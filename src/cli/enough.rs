//! Standard output whose reader has had enough, such as `head`: the command ends quietly, and has not failed.

use std::{panic, process};

/// How the panic begins that printing ends in where nobody reads any more.
const UNREAD: &str = "failed printing to stdout: Broken pipe";

/// Ends the process in success where what it prints is no longer read. It asks before the hook that is in place.
pub(super) fn end_when_unread() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(|cause| cause.starts_with(UNREAD)) {
            process::exit(0);
        }
        others(panic);
    }));
}
