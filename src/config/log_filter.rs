//! `--log`: a filter in the syntax of `tracing`, judged more strictly than `tracing` does.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Reads a filter. To `tracing`, a word that is no level is the name of a module, of which everything is logged and
/// nothing of all others: a typo would make the log silent. So a module needs a level here: `sqlx=trace`.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let mut directives = text.split(',').filter(|directive| !directive.is_empty());
    if let Some(word) = directives.find(|directive| !is_clear(directive)) {
        return Err(format!(
            "`{word}` is no level (error, warn, info, debug, trace, off), nor a module with one, such as sqlx=warn"
        ));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(cause) => Err(cause.to_string()),
    }
}

/// Whether a directive is a level, or the name of a module or span with one.
fn is_clear(directive: &str) -> bool {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let module = directive.split(['=', '[']).next().unwrap_or_default();
    if !module
        .chars()
        .all(|letter| letter.is_alphanumeric() || "_:-.".contains(letter))
    {
        return false;
    }
    match directive.rsplit_once('=') {
        // A field of a span may have a value, as in `[request{status=200}]`.
        Some((_, level)) if !level.ends_with(']') => is_level(level),
        Some(_) => true,
        None => directive.ends_with(']') || is_level(directive),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for filter in [
            "info",
            "WARN",
            "off",
            "info,sqlx=warn,sea_orm_migration=warn",
            "warn,kallima_webhooks::delivery=trace",
            "[request{status=200}]=debug,error",
            "kallima_webhooks[request]=trace",
            "[attempt]",
            "",
        ] {
            assert_eq!(parse(filter).as_deref(), Ok(filter));
        }
        for filter in [
            "garbage",
            "inof",
            "info,sqlx",
            "sqlx=loud",
            "sqlx=",
            "info;sqlx=warn",
            "=",
            "info,[x",
        ] {
            assert!(parse(filter).is_err(), "{filter}");
        }
    }
}
