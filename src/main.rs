//! The binary: reads the command line and does what it says.

use std::process::ExitCode;

use clap::Parser as _;
use kallima_webhooks::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
