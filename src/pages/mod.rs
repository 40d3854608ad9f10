//! What people read: pages as HTML, rendered from the contract and the guides, and the files that they load.
//!
//! | file | what it makes |
//! |---|---|
//! | `assets` | style sheets, scripts, the icon, Swagger UI |
//! | `swagger` | the page around Swagger UI |
//! | `reference` | a page for each operation and event type, of `document`, `fields` and `samples` |
//! | `errors` | a page for each code |
//! | `dashboard` | webhooks, deliveries and attempts, for whoever signs in |
//! | `guides` | the texts of the guides |
//! | `frame` | what all of these pages begin with |
//! | `links` | links behind a proxy's prefix |
//! | `article` | every page of text: as HTML, by `markdown`, and as Markdown |

pub mod article;
pub mod assets;
pub mod dashboard;
mod document;
mod errors;
mod fields;
mod frame;
mod guides;
pub mod links;
mod markdown;
mod reference;
mod samples;
pub mod swagger;

use std::fmt::Write as _;

use self::{
    article::Article,
    assets::File,
    document::{Document, Operation},
    guides::{GUIDES, Guide},
};

/// The page at a path; `None` if there is none. With `.md` at its end, it is the page as Markdown. Samples of code name
/// `base`, the address of this server; its links begin with `prefix`.
#[must_use]
pub fn page(path: &str, base: &str, prefix: &str) -> Option<File> {
    let document = Document::read();
    if path == "/llms.txt" {
        let index = markdown::linked(&index(&document, base));
        return Some(File::text(assets::MARKDOWN, links::text_behind(prefix, index)));
    }
    match path.strip_suffix(".md") {
        Some(path) => Some(article(&document, path, base)?.markdown(prefix)),
        None => Some(article(&document, path, base)?.html(&document, prefix)),
    }
}

fn article(document: &Document, path: &str, base: &str) -> Option<Article> {
    if let Some(found) = GUIDES.iter().find(|guide| guide.path == path) {
        return guide(found);
    }
    match path.split('/').skip(1).collect::<Vec<_>>()[..] {
        ["reference"] => Some(reference::overview(document, base)),
        ["reference", id] => {
            let operations = document.operations();
            let found = operations.iter().find(|operation| operation.id() == id)?;
            Some(reference::operation(found, base))
        }
        ["reference", "events", name] => {
            let events = document.event_types();
            Some(reference::event_type(events.iter().find(|event| event.path == name)?))
        }
        ["errors"] => Some(errors::overview(document)),
        ["errors", code] => errors::code(document, code),
        _ => None,
    }
}

fn guide(Guide { path, text, .. }: &Guide) -> Option<Article> {
    let (title, text) = text.strip_prefix("# ")?.split_once('\n')?;
    Some(Article {
        path: (*path).to_owned(),
        title: title.to_owned(),
        text: text.to_owned(),
        ..Article::default()
    })
}

/// Every page as Markdown, for programs that read (<https://llmstxt.org>).
fn index(document: &Document, base: &str) -> String {
    let mut text =
        "# Kallima Webhooks API\n\n> Register webhooks, publish events, and see every attempt to deliver them.\n"
            .to_owned();
    let mut section = |title: &str, entries: Vec<(String, String, String)>| {
        let _ = write!(text, "\n## {title}\n\n");
        for (name, path, said) in entries {
            let said = said.replace('\n', " ");
            let _ = writeln!(text, "- [{name}]({base}{path}.md): {said}");
        }
    };
    let guides = GUIDES.iter().filter_map(guide);
    let first = |text: &str| text.trim().split("\n\n").next().unwrap_or_default().to_owned();
    section(
        "Guides",
        guides
            .map(|guide| (guide.title, guide.path, first(&guide.text)))
            .collect(),
    );
    let operation = |operation: Operation<'_>| {
        let name = format!("{} {}", operation.method, operation.path);
        (
            name,
            format!("/reference/{}", operation.id()),
            operation.summary().to_owned(),
        )
    };
    section("Operations", document.operations().into_iter().map(operation).collect());
    let event = |event: Operation<'_>| {
        (
            event.path.to_owned(),
            format!("/reference/events/{}", event.path),
            event.summary().to_owned(),
        )
    };
    section("Event types", document.event_types().into_iter().map(event).collect());
    let code = |(path, meaning): (String, String)| {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        (name, path, meaning)
    };
    section("Errors", errors::paths(document).into_iter().map(code).collect());
    text
}
