//! The API by TLS: protocols, what a client may cost before its first byte, and certificates that change.

use std::{path::Path, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Process, command, finish, memory::peak_kib, run};
use crate::support::{app::eventually, database::TestDatabase};

/// Longer than anything takes: it only decides how soon a failing test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A certificate authority, and a folder for what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A new certificate for `localhost`, and its key.
    fn certificate(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Writes these where the server expects them.
    fn put(&self, certificate: &str, key: &str) {
        std::fs::write(self.path("tls.crt"), certificate).unwrap();
        std::fs::write(self.path("tls.key"), key).unwrap();
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.folder.path()).join(name).display().to_string()
    }

    async fn start(&self, database: &TestDatabase, arguments: &[&str]) -> Process {
        let (certificate, key) = self.certificate();
        self.put(&certificate, &key);
        let files = ["--tls-cert", &self.path("tls.crt"), "--tls-key", &self.path("tls.key")];
        Process::start(&database.options.url, &[&files[..], arguments].concat()).await
    }

    /// A client that speaks the best of these protocols.
    async fn connect(&self, server: &Process, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, connect(server).await).await
    }

    /// The certificate that the server shows.
    async fn shown(&self, server: &Process) -> CertificateDer<'static> {
        let stream = self.connect(server, &[]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

fn address(server: &Process) -> &str {
    server
        .base
        .strip_prefix("https://")
        .expect("it says that it speaks TLS")
}

async fn connect(server: &Process) -> TcpStream {
    TcpStream::connect(address(server)).await.unwrap()
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(PATIENCE, stream.read(&mut [0; 64]))
        .await
        .expect("it is closed");
    read.unwrap_or(0) == 0
}

#[tokio::test]
async fn the_client_chooses_the_protocol() {
    let (authority, database) = (Authority::new(), TestDatabase::create().await);
    let server = authority.start(&database, &[]).await;
    for protocols in [&[][..], &["http/1.1"]] {
        let mut stream = authority.connect(&server, protocols).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        // A page that fills every buffer on its way.
        let mut stream = authority.connect(&server, protocols).await.unwrap();
        stream
            .write_all(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut page = Vec::new();
        stream.read_to_end(&mut page).await.unwrap();
        assert!(page.len() > 1_000_000);
    }
    let stream = authority.connect(&server, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/healthz")
        .body(String::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(
        (response.version(), response.status().as_u16()),
        (hyper::Version::HTTP_2, 200)
    );
    assert!(authority.connect(&server, &["spdy/3"]).await.is_err());
    let files = authority.path("tls.crt");
    let check = ["healthcheck", "--listen", address(&server), "--tls-cert", &files];
    let (done, printed, complaint) = run(&database, &check).await;
    assert!(done && printed == "/healthz answers 200\n", "{complaint}");
    let (done, _, complaint) = run(&database, &check[..3]).await;
    assert!(!done && complaint.contains("it does not speak HTTP"), "{complaint}");
}

#[tokio::test]
async fn a_client_without_a_handshake_costs_little_and_not_for_long() {
    let (authority, database) = (Authority::new(), TestDatabase::create().await);
    let limits = ["--head-read-timeout-ms", "1000", "--connections-per-peer-max", "2"];
    let server = authority.start(&database, &limits).await;
    // Plaintext is refused with an alert.
    let mut plain = connect(&server).await;
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut alert = Vec::new();
    drop(
        timeout(PATIENCE, plain.read_to_end(&mut alert))
            .await
            .expect("it is closed"),
    );
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    // The silent ones are counted, and cut off. Earlier connections may be counted a little longer.
    let (mut first, mut second) = eventually(|| async {
        let (first, mut second) = (connect(&server).await, connect(&server).await);
        second.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        authority
            .connect(&server, &[])
            .await
            .is_err()
            .then_some((first, second))
    })
    .await;
    assert!(is_closed(&mut first).await && is_closed(&mut second).await);
    eventually(|| async { authority.connect(&server, &[]).await.ok().map(drop) }).await;
    let mut server = server;
    server.log.allow("its peer has too many");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_makes_room_for_another() {
    let (authority, database) = (Authority::new(), TestDatabase::create().await);
    let limits = ["--head-read-timeout-ms", "120000", "--connections-max", "1"];
    let server = authority.start(&database, &limits).await;
    let mut silent = connect(&server).await;
    let other = timeout(PATIENCE, authority.connect(&server, &[])).await;
    assert!(other.expect("it is served").is_ok());
    assert!(is_closed(&mut silent).await);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_behind_tls_too() {
    let (authority, database) = (Authority::new(), TestDatabase::create().await);
    let server = authority.start(&database, &["--write-timeout-ms", "300"]).await;
    let mut stream = authority.connect(&server, &[]).await.unwrap();
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request.repeat(20).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    eventually(|| async { stream.get_ref().0.take_error().unwrap().map(|_| ()) }).await;
}

#[tokio::test]
async fn clients_that_do_not_read_cost_a_bounded_memory_behind_tls_too() {
    const CONNECTIONS: u64 = 150;
    /// What one connection may cost by TLS, in KiB, as docs/operations.md says.
    const KIB_MAX: u64 = 128 + 64;
    let (authority, database) = (Authority::new(), TestDatabase::create().await);
    let limits = ["--connections-per-peer-max", "0", "--write-timeout-ms", "600000"];
    let server = authority.start(&database, &limits).await;
    // Pages that nobody reads, and behind them a head that does not end.
    let page = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n";
    let requests = format!("{}GET / HTTP/1.1\r\nx: {}", page.repeat(4), "x".repeat(48_000));
    let mut unread = vec![authority.connect(&server, &[]).await.unwrap()];
    let before = peak_kib(server.id());
    for _ in 0..CONNECTIONS {
        let mut stream = authority.connect(&server, &[]).await.unwrap();
        // The server stops reading when its buffers are full.
        let sending = timeout(Duration::from_millis(50), stream.write_all(requests.as_bytes())).await;
        drop(sending);
        unread.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cost = peak_kib(server.id()) - before;
    // The pages themselves are shared.
    let cost_max = CONNECTIONS * KIB_MAX + 4 * 1024;
    assert!(cost < cost_max, "{cost} KiB beyond {before}, not {cost_max}");
    assert!(cost > CONNECTIONS * 32, "{cost} KiB: they have hardly cost anything");
}

#[tokio::test]
async fn a_certificate_that_changes_is_taken_and_a_bad_one_is_not() {
    let (authority, database) = (Authority::new(), TestDatabase::create().await);
    let patient = ["--head-read-timeout-ms", "120000"];
    let mut server = authority.start(&database, &patient).await;
    let first = authority.shown(&server).await;
    let kept = authority.connect(&server, &[]).await.unwrap();
    let (certificate, key) = authority.certificate();
    authority.put(&certificate, &key);
    let second = eventually(|| async { Some(authority.shown(&server).await).filter(|shown| *shown != first) }).await;
    let stays = "the TLS certificate has changed but cannot be used; keeping the previous one";
    let (other, _) = authority.certificate();
    for (certificate, key, why) in [
        (other.as_str(), key.as_str(), "--tls-key (KALLIMA_TLS_KEY)"),
        ("nothing", &key, "there is no certificate in it"),
        (&certificate, "nothing", "there is no private key in it"),
    ] {
        server.log.expect(why);
        server.log.expect(stays);
        authority.put(certificate, key);
        server.log.wait_for(why).await;
        assert_eq!(authority.shown(&server).await, second, "{why}");
    }
    server.log.expect("No such file");
    std::fs::remove_file(authority.path("tls.key")).unwrap();
    server.log.wait_for("No such file").await;
    assert_eq!(authority.shown(&server).await, second);
    let (certificate, key) = authority.certificate();
    authority.put(&certificate, &key);
    eventually(|| async { (authority.shown(&server).await != second).then_some(()) }).await;
    let mut kept = kept;
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut response = String::new();
    kept.read_to_string(&mut response).await.unwrap();
    assert!(
        response.starts_with("HTTP/1.1 200"),
        "connections stay as they are: {response}"
    );
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_one_line_before_anything_is_opened() {
    let authority = Authority::new();
    let ((certificate, key), (_, other_key)) = (authority.certificate(), authority.certificate());
    authority.put(&certificate, &key);
    for (name, text) in [
        ("other.key", other_key.as_str()),
        ("empty", ""),
        ("torn", "-----BEGIN CERTIFICATE-----\nAA"),
    ] {
        std::fs::write(authority.path(name), text).unwrap();
    }
    for (cert, key, fault) in [
        (
            Some("tls.crt"),
            None,
            "--tls-cert (KALLIMA_TLS_CERT) and --tls-key (KALLIMA_TLS_KEY) must be given together",
        ),
        (None, Some("tls.key"), "must be given together"),
        (Some("none"), Some("tls.key"), "No such file"),
        (Some("tls.crt"), Some("none"), "No such file"),
        (Some("empty"), Some("tls.key"), "there is no certificate in it"),
        (
            Some("torn"),
            Some("tls.key"),
            "--tls-cert (KALLIMA_TLS_CERT): cannot use",
        ),
        (Some("tls.crt"), Some("empty"), "there is no private key in it"),
        (
            Some("tls.crt"),
            Some("other.key"),
            "it is not the key of the certificate",
        ),
        (Some("tls.key"), Some("tls.crt"), "there is no certificate in it"),
    ] {
        let mut command = command("sqlite://unused.db", authority.folder.path());
        for (option, file) in [("--tls-cert", cert), ("--tls-key", key)] {
            if let Some(file) = file {
                command.args([option, file]);
            }
        }
        let (done, printed, complaint) = finish(command, &[]).await;
        assert!(!done && printed.is_empty(), "{printed}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(
            complaint.starts_with("error: ") && complaint.contains(fault),
            "{fault}: {complaint}"
        );
        assert!(!authority.folder.path().join("unused.db").exists());
    }
}
