//! One page for each operation and each event type, from openapi.yaml.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::Value;

use super::{
    article::Article,
    document::{Document, Operation, examples, text},
    fields,
    samples::{Sample, pretty, samples},
};

/// The overview: the introduction, and what there is.
pub(super) fn overview(document: &Document, base: &str) -> Article {
    let mut text = format!("{}\n\n## Operations\n", on_server(document.introduction(), base));
    for operation in document.operations() {
        let (id, method, path) = (operation.id(), &operation.method, operation.path);
        let _ = write!(text, "\n- [{}](/reference/{id}) `{method} {path}`", operation.summary());
    }
    text.push_str("\n\n## Event types\n");
    for event in document.event_types() {
        let _ = write!(
            text,
            "\n- [`{0}`](/reference/events/{0}) {1}",
            event.path,
            event.summary()
        );
    }
    Article {
        path: "/reference".to_owned(),
        title: "Kallima Webhooks API".to_owned(),
        text,
        ..Article::default()
    }
}

/// The page of an operation.
pub(super) fn operation(operation: &Operation<'_>, base: &str) -> Article {
    let mut page = format!("{}\n", operation.description());
    if operation.takes_token() {
        page.push_str(
            "\n## Authorizations\n\n- **`Authorization`** `string` header **required**\n\n  Bearer authentication header of the form \
             `Bearer <token>`, where `<token>` is your auth token. The samples take it from the variable `TOKEN`.\n",
        );
    }
    for (kind, title) in [
        ("path", "Path parameters"),
        ("query", "Query parameters"),
        ("header", "Headers"),
    ] {
        let parameters = operation.parameters(kind);
        if !parameters.is_empty() {
            let _ = write!(page, "\n## {title}\n\n{}", fields::of_parameters(&parameters));
        }
    }
    let mut shown = Vec::new();
    if let Some(body) = operation.body() {
        let schema = &body["schema"];
        let _ = write!(
            page,
            "\n## Body\n\n`application/json`\n\n{}\n\n{}",
            text(schema, "description"),
            fields::of_schema(schema)
        );
        let named = examples(&body)
            .into_iter()
            .map(|(title, example)| json(format!("Body: {title}"), &example));
        shown.extend(named);
    }
    responses(operation, &mut page, &mut shown);
    Article {
        path: format!("/reference/{}", operation.id()),
        title: operation.summary().to_owned(),
        endpoint: Some((operation.method.clone(), operation.path.to_owned())),
        text: page,
        samples: samples(operation, base),
        examples: shown,
    }
}

/// The page of an event type: what arrives, and what each response means.
pub(super) fn event_type(event: &Operation<'_>) -> Article {
    let mut page = format!("{}\n", event.description());
    let body = event.body().unwrap_or_default();
    let _ = write!(
        page,
        "\n## Headers\n\n{}",
        fields::of_parameters(&event.parameters("header"))
    );
    let _ = write!(
        page,
        "\n## Body\n\n`application/json`\n\n{}",
        fields::of_schema(&body["schema"])
    );
    page.push_str("\n## Your response\n\n| status | what follows |\n|---|---|\n");
    for (status, response) in event.responses() {
        let _ = writeln!(page, "| {status} | {} |", one_line(text(&response, "description")));
    }
    Article {
        path: format!("/reference/events/{}", event.path),
        title: event.path.to_owned(),
        text: page,
        examples: examples(&body)
            .into_iter()
            .map(|(_, example)| json("Payload".to_owned(), &example))
            .collect(),
        ..Article::default()
    }
}

/// The responses: success with its members and headers, errors in a table.
fn responses(operation: &Operation<'_>, page: &mut String, shown: &mut Vec<Sample>) {
    let (well, refused): (Vec<_>, Vec<_>) = operation
        .responses()
        .into_iter()
        .partition(|(status, _)| status.starts_with('2'));
    for (status, response) in &well {
        let _ = write!(page, "\n## Response {status}\n\n{}\n\n", text(response, "description"));
        for (media_type, content) in response["content"].as_object().into_iter().flatten() {
            let schema = &content["schema"];
            let described = if schema["items"].is_object() {
                &schema["items"]
            } else {
                schema
            };
            let _ = write!(
                page,
                "`{media_type}`\n\n{}\n\n{}",
                text(described, "description"),
                fields::of_schema(schema)
            );
            if media_type == "application/json" {
                let named = examples(content)
                    .into_iter()
                    .map(|(title, example)| json(format!("{status}: {title}"), &example));
                shown.extend(named);
            }
        }
        headers(response, page);
    }
    page.push_str("\n## Errors\n\n| status | when | code |\n|---|---|---|\n");
    for (status, response) in &refused {
        let codes: Vec<String> = codes(response)
            .iter()
            .map(|code| format!("[`{code}`](/errors/{code})"))
            .collect();
        let _ = writeln!(
            page,
            "| {status} | {} | {} |",
            one_line(text(response, "description")),
            codes.join(", ")
        );
    }
}

fn headers(response: &Value, page: &mut String) {
    let headers: Vec<_> = response["headers"].as_object().into_iter().flatten().collect();
    if headers.is_empty() {
        return;
    }
    page.push_str("\n| header | what it says |\n|---|---|\n");
    for (name, header) in headers {
        let _ = writeln!(page, "| `{name}` | {} |", one_line(text(header, "description")));
    }
}

/// The codes of a response's examples, each once.
fn codes(response: &Value) -> BTreeSet<String> {
    let shown = examples(&response["content"]["application/problem+json"]).into_iter();
    shown.map(|(_, problem)| text(&problem, "code").to_owned()).collect()
}

/// The text with the address of this server in its samples.
pub(super) fn on_server(text: &str, base: &str) -> String {
    text.replace("https://api.example.com", base)
}

fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn json(title: String, value: &Value) -> Sample {
    Sample {
        title,
        language: "json",
        code: pretty(value),
    }
}
