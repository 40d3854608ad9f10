//! Conditional changes, made only if the client has seen the current version: entity tags and `If-Match` (RFC 9110,
//! sections 8.8.3 and 13.1.1). Not the `headers` crate: its `IfMatch` takes any text, so a malformed header would be 412
//! instead of 400.

use crate::domain::timestamp::Timestamp;

/// White space allowed around the elements of a list (RFC 9110, section 5.6.3), and the same with their comma.
const WHITE_SPACE: [char; 2] = [' ', '\t'];
const SEPARATORS: [char; 3] = [' ', '\t', ','];

/// The strong entity tag of one version of an object, quotation marks included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag(String);

impl EntityTag {
    /// The tag of the version with this `updated_at`. Every change moves `updated_at` by at least a millisecond, so no
    /// two versions of one object share a tag.
    #[must_use]
    pub fn of_version(updated_at: Timestamp) -> Self {
        Self(format!("\"{:x}\"", updated_at.as_millis()))
    }

    /// The tag as written in an `ETag` header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The contents of an `If-Match` header: which versions may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: any version, as long as one exists.
    Any,
    /// One of these. Weak tags are dropped: RFC 9110 requires strong comparison, which never matches them.
    OneOf(Vec<EntityTag>),
}

impl IfMatch {
    /// Parses the header's value; several header lines must be joined by commas first.
    ///
    /// `None` if it is neither `*` nor a list of entity tags. Empty elements are ignored, as RFC 9110 (section 5.6.1.2)
    /// requires of a recipient, but a list with nothing else is not a list.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim_matches(WHITE_SPACE) == "*" {
            return Some(Self::Any);
        }
        let (mut tags, mut seen, mut rest) = (Vec::new(), false, text);
        loop {
            rest = rest.trim_start_matches(SEPARATORS);
            if rest.is_empty() {
                return seen.then_some(Self::OneOf(tags));
            }
            let (is_weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |strong| (true, strong));
            let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
            let after = after.trim_start_matches(WHITE_SPACE);
            if !opaque.bytes().all(is_tag_character) || !(after.is_empty() || after.starts_with(',')) {
                return None;
            }
            if !is_weak {
                tags.push(EntityTag(format!("\"{opaque}\"")));
            }
            (seen, rest) = (true, after);
        }
    }

    /// Whether there are only weak tags, which match no version.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        matches!(self, Self::OneOf(tags) if tags.is_empty())
    }

    /// Whether the version with that tag may be changed.
    #[must_use]
    pub fn allows(&self, current: &EntityTag) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.contains(current),
        }
    }
}

/// What is allowed between the quotation marks (`etagc`), limited to ASCII, since our tags are ASCII.
fn is_tag_character(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tags: &[&str]) -> IfMatch {
        IfMatch::OneOf(tags.iter().map(|tag| EntityTag((*tag).to_owned())).collect())
    }

    #[test]
    fn a_list_of_tags_or_a_star_is_read() {
        for (text, expected) in [
            ("*", IfMatch::Any),
            (" *\t", IfMatch::Any),
            (r#""a""#, tags(&[r#""a""#])),
            (r#""""#, tags(&[r#""""#])),
            (r#""a","b" , "c,d""#, tags(&[r#""a""#, r#""b""#, r#""c,d""#])),
            (r#"W/"a", "b""#, tags(&[r#""b""#])),
            (r#"W/"a""#, tags(&[])),
            (r#", ,"a",, "#, tags(&[r#""a""#])),
        ] {
            assert_eq!(IfMatch::parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            " ",
            ",",
            "a",
            "\"a",
            "a\"",
            r#"w/"a""#,
            "W/a",
            r#""a" "b""#,
            r#""a"b"#,
            r#"*, "a""#,
            "\"a b\"",
            "**",
            "\"\u{e4}\"",
        ] {
            assert_eq!(IfMatch::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_same_version_is_allowed() {
        let current = EntityTag::of_version(Timestamp::from_millis(1_776_938_400_000));
        assert_eq!(current.as_str(), r#""19db9c83900""#);
        let allows = |text: &str| IfMatch::parse(text).unwrap().allows(&current);
        assert!(allows("*") && allows(r#""x", "19db9c83900""#));
        assert!(IfMatch::parse(r#"W/"19db9c83900""#).unwrap().is_weak());
        assert!(!IfMatch::parse(r#"W/"x", "19db9c83900""#).unwrap().is_weak());
        assert!(!allows(r#""x""#) && !allows(r#"W/"19db9c83900""#));
        let next = EntityTag::of_version(Timestamp::from_millis(1_776_938_400_001));
        assert!(!IfMatch::parse(next.as_str()).unwrap().allows(&current));
    }
}
