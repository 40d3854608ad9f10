//! The binary itself: started, used, killed, restarted.

mod at_rest;
mod backup;
mod blocked_log;
mod command_line;
mod configuration;
mod database_tls;
mod descriptors;
mod doctor;
mod examples;
mod files;
mod first_start;
mod keys;
mod kit;
mod listen;
mod log;
mod memory;
mod migrate_data;
mod overview;
mod sandbox;
mod stop;
mod supervision;
mod tls;
mod upgrade;

use std::{
    io::PipeReader,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use self::log::{Log, is_trouble};
use crate::support::database::{MASTER_KEY, TestDatabase, is_pooled};

/// A server that runs as a process of its own. It is killed when this is dropped, and the test fails if its log holds a
/// WARN or an ERROR that was not announced.
pub(crate) struct Process {
    pub(crate) base: String,
    /// The first line that it printed.
    first: String,
    pub(crate) log: Log,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

/// A command of the binary, on that database.
pub(crate) fn command(database_url: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kallima-webhooks"));
    // The suite's own variables are not for the binary, which refuses unknown ones.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KALLIMA_")) {
        command.env_remove(name);
    }
    command
        .current_dir(folder)
        .env("KALLIMA_DATABASE_URL", database_url)
        .env("KALLIMA_LOG", "warn")
        .env("KALLIMA_MASTER_KEY", MASTER_KEY)
        .kill_on_drop(true);
    if is_pooled() {
        command.env("KALLIMA_STATEMENT_TIMEOUT_MS", "0");
    }
    command
}

impl Process {
    /// Starts the server in `--dev`, without examples, on a free port and waits until it says that it listens.
    pub(crate) async fn start(database_url: &str, arguments: &[&str]) -> Self {
        Self::launch(command(database_url, &std::env::temp_dir()), arguments).await
    }

    /// The same with additional arguments.
    pub(crate) async fn launch(mut command: Command, arguments: &[&str]) -> Self {
        command
            .args(["--dev", "--no-examples", "--listen", "127.0.0.1:0"])
            .args(arguments)
            // Options given twice are refused, so a test that needs metrics passes the option itself.
            .env("KALLIMA_METRICS_LISTEN", "off");
        Self::spawn(command).await
    }

    /// Starts a server and waits until it says that it listens.
    pub(crate) async fn spawn(command: Command) -> Self {
        Self::spawn_with(command, Log::read).await
    }

    /// The same, but nobody reads its log.
    async fn spawn_unread(command: Command) -> Self {
        Self::spawn_with(command, Log::unread).await
    }

    async fn spawn_with(mut command: Command, log: impl FnOnce(PipeReader) -> Log) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
        // From here on, only the process holds its end of the pipe.
        drop(command);
        let mut log = log(reader);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(first) = output.next_line().await.unwrap() else {
            panic!("the server did not start: {:?}", log.close());
        };
        let base = match serde_json::from_str::<Value>(&first) {
            Ok(facts) => facts["url"].as_str().unwrap_or_default().to_owned(),
            Err(_) => first.split(" listens on ").nth(1).unwrap_or_default().to_owned(),
        };
        assert!(base.starts_with("http"), "unexpected: {first}");
        Self {
            base,
            first,
            log,
            child,
            output,
        }
    }

    /// The token that a new database is given, printed once.
    pub(crate) async fn printed_token(&mut self) -> String {
        while let Some(line) = self.output.next_line().await.unwrap() {
            if line.trim().starts_with("ab_") {
                return line.trim().to_owned();
            }
        }
        panic!("no token was printed");
    }

    /// Where its metrics are, and then the token that a new database is given.
    async fn printed_metrics_and_token(&mut self) -> (String, String) {
        while let Some(line) = self.output.next_line().await.unwrap() {
            if let Some(metrics) = line.strip_prefix("Metrics: ") {
                return (metrics.to_owned(), self.printed_token().await);
            }
        }
        panic!("no metrics were announced");
    }

    /// Ends it as a power cut would: at once, without warning.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// The same, with all of its log.
    pub(crate) async fn kill_with_log(mut self) -> String {
        self.child.kill().await.unwrap();
        self.log.wait_for_end();
        self.log.text()
    }

    /// Its process id.
    fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends it a signal.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.await.unwrap().success());
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn terminate(self) -> ExitStatus {
        self.signal("TERM").await;
        self.ended().await
    }

    /// Waits until it has stopped.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        self.wait().await
    }

    /// The same, with all of its log.
    pub(crate) async fn ended_with_log(mut self) -> (ExitStatus, String) {
        let status = self.wait().await;
        self.log.wait_for_end();
        (status, self.log.text())
    }

    async fn wait(&mut self) -> ExitStatus {
        // Requests in progress may take 20 seconds; other tests check how soon an idle server stops.
        tokio::time::timeout(Duration::from_mins(1), self.child.wait())
            .await
            .expect("it stops in time")
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.start_kill());
        let faults = self.log.close();
        assert!(
            faults.is_empty() || std::thread::panicking(),
            "nobody announced in the log:\n{}",
            faults.join("\n")
        );
    }
}

/// Runs a command to its end: its exit code, its output and its complaints.
pub(crate) async fn run(database: &TestDatabase, arguments: &[&str]) -> (bool, String, String) {
    finish(command(&database.options.url, &std::env::temp_dir()), arguments).await
}

/// The same with additional arguments. A command that succeeds must print no complaints.
async fn finish(command: Command, arguments: &[&str]) -> (bool, String, String) {
    let (done, said, complaint) = finish_with_log(command, arguments).await;
    let is_clean = !complaint.lines().any(is_trouble);
    assert!(is_clean || !done, "it did all, and complains:\n{complaint}");
    (done, said, complaint)
}

/// The same for a command that may print complaints although it succeeds.
async fn finish_with_log(mut command: Command, arguments: &[&str]) -> (bool, String, String) {
    let output = command.args(arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}
