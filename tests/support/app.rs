//! The server in this process, on a database of its own, with an organization and a token.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    panic::Location,
    sync::Mutex,
    time::{Duration, Instant},
};

use clap::Parser;
use kallima_webhooks::{
    clock::Clock,
    config::ServeOptions,
    delivery::resolver::Resolver,
    domain::{
        event::{Envelope, Publication},
        id::{OrganizationId, TokenId},
        limits::Limits,
        timestamp::Timestamp,
        token::{Scope, Scopes, Token},
    },
    metrics::Metrics,
    server::{self, Server},
    store::{
        Database, events,
        organizations::{self, Organization},
        tokens::{self, TokenRecord},
    },
};
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    Receiver,
    client::{ApiResponse, Ask},
    database::TestDatabase,
};

/// A running server, and what a test needs to use it.
pub(crate) struct App {
    pub(crate) base: String,
    /// The path of `--public-url`, which a proxy would take away.
    prefix: String,
    /// Where `/metrics` is; `None` unless the test asks for it.
    pub(crate) metrics: Option<String>,
    pub(crate) clock: Clock,
    pub(crate) db: Database,
    /// What the server has measured.
    pub(crate) measured: Metrics,
    pub(crate) organization: OrganizationId,
    /// A token of the organization with every scope.
    pub(crate) token: String,
    pub(crate) database: TestDatabase,
    server: Option<Server>,
}

/// How to start one.
pub(crate) struct Builder {
    arguments: Vec<String>,
    clock: Clock,
    names: HashMap<String, VecDeque<Vec<IpAddr>>>,
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeOptions,
}

impl Builder {
    /// More arguments of `serve`.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Attempts whose deadline is later than [`eventually`] gives up, so that a test can hold them.
    pub(crate) fn patient(self) -> Self {
        self.arguments(&["--attempt-timeout-ms", "120000"])
    }

    /// A clock that stands still until the test advances it.
    pub(crate) fn manual_clock(self) -> Self {
        self.clock(Clock::manual(Timestamp::from_millis(1_776_938_400_000)))
    }

    /// A clock of the test's own.
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// A host name and its addresses; no other name resolves. Called again, it sets what the next look-up returns, and the
    /// last call applies to all later look-ups.
    pub(crate) fn name(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.names.entry(name.to_owned()).or_default().push_back(addresses);
        self
    }

    /// Starts the server.
    pub(crate) async fn start(self) -> App {
        let database = TestDatabase::create().await;
        self.start_on(database).await
    }

    /// Starts the server on an existing database.
    pub(crate) async fn start_on(self, database: TestDatabase) -> App {
        let Self {
            arguments,
            clock,
            names,
        } = self;
        let metrics_wanted = arguments.iter().any(|argument| argument == "--metrics-listen");
        let arguments = ["test", "--listen", "127.0.0.1:0", "--poll-interval-ms", "50"]
            .map(str::to_owned)
            .into_iter()
            .chain(arguments);
        let off = ["--metrics-listen", "off"].map(str::to_owned);
        let off = (!metrics_wanted).then_some(off).into_iter().flatten();
        let arguments = arguments.chain(off);
        let Arguments { serve } = Arguments::parse_from(arguments);
        let public_url = serve
            .http
            .public_url
            .as_deref()
            .map(|url| url.parse::<url::Url>().unwrap());
        let prefix = public_url.map_or(String::new(), |url| url.path().trim_end_matches('/').to_owned());
        let db = Database::open(&database.options, &clock).await.unwrap();
        let names = Mutex::new(names);
        let resolver = Resolver::from_fn(move |name| {
            let mut names = names.lock().unwrap();
            let responses = names.get_mut(&name);
            let found = responses.and_then(|responses| match responses.len() {
                1 => responses.front().cloned(),
                _ => responses.pop_front(),
            });
            async move { found.ok_or_else(|| std::io::Error::other("no such name")) }
        });
        let server = server::start(&serve, db.clone(), clock.clone(), resolver)
            .await
            .unwrap();
        let base = format!("http://{}", server.address);
        let mut app = App {
            base,
            prefix,
            measured: server.metrics.clone(),
            metrics: server.metrics_address.map(|address| format!("http://{address}")),
            clock,
            db,
            organization: OrganizationId::NIL,
            token: String::new(),
            database,
            server: Some(server),
        };
        (app.organization, app.token) = app.new_organization().await;
        app
    }
}

