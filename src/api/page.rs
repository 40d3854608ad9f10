//! Pages of a list: a limit, a cursor, and a `Link` to the next page (RFC 8288).

use axum::{
    Json,
    http::{HeaderValue, Uri, header::LINK},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// One page of a list, with a link to the next where there is one.
pub(super) struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

/// How many items to ask the store for: one more than the page has tells whether there is a next page.
pub(super) fn fetch(limit: u32) -> u64 {
    u64::from(limit) + 1
}

impl<T> Page<T> {
    /// Makes a page of what [`fetch`] brought. `cursor` is what names an item in `after`.
    pub(super) fn new(mut items: Vec<T>, limit: u32, uri: &Uri, cursor: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| next_link(uri, &cursor(last)));
        Self { items, next }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.items).into_response();
        if let Some(next) = self.next.and_then(|link| HeaderValue::try_from(link).ok()) {
            response.headers_mut().insert(LINK, next);
        }
        response
    }
}

/// The same question with another `after`. Relative to the request's own address (RFC 3986, section 4.2), so that it
/// holds behind any proxy.
fn next_link(uri: &Uri, after: &str) -> String {
    let query = uri.query().unwrap_or_default();
    let kept = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "after");
    let next = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .append_pair("after", after)
        .finish();
    format!("<{}?{next}>; rel=\"next\"", uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_keeps_the_question_and_moves_the_cursor() {
        let uri: Uri = "/v1/events?limit=2&after=old&event_type=a%26b".parse().unwrap();
        let page = Page::new(vec!["c", "b", "a"], 2, &uri, |item| (*item).to_owned());
        assert_eq!(page.items, ["c", "b"]);
        assert_eq!(
            page.next.as_deref(),
            Some("</v1/events?limit=2&event_type=a%26b&after=b>; rel=\"next\"")
        );
    }

    #[test]
    fn the_last_page_has_no_next() {
        let uri: Uri = "/v1/events".parse().unwrap();
        assert_eq!(Page::new(vec!["b", "a"], 2, &uri, |item| (*item).to_owned()).next, None);
    }
}
