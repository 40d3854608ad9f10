//! The binary: reads the command line and does what it says.

use std::process::ExitCode;

/// Many small allocations by many threads: the system's allocator is a tenth of the time there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kallima_webhooks::cli::main()
}
