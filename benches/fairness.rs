//! What one organization costs the others, from publish to arrival.
//!
//! `cargo bench --bench fairness`. A thousand webhooks of ten organizations get events at a steady pace: first alone, then
//! beside another organization that floods the node in one way after another ([`Flood`]), and at last beside a webhook
//! that hangs until the deadline on every attempt and one with 50,000 queued deliveries. The goal for each is a 99th
//! percentile of at most [`GOAL`] times the undisturbed one. On SQLite, or on the database of `KALLIMA_BENCH_URL`, which
//! must be an empty one.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking, and is no library")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use kallima_webhooks::{
    clock::Clock,
    config::{DatabaseOptions, ServeOptions},
    contract::Contract,
    delivery::connector::Resolver,
    domain::{
        audit::Origin,
        destination::Destination,
        event::{Envelope, Publication},
        event_filter::EventFilter,
        id::{OrganizationId, TokenId, WebhookId},
        limits::Limits,
        operational::is_operational,
        secret::Secret,
        token::{Scopes, Token},
        webhook::NewWebhook,
        webhook_settings::WebhookSettings,
    },
    server,
    store::{
        Database, events,
        once::Once,
        organizations::{self, Organization},
        tokens::{self, TokenRecord},
        webhooks,
    },
};
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

const ORGANIZATIONS: usize = 10;
const WEBHOOKS_EACH: usize = 100;
const EVENTS: usize = 400;
const PACE: Duration = Duration::from_millis(25);
const QUEUED: usize = 50_000;

/// How many times as long as undisturbed the 99th percentile may be.
const GOAL: f64 = 2.0;

/// How long a measurement waits for the last deliveries.
const LATE: Duration = Duration::from_secs(10);

/// How an organization floods the node.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// 60 webhooks whose receivers take 12 s, each with 200 deliveries.
    SlowWebhooks,
    /// 64 tests at a time of a webhook whose receiver takes 12 s.
    Tests,
    /// 600 publications at a time.
    Publications,
    /// 512 requests at a time.
    Requests,
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeOptions,
}

/// When each event was published, and how long each of its deliveries took.
#[derive(Default)]
struct Times {
    published: HashMap<String, Instant>,
    latencies: Vec<Duration>,
}

type Journal = Arc<Mutex<Times>>;

struct Stage {
    db: Database,
    clock: Clock,
    base: String,
    receivers: String,
    journal: Journal,
    client: Client<HttpConnector, Full<Bytes>>,
    types: Vec<String>,
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let url = std::env::var("KALLIMA_BENCH_URL")
        .unwrap_or_else(|_| format!("sqlite://{}", folder.path().join("bench.db").display()));
    let options = DatabaseOptions {
        master_key: Some(format!("1:{}=", "A".repeat(43))),
        ..DatabaseOptions::of(url)
    };
    let clock = Clock::system();
    let db = Database::open(&options, &clock).await.unwrap();
    db.migrate().await.unwrap();
    let arguments = ["bench", "--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"];
    // Everybody is one peer here.
    let arguments = arguments.into_iter().chain(["--connections-per-peer-max", "0"]);
    let Arguments { serve } = Arguments::parse_from(arguments);
    let server = server::start(&serve, db.clone(), clock.clone(), Resolver::system())
        .await
        .unwrap();
    let journal = Journal::default();
    let contract = Contract::load().unwrap();
    let types = contract
        .event_type_names()
        .filter(|name| !is_operational(name) && *name != "webhook.test");
    let stage = Stage {
        base: format!("http://{}", server.address),
        receivers: receivers(Arc::clone(&journal)).await,
        db,
        clock,
        journal,
        client: Client::builder(TokioExecutor::new()).build_http(),
        types: types.map(str::to_owned).collect(),
    };
    let mut tokens = Vec::new();
    for _ in 0..ORGANIZATIONS {
        let (organization, token) = stage.organization().await;
        for number in 0..WEBHOOKS_EACH {
            let wanted = stage.types[number % stage.types.len()].clone();
            stage.webhook(organization, "quick", Some(wanted)).await;
        }
        tokens.push(token);
    }
    let stage = Arc::new(stage);
    let alone = stage.measure(&tokens).await;
    println!("alone: median {:?}, p99 {:?}", alone[0], alone[1]);
    let tell = |what: &str, [p50, p99]: [Duration; 2]| {
        let times = p99.as_secs_f64() / alone[1].as_secs_f64();
        let verdict = if times <= GOAL { "met" } else { "missed" };
        println!("beside {what}: median {p50:?}, p99 {p99:?}, {times:.2} times (goal: {GOAL:.1}, {verdict})");
    };
    for flood in [Flood::Tests, Flood::Publications, Flood::Requests, Flood::SlowWebhooks] {
        let flooding = stage.flood(flood).await;
        tell(
            &format!("{flood:?} of another organization"),
            stage.measure(&tokens).await,
        );
        drop(flooding);
    }
    stage.trouble().await;
    tell("a hanging and a flooded webhook", stage.measure(&tokens).await);
    // The hanging attempts would be waited for.
    std::process::exit(0);
}

