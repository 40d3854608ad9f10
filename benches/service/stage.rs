//! One engine's databases, the receiver, and the measurements so far.

use std::{sync::Arc, time::Duration};

use super::{
    bare::Bare,
    database::{Database, Engine},
    driver::Load,
    event::{EVENT_TYPE, data_around_number},
    http,
    receiver::Receiver,
    server::{Server, Tenant},
    settings::Settings,
    table::Report,
};

/// Everything that a figure needs. The databases are dropped with this.
pub(crate) struct Stage<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) receiver: &'a Receiver,
    pub(crate) engine: Engine,
    /// What the service runs on.
    pub(crate) database: Database,
    /// What the limits are measured on.
    pub(crate) bare: Bare,
    /// The process whose children's CPU time counts as PostgreSQL's.
    pub(crate) postmaster: Option<u32>,
    pub(crate) report: Report,
}

impl<'a> Stage<'a> {
    pub(crate) async fn set(settings: &'a Settings, receiver: &'a Receiver, engine: Engine) -> Self {
        let database = Database::create(engine.clone()).await;
        let bare = Bare::create(settings, Database::create(engine.clone()).await).await;
        Self {
            settings,
            receiver,
            report: Report::new(database.version().await),
            postmaster: database.postmaster().await,
            engine,
            database,
            bare,
        }
    }

    /// Drops the databases and returns the report.
    pub(crate) fn clear(self) -> Report {
        self.report
    }

    pub(crate) async fn start(&self) -> Server {
        Server::start(&self.settings.binary, &self.database).await
    }

    /// An organization with this many webhooks, each with a path of its own.
    pub(crate) async fn tenant(&self, server: &Server, webhooks: usize) -> Tenant {
        let urls: Vec<String> = (0..webhooks).map(|webhook| self.receiver.url(webhook)).collect();
        server.tenant(&self.settings.binary, &self.database, &urls).await
    }

    pub(crate) fn wants(&self, names: &[&str]) -> bool {
        self.settings.wants(names)
    }

    pub(crate) fn runs(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.settings.runs
    }

    /// About how long a run takes.
    pub(crate) fn run(&self) -> Duration {
        self.settings.run
    }

    /// How long a limit is measured.
    pub(crate) fn glance(&self) -> Duration {
        (self.settings.run / 3).max(Duration::from_millis(500))
    }

    /// Prints the result of a run on stderr.
    pub(crate) fn progress(&self, figure: &str, run: usize, seen: &str) {
        let runs = self.settings.runs;
        eprintln!("{}: {figure}, run {run} of {runs}: {seen}", self.engine.name());
    }
}

/// Publications by these tenants in turn, of events from this number on.
pub(crate) fn publications(server: &Server, tenants: &[Tenant], first: u64) -> Load {
    let headers: Vec<String> = tenants.iter().map(Tenant::headers).collect();
    Load {
        address: server.address,
        status: 202,
        write: Arc::new(move |number, to| {
            let (before, after) = data_around_number();
            let body = format!(
                "{{\"type\":\"{EVENT_TYPE}\",\"data\":{before}{:012x}{after}}}",
                first + number
            );
            let headers = &headers[usize::try_from(number).unwrap() % headers.len()];
            http::write(to, "POST", "/v1/events", headers, &body);
        }),
    }
}

/// Reads of the tenant's first webhook.
pub(crate) fn reads(address: std::net::SocketAddr, tenant: &Tenant) -> Load {
    let (path, headers) = (format!("/v1/webhooks/{}", tenant.webhooks[0]), tenant.headers());
    Load {
        address,
        status: 200,
        write: Arc::new(move |_, to| http::write(to, "GET", &path, &headers, "")),
    }
}

/// Changes to the tenant's webhooks in turn, or to its first one.
pub(crate) fn changes(server: &Server, tenant: &Tenant, one: bool) -> Load {
    let headers = tenant.headers();
    let webhooks = &tenant.webhooks[..if one { 1 } else { tenant.webhooks.len() }];
    let paths: Vec<String> = webhooks
        .iter()
        .map(|webhook| format!("/v1/webhooks/{webhook}"))
        .collect();
    // No two are equal, even across runs: an update that changes nothing is not written.
    let salt = uuid::Uuid::new_v4().simple().to_string();
    Load {
        address: server.address,
        status: 200,
        write: Arc::new(move |number, to| {
            let path = &paths[usize::try_from(number).unwrap() % paths.len()];
            let body = format!("{{\"description\":\"change {number} of {salt}\"}}");
            http::write(to, "PATCH", path, &headers, &body);
        }),
    }
}
