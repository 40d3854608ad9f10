//! What every page of ours begins with: the pages of text and those of the dashboard.

use maud::{Markup, html};

/// The `head` of a page. `more` is what only pages of its kind load or say.
pub(super) fn head(title: &str, more: &Markup) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · Kallima Webhooks" }
            link rel="icon" type="image/svg+xml" href="/docs/favicon.svg";
            link rel="stylesheet" href="/docs/page.css";
            (more)
        }
    }
}

/// For the keyboard: past the navigation, to the content.
pub(super) fn skip() -> Markup {
    html! { a.skip href="#content" { "Skip to the content" } }
}

/// The name of the product, which leads to the first page of its kind.
pub(super) fn brand(first: &str) -> Markup {
    html! { a.brand href=(first) { img src="/docs/favicon.svg" alt="" width="24" height="24"; "Kallima Webhooks" } }
}
