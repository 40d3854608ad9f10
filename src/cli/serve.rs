//! `serve`: the API and the delivery engine, until a signal says stop.

use std::io::{self, Write as _};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    CommandResult,
    first_start::{self, FirstStart},
    healthcheck::reachable,
    migrate, open,
};
use crate::{
    clock::Clock,
    config::{DatabaseOptions, ServeOptions},
    delivery::resolver::Resolver,
    domain::id::{NodeId, OrganizationId},
    sandbox::inbox::Inbox,
    server::{self, Server},
    store::{open::ServerLock, source::Creation},
};

/// The version of this build.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The default port of `listen`.
pub(super) const LISTEN_PORT: u16 = 9100;

pub(super) async fn run(
    options: &ServeOptions,
    database: &DatabaseOptions,
    node: NodeId,
    clock: Clock,
) -> CommandResult {
    let mut signals = Signals::catch()?;
    let _lock = ServerLock::acquire(&database.url, Creation::Allowed)?;
    let db = open(database, node, &clock).await?;
    let is_with_examples = options.dev && !options.no_examples;
    let inbox = match is_with_examples.then(|| Inbox::open(None)) {
        Some(open) => Some(
            open.await
                .map_err(|cause| format!("cannot open an inbox for the examples: {cause}"))?,
        ),
        None => None,
    };
    let engine = if database.is_postgres() { "postgresql" } else { "sqlite" };
    tracing::info!(
        service.version = VERSION, kallima.node.id = %node, db.system.name = engine, "starting"
    );
    migrate(&db).await?;
    let mut server = server::start(options, db.clone(), clock.clone(), Resolver::system()).await?;
    // Only now, because the token is shown once: nothing that can fail comes between creating and showing it.
    let first = match first_start::run(options, database, &db, &clock, inbox.as_ref()).await {
        Ok(first) => first,
        Err(error) => {
            server.stop().await;
            return Err(error);
        }
    };
    // A server serves although nobody reads what it prints.
    let announcement = announcement(&server, options, database, &first, inbox.as_ref());
    if let Err(cause) = io::stdout().write_all(announcement.as_bytes()) {
        tracing::warn!(exception.message = %cause, "the announcement could not be printed");
    }
    tracing::info!(
        server.address = %server.address.ip(), server.port = server.address.port(),
        kallima.metrics.address = server.metrics_address.map(display), "ready"
    );
    tokio::select! {
        () = signals.stop() => {}
        // A server that has lost a part is worse than none: the process supervisor restarts it.
        failure = server.failure() => return Err(failure.into()),
    }
    tracing::info!("stopping; a second signal ends it at once");
    tokio::select! {
        () = server.stop() => {
            tracing::info!("stopped");
            Ok(())
        }
        () = signals.stop() => Err("a second signal ended it at once; attempts in progress will be repeated".into()),
    }
}

/// The signals that a server handles.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on no signal ends the process by itself.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to stop. SIGHUP is not one: closing a terminal must not end a server, and there is no
    /// configuration to reload.
    pub(super) async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => tracing::info!("SIGHUP is ignored; SIGTERM stops the server"),
            }
        }
    }
}

/// What the server has to say once it listens.
fn announcement(
    server: &Server,
    options: &ServeOptions,
    database: &DatabaseOptions,
    first: &FirstStart,
    inbox: Option<&Inbox>,
) -> String {
    let base = format!("{}://{}", options.http.scheme(), reachable(server.address));
    // Links of the pages, and the dashboard's cookies, are made for the public address.
    let pages = options.http.public_url.as_deref().unwrap_or(&base);
    let mut lines = vec![
        format!("Kallima Webhooks {VERSION} listens on {base}"),
        format!("API docs: {pages}/docs"),
        format!("Dashboard: {pages}/dashboard"),
    ];
    lines.extend(
        server
            .metrics_address
            .map(|metrics| format!("Metrics: http://{metrics}/metrics")),
    );
    lines.extend(inbox.map(|inbox| {
        format!(
            "Inbox of the example webhooks: {} (none with --no-examples)",
            inbox.url.as_str()
        )
    }));
    match first {
        FirstStart::NotFirst(None) => {}
        FirstStart::NotFirst(Some(organization)) => lines.push(format!(
            "A token exists; make another with `{}`.",
            token_command(database, *organization)
        )),
        FirstStart::Empty => lines.push(
            "There is no organization yet. Create one with `organization create`, and a token with `token create`."
                .to_owned(),
        ),
        FirstStart::Made(token) => {
            let token = token.expose();
            if options.dev {
                // Browsers never send a fragment, and the page takes it from the address.
                lines.push(format!("API docs, authorized: {pages}/docs#token={token}"));
            }
            lines.push(first_steps(options, &base, token));
        }
    }
    lines.join("\n") + "\n"
}

/// The first token, and what to do with it.
fn first_steps(options: &ServeOptions, base: &str, token: &str) -> String {
    let target = if options.dev {
        format!("http://127.0.0.1:{LISTEN_PORT}/")
    } else {
        "https://your-service.example.com/webhooks/kallima".to_owned()
    };
    let listen = if options.dev {
        "\n  kallima-webhooks listen --secret whsec_…    # in another terminal, with the secret of that answer"
    } else {
        ""
    };
    format!(
        "
This database is new, so here is a token for its first organization. It is shown this once:

  {token}

Try it:

  curl -sS {base}/v1/webhooks -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{{\"url\": \"{target}\"}}'{listen}
  curl -sS {base}/v1/events -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{{\"type\": \"humanization.completed\", \"data\": {{\"job_id\": \"7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11\"}}}}'
  curl -sS {base}/v1/webhook_deliveries -H 'Authorization: Bearer {token}'
"
    )
}

/// The command that makes another token. The URL of PostgreSQL may hold a password, so that is for whoever runs it to give.
fn token_command(database: &DatabaseOptions, organization: OrganizationId) -> String {
    let is_default = database.url == DatabaseOptions::DEFAULT_URL;
    let flag = if database.is_sqlite() && !is_default {
        format!(" --database-url '{}'", database.url)
    } else {
        String::new()
    };
    format!("kallima-webhooks token create{flag} --organization {organization}")
}