/// `/quick` answers at once and notes the time, `/slow` takes 50 ms, `/late` 12 s, `/hang` never answers.
async fn receivers(journal: Journal) -> String {
    async fn quick(State(journal): State<Journal>, headers: HeaderMap) -> StatusCode {
        let mut times = journal.lock().unwrap();
        let id = headers["webhook-id"].to_str().unwrap();
        if let Some(published) = times.published.get(id).copied() {
            times.latencies.push(published.elapsed());
        }
        StatusCode::OK
    }
    let router = Router::new()
        .route("/quick", post(quick))
        .route("/slow", post(|| tokio::time::sleep(Duration::from_millis(50))))
        .route("/late", post(|| tokio::time::sleep(Duration::from_secs(12))))
        .route("/hang", post(std::future::pending::<()>))
        .with_state(journal);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
    base
}

impl Stage {
    async fn organization(&self) -> (OrganizationId, String) {
        let organization = Organization {
            id: self.clock.new_id(),
            name: "bench".to_owned(),
            created_at: self.clock.now(),
            limits: Limits::default(),
        };
        organizations::create(&self.db, &organization).await.unwrap();
        let token = Token::generate(&mut UnwrapErr(SysRng));
        let record = TokenRecord {
            id: self.clock.new_id(),
            organization_id: Some(organization.id),
            name: "bench".to_owned(),
            scopes: Scopes::all(),
            created_at: self.clock.now(),
            last_used_at: None,
            revoked_at: None,
        };
        tokens::create(&self.db, &record, token.digest()).await.unwrap();
        (organization.id, token.expose().to_owned())
    }

    async fn webhook(&self, organization: OrganizationId, receiver: &str, wanted: Option<String>) -> WebhookId {
        let id = self.clock.new_id();
        let url = Destination::from_stored(&format!("{}/{receiver}", self.receivers)).unwrap();
        let new = NewWebhook {
            id,
            settings: WebhookSettings {
                events: EventFilter::from_stored(wanted.map(|wanted| vec![wanted])),
                ..WebhookSettings::new(url)
            },
            secret: Secret::generate(&mut UnwrapErr(SysRng)),
        };
        let origin = Origin {
            entry_id: self.clock.new_id(),
            token_id: TokenId::NIL,
            address: None,
            request_id: None,
        };
        let created = webhooks::create(&self.db, organization, new, origin, self.clock.now(), None).await;
        assert!(matches!(created.unwrap(), Once::Now(Some(_))));
        id
    }

