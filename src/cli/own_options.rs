//! Which of the options that every command can take a command has a use for: `--help` shows those alone, and others are
//! refused.

use clap::{ArgMatches, Command, parser::ValueSource};

/// The options of the database.
const DATABASE: [&str; 6] = [
    "database_url",
    "database_connections_max",
    "database_wait_s",
    "statement_timeout_ms",
    "master_key",
    "master_key_file",
];

/// The commands that have no use for some of the common options, with those.
fn useless(command: &str) -> &'static [&'static str] {
    match command {
        "healthcheck" | "listen" | "conform" | "trigger" | "verify" | "sign" | "completions" | "man" | "sandbox" => {
            &DATABASE
        }
        "backup" => &["database_connections_max", "database_wait_s", "statement_timeout_ms"],
        "migrate-data" => &["database_url", "database_wait_s"],
        "token" | "organization" | "webhooks" | "deliveries" | "top" | "keys" | "doctor" => &["database_wait_s"],
        _ => &[],
    }
}

/// Whether a command works on the database that the options name.
pub(super) fn uses_database(command: &str) -> bool {
    !useless(command).contains(&DATABASE[0])
}

/// The command with its common options in place, each shown where it is of use.
pub(super) fn build(mut command: Command) -> Command {
    command.build();
    let command = command.mut_subcommands(|subcommand| {
        let useless = useless(subcommand.get_name());
        hide(subcommand, useless)
    });
    // Its log is among the output of a test suite, where only trouble is of interest.
    command.mut_subcommand("sandbox", |sandbox| {
        sandbox.mut_args(|option| {
            let is_log = option.get_id() == "log";
            if is_log { option.default_value("warn") } else { option }
        })
    })
}

fn hide(command: Command, useless: &'static [&'static str]) -> Command {
    command
        .mut_args(|option| {
            let is_useless = useless.contains(&option.get_id().as_str());
            if is_useless { option.hide(true) } else { option }
        })
        .mut_subcommands(|subcommand| hide(subcommand, useless))
}

/// The options on the command line that the command has no use for, one line each.
pub(super) fn faults(matches: &ArgMatches) -> Vec<String> {
    let Some((command, matches)) = matches.subcommand() else {
        return Vec::new();
    };
    let mut innermost = matches;
    while let Some((_, inner)) = innermost.subcommand() {
        innermost = inner;
    }
    let is_given = |id: &&&str| innermost.value_source(id) == Some(ValueSource::CommandLine);
    let useless = useless(command).iter().filter(is_given);
    useless
        .map(|id| format!("--{} cannot be used with {command}", id.replace('_', "-")))
        .collect()
}
