//! The dashboard asks for what the server exports, and docs/operations.md explains all that it exports.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::metrics::{measured, scrape};
use crate::support::Receiver;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every query of the dashboard, wherever it stands.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member
                    .as_str()
                    .filter(|_| ["expr", "definition"].contains(&name.as_str()))
                {
                    Some(query) => found.push(query.to_owned()),
                    None => queries(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

/// The names of our metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| word.starts_with("kallima_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn every_metric_of_the_dashboard_is_exported() {
    let app = measured().await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    let exported = scrape(&app).await;
    let samples = exported.lines().filter(|line| !line.starts_with('#'));
    let series: BTreeSet<String> = samples
        .flat_map(|line| names(line.split(['{', ' ']).next().unwrap()))
        .collect();

    let dashboard: Value = serde_json::from_str(&read("dashboards/kallima-webhooks.json")).unwrap();
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    let asked: BTreeSet<String> = found.iter().flat_map(|query| names(query)).collect();
    assert!(asked.len() > 10, "the queries were found: {asked:?}");
    let missing: Vec<_> = asked.difference(&series).collect();
    assert!(
        missing.is_empty(),
        "the dashboard asks for what is not exported: {missing:?} of {series:?}"
    );

    let families = exported.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<String> = families
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    // A counter's samples end with `_total`, an info's with `_info`; their families do not.
    let bare = |name: &String| name.trim_end_matches("_total").trim_end_matches("_info").to_owned();
    let explained: BTreeSet<String> = names(&read("docs/operations.md")).iter().map(bare).collect();
    let silent: Vec<_> = families.difference(&explained).collect();
    assert!(silent.is_empty(), "docs/operations.md does not explain {silent:?}");
    let drawn: Vec<_> = families
        .iter()
        .filter(|family| !asked.iter().any(|name| name.starts_with(*family)))
        .collect();
    assert!(drawn.is_empty(), "the dashboard does not show {drawn:?}");
}
