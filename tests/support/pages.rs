//! The pages of a list, followed by their links.

use serde_json::Value;

use super::App;

/// The path of the next page, if there is one.
pub(crate) fn next(link: Option<&str>) -> Option<String> {
    let (target, relation) = link?.split_once(">; ").unwrap();
    assert_eq!(relation, "rel=\"next\"");
    let address = target.strip_prefix("<http://").expect("an absolute address");
    let path = address.find('/').unwrap();
    Some(address[path..].to_owned())
}

/// The items of each page of a list that starts at `path`.
pub(crate) async fn pages(app: &App, path: &str) -> Vec<Vec<Value>> {
    let (mut page, mut found) = (Some(path.to_owned()), Vec::new());
    while let Some(path) = page {
        let response = app.get(&path).await;
        page = next(response.header("link"));
        found.push(response.expect(200).as_array().unwrap().clone());
    }
    found
}

/// How many items each page has.
pub(crate) fn lengths(pages: &[Vec<Value>]) -> Vec<usize> {
    pages.iter().map(Vec::len).collect()
}

/// A text member of every item, page after page.
pub(crate) fn texts(pages: &[Vec<Value>], member: &str) -> Vec<String> {
    let items = pages.iter().flatten();
    items.map(|item| item[member].as_str().unwrap().to_owned()).collect()
}
