//! JSON Pointer (RFC 6901): how a problem names a place in a body.

/// A member's name as a token of a pointer (section 3).
#[must_use]
pub fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The first token of a pointer, unescaped (section 4): the field of the body that holds the place. Empty for the
/// whole body.
#[must_use]
pub fn first_token(pointer: &str) -> String {
    let token = pointer.split('/').nth(1).unwrap_or_default();
    // In this order, for `~01` is `~1` and not a slash.
    token.replace("~1", "/").replace("~0", "~")
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
