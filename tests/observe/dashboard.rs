//! Metrics, alerts, dashboard and runbook agree: what is queried is exported, and what is exported is shown and explained.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use super::metrics::{measured, scrape};
use crate::support::Receiver;

const DASHBOARD: &str = "deploy/grafana/kallima-webhooks.json";
const ALERTS: &str = "deploy/prometheus/alerts.yaml";
const RUNBOOK: &str = "docs/runbook.md";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every query of a document, wherever it is.
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

fn queries_of(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    queries(document, &mut found);
    found
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

fn alerts() -> Value {
    serde_norway::from_str(&read(ALERTS)).unwrap()
}

/// The names of our metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| word.starts_with("kallima_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// What the server exports once it has done a little: the names of its series, of its families, and all of the text.
async fn exported() -> (BTreeSet<String>, BTreeSet<String>, String) {
    let app = measured().await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    let text = scrape(&app).await;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let series = samples
        .flat_map(|line| names(line.split(['{', ' ']).next().unwrap()))
        .collect();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families = families
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    (series, families, text)
}

/// A counter's samples end with `_total`, an info's with `_info`; their families do not.
fn family(name: &str) -> String {
    let bare = name.trim_end_matches("_total").trim_end_matches("_info");
    let histogram = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| bare.strip_suffix(end));
    histogram.unwrap_or(bare).to_owned()
}

/// The labels that a query asks for by their whole value, `name="value"`.
fn exact_labels(query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (selector, _) in query.match_indices('{') {
        let selector = query[selector + 1..].split('}').next().unwrap();
        for matcher in selector.split(',').map(str::trim) {
            let is_exact = !matcher.contains('~') && !matcher.contains('$') && matcher.contains("=\"");
            // Of Prometheus itself.
            if is_exact && !matcher.starts_with("job=") {
                found.insert(matcher.to_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn what_dashboard_and_alerts_ask_for_is_exported_and_all_of_it_is_drawn_and_explained() {
    let (series, families, text) = exported().await;
    let drawn = queries_of(&dashboard());
    let asked: Vec<String> = drawn.iter().chain(&queries_of(&alerts())).cloned().collect();
    assert!(asked.len() > 40, "the queries were found: {asked:?}");
    for query in &asked {
        let missing: Vec<_> = names(query).difference(&series).cloned().collect();
        assert!(missing.is_empty(), "{missing:?} of {query} is not exported: {series:?}");
        for label in exact_labels(query) {
            assert!(text.contains(&label), "no series has {label}, which {query} asks for");
        }
    }
    let of = |texts: &[String]| -> BTreeSet<String> {
        texts
            .iter()
            .flat_map(|text| names(text))
            .map(|name| family(&name))
            .collect()
    };
    let (drawn, explained) = (of(&drawn), of(&[read(RUNBOOK)]));
    for (document, known) in [(DASHBOARD, drawn), (RUNBOOK, explained)] {
        let silent: Vec<_> = families.difference(&known).collect();
        assert!(silent.is_empty(), "{document} says nothing of {silent:?}");
        let invented: Vec<_> = known.difference(&families).collect();
        assert!(
            invented.is_empty(),
            "{document} speaks of {invented:?}, which is not exported"
        );
    }
}

#[test]
fn each_alert_has_a_severity_a_summary_and_its_lines_in_the_runbook() {
    let runbook = read(RUNBOOK);
    let parts = ["*What it means:* ", "*Where to look:* ", "*What to do:* "];
    let sections: BTreeMap<&str, &str> = runbook
        .split("\n### ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap())
        .collect();
    let alerts = alerts();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    let mut alerted = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        alerted.insert(name);
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        let section = sections.get(name).unwrap_or_else(|| panic!("{RUNBOOK} has no {name}"));
        let summary = rule["annotations"]["summary"].as_str().unwrap();
        assert!(
            section.contains(&format!("**{summary}** (`{severity}`)")),
            "{name}: {section}"
        );
        for part in parts {
            assert!(section.contains(part), "{name} lacks {part}");
        }
        assert_eq!(
            rule["annotations"]["runbook"],
            format!("{RUNBOOK}#{}", name.to_lowercase()),
            "{name}"
        );
    }
    assert!(rules.len() > 15, "the rules were found");
    let explained: BTreeSet<&str> = sections.keys().copied().collect();
    assert_eq!(explained, alerted, "{RUNBOOK} and {ALERTS} have the same alerts");
}

#[test]
fn each_panel_has_one_unit_a_number_of_its_own_and_a_position() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut numbers = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(
                    x < 24 && taken.insert((x, y)),
                    "{} lies upon another panel",
                    panel["title"]
                );
            }
        }
        if panel["type"] != "row" {
            assert!(
                panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{}",
                panel["title"]
            );
            assert_eq!(
                panel["fieldConfig"]["overrides"],
                serde_json::json!([]),
                "one unit an axis"
            );
        }
    }
}
