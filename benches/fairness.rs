//! One slow and one busy webhook beside a thousand others: what they cost the others, from publish to arrival.
//!
//! `cargo bench --bench fairness`. A thousand webhooks of ten organizations get events at a steady pace, first alone
//! and then beside a webhook that hangs until the deadline on every attempt and one with 50,000 queued deliveries, in
//! one run. On SQLite, or on the database of `KALLIMA_BENCH_URL`, which must be an empty one.
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
use http_body_util::Full;
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
        event::Publication,
        event_filter::EventFilter,
        id::{OrganizationId, TokenId},
        limits::Limits,
        operational::is_operational,
        secret::Secret,
        token::{Scopes, Token},
        webhook::NewWebhook,
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
use tokio::task::JoinSet;
use uuid::Uuid;

const ORGANIZATIONS: usize = 10;
const WEBHOOKS_EACH: usize = 100;
const EVENTS: usize = 400;
const PACE: Duration = Duration::from_millis(25);
const QUEUED: usize = 50_000;

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
    let alone = stage.measure(&tokens).await;
    stage.trouble().await;
    let beside = stage.measure(&tokens).await;
    for (what, p50, p99) in [
        ("alone", alone[0], alone[1]),
        ("beside a hanging and a flooded one", beside[0], beside[1]),
    ] {
        println!("{what}: median {p50:?}, p99 {p99:?}");
    }
    println!("p99: {:.2} times", beside[1].as_secs_f64() / alone[1].as_secs_f64());
    // The hanging attempts would be waited for.
    std::process::exit(0);
}

/// `/quick` answers at once and notes the time, `/slow` takes 50 ms, `/hang` never answers.
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

    async fn webhook(&self, organization: OrganizationId, receiver: &str, wanted: Option<String>) {
        let new = NewWebhook {
            id: self.clock.new_id(),
            url: Destination::from_stored(&format!("{}/{receiver}", self.receivers)).unwrap(),
            enabled: true,
            events: EventFilter::from_stored(wanted.map(|wanted| vec![wanted])),
            description: None,
            rate_limit: None,
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
    }

    /// A webhook that hangs with a queue of its own, and one with a long queue that it works off slowly.
    async fn trouble(&self) {
        for (receiver, queued) in [("hang", 1_000), ("slow", QUEUED)] {
            let (organization, _) = self.organization().await;
            self.webhook(organization, receiver, None).await;
            for _ in 0..queued / 500 {
                let mut batch = JoinSet::new();
                for _ in 0..500 {
                    let (db, publication) = (self.db.clone(), self.publication(organization));
                    batch.spawn(async move { events::record(&db, publication, None).await.unwrap() });
                }
                batch.join_all().await;
            }
        }
    }

    fn publication(&self, organization_id: OrganizationId) -> Publication {
        Publication {
            organization_id,
            event_id: self.clock.new_event_id(),
            event_type: "job.completed".to_owned(),
            payload: b"{\"data\":{}}".as_slice().into(),
            created_at: self.clock.now(),
            traceparent: None,
        }
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
        // Long enough for the last ones; one that is missing then counts as a failure below.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut latencies = std::mem::take(&mut self.journal.lock().unwrap().latencies);
        latencies.sort_unstable();
        let owed = (0..EVENTS)
            .map(|number| {
                (0..WEBHOOKS_EACH)
                    .filter(|webhook| webhook % self.types.len() == number % self.types.len())
                    .count()
            })
            .sum::<usize>();
        assert_eq!(latencies.len(), owed, "every delivery arrived once");
        [latencies[owed / 2], latencies[owed * 99 / 100]]
    }
}
