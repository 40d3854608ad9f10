//! The command line. Results go to standard output, the log goes to standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line speaks through its standard streams"
)]

mod arguments;
mod backup;
mod certificate;
mod color;
mod deliveries;
mod doctor;
mod enough;
mod first_start;
mod healthcheck;
mod keys;
mod kit;
mod listen;
mod migrate_data;
mod organization;
mod outbound;
mod own_options;
mod print_config;
mod progress;
mod report;
mod sandbox;
mod serve;
mod shell;
mod surroundings;
mod table;
mod token;
mod top;
mod webhooks;

use std::{
    error::Error,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{ArgMatches, Parser, Subcommand};
use uuid::Uuid;

use crate::{
    clock::Clock,
    config::{self, DatabaseOptions, LogFormat, LogOptions, ServeOptions},
    domain::id::{NodeId, OrganizationId},
    server,
    store::{self, Database, source::OpenError},
    telemetry::{self, log},
};

/// The webhook service of the Kallima API.
#[derive(Debug, Parser)]
#[command(version = env!("VERSION_AND_COMMIT"), args_conflicts_with_subcommands = true, allow_negative_numbers = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: ServeOptions,

    #[command(flatten)]
    database: DatabaseOptions,

    #[command(flatten)]
    log: LogOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and deliver events (the default).
    Serve(Box<ServeOptions>),
    /// Create, list and revoke API tokens.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Create and list organizations, and change their limits.
    #[command(subcommand)]
    Organization(organization::OrganizationCommand),
    /// List webhooks, with their health.
    #[command(subcommand)]
    Webhooks(webhooks::WebhooksCommand),
    /// List deliveries.
    #[command(subcommand)]
    Deliveries(deliveries::DeliveriesCommand),
    /// Show the webhooks and organizations with the most waiting work, and what is wrong with them.
    Top(top::TopOptions),
    /// List the master keys that seal secrets at rest, add one, and seal every secret under it.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Apply pending migrations to the database.
    Migrate,
    /// Copy an SQLite database into an empty PostgreSQL database, and check that everything arrived.
    MigrateData(migrate_data::MigrateDataOptions),
    /// Copy an SQLite database while the server runs, and check the copy.
    Backup(backup::BackupOptions),
    /// Check everything that serving needs: database, master key, clock, disk, DNS, TLS. One line per check.
    Doctor(doctor::DoctorOptions),
    /// Check whether the server on this machine responds: for a container's health check.
    Healthcheck(healthcheck::HealthcheckOptions),
    /// Receive deliveries on this machine, print each, and say whether its signature verifies.
    Listen(listen::ListenOptions),
    /// Send a receiver what it must accept and what it must refuse, and say whether it does.
    Conform(kit::conform::ConformOptions),
    /// Send a signed example of an event type to a URL.
    Trigger(kit::trigger::TriggerOptions),
    /// Verify the signatures of a request: which check fails, and what the header would have been.
    Verify(kit::verify::VerifyOptions),
    /// Print the signature headers of a body.
    Sign(kit::sign::SignOptions),
    /// Print the completions of a shell, for its folder of completions.
    Completions(shell::CompletionsOptions),
    /// Print the manual page, or write one per command.
    Man(shell::ManOptions),
    /// Serve the API on a temporary database, with a clock to advance and an inbox, for the tests of a client.
    Sandbox(sandbox::SandboxOptions),
}

/// The pause between two attempts to reach a database that is not up yet.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);

/// Any failure of a command; printed as one line.
type CommandResult = Result<(), Box<dyn Error>>;

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    enough::end_when_unread();
    let reading = arguments::read();
    let is_readable = reading.faults.is_empty();
    let mut faults = arguments::unknown_variables(std::env::vars_os());
    faults.extend(reading.faults);
    if let Some((command, matches, cli)) = reading.given {
        faults.extend(cli.faults(&matches));
        if let Some(serve) = cli.serving().filter(|serve| serve.print_config) {
            if is_readable {
                print_config(&command, &matches, serve, &cli.database);
            }
            if faults.is_empty() {
                return ExitCode::SUCCESS;
            }
        }
        if faults.is_empty() {
            return cli.run(arguments::shows_master_key(&matches));
        }
    }
    arguments::say(&faults);
    ExitCode::from(if is_readable { 1 } else { 2 })
}

/// Prints what would be used, whatever is wrong with it.
fn print_config(command: &clap::Command, matches: &ArgMatches, serve: &ServeOptions, database: &DatabaseOptions) {
    let (command, matches) = serving(command, matches);
    let key_file = store::secrets::keys::key_file(database).map(|path| path.display().to_string());
    for line in print_config::lines(command, matches, &config::derived(serve, database, key_file)) {
        println!("{line}");
    }
}

/// The command that serves, as it was given: `serve`, or no command.
fn serving<'a>(command: &'a clap::Command, matches: &'a ArgMatches) -> (&'a clap::Command, &'a ArgMatches) {
    matches
        .subcommand()
        .and_then(|(name, matches)| Some((command.find_subcommand(name)?, matches)))
        .unwrap_or((command, matches))
}

impl Cli {
    /// The options of `serve`, if that is the command.
    fn serving(&self) -> Option<&ServeOptions> {
        match &self.command {
            None => Some(&self.serve),
            Some(Command::Serve(serve)) => Some(serve),
            Some(_) => None,
        }
    }

