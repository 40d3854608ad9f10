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

    fn options(&self) -> String {
        let folder = self.folder.path().display();
        format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}",
            self.port
        )
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let data = self.folder.path().join("data");
        let mut command = Command::new(self.programs.join(program));
        command
            .arg("-D")
            .arg(&data)
            .args(arguments)
            .current_dir(self.folder.path());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        // The server inherits these: a pipe would never end.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(
            command.status().await.unwrap().success(),
            "{program} of a cluster of our own"
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = std::process::Command::new(self.programs.join("pg_ctl"));
        stop.arg("-D").arg(self.folder.path().join("data"));
        if is_root() {
            std::os::unix::process::CommandExt::uid(&mut stop, NOBODY);
        }
        stop.args(["stop", "-m", "immediate"]).stdout(Stdio::null());
        drop(stop.status());
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}
