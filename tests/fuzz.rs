//! Runs the fuzz targets on their corpus, and on inputs derived from it: what was found once stays fixed, and the targets
//! keep working. A real fuzzer searches further; `fuzz/Cargo.toml` says how.

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

#[expect(unreachable_pub, reason = "it is a library, too: the fuzzer's")]
#[path = "../fuzz/targets.rs"]
mod targets;

/// Inputs that are made from the corpus, for each target.
const MADE: usize = 2000;

/// How often an input is changed at most.
const CHANGES_MAX: u32 = 6;

/// Bytes that mean something to one of the parsers.
const PIECES: [&str; 32] = [
    "https://",
    "http:",
    "//",
    "/",
    "\\",
    "@",
    "#",
    "?",
    ":",
    "[",
    "]",
    "::ffff:",
    "127.0.0.1",
    "0x7f",
    "%31",
    "localhost",
    ".",
    ".*",
    "*",
    "-",
    "0",
    "9",
    "ff",
    "~",
    "~1",
    "\"",
    ",",
    "W/",
    " ",
    "\n",
    "{\"a\":",
    "①",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| name(entry.unwrap().path())).collect()
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder().join("corpus").join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// An input of the corpus, with some of its bytes changed, left out, doubled, or replaced by another input's.
fn made(random: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus.choose(random).unwrap().clone();
    for _ in 0..random.random_range(0..=CHANGES_MAX) {
        let start = random.random_range(0..=input.len());
        let end = random.random_range(start..=input.len().min(start + 8));
        let piece = match random.random_range(0..5) {
            0 => Vec::new(),
            1 => vec![random.random()],
            2 => input[start..].to_vec(),
            3 => {
                let other = corpus.choose(random).unwrap();
                other[random.random_range(0..=other.len())..].to_vec()
            }
            _ => PIECES.choose(random).unwrap().as_bytes().to_vec(),
        };
        input.splice(start..end, piece);
    }
    input
}

fn holds((name, target): targets::Target) {
    let corpus = corpus(name);
    let mut random = StdRng::seed_from_u64(2026);
    let made = (0..MADE).map(|_| made(&mut random, &corpus));
    for input in corpus.iter().cloned().chain(made) {
        let held = catch_unwind(|| target(&input)).is_ok();
        assert!(held, "{name} does not hold for {:?}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn destinations_hold() {
    holds(targets::TARGETS[0]);
}

#[test]
fn event_filters_hold() {
    holds(targets::TARGETS[1]);
}

#[test]
fn pointers_hold() {
    holds(targets::TARGETS[2]);
}

#[test]
fn headers_hold() {
    holds(targets::TARGETS[3]);
}

#[test]
fn every_target_is_the_fuzzers_too_and_has_a_corpus() {
    let expected: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder().join("fuzz_targets")), expected);
    assert_eq!(names(&folder().join("corpus")), expected);
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    for name in expected {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        let source = fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("kallima_webhooks_fuzz::{name}(")), "{name}");
    }
}
