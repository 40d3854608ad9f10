//! `sandbox`: the real server on a temporary database, for the tests of a client.

use std::{net::SocketAddr, num::NonZeroU32, path::Path, sync::Arc};

use clap::{Args, Parser};
use serde_json::json;
use tempfile::TempDir;

use super::{
    CommandResult, healthcheck::reachable, kit::parse_secret, migrate, organization::parse_number, serve::Signals,
    token,
};
use crate::{
    clock::Clock,
    config::{DatabaseOptions, ServeOptions, listen_address, parse_token},
    contract::Contract,
    delivery::resolver::Resolver,
    domain::{
        id::{OrganizationId, WebhookId},
        limits::Limits,
        secret::Secret,
        token::{Scopes, Token},
    },
    sandbox::{
        self, Parts,
        examples::{self, Setting},
        inbox::{Inbox, Keeper},
    },
    server,
    store::{
        Database,
        organizations::{self, Organization},
    },
};

/// A folder in memory, on most Linux systems: nothing in a sandbox has to outlive it.
const IN_MEMORY: &str = "/dev/shm";

#[derive(Args, Debug)]
pub(super) struct SandboxOptions {
    /// Address to listen on; port 0 is any that is free.
    #[arg(long, env = "KALLIMA_SANDBOX_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = listen_address)]
    listen: SocketAddr,

    /// The token, `ab_` and 48 letters and digits (default: a new one).
    #[arg(long, env = "KALLIMA_SANDBOX_TOKEN", hide_env_values = true, value_parser = parse_token)]
    token: Option<Token>,

    /// The signing secret of the example webhook, `whsec_` and 40 letters and digits (default: that of the documentation).
    #[arg(long, env = "KALLIMA_SANDBOX_SECRET", hide_env_values = true, value_parser = parse_secret)]
    secret: Option<Secret>,

    /// The id of the organization.
    #[arg(long, env = "KALLIMA_SANDBOX_ORGANIZATION_ID", default_value_t = examples::ORGANIZATION)]
    organization_id: OrganizationId,

    /// The id of the example webhook.
    #[arg(long, env = "KALLIMA_SANDBOX_WEBHOOK_ID", default_value_t = examples::WEBHOOK)]
    webhook_id: WebhookId,

    /// Begin without example data, and so without a webhook.
    #[arg(long, env = "KALLIMA_SANDBOX_NO_EXAMPLES")]
    no_examples: bool,

    /// Never open a breaker, however often a webhook fails. Five days of failures still disable it.
    #[arg(long, env = "KALLIMA_SANDBOX_NO_BREAKER")]
    no_breaker: bool,

    /// The organization's rate limit, in requests per minute (default: none).
    #[arg(long, env = "KALLIMA_SANDBOX_REQUESTS_PER_MINUTE_MAX", value_parser = parse_number)]
    requests_per_minute_max: Option<NonZeroU32>,

    /// The organization's quota, in writes a month (default: none).
    #[arg(long, env = "KALLIMA_SANDBOX_WRITES_PER_MONTH_MAX", value_parser = parse_number)]
    writes_per_month_max: Option<NonZeroU32>,
}

#[derive(Parser)]
struct Serving {
    #[command(flatten)]
    options: ServeOptions,
}

