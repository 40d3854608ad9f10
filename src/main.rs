//! The binary.

use std::process::ExitCode;

/// The service makes many small allocations on many threads, on which the system's allocator spends a tenth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kallima_webhooks::cli::main()
}
