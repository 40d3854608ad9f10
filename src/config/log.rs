//! What is logged, and how. `--log` is a filter in the syntax of `tracing`, checked more strictly than by `tracing`.

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// What to log, and how.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// What to log: levels and modules, in the syntax of `tracing`'s filters (default of `sandbox`: `warn`).
    #[arg(
        id = "log",
        long = "log",
        env = "KALLIMA_LOG",
        value_name = "FILTER",
        default_value = "info,sqlx=warn,sea_orm_migration=warn",
        value_parser = parse,
        global = true,
        help_heading = "Log"
    )]
    pub filter: String,

    /// Format of the log: text for people, or one JSON object per line.
    #[arg(
        id = "log_format",
        long = "log-format",
        env = "KALLIMA_LOG_FORMAT",
        value_name = "LOG_FORMAT",
        value_enum,
        default_value = "human",
        global = true,
        help_heading = "Log"
    )]
    pub format: LogFormat,
}

/// Which events and attempts are logged one by one at `info`. Failures always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogAttempts {
    /// Only failures; one line per minute counts the others.
    #[default]
    Summary,
    /// All of them.
    Each,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Parses a filter. `tracing` takes a word that is not a level for a module, logs everything of it and nothing else: a typo
/// would silence the log. So a module needs a level here: `sqlx=trace`.
fn parse(text: &str) -> Result<String, String> {
    let mut directives = text.split(',').filter(|directive| !directive.is_empty());
    if let Some(word) = directives.find(|directive| !is_clear(directive)) {
        return Err(format!(
            "`{word}` is neither a level (error, warn, info, debug, trace, off) nor a module with a level, such as sqlx=warn"
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
        // A span's field may have a value, as in `[request{status=200}]`.
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