    /// What is wrong with the options that no single one of them shows, one line per fault.
    fn faults(&self, matches: &ArgMatches) -> Vec<String> {
        let mut faults = Vec::new();
        if matches.subcommand_name().is_none_or(own_options::uses_database) {
            faults.extend(config::database_faults(&self.database));
            faults.extend(store::secrets::keys::given_fault(&self.database));
        }
        if let Some(serve) = self.serving() {
            faults.extend(config::serve_faults(serve));
            let authorities = server::authorities(serve.tls_ca_file.as_deref());
            faults.extend(authorities.err().map(|fault| fault.to_string()));
            let certificate = server::tls::Tls::load(&serve.http);
            faults.extend(certificate.err().map(|fault| fault.to_string()));
        }
        faults
    }

    fn run(self, shows_master_key: bool) -> ExitCode {
        let format = self.log.format;
        let node = NodeId::new(Uuid::new_v4());
        telemetry::identify(node);
        telemetry::start(&self.log);
        enough::end_when_unread();
        if shows_master_key {
            tracing::warn!(
                "--master-key is visible in the process list: use KALLIMA_MASTER_KEY or --master-key-file instead"
            );
        }
        let done = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
            let done = runtime.block_on(self.dispatch(node));
            // A blocking call that is still running must not delay the exit.
            runtime.shutdown_background();
            done
        });
        let code = match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                match format {
                    LogFormat::Human => log::say(&format!("error: {error}")),
                    // Readers of a JSON log expect nothing but JSON.
                    LogFormat::Json => tracing::error!("{error}"),
                }
                ExitCode::FAILURE
            }
        };
        log::flush();
        code
    }

    async fn dispatch(self, node: NodeId) -> CommandResult {
        let Self {
            command,
            serve,
            database,
            log: _,
        } = self;
        let clock = Clock::system();
        match command {
            None => serve::run(&serve, &database, node, clock).await,
            Some(Command::Serve(serve)) => serve::run(&serve, &database, node, clock).await,
            Some(Command::Token(command)) => {
                let db = Database::open_migrated(&database, &clock).await?;
                command.run(&db, &clock).await
            }
            Some(Command::Organization(command)) => {
                let db = Database::open_migrated(&database, &clock).await?;
                command.run(&db, &clock).await
            }
            Some(Command::Webhooks(command)) => command.run(&Database::open_migrated(&database, &clock).await?).await,
            Some(Command::Deliveries(command)) => command.run(&Database::open_migrated(&database, &clock).await?).await,
            Some(Command::Top(options)) => {
                options
                    .run(&Database::open_migrated(&database, &clock).await?, &clock)
                    .await
            }
            Some(Command::Keys(command)) => command.run(&database, &clock).await,
            Some(Command::Migrate) => {
                migrate(&open(&database, node, &clock).await?).await?;
                println!("All migrations are applied.");
                Ok(())
            }
            Some(Command::Backup(options)) => backup::run(&options, &database),
            Some(Command::Doctor(options)) => doctor::run(options, &database, &clock).await,
            Some(Command::Healthcheck(options)) => options.run().await,
            Some(Command::MigrateData(options)) => migrate_data::run(options, database, &clock).await,
            Some(Command::Listen(options)) => listen::run(options, clock).await,
            Some(Command::Conform(options)) => kit::conform::run(options, &clock).await,
            Some(Command::Trigger(options)) => kit::trigger::run(options, &clock).await,
            Some(Command::Verify(options)) => kit::verify::run(&options, &clock),
            Some(Command::Sign(options)) => kit::sign::run(options, &clock),
            Some(Command::Completions(options)) => {
                shell::completions(&options);
                Ok(())
            }
            Some(Command::Man(options)) => shell::man(&options),
            Some(Command::Sandbox(options)) => sandbox::run(options).await,
        }
    }
}

/// Opens the database, and creates it if there is none. If asked to, waits for one that is still starting.
async fn open(options: &DatabaseOptions, node: NodeId, clock: &Clock) -> Result<Database, OpenError> {
    let wait = Duration::from_secs(options.wait_s);
    let began = Instant::now();
    let mut reported = None;
    loop {
        let error = match Database::open_as(node, options, clock).await {
            Ok(db) => return Ok(db),
            Err(error) if error.is_temporary() && began.elapsed() < wait => error.to_string(),
            Err(error) => return Err(error),
        };
        if reported.as_ref() != Some(&error) {
            tracing::warn!(
                exception.message = error,
                kallima.database.wait_s = options.wait_s,
                "waiting for the database"
            );
            reported = Some(error);
        }
        tokio::time::sleep(DATABASE_PAUSE).await;
    }
}

/// Applies pending migrations. Only for `serve` and `migrate`, which also create the database.
async fn migrate(db: &Database) -> CommandResult {
    let applied = db.migrate().await?;
    if applied > 0 {
        tracing::info!(kallima.migrations.applied = applied, "migrations were applied");
    }
    Ok(())
}

/// Says that an organization does not exist, and where to find those that do.
fn unknown_organization(id: OrganizationId) -> String {
    format!("there is no organization {id}; see `organization list`")
}