impl App {
    /// A server in `--dev`: http and receivers on this machine are allowed.
    pub(crate) async fn dev() -> Self {
        Self::builder().arguments(&["--dev"]).start().await
    }

    /// A server with default options.
    pub(crate) fn builder() -> Builder {
        Builder {
            arguments: Vec::new(),
            clock: Clock::system(),
            names: HashMap::new(),
        }
    }

    /// The names of the server's background tasks.
    pub(crate) fn tasks(&self) -> Vec<&'static str> {
        self.server.as_ref().unwrap().tasks()
    }

    /// Another organization, and a token for it with every scope.
    pub(crate) async fn new_organization(&self) -> (OrganizationId, String) {
        self.new_limited_organization(Limits::default()).await
    }

    /// Another organization, with limits.
    pub(crate) async fn new_limited_organization(&self, limits: Limits) -> (OrganizationId, String) {
        let organization = Organization {
            id: self.clock.new_id(),
            name: "test".to_owned(),
            created_at: self.clock.now(),
            limits,
        };
        organizations::create(&self.db, &organization).await.unwrap();
        (
            organization.id,
            self.new_token(Some(organization.id), Scope::ALL).await.0,
        )
    }

    /// A token, and its id.
    pub(crate) async fn new_token(
        &self,
        organization_id: Option<OrganizationId>,
        scopes: &[Scope],
    ) -> (String, TokenId) {
        let token = Token::generate(&mut UnwrapErr(SysRng));
        let record = TokenRecord {
            id: self.clock.new_id(),
            organization_id,
            name: "test".to_owned(),
            scopes: scopes.iter().copied().collect::<Scopes>(),
            created_at: self.clock.now(),
            revoked_at: None,
            last_used_at: None,
        };
        tokens::create(&self.db, &record, token.digest()).await.unwrap();
        (token.expose().to_owned(), record.id)
    }

    /// A request with the app's token.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(method, &self.base, path)
            .behind(&self.prefix)
            .token(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> ApiResponse {
        self.ask("GET", path).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> ApiResponse {
        self.ask("POST", path).json(body).send().await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> ApiResponse {
        self.ask("PATCH", path).json(body).send().await
    }

    pub(crate) async fn delete(&self, path: &str) -> ApiResponse {
        self.ask("DELETE", path).send().await
    }

    /// Registers a webhook and returns it, secret included.
    pub(crate) async fn webhook(&self, url: &str) -> Value {
        self.post("/v1/webhooks", &json!({ "url": url })).await.expect(201)
    }

    /// Publishes an event that every webhook without a filter wants, and returns its id.
    pub(crate) async fn publish(&self) -> String {
        let body = json!({ "type": "humanization.completed", "data": { "job_id": Uuid::new_v4() } });
        let event = self.post("/v1/events", &body).await.expect(202);
        event["id"].as_str().unwrap().to_owned()
    }

    /// Publishes many events of a type whose data is a job's id, past the API: so many requests would take long.
    pub(crate) async fn publish_at_once(&self, count: u64, event_type: &str) {
        let mut publishing = JoinSet::new();
        for _ in 0..count {
            let (db, publication) = (self.db.clone(), self.publication(self.organization, event_type));
            publishing.spawn(async move { events::record(&db, publication, None).await.unwrap() });
        }
        publishing.join_all().await;
    }

    /// An event of a type whose data is a job's id, for publishing past the API.
    pub(crate) fn publication(&self, organization_id: OrganizationId, event_type: &str) -> Publication {
        let data = json!({ "job_id": Uuid::new_v4() });
        let event = Envelope::new(self.clock.new_event_id(), event_type, self.clock.now(), &data);
        Publication::new(organization_id, event.unwrap()).unwrap()
    }

    /// The one delivery of an event.
    pub(crate) async fn delivery_of(&self, event_id: &str) -> Value {
        let deliveries = self
            .get(&format!("/v1/webhook_deliveries?event_id={event_id}"))
            .await
            .expect(200);
        assert_eq!(deliveries.as_array().unwrap().len(), 1, "{event_id} has one delivery");
        deliveries[0].clone()
    }

    /// The one delivery of an event, as soon as it satisfies `wanted`.
    #[track_caller]
    pub(crate) fn delivery_when(&self, event_id: &str, wanted: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
        eventually(async move || {
            let delivery = self.delivery_of(event_id).await;
            wanted(&delivery).then_some(delivery)
        })
    }

    /// The one delivery of an event, as soon as it has had this many attempts and none is in progress.
    #[track_caller]
    pub(crate) fn after_attempt(&self, event_id: &str, number: u64) -> impl Future<Output = Value> {
        self.delivery_when(event_id, move |delivery| {
            let rests = delivery["next_attempt_at"].is_string() || delivery["status"] != "pending";
            delivery["attempt_count"].as_u64() == Some(number) && rests
        })
    }

    /// The same, but advances the clock whenever the delivery waits for nothing else.
    ///
    /// The clock stands still while an attempt is in progress, of this delivery or another: leases end by this clock, too,
    /// and on a slow machine one would end before its attempt.
    pub(crate) async fn delivery_in_time(&self, event_id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(|| async {
            let delivery = self.delivery_of(event_id).await;
            if wanted(&delivery) {
                return Some(delivery);
            }
            if let Some(due) = self.next_due().await {
                self.clock.advance(due.since(self.clock.now()));
            }
            None
        })
        .await
    }

    /// Advances a manual clock, once the engine [is at rest](Self::at_rest).
    ///
    /// Leases end by this clock: a jump would end that of an attempt that has arrived but is not recorded yet, and the
    /// attempt would be repeated. A test that wants exactly that advances the clock itself.
    pub(crate) async fn advance(&self, by: Duration) {
        self.at_rest().await;
        self.clock.advance(by);
    }

    /// Waits until everything sent is recorded, and nothing more is due.
    pub(crate) async fn at_rest(&self) {
        const BUSY: &str = "
            SELECT 1 FROM queue JOIN webhooks ON webhooks.id = queue.webhook_id
            WHERE lease_token IS NOT NULL OR owed AND due_at <= $1 AND enabled AND resume_at <= $1
            LIMIT 1";
        let beside = self.database.connect().await;
        eventually(|| async {
            let now = self.clock.now().as_millis();
            let busy = Statement::from_sql_and_values(beside.get_database_backend(), BUSY, [now.into()]);
            let busy = beside.query_one_raw(busy).await.unwrap();
            busy.is_none().then_some(())
        })
        .await;
        beside.close().await.unwrap();
    }

    /// When the next attempt is due; `None` if one is in progress or due already.
    pub(crate) async fn next_due(&self) -> Option<Timestamp> {
        let pending = self.get("/v1/webhook_deliveries?status=pending&limit=200").await;
        let pending = pending.expect(200);
        let due = |delivery: &Value| Timestamp::parse(delivery["next_attempt_at"].as_str()?);
        let due: Option<Vec<Timestamp>> = pending.as_array().unwrap().iter().map(due).collect();
        due?.into_iter().min().filter(|due| *due > self.clock.now())
    }

    /// Waits until the engine has claimed everything that is due now, which another webhook's delivery shows by arriving.
    /// One claim looks at every webhook, so an attempt that has not started by then was rightly not made.
    pub(crate) async fn engine_has_looked(&self) {
        let (_, stranger) = self.new_organization().await;
        let receiver = Receiver::start([]).await;
        let post = |path: &str, body: Value| self.ask("POST", path).token(&stranger).json(&body).send();
        post("/v1/webhooks", json!({ "url": receiver.url })).await.expect(201);
        let event = json!({ "type": "webhook.test", "data": {} });
        post("/v1/events", event).await.expect(202);
        receiver.wait_for(1).await;
    }

    /// Stops the server, and returns its database.
    pub(crate) async fn stop(mut self) -> TestDatabase {
        self.server.take().unwrap().stop().await;
        self.database
    }
}

/// Every scope but this one.
pub(crate) fn scopes_without(scope: &str) -> Vec<Scope> {
    let others = Scope::ALL.iter().copied();
    others.filter(|other| other.to_string() != scope).collect()
}

/// How long [`eventually`] waits: far longer than anything takes, even on a busy machine. It only decides how soon a
/// failing test fails.
const PATIENCE: Duration = Duration::from_secs(100);

/// Polls until there is a result.
///
/// # Panics
/// If there is none within [`PATIENCE`], naming the caller's location.
#[track_caller]
pub(crate) fn eventually<T>(question: impl AsyncFn() -> Option<T>) -> impl Future<Output = T> {
    let (asked_at, begun) = (Location::caller(), Instant::now());
    async move {
        while begun.elapsed() < PATIENCE {
            if let Some(response) = question().await {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("what {asked_at} waits for did not happen within {PATIENCE:?}");
    }
}
