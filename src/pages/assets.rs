//! The files that pages load: each is served from here, and none from elsewhere.

use std::{
    borrow::Cow,
    io::Read as _,
    sync::{Arc, OnceLock},
};

use flate2::read::GzDecoder;
use utoipa_swagger_ui::Config;

/// A file as it is served.
#[derive(Clone, Debug)]
pub struct File {
    /// Its media type.
    pub media_type: &'static str,
    /// Its content.
    pub bytes: Cow<'static, [u8]>,
    /// Whether the content is compressed, by gzip.
    pub is_compressed: bool,
}

impl File {
    /// A file of text.
    #[must_use]
    pub fn text(media_type: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        let bytes = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self {
            media_type,
            bytes,
            is_compressed: false,
        }
    }
}

/// The media type of a page.
pub const HTML: &str = "text/html; charset=utf-8";
pub(super) const MARKDOWN: &str = "text/markdown; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// The file of that name; `None` if no page loads one. A large one is compressed for whoever takes that.
#[must_use]
pub fn file(name: &str, is_gzip_taken: bool) -> Option<File> {
    static BUNDLE: OnceLock<Vec<u8>> = OnceLock::new();
    static SHEET: OnceLock<Vec<u8>> = OnceLock::new();
    match name {
        "docs.js" => Some(File::text(JAVASCRIPT, include_str!("assets/docs.js"))),
        "docs.css" => Some(File::text(CSS, include_str!("assets/docs.css"))),
        "page.js" => Some(File::text(JAVASCRIPT, include_str!("assets/page.js"))),
        "page.css" => Some(File::text(CSS, include_str!("assets/page.css"))),
        "dashboard.css" => Some(File::text(CSS, include_str!("assets/dashboard.css"))),
        "favicon.svg" => Some(File::text("image/svg+xml", include_str!("assets/favicon.svg"))),
        "swagger-ui-bundle.js" => swagger_ui(name, JAVASCRIPT, is_gzip_taken, &BUNDLE),
        "swagger-ui.css" => swagger_ui(name, CSS, is_gzip_taken, &SHEET),
        _ => None,
    }
}

/// A file of Swagger UI's distribution, which its crate embeds compressed. Uncompressed it is in memory once, from when it
/// is first wanted so, however many read it.
fn swagger_ui(
    name: &str,
    media_type: &'static str,
    is_gzip_taken: bool,
    plain: &'static OnceLock<Vec<u8>>,
) -> Option<File> {
    let bytes = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok()??.bytes;
    let bytes = if is_gzip_taken {
        bytes
    } else {
        Cow::Borrowed(plain.get_or_init(|| uncompressed(&bytes)).as_slice())
    };
    Some(File {
        media_type,
        bytes,
        is_compressed: is_gzip_taken,
    })
}

fn uncompressed(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    if let Err(cause) = GzDecoder::new(bytes).read_to_end(&mut plain) {
        tracing::error!(exception.message = %cause, "an embedded file cannot be read");
    }
    plain
}
