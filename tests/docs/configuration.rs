//! docs/configuration.md lists the commands and options that the program has. Its tables are written from the command
//! line's own definition: `UPDATE_DOCS=1 cargo test docs::configuration` writes them again.

use std::{fmt::Write as _, fs};

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use kallima_webhooks::cli::Cli;

use super::{read, root};

const PAGE: &str = "docs/configuration.md";
const BEGIN: &str = "<!-- Written by UPDATE_DOCS=1 cargo test docs::configuration: change the source, not this. -->\n";
const END: &str = "<!-- The end of what is written by the test. -->\n";

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The options of a command, without those that every command has.
fn own(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_global_set() && !["help", "version"].contains(&argument.get_id().as_str()))
}

/// An option as it is written: its flag, and its value's name unless that only repeats the flag.
fn spelled(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let value = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let Some(long) = argument.get_long() else {
        return value;
    };
    let repeated = value.eq_ignore_ascii_case(&long.replace('-', "_"));
    if repeated || matches!(argument.get_action(), ArgAction::SetTrue) {
        format!("--{long}")
    } else {
        format!("--{long} {value}")
    }
}

fn default(argument: &Arg) -> String {
    let values: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    match argument.get_action() {
        ArgAction::SetTrue => "off".to_owned(),
        _ if argument.is_required_set() => "must be given".to_owned(),
        _ if values.is_empty() => "–".to_owned(),
        _ => format!("`{}`", values.join(",")),
    }
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut text = "| option | variable | default | meaning |\n|---|---|---|---|\n".to_owned();
    for argument in arguments {
        let variable = argument
            .get_env()
            .map_or("–".to_owned(), |name| format!("`{}`", name.display()));
        let help = argument.get_help().unwrap_or_default().to_string();
        let possible = argument.get_possible_values();
        let possible: Vec<_> = possible
            .iter()
            .filter(|_| !matches!(argument.get_action(), ArgAction::SetTrue))
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        let possible = if possible.is_empty() {
            String::new()
        } else {
            format!(" One of {}.", possible.join(", "))
        };
        let meaning = cell(&format!("{}.{possible}", help.trim_end_matches('.')));
        writeln!(
            text,
            "| `{}` | {variable} | {} | {meaning} |",
            cell(&spelled(argument)),
            default(argument)
        )
        .unwrap();
    }
    text
}

/// The commands without commands of their own, each with its whole name.
fn leaves(command: &Command, name: &str, found: &mut Vec<(String, Command)>) {
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let name = format!("{name}{}", below.get_name());
        if below.has_subcommands() {
            leaves(below, &format!("{name} "), found);
        } else {
            found.push((name, below.clone()));
        }
    }
}

fn tables() -> String {
    let mut command = Cli::command();
    command.build();
    let mut commands = Vec::new();
    leaves(&command, "", &mut commands);
    let mut text = "\n## Commands\n\n| command | what it does |\n|---|---|\n".to_owned();
    for (name, command) in &commands {
        let about = command.get_about().unwrap_or_default().to_string();
        writeln!(text, "| `{name}` | {}. |", cell(about.trim_end_matches('.'))).unwrap();
    }
    let globals = command.get_arguments().filter(|argument| argument.is_global_set());
    write!(text, "\n## Options of every command\n\n{}", table(globals)).unwrap();
    for (name, command) in commands.iter().filter(|(_, command)| own(command).next().is_some()) {
        write!(text, "\n## Options of `{name}`\n\n{}", table(own(command))).unwrap();
    }
    text.push('\n');
    text
}

#[test]
fn the_page_lists_every_command_and_option() {
    let page = read(PAGE);
    let (before, rest) = page.split_once(BEGIN).expect("the page says where the tables begin");
    let (written, after) = rest.split_once(END).expect("the page says where the tables end");
    let tables = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(PAGE), format!("{before}{BEGIN}{tables}{END}{after}")).unwrap();
        return;
    }
    assert!(
        written == tables,
        "{PAGE} is not what the program's options are: run UPDATE_DOCS=1 cargo test docs::configuration"
    );
}
