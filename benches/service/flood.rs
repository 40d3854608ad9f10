//! An organization that floods the service: a separate process at the lowest priority, since its CPU time would be
//! another machine's. `figures/fairness.rs` starts and ends it.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use axum::{Router, extract::Path, routing::post};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

use super::{
    driver::Connection,
    event::{EVENT_TYPE, data_around_number},
    http,
    server::Tenant,
};

/// The argument that makes the benchmark's program such a process.
pub(crate) const ARGUMENT: &str = "flood";

/// The argument that makes it a process that only burns CPU time.
pub(crate) const BURN: &str = "burn";

/// What the process prints once the flood has begun.
const BEGUN: &str = "begun";

/// How long slow receivers take: longer than anything is measured, and not long enough to be a failure.
const LATE_MS: u64 = 12_000;

/// How long preparing a flood may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// How the service is flooded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flood {
    /// 64 concurrent tests of a webhook with a slow receiver.
    Tests,
    /// 600 concurrent publications.
    Publications,
    /// 512 concurrent requests.
    Requests,
    /// 60 webhooks with slow receivers, each with 200 deliveries.
    SlowWebhooks,
    /// 1,000 deliveries to a webhook that never responds, and 50,000 to one that takes 50 ms for each.
    Backlog,
}

impl Flood {
    pub(crate) const ALL: [Self; 5] = [
        Self::Tests,
        Self::Publications,
        Self::Requests,
        Self::SlowWebhooks,
        Self::Backlog,
    ];
}

impl FromStr for Flood {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|flood| format!("{flood:?}") == name)
            .ok_or(())
    }
}

/// A flood that lasts until this is dropped, or a process that burns the CPU time of two cores.
pub(crate) struct Flooding {
    _process: Child,
}

impl Flooding {
    /// Burns CPU time and does nothing else: what that costs is due to the machine, not the service.
    pub(crate) fn burn() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap());
        let process = process.arg(BURN).kill_on_drop(true).spawn().unwrap();
        Self { _process: process }
    }

    /// Starts one, and waits until it has begun.
    pub(crate) async fn start(flood: Flood, service: SocketAddr, tenant: &Tenant) -> Self {
        let mut process = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe().unwrap())
            .args([ARGUMENT, &format!("{flood:?}"), &service.to_string(), &tenant.token])
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let begun = tokio::time::timeout(PATIENCE, said.next_line()).await;
        assert_eq!(begun.unwrap().unwrap().as_deref(), Some(BEGUN), "{flood:?}");
        Self { _process: process }
    }
}

/// The process that burns CPU time.
pub(crate) fn burn_forever() -> ! {
    std::thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    loop {
        std::hint::spin_loop();
    }
}

/// The process that floods: `arguments` are those after [`ARGUMENT`].
pub(crate) async fn run(arguments: &[String]) {
    let [flood, service, token] = arguments else {
        panic!("flood KIND ADDRESS TOKEN");
    };
    let source = Source {
        service: service.parse().unwrap(),
        headers: format!("authorization: Bearer {token}\r\n"),
        receivers: receivers().await,
    };
    let flooding = source.begin(flood.parse().unwrap()).await;
    println!("{BEGUN}");
    flooding.join_all().await;
    std::future::pending::<()>().await;
}

/// Receivers that take as many milliseconds as their path says.
async fn receivers() -> SocketAddr {
    let response = |Path(milliseconds): Path<u64>| tokio::time::sleep(Duration::from_millis(milliseconds));
    let router = Router::new().route("/{milliseconds}", post(response));
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
    address
}

#[derive(Clone)]
struct Source {
    service: SocketAddr,
    headers: String,
    receivers: SocketAddr,
}

impl Source {
    async fn begin(&self, flood: Flood) -> JoinSet<()> {
        let mut flooding = JoinSet::new();
        match flood {
            Flood::Tests => {
                let webhook = self.webhook(LATE_MS, None).await;
                let path = format!("/v1/webhooks/{webhook}/test");
                self.request(&mut flooding, 64, None, "POST", &path, "");
            }
            Flood::Publications => {
                self.webhook(0, None).await;
                self.request(&mut flooding, 600, None, "POST", "/v1/events", &event(EVENT_TYPE));
            }
            Flood::Requests => {
                self.webhook(0, None).await;
                self.request(&mut flooding, 512, None, "GET", "/v1/webhooks", "");
            }
            Flood::SlowWebhooks => {
                for _ in 0..60 {
                    self.webhook(LATE_MS, None).await;
                }
                self.publish(200, EVENT_TYPE).await;
            }
            Flood::Backlog => {
                for (milliseconds, count, kind) in [
                    (u64::MAX, 1_000, "humanization.failed"),
                    (50, 50_000, "humanization.completed"),
                ] {
                    self.webhook(milliseconds, Some(kind)).await;
                    self.publish(count, kind).await;
                }
            }
        }
        flooding
    }

    /// Creates a webhook whose receiver takes this long.
    async fn webhook(&self, milliseconds: u64, event_type: Option<&str>) -> String {
        let url = format!("http://{}/{milliseconds}", self.receivers);
        let mut body = json!({ "url": url });
        if let Some(event_type) = event_type {
            body["events"] = json!([event_type]);
        }
        let mut connection = Connection::open(self.service).await.unwrap();
        let body = body.to_string();
        let (status, response) = connection
            .exchange(|to| http::write(to, "POST", "/v1/webhooks", &self.headers, &body))
            .await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(response));
        let webhook: Value = serde_json::from_slice(response).unwrap();
        webhook["id"].as_str().unwrap().to_owned()
    }

    async fn publish(&self, count: u64, event_type: &str) {
        const CONNECTIONS: u64 = 50;
        let mut publishing = JoinSet::new();
        let each = Some(count / CONNECTIONS);
        self.request(
            &mut publishing,
            CONNECTIONS,
            each,
            "POST",
            "/v1/events",
            &event(event_type),
        );
        publishing.join_all().await;
    }

    /// Sends a request on each of this many connections, repeatedly or this many times.
    fn request(
        &self,
        asking: &mut JoinSet<()>,
        connections: u64,
        times: Option<u64>,
        method: &'static str,
        path: &str,
        body: &str,
    ) {
        for _ in 0..connections {
            let (source, path, body) = (self.clone(), path.to_owned(), body.to_owned());
            asking.spawn(async move {
                let mut connection = Connection::open(source.service).await.unwrap();
                for _ in 0..times.unwrap_or(u64::MAX) {
                    let (status, _) = connection
                        .exchange(|to| http::write(to, method, &path, &source.headers, &body))
                        .await;
                    if status == 503 {
                        // As `Retry-After` says.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            });
        }
    }
}

fn event(event_type: &str) -> String {
    let (before, after) = data_around_number();
    format!("{{\"type\":\"{event_type}\",\"data\":{before}{:012x}{after}}}", 0)
}
