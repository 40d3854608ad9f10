//! What is wrong with a configuration that no single option shows. Each fault names its flag and its variable.

use super::{DatabaseOptions, MetricsListen, ServeOptions, postgres_url};
use crate::domain::keyring::Keyring;

/// Delays in a retry schedule at most.
const RETRIES_MAX: usize = 100;

/// The longest delay in a retry schedule, in seconds: 30 days.
const RETRY_DELAY_MAX_S: u64 = 30 * 24 * 3600;

/// What is wrong with the options of the database that no single one of them shows, one line per fault.
#[must_use]
pub fn database_faults(database: &DatabaseOptions) -> Vec<String> {
    let mut faults = Vec::new();
    if !database.is_sqlite() && !database.is_postgres() {
        faults.push("--database-url (KALLIMA_DATABASE_URL) must start with sqlite:// or postgres://".to_owned());
    }
    if database.is_postgres() && database.master_key.is_none() && database.master_key_file.is_none() {
        faults.push("--master-key-file (KALLIMA_MASTER_KEY_FILE) or --master-key (KALLIMA_MASTER_KEY) must be given: PostgreSQL needs a master key".to_owned());
    }
    if let Some(Err(fault)) = database.is_postgres().then(|| postgres_url::hosts(&database.url)) {
        faults.push(format!("--database-url (KALLIMA_DATABASE_URL): {fault}"));
    }
    if let Some(Err(fault)) = database.master_key.as_deref().map(Keyring::parse) {
        faults.push(format!("--master-key (KALLIMA_MASTER_KEY): {fault}"));
    }
    faults
}

/// What is wrong with the options of `serve` that no single one of them shows, one line per fault.
#[must_use]
pub fn serve_faults(serve: &ServeOptions) -> Vec<String> {
    let mut faults = Vec::new();
    faults.extend(serve.collector().err());
    if serve.dev_token.is_some() && !serve.dev {
        faults.push("--dev-token (KALLIMA_DEV_TOKEN) is for --dev (KALLIMA_DEV) alone".to_owned());
    }
    if serve.http.tls_cert.is_some() != serve.http.tls_key.is_some() {
        faults.push("--tls-cert (KALLIMA_TLS_CERT) and --tls-key (KALLIMA_TLS_KEY) must be given together".to_owned());
    }
    if serve.allowed_ports.contains(&0) {
        faults.push("--allow-port (KALLIMA_ALLOW_PORT): 0 is not a port; omit the option to allow all".to_owned());
    }
    if serve.metrics_listen == Some(MetricsListen::At(serve.listen)) && serve.listen.port() != 0 {
        faults.push("--metrics-listen (KALLIMA_METRICS_LISTEN) must differ from --listen (KALLIMA_LISTEN)".to_owned());
    }
    let schedule = &serve.engine.retry_schedule_s;
    if schedule.len() > RETRIES_MAX {
        faults.push(format!(
            "--retry-schedule-s (KALLIMA_RETRY_SCHEDULE_S) may have at most {RETRIES_MAX} delays"
        ));
    }
    if let Some(delay) = schedule.iter().find(|delay| **delay > RETRY_DELAY_MAX_S) {
        faults.push(format!(
            "--retry-schedule-s (KALLIMA_RETRY_SCHEDULE_S): a delay may be at most {RETRY_DELAY_MAX_S} s (30 days), not {delay}"
        ));
    }
    faults
}
