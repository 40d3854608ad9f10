//! JSON Pointer (RFC 6901): how a problem points into a body.

/// Escapes a member's name as a token of a pointer (section 3).
#[must_use]
pub fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The first token of a pointer, unescaped (section 4): the top-level field that it points into. Empty for the whole
/// body.
#[must_use]
pub fn first_token(pointer: &str) -> String {
    let token = pointer.split('/').nth(1).unwrap_or_default();
    // In this order, since `~01` means `~1` and not a slash.
    token.replace("~1", "/").replace("~0", "~")
}

/// The longest prefix of a pointer that is a pointer itself and has at most `bytes_max` bytes: it points to a value
/// that contains the original one.
#[must_use]
pub fn shorten(pointer: &str, bytes_max: usize) -> &str {
    if pointer.len() <= bytes_max {
        return pointer;
    }
    let mut before = pointer.as_bytes().iter().take(bytes_max + 1);
    let end = before.rposition(|byte| *byte == b'/').unwrap_or(0);
    pointer.get(..end).unwrap_or_default()
}

#[test]
fn a_pointer_is_cut_between_its_tokens() {
    for (bytes_max, cut) in [
        (9, "/ab/~1c/d"),
        (8, "/ab/~1c"),
        (7, "/ab/~1c"),
        (6, "/ab"),
        (3, "/ab"),
        (2, ""),
        (0, ""),
    ] {
        assert_eq!(shorten("/ab/~1c/d", bytes_max), cut);
    }
}

#[test]
fn a_name_is_read_back_from_its_pointer() {
    for (name, token) in [
        ("a", "a"),
        ("", ""),
        ("a/b", "a~1b"),
        ("~1", "~01"),
        ("~/~0", "~0~1~00"),
    ] {
        assert_eq!(escape(name), token);
        assert_eq!(first_token(&format!("/{token}")), name);
        assert_eq!(first_token(&format!("/{token}/more/~1")), name);
    }
    assert_eq!(first_token(""), "");
}
