//! What surrounds every page of the dashboard, and the page of an error.

use maud::{DOCTYPE, Markup, html};

use super::parts;
use crate::{
    domain::{
        pass::{Access, Action},
        timestamp::Timestamp,
    },
    pages::{frame, links::WebPage},
};

/// Whoever is signed in, as far as pages show it.
#[derive(Debug)]
pub struct Visitor {
    /// Proves that a form is of this session.
    pub form_token: String,
    /// The idempotency key of the page's forms: sent twice, they are done once.
    pub key: String,
    /// What the session allows.
    pub access: Access,
    /// Whether its token may write.
    pub may_write: bool,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Visitor {
    /// Whether the session may do it: only then is there a form for it.
    pub(super) fn may(&self, action: Action) -> bool {
        self.access.includes(action) && (self.may_write || action == Action::Show)
    }

    /// A form with one button, whose fields come before it.
    pub(super) fn form(&self, action: &str, button: &str, fields: &Markup) -> Markup {
        html! {
            form method="post" action=(action) {
                (parts::token(&self.form_token))
                input type="hidden" name="key" value=(self.key);
                (fields)
                button type="submit" { (button) }
            }
        }
    }

    /// A page for this visitor. `path` is its entry in the navigation.
    pub(super) fn page(&self, title: &str, path: &str, content: &Markup) -> WebPage {
        let allowed = match (self.may(Action::Change), self.may(Action::Retry)) {
            (true, _) => "You may see and change everything here.",
            (false, true) => "You may look, and retry deliveries.",
            (false, false) => "You may look, and change nothing.",
        };
        let navigation = html! {
            nav aria-label="Dashboard" {
                @for (entry, name) in [("/dashboard", "Webhooks"), ("/dashboard/deliveries", "Deliveries")] {
                    a href=(entry) aria-current=[(entry == path).then_some("page")] { (name) }
                }
            }
            form.sign-out method="post" action="/dashboard/sign_out" {
                (parts::token(&self.form_token))
                button.quiet type="submit" { "Sign out" }
            }
        };
        let footer = html! { (allowed) " Signed in until " (parts::time(self.expires_at)) "." };
        page(title, &navigation, content, &footer)
    }
}

/// A page for whoever is not signed in.
pub(super) fn open_page(title: &str, content: &Markup) -> WebPage {
    let footer = html! { a href="/reference" { "Reference of the API" } };
    page(title, &html! {}, content, &footer)
}

fn page(title: &str, navigation: &Markup, content: &Markup, footer: &Markup) -> WebPage {
    let own = html! {
        meta name="robots" content="noindex";
        link rel="stylesheet" href="/docs/dashboard.css";
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (frame::head(title, &own))
            body.dashboard {
                (frame::skip())
                header.site {
                    (frame::brand("/dashboard"))
                    (navigation)
                }
                main id="content" tabindex="-1" {
                    h1 { (title) }
                    (content)
                }
                footer { (footer) }
            }
        }
    };
    WebPage::new(page)
}

/// Why a page cannot be shown, or a form was not done.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// In a few words.
    pub title: &'a str,
    /// What is wrong, and what to do.
    pub detail: &'a str,
    /// What is wrong with each part of the request, if that is it.
    pub faults: &'a [String],
    /// The request's id.
    pub request_id: &'a str,
}

impl Refusal<'_> {
    /// The page.
    #[must_use]
    pub fn page(&self) -> WebPage {
        let Self {
            title,
            detail,
            faults,
            request_id,
        } = self;
        let content = html! {
            @if faults.is_empty() {
                p { (detail) }
            } @else {
                (parts::faults(faults))
            }
            p { a href="/dashboard" { "To the dashboard" } }
            p.quiet { "Request " code { (request_id) } }
        };
        open_page(title, &content)
    }
}
