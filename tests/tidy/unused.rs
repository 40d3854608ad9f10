//! No unused files, and no notes of what remains to be done.

use std::path::{Path, PathBuf};

use super::{files, read, root, sources};

/// What cargo or a tool finds by its name or path: the roots from which everything else must be reached.
const ROOTS: [&str; 19] = [
    ".cargo/config.toml",
    ".ci/run",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "build.rs",
    "clippy.toml",
    "deny.toml",
    "fuzz/.gitignore",
    "fuzz/Cargo.lock",
    "fuzz/Cargo.toml",
    "migration/Cargo.toml",
    "migration/src/lib.rs",
    "rustfmt.toml",
    "src/lib.rs",
    "src/main.rs",
    "openapi.yaml",
];

/// The files of the repository by their paths in it, without those that a running server or tool made.
fn repository() -> Vec<PathBuf> {
    let is_made = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        [".db", ".db-shm", ".db-wal", ".db.lock", ".db.key"]
            .iter()
            .any(|ending| name.ends_with(ending))
            || name == ".git"
    };
    files(root())
        .into_iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_owned())
        .filter(|path| !is_made(path))
        .collect()
}

/// Whether a source that is a module of another is declared there.
fn is_declared(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let folder = path.parent().unwrap();
    let (module, folder) = if stem == "mod" {
        let name = folder.file_name().unwrap().to_str().unwrap();
        (name, folder.parent().unwrap())
    } else {
        (stem, folder)
    };
    let parents = ["mod.rs", "lib.rs", "main.rs"].map(|name| folder.join(name));
    let manifest = read(&root().join("Cargo.toml"));
    let paths = manifest.lines().filter_map(|line| line.strip_prefix("path = "));
    let crates = paths
        .map(|path| PathBuf::from(path.trim_matches('"')))
        .filter(|path| path.parent() == Some(folder));
    let declarations = [format!("mod {module};"), format!("mod {module} {{")];
    let declares = |parent: &Path| {
        let source = read(&root().join(parent));
        let is_declaration = |line: &str| {
            declarations
                .iter()
                .any(|declaration| line.ends_with(declaration.as_str()))
        };
        source.lines().any(is_declaration)
    };
    let parents = parents.into_iter().chain(crates).chain([folder.with_extension("rs")]);
    parents
        .filter(|parent| parent != path && root().join(parent).exists())
        .any(|parent| declares(&parent))
}

#[test]
fn every_file_is_used() {
    let files = repository();
    assert!(files.len() > 200, "{files:?}");
    let texts: Vec<(&PathBuf, String)> = files.iter().map(|path| (path, read(&root().join(path)))).collect();
    for path in &files {
        if ROOTS.iter().any(|root| path == Path::new(root))
            || path.extension().is_some_and(|it| it == "rs") && is_declared(path)
        {
            continue;
        }
        // A script, an included text, a bench: something else must name it, by its name and its folder's or alone.
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_word = |letter: char| letter.is_alphanumeric() || "_.-".contains(letter);
        let names = |text: &str| {
            text.match_indices(name).any(|(at, _)| {
                !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(char::is_alphanumeric)
            })
        };
        let is_named = texts.iter().any(|(other, text)| *other != path && names(text));
        assert!(is_named, "nothing uses {}", path.display());
    }
}

#[test]
fn every_root_exists() {
    for path in ROOTS {
        assert!(root().join(path).exists(), "there is no {path}");
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    let marks = ["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}", "HAC\u{4b}"];
    for path in repository() {
        let text = read(&root().join(&path));
        for (number, line) in text.lines().enumerate() {
            let mark = line
                .split(|letter: char| !letter.is_alphanumeric())
                .find(|word| marks.contains(word));
            assert_eq!(mark, None, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn a_file_that_nothing_declares_is_seen() {
    assert!(is_declared(Path::new("src/domain/mod.rs")));
    assert!(is_declared(Path::new("src/domain/destination/tests.rs")));
    assert!(is_declared(Path::new("tests/api/mod.rs")));
    assert!(!is_declared(Path::new("src/domain/nothing.rs")));
    assert!(!is_declared(Path::new("src/lib.rs")));
    assert!(!sources("src").is_empty());
}
