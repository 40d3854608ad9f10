//! The service: a process that is started, used and stopped.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};
use uuid::Uuid;

use super::{
    database::{Database, MASTER_KEY},
    driver::Connection,
    http,
};

/// How long the service may take to start or to stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running service. It is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    /// The time from the start of the process until `/readyz` returned 200.
    pub(crate) started_in: Duration,
    metrics: Option<SocketAddr>,
    child: Child,
    /// Held so that the service can write.
    _output: Lines<BufReader<ChildStdout>>,
}

/// An organization with its token and webhooks.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) organization: Uuid,
    pub(crate) token: String,
    pub(crate) webhooks: Vec<Uuid>,
}

impl Server {
    pub(crate) async fn start(binary: &Path, database: &Database) -> Self {
        Self::start_on(binary, &database.url(), false).await
    }

    /// Starts it for as many clients on this machine as want to connect.
    pub(crate) async fn start_open(binary: &Path, database: &Database) -> Self {
        let mut command = on(binary, &database.url());
        command.args(["--connections-per-peer-max", "0"]);
        Self::start_by(command, false).await
    }

    /// Starts it on the database of this URL, with or without `/metrics`.
    pub(crate) async fn start_on(binary: &Path, url: &str, metrics: bool) -> Self {
        Self::start_by(on(binary, url), metrics).await
    }

    async fn start_by(mut command: Command, metrics: bool) -> Self {
        let started = Instant::now();
        let mut child = command
            .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen"])
            .arg(if metrics { "127.0.0.1:0" } else { "off" })
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addresses = Vec::new();
        // It prints its address, then where the documentation is, then where the metrics are.
        while addresses.len() < 2 + usize::from(metrics) {
            let line = tokio::time::timeout(PATIENCE, output.next_line()).await;
            let line = line.unwrap().unwrap().expect("the service says where it listens");
            let (_, address) = line.split_once("http://").unwrap();
            let (address, _) = address.split_once('/').unwrap_or((address, ""));
            addresses.push(address.parse::<SocketAddr>().unwrap());
        }
        let mut server = Self {
            address: addresses[0],
            pid: child.id().unwrap(),
            started_in: Duration::ZERO,
            metrics: addresses.get(2).copied(),
            child,
            _output: output,
        };
        let mut connection = Connection::open(server.address).await.unwrap();
        while connection
            .exchange(|to| http::write(to, "GET", "/readyz", "", ""))
            .await
            .0
            != 200
        {
            assert!(started.elapsed() < PATIENCE, "the service does not get ready");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.started_in = started.elapsed();
        server
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status();
        assert!(sent.await.unwrap().success());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(ended.expect("the service stops").unwrap().success());
    }

    /// Kills it.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Creates an organization with a webhook for each URL.
    pub(crate) async fn tenant(&self, binary: &Path, database: &Database, urls: &[String]) -> Tenant {
        let organization = command(binary, database, &["organization", "create", "--name", "bench"]).await;
        let token = command(binary, database, &["token", "create", "--organization", &organization]).await;
        let mut tenant = Tenant {
            organization: organization.parse().unwrap(),
            token,
            webhooks: Vec::new(),
        };
        for url in urls {
            let webhook = self.post(&tenant, "/v1/webhooks", &json!({ "url": url })).await;
            tenant.webhooks.push(webhook["id"].as_str().unwrap().parse().unwrap());
        }
        tenant
    }

    async fn post(&self, tenant: &Tenant, path: &str, body: &Value) -> Value {
        let mut connection = Connection::open(self.address).await.unwrap();
        let (headers, body) = (tenant.headers(), body.to_string());
        let (status, response) = connection
            .exchange(|to| http::write(to, "POST", path, &headers, &body))
            .await;
        assert!(status < 300, "POST {path}: {}", String::from_utf8_lossy(response));
        serde_json::from_slice(response).unwrap()
    }

    /// The bytes of a resource's response.
    pub(crate) async fn get(&self, tenant: &Tenant, path: &str) -> Vec<u8> {
        let mut connection = Connection::open(self.address).await.unwrap();
        let headers = tenant.headers();
        let (status, body) = connection
            .exchange(|to| http::write(to, "GET", path, &headers, ""))
            .await;
        assert_eq!(status, 200, "GET {path}");
        body.to_vec()
    }

    /// The value of a counter of `/metrics`, if it exists.
    pub(crate) async fn counter(&self, name: &str) -> Option<f64> {
        let mut connection = Connection::open(self.metrics?).await.unwrap();
        let (_, text) = connection
            .exchange(|to| http::write(to, "GET", "/metrics", "", ""))
            .await;
        let text = std::str::from_utf8(text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }
}

impl Tenant {
    /// The header lines of this tenant's requests.
    pub(crate) fn headers(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.token)
    }
}

/// Runs a command of the binary on a database and returns what it printed, without the line end.
pub(crate) async fn command(binary: &Path, database: &Database, arguments: &[&str]) -> String {
    let output = on(binary, &database.url()).args(arguments).output().await.unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The binary, configured with nothing but its database.
fn on(binary: &Path, url: &str) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KALLIMA_") {
            command.env_remove(name);
        }
    }
    command
        .env("KALLIMA_DATABASE_URL", url)
        .env("KALLIMA_MASTER_KEY", MASTER_KEY)
        .env("KALLIMA_LOG", "warn")
        .kill_on_drop(true);
    command
}
