//! A module imports only from floors below it.

use super::sources;

/// The floors of `src`, each with those it may import from.
const FLOORS: [(&str, &[&str]); 16] = [
    ("faults.rs", &[]),
    ("domain", &["domain"]),
    ("clock.rs", &["domain"]),
    ("contract", &["domain"]),
    ("pages", &["pages", "contract", "domain"]),
    ("machine.rs", &[]),
    ("config", &["machine", "domain"]),
    ("metrics", &["metrics", "domain"]),
    ("telemetry", &["telemetry", "config", "domain"]),
    ("store", &["store", "config", "clock", "metrics", "faults", "domain"]),
    (
        "delivery",
        &[
            "delivery",
            "store",
            "telemetry",
            "config",
            "clock",
            "machine",
            "metrics",
            "domain",
        ],
    ),
    (
        "api",
        &[
            "api",
            "store",
            "telemetry",
            "pages",
            "contract",
            "clock",
            "metrics",
            "domain",
        ],
    ),
    ("scrape.rs", &["store", "telemetry", "clock", "metrics", "domain"]),
    (
        "server",
        &[
            "api",
            "scrape",
            "delivery",
            "store",
            "telemetry",
            "config",
            "contract",
            "clock",
            "metrics",
            "faults",
            "metrics",
            "metrics",
            "domain",
        ],
    ),
    ("sandbox", &["sandbox", "api", "store", "contract", "clock", "domain"]),
    (
        "cli",
        &[
            "cli",
            "sandbox",
            "server",
            "delivery",
            "store",
            "telemetry",
            "config",
            "contract",
            "clock",
            "domain",
        ],
    ),
];

/// The modules that a source names after `crate::`, the ones in braces included.
fn imported(source: &str) -> Vec<String> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut modules = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        let rest = &code[start + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            modules.push(
                rest.chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                    .collect(),
            );
            continue;
        };
        let mut depth = 0;
        let mut word = String::new();
        for letter in list.chars() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => modules.push(std::mem::take(&mut word)),
                _ if depth == 0 => word.push(letter),
                _ => {}
            }
        }
        modules.push(word);
    }
    let first = |path: String| path.trim().split("::").next().unwrap_or_default().trim().to_owned();
    modules
        .into_iter()
        .map(first)
        .filter(|module| !module.is_empty())
        .collect()
}

#[test]
fn no_module_imports_from_a_floor_above_it() {
    for (floor, allowed) in FLOORS {
        for (file, source) in sources(&format!("src/{floor}")) {
            for module in imported(&source) {
                let file = file.display();
                assert!(
                    allowed.contains(&module.as_str()),
                    "{file} imports crate::{module}; {floor} may import from {allowed:?}"
                );
            }
        }
    }
}

#[test]
fn imports_in_braces_are_seen() {
    let source = "use crate::{\n    api::{a, b},\n    store::c,\n};\nlet x = crate::domain::y();";
    assert_eq!(imported(source), ["api", "store", "domain"]);
}
