//! Links of this server. They are written as on a host of its own, beginning with `/`; behind a proxy that serves it under a
//! prefix and takes the prefix away, they get the prefix here, before they are sent.

use std::borrow::Cow;

use maud::Markup;

/// The attributes that hold links.
const ATTRIBUTES: [&str; 3] = ["href", "src", "action"];

/// What surrounds the slash that `Location` begins with, in YAML and in JSON.
const IN_DOCUMENT: [(&str, &str); 4] = [
    ("pattern: '^", "v1/"),
    (r#""pattern":"^"#, "v1/"),
    ("      example: ", "v1/"),
    (r#""example":""#, "v1/"),
];

/// A page as it is written. It can only be shown with its links as they are behind a prefix.
#[derive(Debug)]
pub struct WebPage(String);

impl WebPage {
    /// The page of this markup.
    pub(super) fn new(markup: Markup) -> Self {
        Self(markup.into_string())
    }

    /// The page as HTML. The prefix has no slash at its end, and is empty on a host of its own.
    ///
    /// In texts and values `maud` writes a quotation mark as `&quot;`, so nothing that customers have written looks like a
    /// link.
    #[must_use]
    pub fn behind(self, prefix: &str) -> String {
        if prefix.is_empty() {
            return self.0;
        }
        ATTRIBUTES.into_iter().fold(self.0, |html, name| {
            html.replace(&format!(" {name}=\"/"), &format!(" {name}=\"{prefix}/"))
        })
    }
}

/// A text in Markdown behind a prefix.
pub(super) fn text_behind(prefix: &str, text: String) -> String {
    if prefix.is_empty() {
        return text;
    }
    text.replace("](/", &format!("]({prefix}/"))
}

/// openapi.yaml or openapi.json behind a prefix: links in its texts, its one server, and the `Location` of what was created.
#[must_use]
pub fn document_behind<'a>(prefix: &str, document: &'a str) -> Cow<'a, str> {
    if prefix.is_empty() {
        return document.into();
    }
    let with_prefix = |document: String, (before, after): &(&str, &str)| {
        document.replace(&format!("{before}/{after}"), &format!("{before}{prefix}/{after}"))
    };
    let document = text_behind(prefix, document.to_owned());
    let document = IN_DOCUMENT.iter().fold(document, with_prefix);
    // The address of a server has no slash at its end.
    let document = document.replace("\n  - url: /\n", &format!("\n  - url: {prefix}\n"));
    document
        .replace(r#""url":"/","#, &format!(r#""url":"{prefix}","#))
        .into()
}

#[cfg(test)]
mod tests {
    use maud::html;

    use super::*;

    #[test]
    fn links_of_this_server_get_the_prefix_and_nothing_else_does() {
        let hostile = "\" href=\"/x\" ](/x)";
        let page = || {
            let page = html! {
                form action="/a" { input value=(hostile); }
                a href="/b?c=/d" title="/e" { (hostile) " href=/" }
                img src="/f";
                a href="#g" {} a href="https://example.com/" {}
            };
            WebPage::new(page)
        };
        assert_eq!(page().behind(""), page().0);
        let shown = page().behind("/x/y");
        assert_eq!(shown.matches("/x/y/").count(), 3, "{shown}");
        for link in [" action=\"/x/y/a\"", " href=\"/x/y/b?c=/d\"", " src=\"/x/y/f\""] {
            assert!(shown.contains(link), "{shown}");
        }
        let text = || "[a](/b) [c](https://d/) /e".to_owned();
        assert_eq!(text_behind("/x", text()), "[a](/x/b) [c](https://d/) /e");
        assert_eq!(text_behind("", text()), text());
    }
}