pub(super) async fn run(options: SandboxOptions) -> CommandResult {
    let clock = Clock::advancing();
    let mut signals = Signals::catch()?;
    let folder = folder()?;
    let database = DatabaseOptions::of(format!("sqlite://{}/sandbox.db", folder.path().display()));
    let db = Database::open(&database, &clock).await?;
    migrate(&db).await?;
    let mailbox = Arc::default();
    let inbox = Inbox::open(Some(Keeper {
        mailbox: Arc::clone(&mailbox),
        db: db.clone(),
        clock: clock.clone(),
    }));
    let inbox = inbox.await.map_err(|cause| format!("cannot open an inbox: {cause}"))?;
    let token = options.token.clone().unwrap_or_else(token::generate);
    let contract = Arc::new(Contract::load()?);
    let serving = serving(&options)?;
    let setting = begin(&options, &db, &clock, &contract, &token, &inbox).await?;
    let facts = facts(&options, &token, &setting);
    let parts = Parts {
        db: db.clone(),
        clock: clock.clone(),
        contract,
        operations: sandbox::contract()?,
        error_pages_url: serving.http.error_pages_url.clone(),
        mailbox,
        setting,
        has_examples: !options.no_examples,
    };
    let around = |api, limiter| sandbox::router(parts, limiter, api);
    let mut server = server::start_around(&serving, db, clock, Resolver::system(), around).await?;
    let url = format!("{}://{}", serving.http.scheme(), reachable(server.address));
    say(url, &inbox, facts);
    tokio::select! {
        () = signals.stop() => {}
        failure = server.failure() => return Err(failure.into()),
    }
    // Nothing of it is kept, so there is no need to wait for what is in progress.
    drop(folder);
    Ok(())
}

/// A folder that is deleted with the sandbox, in memory where that can be.
fn folder() -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("kallima-sandbox-");
    builder.tempdir_in(Path::new(IN_MEMORY)).or_else(|_| builder.tempdir())
}

/// The options of a server that receivers on this machine can be tried with. The delivery engine's are read from their
/// usual variables.
fn serving(options: &SandboxOptions) -> Result<ServeOptions, clap::Error> {
    let listen = options.listen.to_string();
    let arguments = ["sandbox", "--dev", "--listen", &listen, "--metrics-listen", "off"];
    let retention = ["--retention-days", "0", "--poll-interval-ms", "50"];
    let Serving { options: mut serving } = Serving::try_parse_from(arguments.into_iter().chain(retention))?;
    serving.engine.has_breaker = !options.no_breaker;
    Ok(serving)
}

/// Makes the organization, its token and the examples.
async fn begin(
    options: &SandboxOptions,
    db: &Database,
    clock: &Clock,
    contract: &Contract,
    token: &Token,
    inbox: &Inbox,
) -> Result<Setting, Box<dyn std::error::Error>> {
    let organization = Organization {
        id: options.organization_id,
        name: "sandbox".to_owned(),
        created_at: clock.now(),
        limits: Limits {
            requests_per_minute_max: options.requests_per_minute_max,
            writes_per_month_max: options.writes_per_month_max,
        },
    };
    let record = token::record(clock, Some(organization.id), "sandbox", Scopes::all());
    let setting = Setting {
        organization_id: organization.id,
        token_id: record.id,
        webhook_id: options.webhook_id,
        secret: options.secret.clone(),
        is_subscribed: true,
        inbox: inbox.url.clone(),
        now: clock.now(),
    };
    let examples = (!options.no_examples).then(|| examples::examples(contract, &setting));
    organizations::create_first(db, &organization, &record, token.digest(), examples.flatten()).await?;
    Ok(setting)
}

/// What a suite has to know, but for the addresses.
fn facts(options: &SandboxOptions, token: &Token, setting: &Setting) -> serde_json::Value {
    let secret = options.secret.as_ref().map_or(examples::SECRET, Secret::expose);
    let webhook = (!options.no_examples).then_some((setting.webhook_id, secret));
    json!({
        "token": token.expose(),
        "organization_id": setting.organization_id,
        "webhook_id": webhook.map(|(id, _)| id),
        "webhook_secret": webhook.map(|(_, secret)| secret),
    })
}

/// One line of JSON: the sandbox is ready.
fn say(url: String, inbox: &Inbox, mut facts: serde_json::Value) {
    facts["sandbox_url"] = format!("{url}/sandbox").into();
    facts["inbox_url"] = inbox.url.as_str().into();
    facts["url"] = url.into();
    println!("{facts}");
}
