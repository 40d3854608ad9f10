//! `healthcheck`: sends the server on this machine a request, for containers that have no other HTTP client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::CommandResult;
use crate::config::listen_address;

/// How much of a response is read, in bytes: enough to recognize the server.
const ANSWER_BYTES_MAX: u64 = 4096;

#[derive(Args, Debug)]
pub(super) struct HealthcheckOptions {
    /// The address that the API is served on.
    #[arg(long, env = "KALLIMA_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = listen_address)]
    listen: SocketAddr,

    /// Set if the API is served over TLS, as for the server. The file is not read.
    #[arg(long, env = "KALLIMA_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Check that it is ready for requests (`/readyz`), not only that it runs (`/healthz`).
    #[arg(long)]
    ready: bool,

    /// How long the response may take.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    timeout_ms: u64,
}

impl HealthcheckOptions {
    pub(super) async fn run(self) -> CommandResult {
        let path = if self.ready { "/readyz" } else { "/healthz" };
        let address = reachable(self.listen);
        let asking = async {
            let answer = get(self.listen, self.tls_cert.is_some(), path).await?;
            let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
            Ok(status.ok_or("it does not speak HTTP")?.to_owned())
        };
        let answered = timeout(Duration::from_millis(self.timeout_ms), asking).await;
        let status: Result<String, Box<dyn std::error::Error>> =
            answered.unwrap_or_else(|_| Err(format!("no answer within {} ms", self.timeout_ms).into()));
        match status {
            Ok(status) if status == "200" => {
                println!("{path} answers 200");
                Ok(())
            }
            Ok(status) => Err(format!("{path} at {address} answers {status}").into()),
            Err(cause) => Err(format!("{path} at {address}: {cause}").into()),
        }
    }
}

/// Where this machine reaches a server that listens there.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let host = match address.ip() {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, address.port())
}

/// Requests a path of the server on this machine that listens there. Returns the beginning of its response.
pub(super) async fn get(listen: SocketAddr, is_tls: bool, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let address = reachable(listen);
    let stream = TcpStream::connect(address).await?;
    if !is_tls {
        return Ok(ask(stream, path).await?);
    }
    let connector = TlsConnector::from(Arc::new(tls()?));
    let name = ServerName::IpAddress(address.ip().into());
    Ok(ask(connector.connect(name, stream).await?, path).await?)
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// TLS without verification. Nothing secret is sent and the response is only a status; the certificate is for a public name
/// that this address does not have.
fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let unverified = Arc::new(Unverified(provider));
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(unverified)
        .with_no_client_auth())
}

/// Accepts every certificate.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
