//! Turns `openapi.yaml` into the JSON that the program embeds beside it: YAML is read when the program is built, and never
//! when it starts.
#![expect(clippy::expect_used, reason = "a build that cannot read its contract stops")]

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=openapi.yaml");
    let yaml = fs::read_to_string("openapi.yaml").expect("openapi.yaml can be read");
    let document: serde_json::Value = serde_norway::from_str(&yaml).expect("openapi.yaml is YAML");
    let folder = env::var_os("OUT_DIR").expect("cargo names the folder");
    fs::write(Path::new(&folder).join("openapi.json"), document.to_string()).expect("openapi.json can be written");
}
