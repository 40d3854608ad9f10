//! The binary itself: started, asked, killed, started again.

mod at_rest;
mod command_line;
mod kill;

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::support::database::{MASTER_KEY, TestDatabase};

/// A server that runs as a process of its own. It is killed when this is dropped.
pub(crate) struct Process {
    pub(crate) base: String,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

/// A command of the binary, on that database.
fn command(database_url: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kallima-webhooks"));
    command
        .current_dir(folder)
        .env("KALLIMA_DATABASE_URL", database_url)
        .env("KALLIMA_LOG", "warn")
        .env("KALLIMA_MASTER_KEY", MASTER_KEY)
        .kill_on_drop(true);
    command
}

impl Process {
    /// Starts the server in `--dev` on a free port and waits until it says that it listens.
    pub(crate) async fn start(database_url: &str, arguments: &[&str]) -> Self {
        let mut command = command(database_url, &std::env::temp_dir());
        command
            .args(["--dev", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = output
            .next_line()
            .await
            .unwrap()
            .expect("the server says where it listens");
        let base = first
            .split(" listens on ")
            .nth(1)
            .unwrap_or_else(|| panic!("unexpected: {first}"))
            .to_owned();
        Self { base, child, output }
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

    /// Ends it as a power cut would: at once, without a word.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn terminate(mut self) -> std::process::ExitStatus {
        let id = self.child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .await
                .unwrap()
                .success()
        );
        tokio::time::timeout(Duration::from_secs(20), self.child.wait())
            .await
            .expect("it stops in time")
            .unwrap()
    }
}

/// Runs a command to its end: its exit code, its output and its complaints.
async fn run(database: &TestDatabase, arguments: &[&str]) -> (bool, String, String) {
    let output = command(&database.options.url, &std::env::temp_dir())
        .args(arguments)
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}
