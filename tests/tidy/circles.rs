//! No import cycles between files.
//!
//! A name that a `mod.rs` passes on belongs to the file that defines it; what `mod.rs` itself defines or uses is its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Each file by its path as a module, with its code.
type Files = BTreeMap<Vec<String>, String>;

fn read(folder: &Path, module: &[String], files: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let child = [module, std::slice::from_ref(&stem)].concat();
        if path.is_dir() {
            read(&path, &child, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let is_folders_own = ["mod", "lib", "main"].contains(&stem.as_str());
            let module = if is_folders_own { module.to_vec() } else { child };
            files.insert(module, code(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The code without comments and tests.
fn code(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
    let line = |line: &str| line.split("//").next().unwrap().to_owned();
    source.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A path that code names, and whether it only passes it on (`pub use`).
#[derive(Debug, PartialEq)]
struct Named {
    path: Vec<String>,
    is_passed_on: bool,
}

fn named(code: &str) -> Vec<Named> {
    let (mut found, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        let after_pub = start
            .strip_prefix("pub")
            .map(|rest| rest.trim_start_matches(|letter| letter != ' ').trim_start());
        let Some(tree) = after_pub.unwrap_or(start).strip_prefix("use ") else {
            rest += line;
            rest.push('\n');
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.contains(';') {
            tree += lines.next().unwrap();
        }
        let is_passed_on = after_pub.is_some();
        let paths = flat(tree.split(';').next().unwrap());
        found.extend(paths.into_iter().map(|path| Named { path, is_passed_on }));
    }
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in rest
            .match_indices(root)
            .filter(|(at, _)| !rest[..*at].ends_with(is_word))
        {
            let path: String = rest[at..].chars().take_while(|letter| is_word(*letter)).collect();
            let path = path
                .split("::")
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect();
            found.push(Named {
                path,
                is_passed_on: false,
            });
        }
    }
    found
}

/// The paths of a tree with braces.
fn flat(tree: &str) -> Vec<Vec<String>> {
    let Some((before, list)) = tree.split_once('{') else {
        let path = tree
            .split(" as ")
            .next()
            .unwrap()
            .split("::")
            .map(|part| part.trim().to_owned());
        let path: Vec<_> = path.filter(|part| !part.is_empty()).collect();
        // `a::{self}` is `a`.
        let is_itself = path.len() > 1 && path.last().is_some_and(|last| last == "self");
        return vec![if is_itself {
            path[..path.len() - 1].to_vec()
        } else {
            path
        }];
    };
    let mut depth = 0;
    let parts = list[..list.rfind('}').unwrap()].split(|letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        letter == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| flat(&format!("{before}{part}"))).collect()
}

/// The path from the crate's root, where it leads into the crate at all.
fn absolute(path: &[String], of: &[String], files: &Files) -> Option<Vec<String>> {
    let first = path.first()?.as_str();
    if first == "crate" {
        return Some(path[1..].to_vec());
    }
    let ups = path.iter().take_while(|part| *part == "super").count();
    if ups > 0 || first == "self" {
        let rest = &path[ups.max(1)..];
        return Some([&of[..of.len() - ups], rest].concat());
    }
    let child = [of, &path[..1]].concat();
    files.contains_key(&child).then(|| [of, path].concat())
}

/// What each file imports, without what it only passes on.
fn imports(files: &Files) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let mut passed_on = BTreeMap::new();
    let mut used = Vec::new();
    for (module, code) in files {
        for Named { path, is_passed_on } in named(code) {
            let Some(target) = absolute(&path, module, files) else {
                continue;
            };
            if is_passed_on {
                let name = target.last().unwrap().clone();
                passed_on.insert([module.as_slice(), &[name]].concat(), target);
            } else {
                used.push((module.clone(), target));
            }
        }
    }
    let mut imports: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (module, mut target) in used {
        let file = loop {
            let depth = (0..=target.len())
                .rev()
                .find(|depth| files.contains_key(&target[..*depth]))
                .unwrap();
            let name = target.get(..=depth).unwrap_or_default();
            match passed_on.get(name) {
                Some(origin) => target = [origin.as_slice(), &target[depth + 1..]].concat(),
                None => break target[..depth].to_vec(),
            }
        };
        if file != module && !file.is_empty() {
            imports.entry(module).or_default().insert(file);
        }
    }
    imports
}

/// Removes every file that imports none of those left, or that none of them imports, until only cycles remain.
fn circles(mut imports: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    loop {
        let before = imports.clone();
        let is_imported = |module: &Vec<String>| before.values().any(|targets| targets.contains(module));
        imports.retain(|module, _| is_imported(module));
        for targets in imports.values_mut() {
            targets.retain(|target| before.contains_key(target));
        }
        imports.retain(|_, targets| !targets.is_empty());
        if imports == before {
            return imports;
        }
    }
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    for (folder, files_min) in [("src", 50), ("benches/service", 15)] {
        let mut files = Files::new();
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &[], &mut files);
        let imports = imports(&files);
        assert!(imports.len() > files_min, "{folder}: {imports:?}");
        let found = circles(imports);
        let lines = found.iter().flat_map(|(module, targets)| {
            let line = |target: &Vec<String>| format!("{} imports {}", module.join("::"), target.join("::"));
            targets.iter().map(line)
        });
        let lines = lines.collect::<Vec<_>>().join("\n");
        assert!(found.is_empty(), "a circle in {folder}:\n{lines}");
    }
}

#[test]
fn a_circle_is_seen_and_a_name_that_is_passed_on_is_its_files() {
    let file = |module: &str, source: &str| {
        let module = module.split("::").filter(|part| !part.is_empty()).map(str::to_owned);
        (module.collect::<Vec<_>>(), code(source))
    };
    let files = |of_c: &str| -> Files {
        Files::from([
            file("", "pub mod a;"),
            file("a", "pub mod b;\nmod c;\nmod d;\npub(crate) use c::Thing;"),
            file("a::b", "use super::{\n    d::{self, One},\n    Thing,\n};"),
            file("a::c", of_c),
            file("a::d", "fn f() { let x = 1; }"),
        ])
    };
    // b → c by way of a's `pub use`, b → d.
    assert!(circles(imports(&files("// use super::b::X;"))).is_empty());
    let to_b = imports(&files("fn f() -> crate::a::b::X { 1 }"));
    assert_eq!(to_b[&vec!["a".to_owned(), "b".to_owned()]].len(), 2);
    let names = |found: BTreeMap<Vec<String>, _>| found.into_keys().map(|name| name.join("::")).collect::<Vec<_>>();
    assert_eq!(names(circles(to_b)), ["a::b", "a::c"]);
    let in_tests = "#[cfg(test)]\nmod tests {\n    use super::super::b::X;\n}";
    assert!(circles(imports(&files(in_tests))).is_empty());
}
