//! Markdown as HTML. What is rendered is the repository's own: the guides, and the sentences of openapi.yaml.

use std::{borrow::Cow, collections::HashMap};

use maud::{Markup, PreEscaped};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html::push_html};

use super::guides::{GUIDES, Guide};

/// Renders a text. Headings get the anchors that links between the guides name.
pub(super) fn render(text: &str) -> Markup {
    let events: Vec<Event<'_>> = Parser::new_ext(text, Options::ENABLE_TABLES).collect();
    let mut anchors = anchors(&events).into_iter();
    let mut used = HashMap::new();
    let events = events.into_iter().map(|event| match event {
        Event::Start(Tag::Heading {
            level, classes, attrs, ..
        }) => Event::Start(Tag::Heading {
            level,
            id: anchors.next().map(|anchor| CowStr::from(unique(anchor, &mut used))),
            classes,
            attrs,
        }),
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Link {
            link_type,
            dest_url: CowStr::from(target(&dest_url).into_owned()),
            title,
            id,
        }),
        other => other,
    });
    let mut html = String::new();
    push_html(&mut html, events);
    PreEscaped(html)
}

/// The text with links to the guides as Markdown.
pub(super) fn linked(text: &str) -> String {
    GUIDES.iter().fold(text.to_owned(), |text, Guide { file, path, .. }| {
        text.replace(&format!("]({file}"), &format!("]({path}.md"))
    })
}

/// Where a link between the guides leads on a server.
fn target(link: &str) -> Cow<'_, str> {
    let (file, anchor) = link
        .split_once('#')
        .map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let Some(Guide { path, .. }) = GUIDES.iter().find(|guide| guide.file == file) else {
        return link.into();
    };
    anchor.map_or_else(|| (*path).into(), |anchor| format!("{path}#{anchor}").into())
}

/// The headings' texts as anchors.
fn anchors(events: &[Event<'_>]) -> Vec<String> {
    let (mut found, mut is_heading) = (Vec::new(), false);
    for event in events {
        match event {
            Event::Start(Tag::Heading { .. }) => {
                found.push(String::new());
                is_heading = true;
            }
            Event::End(TagEnd::Heading(_)) => is_heading = false,
            Event::Text(text) | Event::Code(text) if is_heading => {
                if let Some(anchor) = found.last_mut() {
                    anchor.extend(text.chars().filter_map(anchor_letter));
                }
            }
            _ => {}
        }
    }
    found
}

fn anchor_letter(letter: char) -> Option<char> {
    match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then(|| letter.to_ascii_lowercase()),
    }
}

/// The anchor, with a number where an earlier heading has the same.
fn unique(anchor: String, used: &mut HashMap<String, u32>) -> String {
    let count = used.entry(anchor.clone()).or_default();
    *count += 1;
    if *count == 1 {
        anchor
    } else {
        format!("{anchor}-{count}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_can_be_linked_and_guides_link_each_other() {
        let html =
            render("## What `it` means\n\n[there](requests.md#errors), [out](https://example.com)\n\n## What it means")
                .0;
        assert!(
            html.contains("<h2 id=\"what-it-means\">What <code>it</code> means</h2>"),
            "{html}"
        );
        assert!(html.contains("<h2 id=\"what-it-means-2\">"), "{html}");
        assert!(
            html.contains("href=\"/guide/requests#errors\"") && html.contains("href=\"https://example.com\""),
            "{html}"
        );
    }
}
