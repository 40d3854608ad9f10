//! The pages for people: the README is short, and no link is dead.

use std::fs;

use super::{read, root};

/// README, and every page of docs/.
fn pages() -> Vec<String> {
    let listed = fs::read_dir(root().join("docs")).unwrap();
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages = names.map(|name| format!("docs/{name}"));
    pages.chain(["README.md".to_owned()]).collect()
}

/// A heading as the anchor that a link names.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
        _ => None,
    });
    letters.collect()
}

/// A page without its samples, which may look like links and headings.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

#[test]
fn the_readme_is_read_in_five_minutes() {
    let bytes = read("README.md").len();
    assert!(
        bytes <= 8 * 1024,
        "README.md has {bytes} bytes; what is looked up belongs in docs/"
    );
}

#[test]
fn no_link_is_dead() {
    let mut links = 0;
    for page in pages() {
        let text = prose(&read(&page));
        for (start, _) in text.match_indices("](") {
            let target = text[start + 2..].split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = root().join(&page).parent().unwrap().to_path_buf();
            let path = if file.is_empty() {
                root().join(&page)
            } else {
                folder.join(file)
            };
            assert!(path.exists(), "{page} links to {target}, which is not there");
            if !heading.is_empty() {
                let linked = prose(&fs::read_to_string(path).unwrap());
                let headings = linked
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(|line| line.trim_start_matches('#'));
                assert!(
                    headings.map(anchor).any(|anchor| anchor == heading),
                    "{page} links to {target}, and there is no such heading"
                );
            }
        }
    }
    assert!(links > 20, "{links} links were found");
}

#[test]
fn the_readme_leads_to_every_page() {
    let readme = read("README.md");
    for page in pages() {
        assert!(
            page == "README.md" || readme.contains(&format!("]({page}")),
            "README.md does not lead to {page}"
        );
    }
}
