//! Where traces go: to the collector of the options, or of OpenTelemetry's own variable.

use url::Url;

use super::ServeOptions;

impl ServeOptions {
    /// The collector that traces go to: the one that the options name, else the one that OpenTelemetry's own variable
    /// names.
    ///
    /// # Errors
    /// One line where that variable holds no such URL.
    pub fn collector(&self) -> Result<Option<Url>, String> {
        if let Some(given) = &self.otlp_endpoint {
            return Ok(Some(given.clone()));
        }
        match std::env::var(OTLP_VARIABLE) {
            Ok(text) if !text.is_empty() => {
                let read = parse(&text);
                read.map(Some).map_err(|fault| format!("{OTLP_VARIABLE}: {fault}"))
            }
            _ => Ok(None),
        }
    }
}

/// The variable by which OpenTelemetry names a collector.
const OTLP_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Where a collector takes traces: below the URL that is given (OpenTelemetry's `OTEL_EXPORTER_OTLP_ENDPOINT`), unless
/// that has the whole path already. A password would be shown by `--print-config`, and a collector reads no query.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let wrong = || "must be a URL such as http://localhost:4318, without user, query and fragment".to_owned();
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().or(url.fragment()).is_none();
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() || !plain {
        return Err(wrong());
    }
    let base = url.path().trim_end_matches('/');
    if !base.ends_with("/v1/traces") {
        url.set_path(&format!("{base}/v1/traces"));
    }
    Ok(url)
}
