//! The documentation is true: options, commands, the map of the source, links, lengths.

mod configuration;
mod deploy;
mod map;
mod pages;
mod tour;

use std::{fs, path::PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The source of a page.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|cause| panic!("{path}: {cause}"))
}
