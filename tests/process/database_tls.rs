//! TLS to PostgreSQL: a server that requires it, what each `sslmode` accepts, and no plaintext over a network.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use uuid::Uuid;

use super::{Process, command, finish};
use crate::support::{Receiver, client::Ask, cluster::Cluster, database::is_on_postgres};

const SETTINGS: &str = "ssl = on
ssl_cert_file = '../server.pem'
ssl_key_file = '../server.key'
ssl_ca_file = '../authority.pem'
";

/// Refuses plaintext, and the user `certified` without a certificate of that name.
const RULES: &str = "hostssl all certified 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 trust
";

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for a host or a user, and its key.
fn certificate(authority: &CertifiedIssuer<'_, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A server that speaks only TLS, as `localhost`.
async fn secure_cluster() -> Cluster {
    let ours = authority();
    let (server, server_key) = certificate(&ours, "localhost");
    let (client, client_key) = certificate(&ours, "certified");
    let files = [
        ("server.pem", server),
        ("server.key", server_key),
        ("client.pem", client),
        ("client.key", client_key),
        ("authority.pem", ours.pem()),
        ("stranger.pem", authority().pem()),
    ];
    let cluster = Cluster::with_files(&files, SETTINGS, RULES).await;
    let admin = admin(&cluster).await;
    admin
        .execute_unprepared("CREATE ROLE certified SUPERUSER LOGIN")
        .await
        .unwrap();
    admin.close().await.unwrap();
    cluster
}

async fn admin(cluster: &Cluster) -> DatabaseConnection {
    sea_orm::Database::connect(format!("{}?sslmode=require", cluster.url))
        .await
        .unwrap()
}

/// What `doctor` reports about the database and the connection to it.
async fn examined(url: &str) -> (String, Option<String>) {
    let command = command(url, &std::env::temp_dir());
    let arguments = ["doctor", "--url", "https://127.0.0.1:1/", "--check-timeout-ms", "20000"];
    let (_, printed, complaint) = finish(command, &arguments).await;
    let line = |check: &str| {
        let mut lines = printed.lines();
        lines
            .find(|line| line.get(8..).is_some_and(|rest| rest.starts_with(check)))
            .map(str::to_owned)
    };
    let database = line("database").unwrap_or_else(|| panic!("{printed}{complaint}"));
    (database, line("connection"))
}

#[tokio::test]
async fn each_sslmode_accepts_what_libpq_accepts() {
    if !is_on_postgres() {
        return;
    }
    let cluster = secure_cluster().await;
    let by = |mode: &str, authority: &str| format!("sslmode={mode}&sslrootcert={}", cluster.file(authority));
    let (certificate, key) = (cluster.file("client.pem"), cluster.file("client.key"));
    let identity = format!("sslmode=require&sslcert={certificate}&sslkey={key}");
    let (unverified, verified) = ("certificate is not verified", "certificate is verified");
    let any_name = "certificate is verified, but not its name";
    for (server, parameters, expected) in [
        ("postgres@127.0.0.1", "sslmode=prefer".to_owned(), unverified),
        ("postgres@127.0.0.1", "sslmode=require".to_owned(), unverified),
        ("postgres@127.0.0.1", by("verify-ca", "authority.pem"), any_name),
        ("postgres@localhost", by("verify-full", "authority.pem"), verified),
        ("certified@localhost", identity, unverified),
    ] {
        let url = format!("postgres://{server}:{}/postgres?{parameters}", cluster.port);
        let (database, connection) = examined(&url).await;
        let connection = connection.unwrap_or_else(|| panic!("{parameters}: {database}"));
        let is_tls = connection.starts_with("ok ") && connection.contains("TLSv1.3");
        assert!(is_tls && connection.contains(expected), "{parameters}: {connection}");
    }
    for (server, parameters, expected) in [
        ("postgres@127.0.0.1", "sslmode=disable".to_owned(), "no encryption"),
        ("postgres@127.0.0.1", by("require", "stranger.pem"), "certificate"),
        ("postgres@127.0.0.1", by("verify-full", "authority.pem"), "certificate"),
        ("postgres@localhost", by("verify-full", "stranger.pem"), "certificate"),
        ("postgres@localhost", "sslmode=verify-full".to_owned(), "certificate"),
        ("certified@localhost", "sslmode=require".to_owned(), "certificate"),
    ] {
        let url = format!("postgres://{server}:{}/postgres?{parameters}", cluster.port);
        let (database, connection) = examined(&url).await;
        let is_refused = database.starts_with("FAILED") && connection.is_none();
        assert!(is_refused && database.contains(expected), "{parameters}: {database}");
    }
}

#[tokio::test]
async fn events_are_delivered_by_tls_alone() {
    if !is_on_postgres() {
        return;
    }
    let cluster = secure_cluster().await;
    let url = format!(
        "postgres://certified@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        cluster.port,
        cluster.file("authority.pem"),
        cluster.file("client.pem"),
        cluster.file("client.key"),
    );
    let receiver = Receiver::start([]).await;
    let mut server = Process::start(&url, &[]).await;
    let token = server.printed_token().await;
    let post = |path: &str| Ask::new("POST", &server.base, path).token(&token);
    post("/v1/webhooks")
        .json(&json!({ "url": receiver.url }))
        .send()
        .await
        .expect(201);
    let event = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
    post("/v1/events").json(&event).send().await.expect(202);
    receiver.wait_for(1).await;
    let admin = admin(&cluster).await;
    let connections = "SELECT application_name, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE usename = 'certified'";
    let connections = Statement::from_string(admin.get_database_backend(), connections);
    let connections = admin.query_all_raw(connections).await.unwrap();
    assert!(
        connections.len() >= 3,
        "a pool each for the API, the engine and the heartbeat"
    );
    for connection in connections {
        let name: String = connection.try_get("", "application_name").unwrap();
        let node = name
            .strip_prefix("kallima-webhooks ")
            .unwrap_or_else(|| panic!("{name}"));
        assert!(Uuid::parse_str(node).is_ok(), "{name}");
        assert!(connection.try_get::<bool>("", "ssl").unwrap(), "{name}");
    }
    admin.close().await.unwrap();
    assert!(server.terminate().await.success());
}

/// A server that has no TLS, and what it was sent.
async fn plain_server() -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = vec![0; 8];
        stream.read_exact(&mut sent).await.unwrap();
        stream.write_all(b"N").await.unwrap();
        stream.read_to_end(&mut sent).await.unwrap();
        sent
    });
    (port, serving)
}

#[tokio::test]
async fn nothing_is_sent_in_plaintext_to_another_machine() {
    let asks_for_tls = [0, 0, 0, 8, 4, 210, 22, 47];
    for parameters in ["", "?sslmode=prefer", "?sslmode=allow", "?sslmode=require"] {
        let (port, server) = plain_server().await;
        // It does not look like this machine's own address, but it leads here.
        let url = format!("postgres://user:s3cret@0.0.0.0:{port}/db{parameters}");
        let (done, _, complaint) = finish(command(&url, &std::env::temp_dir()), &["serve"]).await;
        assert!(!done);
        let expected = format!("error: PostgreSQL at 0.0.0.0:{port} offers no TLS");
        assert!(
            complaint.starts_with(&expected) && complaint.contains("sslmode=disable"),
            "{complaint}"
        );
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert_eq!(
            server.await.unwrap(),
            asks_for_tls,
            "{parameters}: nothing but the question"
        );
    }
}
