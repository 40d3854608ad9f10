//! One meaning per word: words that are retired, in comments, strings, names and pages, each with what to write instead.

use std::path::{Path, PathBuf};

use super::{files, root};

/// What people read: sources, pages, the documents, and what the program is built, tested and deployed with.
const PATHS: &[&str] = &[
    ".ci",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "README.md",
    "benches",
    "build.rs",
    "deploy",
    "docs",
    "fuzz/targets.rs",
    "migration",
    "openapi.yaml",
    "src",
    "tests",
];

/// The document of the last release stays as it was; this file names the words.
const EXCEPTIONS: &[&str] = &["tests/contract/released.yaml", "tests/tidy/words.rs"];

/// A word or phrase that is retired.
struct Retired {
    text: &'static str,
    instead: &'static str,
    /// Phrases around it that are fine.
    except: &'static [&'static str],
}

const fn retired(text: &'static str, instead: &'static str, except: &'static [&'static str]) -> Retired {
    Retired { text, instead, except }
}

/// What an engineer says instead: precise terms, and one meaning per word.
const RETIRED: &[Retired] = &[
    retired(
        "place",
        "queue entry, permit, pointer, parent span, token, associated data, position: what it is",
        &["in place", "take place", "takes place", "took place"],
    ),
    retired("places", "queue entries, permits, spots: what they are", &[]),
    retired("stands", "is", &["stands for", "stands still"]),
    retired("judge", "check, validate, compare", &[]),
    retired("judges", "checks, validates, compares", &[]),
    retired("judged", "checked, validated, compared", &[]),
    retired("judging", "checking", &[]),
    retired("under way", "in progress", &[]),
    retired("told", "reported, passed, notified, logged", &[]),
    retired("anew", "again", &[]),
    retired(
        "ring",
        "deadlock; keyring; turns",
        &["crypto ring", "ring default", "ring tls", "ring std", "ring pem"],
    ),
    retired("for ever", "forever", &[]),
    retired("just now", "now, recently", &[]),
    retired("in a moment", "soon", &[]),
    retired("came about", "could be established", &[]),
    retired("of late", "recently", &[]),
    retired("time and again", "repeatedly", &[]),
    retired("again and again", "repeatedly", &[]),
    retired("ended badly", "panicked, failed", &[]),
    retired("none where", "`None` if", &["none where the focus"]),
    retired("at most so", "at most `n`", &[]),
    retired("switched off", "disabled", &[]),
    retired("switched on", "enabled", &[]),
    retired("capped a", "capped per", &[]),
    retired("row a key", "row per key", &[]),
    retired("bucket an", "bucket per", &[]),
    retired("stands so", "has this status", &[]),
    retired("is passing", "is temporary", &[]),
    retired("is well", "is ok, is healthy", &["is well filled"]),
    retired("are well", "are ok, are healthy", &["are well formed"]),
    retired("door", "what it is: an entry point, a listener, a handle", &[]),
    retired("doors", "entry points, listeners", &[]),
    retired("seat", "cap share", &[]),
    retired("pulse", "heartbeat, liveness", &[]),
];

/// A word of a source: in lower case, with its line. Names are taken apart, so that `freePlace`, `FREE_PLACE` and
/// `free_place` are two words each; whatever separates words does not count, so that a phrase may cross lines.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    text: String,
    line: usize,
}

fn words(source: &str) -> Vec<Word> {
    let mut found = Vec::new();
    for (line, text) in source.lines().enumerate() {
        let (mut word, mut after_lower) = (String::new(), false);
        for letter in text.chars().chain([' ']) {
            let begins_another = !letter.is_alphabetic() || (letter.is_uppercase() && after_lower);
            if begins_another && !word.is_empty() {
                let text = std::mem::take(&mut word);
                found.push(Word { text, line: line + 1 });
            }
            if letter.is_alphabetic() {
                word.extend(letter.to_lowercase());
            }
            after_lower = letter.is_lowercase();
        }
    }
    found
}

/// Whether the retired words at `at` are a part of a phrase that is fine.
fn is_excepted(words: &[Word], at: usize, retired: &Retired) -> bool {
    let text: Vec<&str> = retired.text.split(' ').collect();
    retired.except.iter().any(|phrase| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        phrase.windows(text.len()).enumerate().any(|(offset, window)| {
            let start = at.checked_sub(offset).filter(|_| window == text);
            start.is_some_and(|start| begins_with(&words[start..], &phrase))
        })
    })
}

fn begins_with(words: &[Word], phrase: &[&str]) -> bool {
    words.len() >= phrase.len() && words.iter().zip(phrase).all(|(word, text)| word.text == *text)
}

/// The lines of a source that use a retired word, with what to write instead.
fn uses(source: &str) -> Vec<(usize, &'static Retired)> {
    let words = words(source);
    let mut found = Vec::new();
    for at in 0..words.len() {
        for retired in RETIRED {
            let phrase: Vec<&str> = retired.text.split(' ').collect();
            if begins_with(&words[at..], &phrase) && !is_excepted(&words, at, retired) {
                found.push((words[at].line, retired));
            }
        }
    }
    found
}

/// The texts of all paths, by their names in the repository. What is no text (an image) has no words.
fn texts() -> impl Iterator<Item = (PathBuf, String)> {
    PATHS
        .iter()
        .flat_map(|path| files(&root().join(path)))
        .filter_map(|path| {
            let text = std::fs::read_to_string(&path).ok()?;
            Some((path.strip_prefix(root()).unwrap().to_owned(), text))
        })
        .filter(|(path, _)| {
            !EXCEPTIONS
                .iter()
                .any(|exception| path.as_path() == Path::new(exception))
        })
}

#[test]
fn no_text_uses_a_retired_word() {
    let mut report = Vec::new();
    for (path, text) in texts() {
        for (line, Retired { text, instead, .. }) in uses(&text) {
            report.push(format!("{}:{line}: {text:?}: write {instead}", path.display()));
        }
    }
    assert!(report.is_empty(), "retired words:\n{}", report.join("\n"));
}

#[test]
fn every_path_has_texts() {
    let found: Vec<PathBuf> = texts().map(|(path, _)| path).collect();
    for path in PATHS {
        assert!(found.iter().any(|file| file.starts_with(path)), "{path} has no texts");
    }
    for exception in EXCEPTIONS {
        assert!(root().join(exception).is_file(), "{exception} does not exist");
    }
}

#[test]
fn a_retired_word_is_found_in_names_and_across_lines() {
    let lines = |source: &str| uses(source).iter().map(|(line, _)| *line).collect::<Vec<_>>();
    assert_eq!(
        lines("let freePlace = 1;\nlet free_place = PLACE;\nplaceholder(replace)"),
        [1, 2, 2]
    );
    assert_eq!(lines("/// It waits for\n/// ever.\n"), [1]);
    assert_eq!(lines("struct Place;\nfn told() {}\n// anew"), [1, 2, 3]);
    assert!(lines("sorted in place; rustls::crypto::ring; the keyring; they are well-formed").is_empty());
    assert!(lines("in\n// place").is_empty());
}
