//! One meaning per word: words that the source no longer uses, in comments, strings and names, each with what to write.

use super::{root, sources};

/// The folders that are clean. Add yours when it is.
const FOLDERS: &[&str] = &[
    "benches",
    "migration",
    "src/cli",
    "src/config",
    "src/contract",
    "src/delivery",
    "src/domain",
    "src/metrics",
    "src/sandbox",
    "src/server",
    "src/store",
    "src/telemetry",
    "tests/support",
];

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
    retired("told", "reported, passed, notified, logged", &[]),
    retired("anew", "again", &[]),
    retired("ring", "deadlock; keyring; turns", &["crypto ring", "ring default"]),
    retired("for ever", "forever", &[]),
    retired("just now", "now, recently", &[]),
    retired("in a moment", "soon", &[]),
    retired("came about", "could be established", &[]),
    retired("of late", "recently", &[]),
    retired("time and again", "repeatedly", &[]),
    retired("again and again", "repeatedly", &[]),
    retired("ended badly", "panicked, failed", &[]),
    retired("none where", "`None` if", &[]),
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

#[test]
fn no_source_uses_a_retired_word() {
    let mut report = Vec::new();
    for folder in FOLDERS {
        let sources = sources(folder);
        assert!(!sources.is_empty(), "{folder} has no sources");
        for (file, source) in sources {
            let file = file.strip_prefix(root()).unwrap();
            for (line, Retired { text, instead, .. }) in uses(&source) {
                report.push(format!("{}:{line}: {text:?}: write {instead}", file.display()));
            }
        }
    }
    assert!(report.is_empty(), "retired words:\n{}", report.join("\n"));
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
