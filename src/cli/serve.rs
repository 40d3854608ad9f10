//! `serve`: the API and the delivery engine, until a signal says stop.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CommandResult, open, organization, token};
use crate::{
    clock::Clock,
    config::{DatabaseOptions, ServeOptions},
    delivery::connector::Resolver,
    domain::{
        limits::Limits,
        token::{Scopes, Token},
    },
    server::{self, Server},
    store::{Database, StoreError, open::ServerLock, organizations},
};

/// Where `listen` receives when it is not told otherwise.
pub(super) const LISTEN_PORT: u16 = 9100;

pub(super) async fn run(options: &ServeOptions, database: &DatabaseOptions, clock: Clock) -> CommandResult {
    let mut signals = Signals::catch()?;
    let _lock = ServerLock::acquire(&database.url)?;
    let db = open(database, &clock).await?;
    let first = first_token(&db, &clock).await?;
    let mut server = server::start(options, db, clock, Resolver::system()).await?;
    announce(&server, options.dev, first.as_ref());
    tokio::select! {
        () = signals.stop() => {}
        // A server that has lost a part is worse than none: whoever watches the process starts it again.
        failure = server.failure() => return Err(failure.into()),
    }
    tracing::info!("stopping; a second signal ends it at once");
    tokio::select! {
        () = server.stop() => Ok(()),
        // Nothing is lost: what was under way is attempted again.
        () = signals.stop() => Err("a second signal ended it at once, with attempts under way".into()),
    }
}

/// The signals that a server follows.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on no signal ends the process by itself.
    fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to stop. SIGHUP is none: a terminal that is closed must not end a server, and there is no
    /// configuration to read again.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => tracing::info!("SIGHUP is ignored; SIGTERM stops the server"),
            }
        }
    }
}

/// An empty database gets an organization and a token, so that the API can be used at once.
async fn first_token(db: &Database, clock: &Clock) -> Result<Option<Token>, StoreError> {
    if !organizations::is_empty(db).await? {
        return Ok(None);
    }
    let organization = organization::create(db, clock, "default", Limits::default()).await?;
    let (token, _) = token::create(db, clock, Some(organization.id), "first token", Scopes::all()).await?;
    Ok(Some(token))
}

fn announce(server: &Server, dev: bool, first: Option<&Token>) {
    let address = server.address;
    let host = if address.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        address.ip()
    };
    let base = format!("http://{}", SocketAddr::new(host, address.port()));
    println!("Kallima Webhooks {} listens on {base}", env!("CARGO_PKG_VERSION"));
    println!("API docs: {base}/docs");
    if let Some(metrics) = server.metrics_address {
        println!("Metrics: http://{metrics}/metrics");
    }
    let Some(token) = first else { return };
    let target = if dev {
        format!("http://127.0.0.1:{LISTEN_PORT}/")
    } else {
        "https://your-service.example.com/webhooks/kallima".to_owned()
    };
    let token = token.expose();
    println!(
        "
This database is new, so here is a token for its first organization. It is shown this once:

  {token}

Try it:

  curl -sS {base}/v1/webhooks -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{{\"url\": \"{target}\"}}'
  curl -sS {base}/v1/events -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{{\"type\": \"humanization.completed\", \"data\": {{\"job_id\": \"7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11\"}}}}'
  curl -sS {base}/v1/webhook_deliveries -H 'Authorization: Bearer {token}'
"
    );
}
