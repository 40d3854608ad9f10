//! Where traces go: to the collector named in the options, or in OpenTelemetry's own variable.

use url::Url;

use super::ServeOptions;

impl ServeOptions {
    /// The collector that traces go to: the one in the options, otherwise the one in OpenTelemetry's own variable.
    ///
    /// # Errors
    /// One line if that variable holds no usable URL.
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

/// OpenTelemetry's variable for the collector.
pub(super) const OTLP_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The address at which a collector receives traces: below the given URL (as OpenTelemetry's `OTEL_EXPORTER_OTLP_ENDPOINT`),
/// unless that has the full path already. No password, as `--print-config` would show it, and no query, as collectors read
/// none.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let wrong = || "must be a URL such as http://localhost:4318, without user, query or fragment".to_owned();
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
