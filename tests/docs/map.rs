//! The map of the source in docs/architecture.md, which is also the crate's documentation: everything that it names exists,
//! and it names everything that exists.

use std::{collections::BTreeSet, fs};

use clap::CommandFactory as _;
use kallima_webhooks::cli::Cli;

use super::{read, root};

/// The rows of the map: what each names, and what it says.
fn rows() -> Vec<(String, String)> {
    let page = read("docs/architecture.md");
    let (_, map) = page.split_once("\n## The map\n").expect("the page has a map");
    let map = map.split("\n## ").next().unwrap();
    let rows = map.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let (names, said) = row.trim_matches('|').split_once('|').unwrap();
        (names.to_owned(), said.to_owned())
    })
    .collect()
}

/// The words in backticks.
fn named(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_module_is_on_the_map_and_nothing_else_is() {
    let rows = rows();
    let mapped: BTreeSet<String> = rows
        .iter()
        .flat_map(|(names, _)| named(names))
        .filter_map(|name| name.strip_prefix("src/"))
        .map(|name| name.trim_end_matches('/').to_owned())
        .collect();
    let entries = fs::read_dir(root().join("src")).unwrap();
    let there: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lib.rs")
        .collect();
    assert_eq!(mapped, there, "the rows of the map, and the files of src/");
}

#[test]
fn the_map_knows_every_command() {
    let rows = rows();
    let (_, said) = rows.iter().find(|(names, _)| names.contains("src/cli/")).unwrap();
    let commands = Cli::command();
    let commands: BTreeSet<&str> = commands.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(named(said).into_iter().collect::<BTreeSet<_>>(), commands);
}

#[test]
fn the_page_of_the_crate_is_the_map() {
    assert!(read("src/lib.rs").starts_with("#![doc = include_str!(\"../docs/architecture.md\")]\n"));
}
