//! Rules for the repository, checked by reading its files: floors, cycles, lengths, unused code.

use std::{
    fs,
    path::{Path, PathBuf},
};

mod circles;
mod dependencies;
mod floors;
mod lengths;
mod log_fields;
mod sql;
mod unused;
mod words;

/// Folders that are made, not written: what a build, a tool or an editor leaves.
const GENERATED: [&str; 4] = ["target", "node_modules", "__pycache__", "corpus"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder, or the file itself; `.git` and what is generated are left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    if folder.is_file() {
        return vec![folder.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_file() {
            found.push(path);
        } else if !name.starts_with(".git") && !GENERATED.contains(&name) {
            found.extend(files(&path));
        }
    }
    found
}

/// The Rust sources below a folder, or one of them, with their text.
pub(crate) fn sources(path: &str) -> Vec<(PathBuf, String)> {
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let with_text = |path: PathBuf| {
        let text = read(&path);
        (path, text)
    };
    files(&root().join(path))
        .into_iter()
        .filter(is_source)
        .map(with_text)
        .collect()
}
