//! The server in this process, with an organization and its token, on a database of its own.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use clap::Parser;
use kallima_webhooks::{
    clock::Clock,
    config::ServeOptions,
    delivery::connector::Resolver,
    domain::{
        timestamp::Timestamp,
        token::{Scope, Scopes, Token},
    },
    server::{self, Server},
    store::{
        Database,
        organizations::{self, Organization},
        tokens::{self, TokenRecord},
    },
};
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    client::{Answer, Ask},
    database::TestDatabase,
};

/// A running server and what a test needs to use it.
pub(crate) struct App {
    pub(crate) base: String,
    pub(crate) clock: Clock,
    pub(crate) db: Database,
    pub(crate) organization: Uuid,
    /// A token of the organization with every scope.
    pub(crate) token: String,
    pub(crate) database: TestDatabase,
    server: Option<Server>,
}

/// How to start one.
pub(crate) struct Builder {
    arguments: Vec<String>,
    clock: Clock,
    names: HashMap<String, Vec<IpAddr>>,
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

    /// A clock that stands still until the test advances it.
    pub(crate) fn manual_clock(mut self) -> Self {
        self.clock = Clock::manual(Timestamp::from_millis(1_776_938_400_000));
        self
    }

    /// A host name and its addresses; no other name resolves.
    pub(crate) fn name(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.names.insert(name.to_owned(), addresses);
        self
    }

    /// Starts the server.
    pub(crate) async fn start(self) -> App {
        let database = TestDatabase::create().await;
        self.start_on(database).await
    }

    /// Starts the server on a database that is there already.
    pub(crate) async fn start_on(self, database: TestDatabase) -> App {
        let Self {
            arguments,
            clock,
            names,
        } = self;
        let arguments = ["test", "--listen", "127.0.0.1:0", "--poll-interval-ms", "50"]
            .map(str::to_owned)
            .into_iter()
            .chain(arguments);
        let Arguments { serve } = Arguments::parse_from(arguments);
        let db = Database::open(&database.options, &clock).await.unwrap();
        let names = Arc::new(names);
        let resolver = Resolver::from_fn(move |name| {
            let found = names
                .get(&name)
                .cloned()
                .ok_or_else(|| std::io::Error::other("no such name"));
            async move { found }
        });
        let server = server::start(&serve, db.clone(), clock.clone(), resolver)
            .await
            .unwrap();
        let base = format!("http://{}", server.address);
        let mut app = App {
            base,
            clock,
            db,
            organization: Uuid::nil(),
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

    /// A server as it is without any option.
    pub(crate) fn builder() -> Builder {
        Builder {
            arguments: Vec::new(),
            clock: Clock::system(),
            names: HashMap::new(),
        }
    }

    /// Another organization and a token of its own with every scope.
    pub(crate) async fn new_organization(&self) -> (Uuid, String) {
        let organization = Organization {
            id: self.clock.new_uuid(),
            name: "test".to_owned(),
            created_at: self.clock.now(),
        };
        organizations::create(&self.db, &organization).await.unwrap();
        (
            organization.id,
            self.new_token(Some(organization.id), &Scope::ALL).await.0,
        )
    }

    /// A token, and its id.
    pub(crate) async fn new_token(&self, organization_id: Option<Uuid>, scopes: &[Scope]) -> (String, Uuid) {
        let token = Token::generate(&mut UnwrapErr(SysRng));
        let record = TokenRecord {
            id: self.clock.new_uuid(),
            organization_id,
            name: "test".to_owned(),
            scopes: scopes.iter().copied().collect::<Scopes>(),
            created_at: self.clock.now(),
            revoked_at: None,
        };
        tokens::create(&self.db, &record, token.digest()).await.unwrap();
        (token.expose().to_owned(), record.id)
    }

    /// A request with the app's token.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(method, &self.base, path).token(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path).json(body).send().await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.ask("PATCH", path).json(body).send().await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
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

    /// The one delivery of an event.
    pub(crate) async fn delivery_of(&self, event_id: &str) -> Value {
        let deliveries = self
            .get(&format!("/v1/webhook_deliveries?event_id={event_id}"))
            .await
            .expect(200);
        assert_eq!(deliveries.as_array().unwrap().len(), 1, "{event_id} has one delivery");
        deliveries[0].clone()
    }

    /// The one delivery of an event, as soon as it answers to `wanted`.
    pub(crate) async fn delivery_when(&self, event_id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(|| async {
            let delivery = self.delivery_of(event_id).await;
            wanted(&delivery).then_some(delivery)
        })
        .await
    }

    /// The one delivery of an event, as soon as it has had so many attempts and none is under way.
    pub(crate) async fn after_attempt(&self, event_id: &str, number: u64) -> Value {
        self.delivery_when(event_id, |delivery| {
            let rests = delivery["next_attempt_at"].is_string() || delivery["status"] != "pending";
            delivery["attempt_count"].as_u64() == Some(number) && rests
        })
        .await
    }

    /// Stops the server and hands over its database.
    pub(crate) async fn stop(mut self) -> TestDatabase {
        self.server.take().unwrap().stop().await;
        self.database
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none within ten seconds.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(question: impl Fn() -> F) -> T {
    for _ in 0..1000 {
        if let Some(answer) = question().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within ten seconds");
}
