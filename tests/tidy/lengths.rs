//! No file is longer than 500 lines, no function longer than 70, and no handler longer than 25.

use super::{read, root, sources};

const FILE_LINES_MAX: usize = 500;

/// Lines of a body, blank lines and comments not counted: what `too-many-lines-threshold` in clippy.toml says of functions
/// that no attribute such as `#[tokio::test]` rewrites.
const FUNCTION_LINES_MAX: usize = 70;

/// Lines of a handler: it extracts, makes one call of the store, and responds.
const HANDLER_LINES_MAX: usize = 25;

/// The functions of a source that is formatted, each with the lines of its body.
fn functions(source: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_signature = code.starts_with("fn ") || code.starts_with("pub") || code.starts_with("async ");
        let Some((before, name)) = code.split_once("fn ").filter(|_| is_signature) else {
            continue;
        };
        if !before
            .chars()
            .all(|letter| letter.is_alphanumeric() || " ()_:".contains(letter))
        {
            continue;
        }
        let name = name.split(['(', '<']).next().unwrap();
        let margin = &line[..line.len() - code.len()];
        let end = lines[start..]
            .iter()
            .position(|line| line.strip_prefix(margin) == Some("}"));
        let opened = lines[start..]
            .iter()
            .position(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'));
        let (Some(end), Some(opened)) = (end, opened) else {
            continue;
        };
        if !lines[start + opened].ends_with('{') || end < opened {
            continue;
        }
        let is_code = |line: &&&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        found.push((
            name,
            lines[start + opened + 1..start + end].iter().filter(is_code).count(),
        ));
    }
    found
}

#[test]
fn no_file_is_longer_than_500_lines() {
    for folder in ["src", "tests", "benches", "fuzz", "migration"] {
        for (file, source) in sources(folder) {
            let lines = source.lines().count();
            assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", file.display());
        }
    }
}

#[test]
fn no_function_is_longer_than_70_lines() {
    let mut count = 0;
    for folder in ["src", "tests", "benches", "fuzz", "migration"] {
        for (file, source) in sources(folder) {
            for (name, lines) in functions(&source) {
                count += 1;
                let file = file.display();
                assert!(lines <= FUNCTION_LINES_MAX, "{name} in {file} has {lines} lines");
            }
        }
    }
    assert!(count > 2000, "only {count} functions are seen");
}

#[test]
fn no_handler_is_longer_than_25_lines() {
    let router = read(&root().join("src/api/mod.rs"));
    let operations = router.split_once("fn operations()").unwrap().1;
    let words = operations.split(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter));
    let handlers: Vec<_> = words
        .filter_map(|word| word.split_once("::"))
        .filter(|(module, _)| module.starts_with(|letter: char| letter.is_ascii_lowercase()))
        .collect();
    for (module, handler) in &handlers {
        let source = read(&root().join(format!("src/api/{module}.rs")));
        let found = functions(&source).into_iter().find(|(name, _)| name == handler);
        let (_, lines) = found.unwrap_or_else(|| panic!("{module}::{handler} is not seen"));
        assert!(lines <= HANDLER_LINES_MAX, "{module}::{handler} has {lines} lines");
    }
    assert!(handlers.len() > 15, "only {handlers:?} are seen");
}

#[test]
fn lines_of_a_body_are_counted() {
    let source = "impl A {\n    pub(crate) async fn long<T>(\n        a: T,\n    ) -> B\n    where\n        T: C,\n    {\n        \
                  one();\n\n        // why\n        two(|| {\n        });\n    }\n}\nfn short() { }\nfn none();\n\
                  let s = \"pub fn x\";\nfn last() {\n    1\n}\n";
    assert_eq!(functions(source), [("long", 3), ("last", 1)]);
}
