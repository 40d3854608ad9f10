//! A PostgreSQL cluster for a single test, which may crash it: never the shared one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use tempfile::TempDir;
use tokio::process::Command;

use super::app::eventually;

/// The user that PostgreSQL runs as if the test is root, which it refuses to be: `nobody`.
const NOBODY: u32 = 65_534;

/// A cluster that is stopped and removed when this is dropped.
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
        let cluster = Self::new();
        cluster.initialize().await;
        cluster.serve().await;
        cluster
    }

    /// Creates and starts a cluster that only accepts TLS, with these files next to its data, these settings, and these rules
    /// for clients.
    pub(crate) async fn with_files(files: &[(&str, String)], settings: &str, rules: &str) -> Self {
        let cluster = Self::new();
        cluster.initialize().await;
        for (name, content) in files {
            cluster.write(name, content);
        }
        cluster.write("data/postgresql.auto.conf", settings);
        cluster.write("data/pg_hba.conf", rules);
        cluster.serve().await;
        cluster
    }

    /// Creates and starts a synchronous standby: from now on this cluster acknowledges nothing that the standby has not
    /// received.
    pub(crate) async fn synchronous_standby(&self) -> Self {
        let standby = Self::new();
        let port = self.port.to_string();
        let copied = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        ];
        standby.run("pg_basebackup", &copied).await;
        standby.serve().await;
        let admin = sea_orm::Database::connect(&self.url).await.unwrap();
        for setting in [
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        ] {
            sea_orm::ConnectionTrait::execute_unprepared(&admin, setting)
                .await
                .unwrap();
        }
        eventually(|| async {
            let follows = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
            let follows = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, follows);
            sea_orm::ConnectionTrait::query_one_raw(&admin, follows)
                .await
                .unwrap()
                .map(drop)
        })
        .await;
        admin.close().await.unwrap();
        standby
    }

    /// Kills it, like a failing machine.
    pub(crate) async fn kill(&self) {
        let pid = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        let killed = Command::new("kill").args(["-KILL", pid]).status().await.unwrap();
        assert!(killed.success());
    }

    /// Promotes it: it accepts writes and no longer follows.
    pub(crate) async fn promote(&self) {
        self.run("pg_ctl", &["promote", "-w"]).await;
    }

    /// Ends it like a power cut, and starts it again.
    pub(crate) async fn crash(&self) {
        let options = self.options();
        self.run("pg_ctl", &["restart", "-w", "-m", "immediate", "-o", &options])
            .await;
    }

    /// A file next to its data.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        Self {
            url: format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            port,
            programs: programs(),
            folder,
        }
    }

    async fn initialize(&self) {
        self.run("initdb", &["-U", "postgres", "-A", "trust", "--no-sync"])
            .await;
    }

    async fn serve(&self) {
        self.run("pg_ctl", &["start", "-w", "-o", &self.options()]).await;
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        // PostgreSQL refuses a key that others can read.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it with these environment variables, after it was stopped.
    pub(crate) async fn start_with(&self, variables: &[(&str, PathBuf)]) {
        let log = self.log().display().to_string();
        let start = ["start", "-w", "-l", &log, "-o", &self.options()];
        self.control(&start, variables).await;
    }

    /// Runs `pg_ctl` with these environment variables.
    pub(crate) async fn control(&self, arguments: &[&str], variables: &[(&str, PathBuf)]) {
        self.run_with("pg_ctl", arguments, variables).await;
    }

    /// Makes the files that a test has put into its folder its own.
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

    /// Its log, if it was started with environment variables.
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
        // The server inherits these: reading a pipe would never end.
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

/// Where PostgreSQL's programs are: as `pg_config` says, or where Debian puts them.
///
/// # Panics
/// If there are none: a test that needs them must not pass untested.
fn programs() -> PathBuf {
    let said = std::process::Command::new("pg_config").arg("--bindir").output();
    let said = said.map(|said| PathBuf::from(String::from_utf8(said.stdout).unwrap().trim()));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let kept = versions.map(|version| version.unwrap().path().join("bin"));
    let is_whole = |folder: &Path| folder.join("initdb").is_file();
    let found = said.into_iter().chain(kept).find(|folder| is_whole(folder));
    found.expect("initdb, pg_ctl and pg_basebackup are installed: the PostgreSQL half of the suite needs them")
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}
