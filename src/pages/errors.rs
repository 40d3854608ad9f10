//! A page for each code of a problem, and for each code of a fault in it: what it means, and how it looks.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    article::Article,
    document::{Document, examples, text},
    samples::{Sample, pretty},
};

/// The schemas whose enums are the codes, each with what a code of it is.
const CATALOGS: [(&str, &str); 2] = [("ProblemCode", "problem"), ("FaultCode", "fault")];

/// A code with what the document says of it.
struct Code<'a> {
    word: &'a str,
    /// `problem` or `fault`.
    kind: &'a str,
    meaning: String,
}

/// All codes.
fn codes(document: &Document) -> Vec<Code<'_>> {
    let of_catalog = |(name, kind): (&str, &'static str)| {
        let schema = document.schema(name);
        let words = schema["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let of_word = move |word| Code {
            word,
            kind,
            meaning: meaning(text(schema, "description"), word),
        };
        words.map(of_word).collect::<Vec<_>>()
    };
    CATALOGS.into_iter().flat_map(of_catalog).collect()
}

/// What a catalog's description says of a word, in the entry of its list that names it.
fn meaning(description: &str, word: &str) -> String {
    let named = format!("`{word}`");
    let mut entries = description.split("\n- ").skip(1);
    let entry = entries.find(|entry| entry.split(':').next().is_some_and(|names| names.contains(&named)));
    let said = entry
        .and_then(|entry| entry.split_once(':'))
        .map(|(_, said)| said.trim());
    said.unwrap_or_default()
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The list of codes.
pub(super) fn overview(document: &Document) -> Article {
    let mut page = "Every error is a problem (RFC 9457, `application/problem+json`). Decide by `code`: it never changes, and each has \
                    a page here. A `validation_error` lists its faults in `errors`, each with a code of its own."
        .to_owned();
    for (title, kind) in [("Problems", "problem"), ("Faults of a request", "fault")] {
        let _ = write!(page, "\n\n## {title}\n\n| code | what it means |\n|---|---|\n");
        for Code { word, meaning, .. } in codes(document).iter().filter(|code| code.kind == kind) {
            let _ = writeln!(page, "| [`{word}`](/errors/{word}) | {} |", meaning.replace('\n', " "));
        }
    }
    Article {
        path: "/errors".to_owned(),
        title: "Errors".to_owned(),
        text: page,
        ..Article::default()
    }
}

/// The page of a code; `None` if there is no such code.
pub(super) fn code(document: &Document, word: &str) -> Option<Article> {
    let code = codes(document).into_iter().find(|code| code.word == word)?;
    let (kind, member) = match code.kind {
        "problem" => ("The `code` of a problem.", "code"),
        _ => (
            "The `code` of a fault, in `errors` of a [`validation_error`](/errors/validation_error).",
            "errors",
        ),
    };
    let mut page = format!("{kind}\n\n");
    let mut letters = code.meaning.chars();
    if let Some(first) = letters.next() {
        page.extend(first.to_uppercase());
        page.push_str(letters.as_str());
    }
    page.push_str("\n\nThe `detail` of the response says what to do this time. Its `request_id` finds the request in the service's log.\n");
    let is_of_code = |problem: &Value| match member {
        "code" => problem["code"] == word,
        _ => problem["errors"]
            .as_array()
            .is_some_and(|faults| faults.iter().any(|fault| fault["code"] == word)),
    };
    let mut shown = Vec::new();
    for response in document.responses() {
        for (title, problem) in examples(&response["content"]["application/problem+json"]) {
            if is_of_code(&problem) {
                let title = if title == "Example" {
                    text(&response, "description").to_owned()
                } else {
                    title
                };
                shown.push(Sample {
                    title,
                    language: "json",
                    code: pretty(&problem),
                });
            }
        }
    }
    Some(Article {
        path: format!("/errors/{word}"),
        title: word.to_owned(),
        text: page,
        examples: shown,
        ..Article::default()
    })
}

/// The paths of all pages.
pub(super) fn paths(document: &Document) -> Vec<(String, String)> {
    let path = |code: Code<'_>| (format!("/errors/{}", code.word), code.meaning);
    codes(document).into_iter().map(path).collect()
}
