//! Turns the OpenAPI documents into the JSON that the program embeds: YAML is read when the program is built, and never
//! when it starts. Says which commit a release is built from.
#![expect(clippy::expect_used, reason = "a build that cannot read its contract stops")]

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var_os("OUT_DIR").expect("cargo names the folder");
    for (source, name) in [
        ("openapi.yaml", "openapi.json"),
        ("src/sandbox/openapi.yaml", "sandbox.json"),
    ] {
        println!("cargo::rerun-if-changed={source}");
        let yaml = fs::read_to_string(source).expect("the document can be read");
        let document: serde_json::Value = serde_norway::from_str(&yaml).expect("the document is YAML");
        fs::write(Path::new(&folder).join(name), document.to_string()).expect("the document can be written");
    }
    let version = env::var("CARGO_PKG_VERSION").expect("cargo says the version");
    let version = match commit() {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=VERSION_AND_COMMIT={version}");
}

/// The commit, as `SOURCE_COMMIT` or git says it; nothing where neither does. Debug builds have none: each commit would
/// compile the crate again.
fn commit() -> Option<String> {
    println!("cargo::rerun-if-env-changed=SOURCE_COMMIT");
    if let Some(commit) = env::var("SOURCE_COMMIT").ok().filter(|commit| !commit.is_empty()) {
        return Some(commit);
    }
    if env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    // One of them changes when another commit is the one that is checked out.
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"])?;
    for file in ["HEAD", "logs/HEAD", "packed-refs", &branch] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}
