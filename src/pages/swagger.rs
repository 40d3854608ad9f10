//! The page around Swagger UI.

use maud::{DOCTYPE, html};

use super::{
    assets::{self, File},
    links::WebPage,
};

/// What Swagger UI needs of a browser and nothing more. Its icons are `data:` images. It sets styles by script, which no
/// policy forbids, but puts one style sheet into the page: the hash is that sheet's (should it change, the browser's
/// console names the new one).
pub const POLICY: &str = "default-src 'none'; script-src 'self'; \
     style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Swagger UI, showing the served document. On a server for development the browser keeps the token that was entered, and
/// takes one from the address; on any other it forgets it with the tab.
#[must_use]
pub fn page(is_dev: bool, prefix: &str) -> File {
    let page = html! {
        (DOCTYPE)
        html lang="en" data-dev=(is_dev) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Kallima Webhooks API" }
                link rel="icon" type="image/svg+xml" href="/docs/favicon.svg";
                link rel="stylesheet" href="/docs/swagger-ui.css";
                link rel="stylesheet" href="/docs/docs.css";
            }
            body {
                main id="swagger-ui" {
                    noscript {
                        "This page needs JavaScript; without it, read the " a href="/reference" { "reference" } " or "
                        a href="/openapi.yaml" { "openapi.yaml" } "."
                    }
                }
                script src="/docs/swagger-ui-bundle.js" {}
                script src="/docs/docs.js" {}
            }
        }
    };
    File::text(assets::HTML, WebPage::new(page).behind(prefix))
}
