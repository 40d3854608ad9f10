//! TLS for the API: the certificate, which is reloaded when its files change, and the handshake.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::config::HttpOptions;

/// How often the files are checked. Changed files are loaded once two checks in a row see the same contents, because nobody
/// replaces both files at once.
const INTERVAL: Duration = Duration::from_secs(2);

/// The protocols that clients may choose from (ALPN), in order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Bytes of a response that the TLS session buffers at most while the client does not read.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// Why a certificate cannot be used: one clear line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: cannot use {file}: {cause}")]
pub struct TlsFault {
    option: &'static str,
    file: String,
    cause: String,
}

/// TLS with the current certificate. Clones share it.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// The certificate in use.
#[derive(Debug)]
struct Certificate {
    files: Files,
    in_use: RwLock<Arc<CertifiedKey>>,
}

/// Where the certificate and its key are.
#[derive(Clone, Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate in these files, followed by its intermediates. Fails unless a server could use them.
pub fn chain(certificate: PathBuf, key: PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let files = Files { certificate, key };
    Ok(files.certified(&files.read()?)?.cert)
}

impl Tls {
    /// TLS with the certificate that the options name; `None` if they name none.
    pub fn load(options: &HttpOptions) -> Result<Option<Self>, TlsFault> {
        let (Some(certificate), Some(key)) = (options.tls_cert.clone(), options.tls_key.clone()) else {
            return Ok(None);
        };
        let files = Files { certificate, key };
        let in_use = files.certified(&files.read()?)?;
        let certificate = Arc::new(Certificate {
            files,
            in_use: RwLock::new(Arc::new(in_use)),
        });
        let provider = Arc::new(ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|cause| certificate.files.fault_of_certificate(&cause))?;
        let resolver = Arc::<Certificate>::clone(&certificate);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Some(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificate,
        }))
    }

    /// Performs the handshake with a client, without a time limit.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let limited = |session: &mut rustls::ServerConnection| session.set_buffer_limit(Some(BUFFER_BYTES_MAX));
        self.acceptor.accept_with(stream, limited).await
    }

    /// Watches the certificate's files and reloads them until `stop` is set.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let files = self.certificate.files.clone();
        // What the last check saw. The contents at the start are already loaded.
        let (mut seen, mut checked) = (files.look().await, true);
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let look = files.look().await;
            if look != seen {
                (seen, checked) = (look, false);
            } else if !checked {
                checked = true;
                self.certificate.take(&seen);
            }
        }
    }
}

impl Certificate {
    /// Loads the contents of the files, or logs why they cannot be used.
    fn take(&self, look: &Result<Contents, TlsFault>) {
        let certified = look
            .as_ref()
            .map_err(TlsFault::clone)
            .and_then(|contents| self.files.certified(contents));
        match certified {
            Ok(certified) => {
                *self.in_use.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                tracing::info!("the TLS certificate was reloaded");
            }
            Err(fault) => {
                tracing::warn!(exception.message = %fault, "the TLS certificate has changed but cannot be used; keeping the previous one");
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let in_use = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&in_use))
    }
}

impl Files {
    /// Reads the files on a blocking thread.
    async fn look(&self) -> Result<Contents, TlsFault> {
        let files = self.clone();
        let read = tokio::task::spawn_blocking(move || files.read()).await;
        read.unwrap_or_else(|cause| Err(self.fault_of_certificate(&cause)))
    }

    fn read(&self) -> Result<Contents, TlsFault> {
        Ok(Contents {
            certificate: std::fs::read(&self.certificate).map_err(|cause| self.fault_of_certificate(&cause))?,
            key: std::fs::read(&self.key).map_err(|cause| self.fault_of_key(&cause))?,
        })
    }

    /// The certificate chain with its private key.
    fn certified(&self, contents: &Contents) -> Result<CertifiedKey, TlsFault> {
        let of_certificate = |cause: &dyn std::fmt::Display| self.fault_of_certificate(cause);
        let of_key = |cause: &dyn std::fmt::Display| self.fault_of_key(cause);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents.certificate).collect();
        let chain = chain.map_err(|cause| of_certificate(&cause))?;
        if chain.is_empty() {
            return Err(of_certificate(&"there is no certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|cause| match cause {
            rustls::pki_types::pem::Error::NoItemsFound => {
                of_key(&"there is no private key in it (an encrypted one is none)")
            }
            cause => of_key(&cause),
        })?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|cause| match cause {
            rustls::Error::InconsistentKeys(_) => of_key(&"it is not the key of the certificate"),
            rustls::Error::InvalidCertificate(_) => of_certificate(&cause),
            cause => of_key(&cause),
        })
    }

    fn fault_of_certificate(&self, cause: &dyn std::fmt::Display) -> TlsFault {
        fault("--tls-cert (KALLIMA_TLS_CERT)", &self.certificate, cause)
    }

    fn fault_of_key(&self, cause: &dyn std::fmt::Display) -> TlsFault {
        fault("--tls-key (KALLIMA_TLS_KEY)", &self.key, cause)
    }
}

fn fault(option: &'static str, file: &Path, cause: &dyn std::fmt::Display) -> TlsFault {
    TlsFault {
        option,
        file: file.display().to_string(),
        cause: cause.to_string(),
    }
}