    /// Begins to flood the node, until what is returned is dropped.
    async fn flood(self: &Arc<Self>, flood: Flood) -> JoinSet<()> {
        let (organization, token) = self.organization().await;
        let mut flooding = JoinSet::new();
        match flood {
            Flood::SlowWebhooks => {
                for _ in 0..60 {
                    self.webhook(organization, "late", None).await;
                }
                self.publish_many(organization, 200).await;
            }
            Flood::Publications => {
                let stage = Arc::clone(self);
                flooding.spawn(async move {
                    loop {
                        stage.publish_many(organization, 600).await;
                    }
                });
            }
            Flood::Tests => {
                let webhook = self.webhook(organization, "late", None).await;
                let path = format!("/v1/webhooks/{webhook}/test");
                for _ in 0..64 {
                    flooding.spawn(Arc::clone(self).ask_again_and_again("POST", path.clone(), token.clone()));
                }
            }
            Flood::Requests => {
                for _ in 0..512 {
                    flooding.spawn(Arc::clone(self).ask_again_and_again(
                        "GET",
                        "/v1/webhooks".to_owned(),
                        token.clone(),
                    ));
                }
            }
        }
        flooding
    }

    async fn ask_again_and_again(self: Arc<Self>, method: &'static str, path: String, token: String) {
        loop {
            let request = Request::builder()
                .method(method)
                .uri(format!("{}{path}", self.base))
                .header("authorization", format!("Bearer {token}"))
                .body(Full::default())
                .unwrap();
            if let Ok(answer) = self.client.request(request).await {
                let is_refused = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
                drop(answer.into_body().collect().await);
                if is_refused {
                    // As `Retry-After` says.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Publishes so many events at once.
    async fn publish_many(&self, organization: OrganizationId, count: usize) {
        let mut batch = JoinSet::new();
        for _ in 0..count {
            let (db, publication) = (self.db.clone(), self.publication(organization));
            batch.spawn(async move { events::record(&db, publication, None).await.unwrap() });
        }
        batch.join_all().await;
    }

    /// A webhook that hangs with a queue of its own, and one with a long queue that it works off slowly.
    async fn trouble(&self) {
        for (receiver, queued) in [("hang", 1_000), ("slow", QUEUED)] {
            let (organization, _) = self.organization().await;
            self.webhook(organization, receiver, None).await;
            for _ in 0..queued / 500 {
                self.publish_many(organization, 500).await;
            }
        }
    }

    fn publication(&self, organization_id: OrganizationId) -> Publication {
        let event = Envelope::new(self.clock.new_event_id(), "job.completed", self.clock.now(), &json!({}));
        Publication::new(organization_id, event.unwrap()).unwrap()
    }

    /// Publishes at a steady pace; answers the median and the 99th percentile of what each delivery took.
    async fn measure(&self, tokens: &[String]) -> [Duration; 2] {
        *self.journal.lock().unwrap() = Times::default();
        let mut ticks = tokio::time::interval(PACE);
        let mut publishing = JoinSet::new();
        for number in 0..EVENTS {
            ticks.tick().await;
            let id = self.clock.new_event_id();
            let kind = &self.types[number % self.types.len()];
            let body = format!(
                "{{\"id\":\"{id}\",\"type\":\"{kind}\",\"data\":{{\"job_id\":\"{}\"}}}}",
                Uuid::new_v4()
            );
            let request = Request::post(format!("{}/v1/events", self.base))
                .header("authorization", format!("Bearer {}", tokens[number % tokens.len()]))
                .header("content-type", "application/json")
                .body(Full::from(body))
                .unwrap();
            self.journal
                .lock()
                .unwrap()
                .published
                .insert(id.to_string(), Instant::now());
            let answer = self.client.request(request);
            publishing.spawn(async move { assert_eq!(answer.await.unwrap().status(), StatusCode::ACCEPTED) });
        }
        publishing.join_all().await;
        // Long enough for the last ones; one that is missing then counts as so late.
        tokio::time::sleep(LATE).await;
        let mut latencies = std::mem::take(&mut self.journal.lock().unwrap().latencies);
        latencies.sort_unstable();
        let owed = (0..EVENTS)
            .map(|number| {
                (0..WEBHOOKS_EACH)
                    .filter(|webhook| webhook % self.types.len() == number % self.types.len())
                    .count()
            })
            .sum::<usize>();
        assert!(latencies.len() <= owed, "every delivery arrived once");
        if latencies.len() < owed {
            println!("{} of {owed} deliveries are late", owed - latencies.len());
        }
        latencies.resize(owed, LATE);
        [latencies[owed / 2], latencies[owed * 99 / 100]]
    }
}
