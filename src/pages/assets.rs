//! The files that pages load: each is served from here, and none from elsewhere.

use std::{borrow::Cow, sync::Arc};

use utoipa_swagger_ui::Config;

/// A file as it is served.
#[derive(Clone, Debug)]
pub struct File {
    /// Its media type.
    pub media_type: &'static str,
    /// Its content.
    pub bytes: Cow<'static, [u8]>,
}

impl File {
    /// A file of text.
    #[must_use]
    pub fn text(media_type: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        let bytes = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self { media_type, bytes }
    }
}

/// Media types of pages.
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const MARKDOWN: &str = "text/markdown; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// The file of that name; `None` if no page loads one.
#[must_use]
pub fn file(name: &str) -> Option<File> {
    match name {
        "docs.js" => Some(File::text(JAVASCRIPT, include_str!("assets/docs.js"))),
        "docs.css" => Some(File::text(CSS, include_str!("assets/docs.css"))),
        "page.js" => Some(File::text(JAVASCRIPT, include_str!("assets/page.js"))),
        "page.css" => Some(File::text(CSS, include_str!("assets/page.css"))),
        "favicon.svg" => Some(File::text("image/svg+xml", include_str!("assets/favicon.svg"))),
        "swagger-ui-bundle.js" => swagger_ui(name, JAVASCRIPT),
        "swagger-ui.css" => swagger_ui(name, CSS),
        _ => None,
    }
}

/// A file of Swagger UI's distribution, as its crate embeds it.
fn swagger_ui(name: &str, media_type: &'static str) -> Option<File> {
    let bytes = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok()??.bytes;
    Some(File { media_type, bytes })
}
