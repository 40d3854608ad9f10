//! SQL texts of more than three lines have names, and each name's plan is compared with a snapshot
//! (`src/store/plans/statements.rs`).

use super::{read, root, sources};

/// The most lines that a text may have where it is run.
const UNNAMED_LINES_MAX: usize = 3;

/// Texts that have no plan of their own, and why.
const WITHOUT_PLAN: [(&str, &str); 5] = [
    ("ATTEMPTS", "a part of other statements"),
    ("found_among", "a part of other statements"),
    ("chosen", "checked with every combination of filters by plans.rs"),
    ("MIGRATION_LOCK", "settings and a lock, no table"),
    ("REST", "of a sandbox, whose tables are small"),
];

/// A string literal, the line that it begins in, and its text.
fn literals(source: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut offset = 0;
    while let Some(start) = source[offset..].find(['"', '/', '\'']).map(|at| offset + at) {
        let rest = &source[start..];
        if rest.starts_with("//") {
            offset = start + rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("'\"'") {
            offset = start + 3;
        } else if let Some(text) = rest.strip_prefix('"') {
            let mut is_escaped = false;
            let is_end = |letter: char| {
                let ends = letter == '"' && !is_escaped;
                is_escaped = letter == '\\' && !is_escaped;
                ends
            };
            let end = text.find(is_end).unwrap_or(text.len());
            found.push((source[..start].lines().count(), &text[..end]));
            offset = start + 1 + (end + 1).min(text.len());
        } else {
            offset = start + 1;
        }
    }
    found
}

fn is_sql(text: &str) -> bool {
    ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "SET LOCAL "]
        .iter()
        .any(|verb| text.contains(verb))
}

/// The name of the item at the margin that a line belongs to: `const NAME`, `static NAME`, or a function that returns the text.
fn owner<'a>(lines: &[&'a str], line: usize) -> Option<&'a str> {
    let item = lines[..line].iter().rev().find(|line| {
        let is_item = [" const ", " static ", " fn "]
            .iter()
            .any(|word| format!(" {line}").contains(word));
        is_item && !line.starts_with("//")
    })?;
    let (_, name) = ["const ", "static ", "fn "]
        .iter()
        .find_map(|word| item.split_once(word))?;
    Some(name.split([':', '(', '<']).next().unwrap())
}

/// Long SQL texts of a source, tests left out: the line and the name of each.
fn long_texts(source: &str) -> Vec<(usize, String)> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines: Vec<&str> = source.lines().collect();
    let is_long = |(_, text): &(usize, &str)| is_sql(text) && text.trim().lines().count() > UNNAMED_LINES_MAX;
    let name = |line: usize| owner(&lines, line).unwrap_or_default().to_owned();
    literals(source)
        .into_iter()
        .filter(is_long)
        .map(|(line, _)| (line, name(line)))
        .collect()
}

#[test]
fn every_long_sql_text_has_a_name_and_a_plan() {
    let checked = read(&root().join("src/store/plans/statements.rs"));
    let mut count = 0;
    for (file, source) in sources("src") {
        let module = file.file_stem().unwrap().to_str().unwrap();
        if file.ends_with("store/plans.rs") || module == "statements" {
            continue;
        }
        let folder = file.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let module = if module == "mod" { folder } else { module };
        for (line, name) in long_texts(&source) {
            count += 1;
            let is_known = WITHOUT_PLAN.iter().any(|(known, _)| *known == name);
            assert!(
                is_known || checked.contains(&format!("\"{module}::{name}\"")),
                "{}:{line}: a long SQL text, in {name:?}: name it by a constant (or a function that ends in _sql), and list \
                 {module}::NAME in src/store/plans/statements.rs",
                file.display()
            );
        }
    }
    assert!(count > 20, "only {count} are seen");
}

#[test]
fn a_text_is_found_with_its_name() {
    let source = "const A: &str = \"\n SELECT 1\n 2\n 3\n 4\";\n// \"a\nfn b() {\n    let c = '\"';\n    run(\"UPDATE \\\"x\\\"\n\n\n\nWHERE\");\n}\n";
    let found = long_texts(source);
    let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["A", "b"]);
    assert!(long_texts("fn b() { run(\"SELECT 1\n2\n3\") }").is_empty());
}
