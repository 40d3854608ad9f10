//! What is logged, and how. `--log` is a filter in the syntax of `tracing`, judged more strictly than `tracing` does.

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// What to log, and how.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// What to log: levels and modules, in the syntax of `tracing`'s filters.
    #[arg(
        id = "log",
        long = "log",
        env = "KALLIMA_LOG",
        value_name = "FILTER",
        default_value = "info,sqlx=warn,sea_orm_migration=warn",
        value_parser = parse,
        global = true
    )]
    pub filter: String,

    /// How the log is written: for people, or one JSON object a line.
    #[arg(
        id = "log_format",
        long = "log-format",
        env = "KALLIMA_LOG_FORMAT",
        value_enum,
        default_value = "human",
        global = true
    )]
    pub format: LogFormat,
}

/// Which events and attempts have a line of their own in the log at `info`. What fails always has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogAttempts {
    /// Those that fail; of the others one line a minute says how many there were.
    #[default]
    Summary,
    /// Each.
    Each,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Reads a filter. To `tracing`, a word that is no level is the name of a module, of which everything is logged and
/// nothing of all others: a typo would make the log silent. So a module needs a level here: `sqlx=trace`.
fn parse(text: &str) -> Result<String, String> {
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
