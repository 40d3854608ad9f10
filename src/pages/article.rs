//! A page as it is written, and as it is shown: as HTML for people, as Markdown for programs that read.

use std::fmt::Write as _;

use maud::{DOCTYPE, Markup, html};

use super::{
    assets::{self, File},
    document::{Document, Operation},
    frame,
    links::{self, WebPage},
    markdown,
    samples::Sample,
};

/// What a page needs of a browser: its own style sheet and script.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// A page.
#[derive(Debug, Default)]
pub(super) struct Article {
    /// Its address, without `.md`.
    pub(super) path: String,
    pub(super) title: String,
    /// The method and the path of an operation.
    pub(super) endpoint: Option<(String, String)>,
    /// What it says, in Markdown.
    pub(super) text: String,
    /// One request in several languages.
    pub(super) samples: Vec<Sample>,
    /// What is sent and returned.
    pub(super) examples: Vec<Sample>,
}

impl Article {
    /// For programs that read.
    pub(super) fn markdown(&self, prefix: &str) -> File {
        let mut text = format!("# {}\n\n", self.title);
        if let Some((method, path)) = &self.endpoint {
            let _ = writeln!(text, "`{method} {path}`\n");
        }
        text.push_str(&markdown::linked(self.text.trim()));
        text.push('\n');
        for Sample { title, language, code } in self.samples.iter().chain(&self.examples) {
            let _ = write!(text, "\n## {title}\n\n```{language}\n{code}\n```\n");
        }
        File::text(assets::MARKDOWN, links::text_behind(prefix, text))
    }

    /// For people.
    pub(super) fn html(&self, document: &Document, prefix: &str) -> File {
        let own = html! {
            link rel="alternate" type="text/markdown" href={ (self.path) ".md" };
            script src="/docs/page.js" defer {}
        };
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (frame::head(&self.title, &own))
                body {
                    (frame::skip())
                    (header())
                    div.frame {
                        main id="content" tabindex="-1" { (self.content()) }
                        nav id="navigation" aria-label="Pages" { (self.navigation(document)) }
                    }
                }
            }
        };
        File::text(assets::HTML, WebPage::new(page).behind(prefix))
    }

    fn content(&self) -> Markup {
        let is_beside = !(self.samples.is_empty() && self.examples.is_empty());
        html! {
            article.beside[is_beside] {
                div.text {
                    // A guide's own first heading is its title.
                    h1 { (self.title) }
                    @if let Some((method, path)) = &self.endpoint {
                        p.endpoint { span.method data-method=(method) { (method) } " " code { (path) } }
                    }
                    (markdown::render(&self.text))
                    p.source { a href={ (self.path) ".md" } { "This page as Markdown" } }
                }
                @if is_beside {
                    aside aria-label="Examples" {
                        @for (index, sample) in self.samples.iter().enumerate() {
                            details name="samples" open[index == 0] { summary { (sample.title) } (code(sample)) }
                        }
                        @for example in &self.examples { h2 { (example.title) } (code(example)) }
                    }
                }
            }
        }
    }

    fn navigation(&self, document: &Document) -> Markup {
        let operations = document.operations();
        let mut tags: Vec<&str> = operations.iter().map(Operation::tag).collect();
        tags.dedup();
        html! {
            h2 { "Guides" }
            ul {
                (self.entry("/guide", "Receiving webhooks"))
                (self.entry("/guide/requests", "Sending requests"))
                (self.entry("/reference", "Overview"))
                (self.entry("/errors", "Errors"))
            }
            @for tag in tags {
                h2 { (tag.replace('_', " ")) }
                ul {
                    @for operation in operations.iter().filter(|operation| operation.tag() == tag) {
                        (self.entry(&format!("/reference/{}", operation.id()), operation.summary()))
                    }
                }
            }
            h2 { "Event types" }
            ul {
                @for event in document.event_types() {
                    (self.entry(&format!("/reference/events/{}", event.path), event.path))
                }
            }
        }
    }

    fn entry(&self, path: &str, title: &str) -> Markup {
        let current = (self.path == path).then_some("page");
        html! { li { a href=(path) aria-current=[current] { (title) } } }
    }
}

fn header() -> Markup {
    html! {
        header.site {
            (frame::brand("/reference"))
            nav aria-label="Site" {
                a href="/guide" { "Guide" }
                a href="/reference" { "Reference" }
                a href="/docs" { "Try it" }
                a href="/dashboard" { "Dashboard" }
                a.menu href="#navigation" { "All pages" }
            }
        }
    }
}

fn code(sample: &Sample) -> Markup {
    html! { pre { code class={ "language-" (sample.language) } { (sample.code) } } }
}
