//! "Did you mean …?": the known word that looks most like what somebody wrote.

/// How alike two words must be (Jaro-Winkler, 0 to 1) before one is suggested for the other.
const LIKENESS_MIN: f64 = 0.8;

/// Longer texts get no suggestion: comparing takes time that grows with the length, and no word we know is as long.
const LENGTH_MAX: usize = 64;

/// The word of `known` that looks most like `text`, apart from upper and lower case; `None` if none looks alike.
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_by(text, known, |word| word, LIKENESS_MIN)
}

/// The entry of `known` whose word looks most like `text`, where that is at least `likeness_min`.
pub(super) fn nearest_by<'a>(
    text: &str,
    known: impl IntoIterator<Item = &'a str>,
    word: impl Fn(&'a str) -> &'a str,
    likeness_min: f64,
) -> Option<&'a str> {
    if text.len() > LENGTH_MAX {
        return None;
    }
    let text = text.to_ascii_lowercase();
    known
        .into_iter()
        .map(|entry| (likeness(&text, word(entry)), entry))
        .filter(|(likeness, _)| *likeness >= likeness_min)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, entry)| entry)
}

/// How alike two words are; one that is a part of the other is quite like it.
fn likeness(text: &str, word: &str) -> f64 {
    if word.split('_').any(|part| part == text) {
        return 1.0;
    }
    strsim::jaro_winkler(text, word)
}

/// The end of a sentence that suggests a word; empty if there is none to suggest.
#[must_use]
pub fn did_you_mean(word: Option<&str>) -> String {
    word.map_or_else(String::new, |word| format!(" (did you mean {word}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_looks_alike_is_found() {
        let fields = ["url", "events", "enabled", "description", "rate_limit"];
        for (text, expected) in [
            ("event", Some("events")),
            ("enable", Some("enabled")),
            ("Enabled", Some("enabled")),
            ("URL", Some("url")),
            ("rateLimit", Some("rate_limit")),
            ("descripton", Some("description")),
            ("limit", Some("rate_limit")),
            ("no_such_field", None),
            ("secret", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, fields), expected, "{text}");
        }
        assert_eq!(nearest(&"e".repeat(LENGTH_MAX + 1), ["e"]), None);
    }
}
