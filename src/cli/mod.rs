//! The command line. Results go to standard output, the log goes to standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line speaks through its standard streams"
)]

mod listen;
mod organization;
mod serve;
mod token;

use std::{
    error::Error,
    io::{IsTerminal as _, stderr},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{
    clock::Clock,
    config::{DatabaseOptions, ServeOptions},
    store::Database,
};

/// The webhook service of the Kallima API.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: ServeOptions,

    #[command(flatten)]
    database: DatabaseOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and deliver events (the default).
    Serve(ServeOptions),
    /// Make, list and revoke API tokens.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Make and list organizations.
    #[command(subcommand)]
    Organization(organization::OrganizationCommand),
    /// Apply the migrations that the database does not have yet.
    Migrate,
    /// Receive deliveries on this machine, print each, and say whether its signature verifies.
    Listen(listen::ListenOptions),
}

/// Any failure of a command: it is printed as one line.
type CommandResult = Result<(), Box<dyn Error>>;

impl Cli {
    /// Does what the command line says.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let filter = EnvFilter::try_from_env("KALLIMA_LOG")
            .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,sea_orm_migration=warn"));
        let colors = stderr().is_terminal();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(colors)
            .with_writer(stderr)
            .init();
        let done = tokio::runtime::Runtime::new()
            .map_err(Into::into)
            .and_then(|runtime| runtime.block_on(self.dispatch()));
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    async fn dispatch(self) -> CommandResult {
        let Self {
            command,
            serve,
            database,
        } = self;
        let clock = Clock::system();
        match command {
            None => serve::run(&serve, &database, clock).await,
            Some(Command::Serve(serve)) => serve::run(&serve, &database, clock).await,
            Some(Command::Token(command)) => command.run(&open(&database, &clock).await?, &clock).await,
            Some(Command::Organization(command)) => command.run(&open(&database, &clock).await?, &clock).await,
            Some(Command::Migrate) => {
                open(&database, &clock).await?;
                println!("The database has every migration.");
                Ok(())
            }
            Some(Command::Listen(options)) => listen::run(options, clock).await,
        }
    }
}

/// Opens the database and brings it up to date.
async fn open(options: &DatabaseOptions, clock: &Clock) -> Result<Database, Box<dyn Error>> {
    let db = Database::open(options, clock).await?;
    db.migrate().await?;
    Ok(db)
}
