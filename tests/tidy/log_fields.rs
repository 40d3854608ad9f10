//! The names in lines of the log: OpenTelemetry's, or our own, which start with `kallima.`.

use super::{root, sources};

/// The namespaces of OpenTelemetry's semantic conventions that we use, and ours.
const NAMESPACES: [&str; 11] = [
    "code.",
    "db.",
    "error.type",
    "exception.",
    "http.",
    "kallima.",
    "network.",
    "otel.",
    "server.",
    "service.",
    "url.",
];

/// What the formats of the log and spans call so themselves.
const OTHERS: [&str; 3] = ["duration_ms", "trace_id", "span_id"];

/// The calls of `tracing`'s macros that write a line or open a span, each by what its parentheses enclose.
fn calls(text: &str) -> impl Iterator<Item = &str> {
    let ends = ["info!(", "warn!(", "error!(", "debug!(", "info_span!(", "error_span!("];
    let begin = move |end: &&str| {
        let found: Vec<_> = text.match_indices(*end).collect();
        found.into_iter().map(|(at, end)| at + end.len()).collect::<Vec<_>>()
    };
    ends.iter()
        .flat_map(begin)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|at| arguments(&text[at..]).0)
}

/// The code before the parenthesis that closes the call, and where its commas are.
fn arguments(text: &str) -> (&str, Vec<usize>) {
    let (mut depth, mut is_string, mut is_escaped, mut commas) = (0, false, false, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '\\' if is_string => {
                is_escaped = !is_escaped;
                continue;
            }
            '"' if !is_escaped => is_string = !is_string,
            _ if is_string => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => return (&text[..at], commas),
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => commas.push(at),
            _ => {}
        }
        is_escaped = false;
    }
    panic!("a call without end: {}", &text[..text.len().min(80)]);
}

/// The names of a call's fields.
fn names(call: &str) -> Vec<&str> {
    let closed = format!("{call})");
    let commas = arguments(&closed).1;
    let begins = std::iter::once(0).chain(commas.iter().map(|at| at + 1));
    let ends = commas.iter().copied().chain([call.len()]);
    begins
        .zip(ends)
        .map(|(begin, end)| call[begin..end].trim().trim_start_matches(['%', '?']))
        .filter(|part| part.starts_with(|letter: char| letter.is_ascii_lowercase()))
        .filter(|part| !part.starts_with("target:") && !part.starts_with("parent:"))
        .map(|part| part.split([' ', '=', ':']).next().unwrap())
        .collect()
}

#[test]
fn every_name_in_the_log_is_of_opentelemetry_or_begins_with_ours() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, text) in sources("src") {
        for name in calls(&text).flat_map(names) {
            seen += 1;
            if !OTHERS.contains(&name) && !NAMESPACES.iter().any(|namespace| name.starts_with(namespace)) {
                wrong.push(format!("{}: {name}", path.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(seen > 80, "only {seen} names were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_are_found_in_every_form() {
    let call = r#"target: ACCESS, a.b = %x(1, "c, d"), %now, skew, e = ?f, "it, said \"g = h\"""#;
    assert_eq!(names(call), ["a.b", "now", "skew", "e"]);
}
