//! Every promise in README.md and docs/promises.md names tests that prove it, and these tests exist.

use std::{collections::HashSet, process::Command};

/// The promises of a page, each as one text.
fn promises(page: &'static str) -> Vec<&'static str> {
    let section = page
        .split("\n## ")
        .find(|section| section.starts_with("Promises\n"))
        .unwrap();
    section.split("\n- **").skip(1).collect()
}

/// The names of all tests of this binary, or of the ignored ones.
pub(crate) fn tests(options: &[&str]) -> HashSet<String> {
    let mut list = Command::new(std::env::current_exe().unwrap());
    let output = list
        .args(["--list", "--format", "terse"])
        .args(options)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

/// The tests that a promise names.
fn named(promise: &'static str) -> Vec<&'static str> {
    let Some((_, proof)) = promise.split_once("*Tests:*") else {
        return Vec::new();
    };
    proof.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let (tests, left_out) = (tests(&[]), tests(&["--ignored"]));
    for (name, page, least) in [
        ("README.md", include_str!("../README.md"), 10),
        ("docs/promises.md", include_str!("../docs/promises.md"), 12),
    ] {
        let promises = promises(page);
        assert!(promises.len() >= least, "{} are found in {name}", promises.len());
        for promise in promises {
            let named = named(promise);
            assert!(!named.is_empty(), "a promise without a test: {promise}");
            for test in named {
                assert!(
                    tests.contains(test),
                    "there is no test {test}, but {name} names it: {promise}"
                );
                assert!(!left_out.contains(test), "{test} does not run: {promise}");
            }
        }
    }
}
