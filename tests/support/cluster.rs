//! A PostgreSQL cluster of a test's own, to be crashed: never the one that others use.

use std::{path::PathBuf, process::Stdio};

use tempfile::TempDir;
use tokio::process::Command;

/// Whom PostgreSQL runs as when the test is root, which it refuses: `nobody`.
const NOBODY: u32 = 65_534;

/// A cluster that is stopped and removed with this.
pub(crate) struct Cluster {
    /// The URL of its first database.
    pub(crate) url: String,
    pub(crate) port: u16,
    folder: TempDir,
    programs: PathBuf,
}

impl Cluster {
    /// Makes and starts one.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let programs = Command::new("pg_config").arg("--bindir").output().await.unwrap();
        let cluster = Self {
            url: format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            port,
            programs: PathBuf::from(String::from_utf8(programs.stdout).unwrap().trim()),
            folder,
        };
        if is_root() {
            std::os::unix::fs::chown(cluster.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        cluster
            .run("initdb", &["-U", "postgres", "-A", "trust", "--no-sync"])
            .await;
        cluster.run("pg_ctl", &["start", "-w", "-o", &cluster.options()]).await;
        cluster
    }

    /// Ends it as a power cut would, and starts it again.
    pub(crate) async fn crash(&self) {
        let options = self.options();
        self.run("pg_ctl", &["restart", "-w", "-m", "immediate", "-o", &options])
            .await;
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it, after it was stopped, with these variables.
    pub(crate) async fn start_with(&self, variables: &[(&str, PathBuf)]) {
        let log = self.log().display().to_string();
        let start = ["start", "-w", "-l", &log, "-o", &self.options()];
        self.control(&start, variables).await;
    }

    /// Runs `pg_ctl`, with these variables.
    pub(crate) async fn control(&self, arguments: &[&str], variables: &[(&str, PathBuf)]) {
        self.run_with("pg_ctl", arguments, variables).await;
    }

    /// Gives it the files that a test has put into its folder.
    pub(crate) fn adopt(&self) {
        fn adopt(path: &std::path::Path) {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            let is_folder = std::fs::metadata(path).unwrap().is_dir();
            for entry in is_folder
                .then(|| std::fs::read_dir(path).unwrap())
                .into_iter()
                .flatten()
            {
                adopt(&entry.unwrap().path());
            }
        }
        if is_root() {
            adopt(&self.data());
        }
    }

    /// What it says, where it was started with variables.
    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn options(&self) -> String {
        let folder = self.folder.path().display();
        format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}",
            self.port
        )
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        self.run_with(program, arguments, &[]).await;
    }

    async fn run_with(&self, program: &str, arguments: &[&str], variables: &[(&str, PathBuf)]) {
        let data = self.folder.path().join("data");
        let mut command = Command::new(self.programs.join(program));
        command
            .arg("-D")
            .arg(&data)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        // The server inherits these: a pipe would never end.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let is_done = command.status().await.unwrap().success();
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        assert!(is_done, "{program} of a cluster of our own: {log}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = std::process::Command::new(self.programs.join("pg_ctl"));
        stop.arg("-D").arg(self.folder.path().join("data"));
        if is_root() {
            std::os::unix::process::CommandExt::uid(&mut stop, NOBODY);
        }
        stop.args(["stop", "-m", "immediate"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        drop(stop.status());
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}
