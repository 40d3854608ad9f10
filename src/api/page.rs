//! Pages of a list: limits on items and bytes, a cursor, and a `Link` to the next page (RFC 8288).

use axum::{
    http::{
        HeaderValue, Uri,
        header::{CONTENT_TYPE, LINK},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{ApiState, public_address::PublicAddress};
use crate::store::{
    StoreError,
    page::{self, PageLimit},
};

/// One page of a list as JSON, with a link to the next page if there is one.
#[derive(Debug)]
pub(super) struct Page {
    json: Vec<u8>,
    next: Option<String>,
}

/// How much a page with this many items may hold.
pub(super) fn limit(state: &ApiState, items: u32) -> PageLimit {
    PageLimit {
        items: items.into(),
        bytes: state.page_bytes_max,
    }
}

impl Page {
    /// Writes what the store found. `cursor` is an item's position in the list, and `view` is how it is shown.
    ///
    /// The store counted payloads and texts as they are stored. They can be larger as JSON, so the page may end sooner.
    pub(super) fn new<T, C: ToString, V: Serialize>(
        found: page::Page<T, C>,
        limit: PageLimit,
        address: &PublicAddress,
        cursor: impl Fn(&T) -> C,
        view: impl Fn(T) -> Result<V, StoreError>,
    ) -> Result<Self, StoreError> {
        let (json, next) = write(found, limit, cursor, view)?;
        let next = next.map(|after| link(&address.of(&next_page(address.uri(), &after))));
        Ok(Self { json, next })
    }
}

/// Writes a page as a JSON array of at most `bytes_max` bytes, or of one item; and returns the cursor of the next page.
pub(super) fn write<T, C: ToString, V: Serialize>(
    found: page::Page<T, C>,
    limit: PageLimit,
    cursor: impl Fn(&T) -> C,
    view: impl Fn(T) -> Result<V, StoreError>,
) -> Result<(Vec<u8>, Option<String>), StoreError> {
    let page::Page { items, next } = found;
    let mut json = vec![b'['];
    let mut last: Option<C> = None;
    for item in items {
        let (end, position) = (json.len(), cursor(&item));
        if last.is_some() {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, &view(item)?)?;
        // Including the closing bracket.
        if json.len() as u64 >= limit.bytes
            && let Some(last) = last
        {
            json.truncate(end);
            json.push(b']');
            return Ok((json, Some(last.to_string())));
        }
        last = Some(position);
    }
    json.push(b']');
    Ok((json, next.map(|after| after.to_string())))
}

/// A response, with a `Link` if there is one.
pub(super) fn with_link(json: Vec<u8>, next: Option<String>) -> Response {
    let mut response = ([(CONTENT_TYPE, "application/json")], json).into_response();
    if let Some(next) = next.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(LINK, next);
    }
    response
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        with_link(self.json, self.next)
    }
}

/// The path of the same query with another `after`.
fn next_page(uri: &Uri, after: &str) -> String {
    let query = uri.query().unwrap_or_default();
    let kept = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "after");
    let next = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .append_pair("after", after)
        .finish();
    format!("{}?{next}", uri.path())
}

/// The value of `Link` for the address of the next page.
pub(super) fn link(address: &str) -> String {
    format!("<{address}>; rel=\"next\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(items: &[&str], next: Option<&str>, bytes: u64) -> (String, Option<String>) {
        let found = page::Page {
            items: items.to_vec(),
            next: next.map(str::to_owned),
        };
        let address = PublicAddress::new("https://example.com", "/v1/events?limit=2&after=old&event_type=a%26b");
        let limit = PageLimit { items: 3, bytes };
        let page = Page::new(found, limit, &address, |item| (*item).to_owned(), Ok).unwrap();
        (String::from_utf8(page.json).unwrap(), page.next)
    }

    #[test]
    fn the_next_link_keeps_the_query_and_moves_the_cursor() {
        let link = "<https://example.com/v1/events?limit=2&event_type=a%26b&after=b>; rel=\"next\"".to_owned();
        assert_eq!(
            page(&["c", "b"], Some("b"), 100),
            (r#"["c","b"]"#.to_owned(), Some(link))
        );
    }

    #[test]
    fn the_last_page_has_no_next() {
        assert_eq!(page(&["b", "a"], None, 100), (r#"["b","a"]"#.to_owned(), None));
        assert_eq!(page(&[], None, 100), ("[]".to_owned(), None));
    }

    #[test]
    fn a_page_ends_where_its_bytes_do_but_not_before_its_first_item() {
        for (bytes, json, after) in [
            (9, r#"["c","b"]"#, None),
            (8, r#"["c"]"#, Some("c")),
            (5, r#"["c"]"#, Some("c")),
            (1, r#"["c"]"#, Some("c")),
        ] {
            let (written, next) = page(&["c", "b"], None, bytes);
            assert_eq!(written, json);
            assert_eq!(next.is_some(), after.is_some(), "{bytes}");
            assert!(next.is_none_or(|next| next.contains(&format!("after={}>", after.unwrap()))));
        }
    }
}
