//! Every dependency is used, and listed once, in alphabetical order.

use std::collections::BTreeSet;

use super::{read, root, sources};

/// A section of a manifest that lists crates.
#[derive(Debug)]
struct Section {
    name: String,
    /// The lines of the crates, each with the crate's name.
    crates: Vec<(String, String)>,
}

impl Section {
    fn names(&self) -> Vec<&str> {
        self.crates.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn sections(manifest: &str) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    let mut is_list = false;
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_list = name.ends_with("dependencies");
            if is_list {
                let name = name.to_owned();
                found.push(Section {
                    name,
                    crates: Vec::new(),
                });
            }
        } else if let Some((name, _)) = line.split_once('=').filter(|_| is_list && !line.starts_with('#')) {
            // `sea-orm-migration.workspace = true`
            let name = name.trim().split('.').next().unwrap().to_owned();
            found.last_mut().unwrap().crates.push((name, line.to_owned()));
        }
    }
    found
}

/// The manifests, each with the folders whose sources may use what it lists.
const MANIFESTS: [(&str, &[&str]); 3] = [
    ("", &["src", "tests", "benches", "build.rs", "migration"]),
    ("migration", &["migration"]),
    ("fuzz", &["fuzz"]),
];

/// Code that is built for tests and benchmarks alone.
const DEV: [&str; 2] = ["tests", "benches"];

fn manifest(folder: &str) -> Vec<Section> {
    let found = sections(&read(&root().join(folder).join("Cargo.toml")));
    assert!(!found.is_empty(), "{folder}/Cargo.toml has no dependencies");
    found
}

/// Whether code names a crate, as a path or a macro.
fn is_named(name: &str, code: &str) -> bool {
    let name = name.replace('-', "_");
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(&name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        !before.ends_with(is_word) && !before.ends_with('.') && (after.starts_with("::") || after.starts_with(';'))
    })
}

/// The sources of a folder, or of a file, without comments.
fn code(path: &str) -> String {
    let lines = |(_, source): (_, String)| -> Vec<String> { source.lines().map(str::to_owned).collect() };
    let is_code = |line: &String| !line.trim_start().starts_with("//");
    let code: Vec<_> = sources(path).into_iter().flat_map(lines).filter(is_code).collect();
    code.join("\n")
}

#[test]
fn dependencies_are_in_order() {
    for (folder, _) in MANIFESTS {
        for section in manifest(folder) {
            let names = section.names();
            assert!(names.is_sorted(), "{folder}/Cargo.toml, {}: {names:?}", section.name);
        }
    }
}

#[test]
fn every_dependency_is_used() {
    for (folder, users) in MANIFESTS {
        for Section { name: section, crates } in manifest(folder) {
            let users = users.iter().filter(|user| match section.as_str() {
                "dependencies" => !DEV.contains(user) && **user != "build.rs",
                "dev-dependencies" => DEV.contains(user),
                "build-dependencies" => **user == "build.rs",
                _ => true,
            });
            let code: String = users.map(|user| code(user)).collect();
            for (name, _) in crates {
                assert!(
                    is_named(&name, &code),
                    "{folder}/Cargo.toml, {section}: nothing uses {name}"
                );
            }
        }
    }
}

#[test]
fn tests_list_no_dependency_that_they_have_already() {
    let sections = manifest("");
    let lines = |of: &str| -> BTreeSet<String> {
        let of_section = sections.iter().filter(|section| section.name == of);
        of_section
            .flat_map(|section| section.crates.iter().map(|(_, line)| line.clone()))
            .collect()
    };
    let twice: Vec<_> = lines("dependencies")
        .intersection(&lines("dev-dependencies"))
        .cloned()
        .collect();
    assert_eq!(twice, [""; 0], "what the program depends on, its tests may use");
}

#[test]
fn names_of_crates_are_seen() {
    let sections = sections("[package]\nname = \"x\"\n[dependencies]\n# why\nb = \"1\"\na-b.workspace = true\n");
    assert_eq!(sections[0].names(), ["b", "a-b"]);
    assert!(is_named("a-b", "use a_b::c;"));
    assert!(is_named("a-b", "use a_b;"));
    assert!(!is_named("a-b", "use a_bc::c; x.a_b; let a_b = 1"));
}
