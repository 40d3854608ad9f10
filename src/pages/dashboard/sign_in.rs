//! The pages for those who are not signed in.

use maud::{Markup, html};

use super::{layout::open_page, parts};
use crate::{
    domain::{pass::Access, timestamp::Timestamp},
    pages::links::WebPage,
};

/// The form that takes a token. `notice` says why the last one was not taken.
#[must_use]
pub fn page(form_token: &str, notice: Option<&str>) -> WebPage {
    let content = html! {
        @if let Some(notice) = notice {
            p.notice role="alert" id="notice" { (notice) }
        }
        form.card method="post" action="/dashboard/sign_in" {
            (parts::token(form_token))
            label for="token" { "Token" }
            input id="token" name="token" type="password" autocomplete="off" autocapitalize="off" spellcheck="false" required
                maxlength="128" aria-describedby=[notice.map(|_| "notice")];
            p.quiet {
                "A token of your organization: " code { "ab_" } " and 48 letters and digits. Whoever runs the service makes it. \
                 Here you may do what it may."
            }
            button type="submit" { "Sign in" }
        }
        p {
            "Or open a link that " a href="/reference/create_dashboard_link" { "somebody with a token has made" } " for you."
        }
    };
    open_page("Sign in", &content)
}

/// The page of a link: a link that is merely looked at, as programs do that show previews, signs nobody in.
#[must_use]
pub fn link(form_token: &str, link: &str, access: Access, expires_at: Timestamp) -> WebPage {
    let allows = match access {
        Access::Read => "look at webhooks and deliveries",
        Access::Retry => "look at webhooks and deliveries, and retry deliveries",
        Access::Full => "do everything that its token allows",
    };
    let content = html! {
        p { "This link works until " (parts::time(expires_at)) ". It lets you " (allows) "." }
        form method="post" action="/dashboard/link" {
            (parts::token(form_token))
            input type="hidden" name="link" value=(link);
            button type="submit" { "Open the dashboard" }
        }
    };
    open_page("Dashboard", &content)
}

/// The page of a link that opens nothing.
#[must_use]
pub fn dead_link() -> WebPage {
    let content = html! {
        p {
            "It has expired, or it was not copied as a whole, or the token that made it was revoked. Ask for another one, or "
            a href="/dashboard/sign_in" { "sign in with a token" } "."
        }
    };
    open_page("This link does not work", &content)
}

/// For whoever comes from another site: a browser does not say who is signed in until a link of this site is followed.
#[must_use]
pub fn arrival(path: &str) -> WebPage {
    let content: Markup = html! {
        p { "You come from another site." }
        p { a.button href=(path) { "Continue to the dashboard" } }
    };
    open_page("Dashboard", &content)
}
