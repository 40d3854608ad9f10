//! The first start: a server that serves prints one organization's token; one that fails creates nothing.

use kallima_webhooks::{
    clock::Clock,
    domain::{limits::Limits, token::Scopes},
    store::{
        Database,
        organizations::{self, Organization},
        tokens::{self, TokenRecord},
    },
};
use sea_orm::{ConnectionTrait as _, Statement};
use tokio::task::JoinSet;

use super::{Process, command, run};
use crate::support::database::TestDatabase;

/// How many rows the tables of organizations and of tokens have.
async fn rows(database: &TestDatabase) -> (i64, i64) {
    let connection = database.connect().await;
    let count = async |table: &str| -> i64 {
        let count = format!("SELECT count(*) FROM {table}");
        let count = Statement::from_string(connection.get_database_backend(), count);
        let row = connection.query_one_raw(count).await.unwrap();
        row.unwrap().try_get_by_index(0).unwrap()
    };
    (count("organizations").await, count("tokens").await)
}

/// Stops a server, and returns all that it has printed since it said where it listens.
async fn printed(mut server: Process) -> String {
    server.signal("TERM").await;
    let mut printed = String::new();
    while let Some(line) = server.output.next_line().await.unwrap() {
        printed += &line;
        printed.push('\n');
    }
    assert!(server.ended().await.success());
    printed
}

fn tokens_in(printed: &str) -> usize {
    let lines = printed.lines().map(str::trim);
    lines.filter(|line| line.starts_with("ab_")).count()
}

/// A server for production, on a free port.
async fn production(database: &TestDatabase, arguments: &[&str]) -> String {
    let mut command = command(&database.options.url, &std::env::temp_dir());
    command
        .args(["--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .args(arguments);
    printed(Process::spawn(command).await).await
}

#[tokio::test]
async fn the_pages_are_announced_at_the_public_address() {
    let database = TestDatabase::empty().await;
    let printed = production(&database, &["--public-url", "https://hooks.example.org/kallima"]).await;
    for page in ["API docs: ", "Dashboard: "] {
        let line = printed.lines().find(|line| line.starts_with(page));
        let line = line.unwrap_or_else(|| panic!("no {page:?} in\n{printed}"));
        assert!(line.contains("https://hooks.example.org/kallima/d"), "{line}");
    }
}

#[tokio::test]
async fn nodes_that_start_at_once_make_one_organization_and_one_token() {
    let database = TestDatabase::empty().await;
    if !database.is_postgres() {
        // An SQLite database has one server.
        return;
    }
    let start = || Process::start(&database.options.url, &[]);
    let (first, second, third) = tokio::join!(start(), start(), start());
    let mut tokens = 0;
    for node in [first, second, third] {
        tokens += tokens_in(&printed(node).await);
    }
    assert_eq!((tokens, rows(&database).await), (1, (1, 1)));
}

#[tokio::test]
async fn of_many_that_make_the_first_organization_at_once_one_does() {
    let database = TestDatabase::create().await;
    let clock = Clock::system();
    let mut trying = JoinSet::new();
    for number in 0..4 {
        let db = Database::open(&database.options, &clock).await.unwrap();
        let clock = clock.clone();
        trying.spawn(async move {
            let organization = Organization {
                id: clock.new_id(),
                name: "default".to_owned(),
                created_at: clock.now(),
                limits: Limits::default(),
            };
            let token = TokenRecord {
                id: clock.new_id(),
                organization_id: Some(organization.id),
                name: "first token".to_owned(),
                scopes: Scopes::all(),
                created_at: clock.now(),
                revoked_at: None,
                last_used_at: None,
            };
            let is_made = organizations::create_first(&db, &organization, &token, [number; 32], None).await;
            let is_made = is_made.unwrap();
            db.close().await.unwrap();
            is_made
        });
    }
    let made = trying.join_all().await;
    assert_eq!(made.iter().filter(|is_made| **is_made).count(), 1, "{made:?}");
    let db = Database::open(&database.options, &clock).await.unwrap();
    let (organizations, tokens) = (
        organizations::list(&db).await.unwrap(),
        tokens::list(&db).await.unwrap(),
    );
    assert_eq!((organizations.len(), tokens.len()), (1, 1));
    assert_eq!(tokens[0].organization_id, Some(organizations[0].id));
}

#[tokio::test]
async fn a_start_that_fails_makes_no_token() {
    let database = TestDatabase::create().await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (listen, metrics) in [(taken.as_str(), "off"), ("127.0.0.1:0", taken.as_str())] {
        let arguments = ["--dev", "--listen", listen, "--metrics-listen", metrics];
        let (done, printed, complaint) = run(&database, &arguments).await;
        assert!(!done && complaint.contains("cannot listen on"), "{printed}{complaint}");
        assert_eq!((printed.as_str(), rows(&database).await), ("", (0, 0)));
    }
    let mut server = Process::start(&database.options.url, &[]).await;
    assert_eq!(server.printed_token().await.len(), 51);
    assert_eq!(rows(&database).await, (1, 1));
}

#[tokio::test]
async fn on_postgres_a_production_server_makes_a_token_only_if_asked() {
    let database = TestDatabase::create().await;
    if !database.is_postgres() {
        assert_eq!(tokens_in(&production(&database, &[]).await), 1, "SQLite always does");
        assert_eq!(tokens_in(&production(&database, &["--bootstrap"]).await), 0, "once");
        return;
    }
    let printed = production(&database, &[]).await;
    assert!(
        tokens_in(&printed) == 0 && printed.contains("`token create`"),
        "{printed}"
    );
    assert_eq!(rows(&database).await, (0, 0));
    assert_eq!(tokens_in(&production(&database, &["--bootstrap"]).await), 1);
    let printed = production(&database, &["--bootstrap"]).await;
    assert!(
        tokens_in(&printed) == 0 && !printed.contains("no organization"),
        "{printed}"
    );
    assert_eq!(rows(&database).await, (1, 1));
}
