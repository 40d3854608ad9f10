//! The documentation is true: options, commands, the map of the source, links, sizes.

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

/// A page as it is written.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|cause| panic!("{path}: {cause}"))
}
