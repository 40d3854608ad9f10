//! What `doctor` checks of the API's own certificate: that it belongs to its key, is valid now and for a while, and is for
//! the name under which clients reach the server.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;
use rustls::{
    CertificateError, Error, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use url::{Host, Url};

use super::report::Found;
use crate::{config::parse_public_url, domain::timestamp::Timestamp, server::tls};

/// A certificate should have been renewed before only this part of its lifetime is left.
const RENEWAL_DIVISOR: u32 = 10;

/// A time at which every certificate has expired, counted from 1970: the last one that X.509 can write is in 9999.
const END_OF_TIME: Duration = Duration::from_hours(24 * 366 * 8030);

#[derive(Args, Debug)]
pub(super) struct CertificateOptions {
    /// The certificate that the API is, or will be, served with.
    #[arg(long, env = "KALLIMA_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of that certificate.
    #[arg(long, env = "KALLIMA_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Address under which clients reach the server: the certificate must be for its name.
    #[arg(long, env = "KALLIMA_PUBLIC_URL", value_name = "URL", value_parser = parse_public_url)]
    public_url: Option<String>,
}

impl CertificateOptions {
    /// Whether the API is served over TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// Checks the certificate at this time. `None` if there is none.
    pub(super) fn check(&self, now: Timestamp) -> Option<Found> {
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(tls::chain(certificate, key).map_err(Into::into).and_then(|chain| {
            let name = self.public_url.as_deref().and_then(name);
            examine(&chain, name.as_ref(), now)
        }))
    }
}

/// The name, or the address, that clients connect to.
fn name(url: &str) -> Option<ServerName<'static>> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "https")?;
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(IpAddr::V4(address).into()),
        Host::Ipv6(address) => Some(IpAddr::V6(address).into()),
    }
}

fn examine(chain: &[CertificateDer<'_>], name: Option<&ServerName<'_>>, now: Timestamp) -> Found {
    let (first, rest) = chain.split_first().ok_or("there is no certificate")?;
    let certificate = ParsedCertificate::try_from(first)?;
    let verify = |roots: &RootCertStore, at: Duration| {
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        let at = UnixTime::since_unix_epoch(at);
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, rest, at, algorithms)
    };
    let public = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let authority = match verify(&public, now.since(Timestamp::from_millis(0))) {
        Ok(()) => "signed by a public authority",
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "not signed by a public authority, or an intermediate is missing"
        }
        Err(cause) => return Err(plain(&cause.to_string()).into()),
    };
    if let Some(name) = name {
        rustls::client::verify_server_name(&certificate, name).map_err(|cause| plain(&cause.to_string()))?;
    }
    // The validity is checked before the issuer, and the verdict names its bounds.
    let none = RootCertStore::empty();
    let (Err(early), Err(late)) = (verify(&none, Duration::ZERO), verify(&none, END_OF_TIME)) else {
        return Err("its validity cannot be read".into());
    };
    let seconds = |time: UnixTime| Timestamp::from_millis(0).plus(Duration::from_secs(time.as_secs()));
    let begin = match early {
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => seconds(not_before),
        _ => Timestamp::from_millis(0),
    };
    let Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) = late else {
        return Err("its validity cannot be read".into());
    };
    let end = seconds(not_after);
    let left = end.since(now);
    let said = format!("expires in {} days, at {end}", left.as_secs() / (24 * 60 * 60));
    if left < end.since(begin) / RENEWAL_DIVISOR {
        return Err(format!("{said}: renew it").into());
    }
    let name = name.map(|name| format!("for {}, ", name.to_str())).unwrap_or_default();
    Ok(format!("{name}{said}, {authority}"))
}

/// What is wrong with a certificate, followed by the library's words.
pub(super) fn plain(cause: &str) -> String {
    const MEANINGS: [(&str, &str); 4] = [
        (
            "UnknownIssuer",
            "unknown issuer: not signed by a trusted authority; add one with --tls-ca-file",
        ),
        ("certificate expired", "the certificate has expired"),
        (
            "not valid yet",
            "the certificate is not valid yet, or this machine's clock is wrong",
        ),
        (
            "not valid for name",
            "name mismatch: the certificate is for another name",
        ),
    ];
    let meaning = MEANINGS.iter().find(|(sign, _)| cause.contains(sign));
    match meaning {
        Some((_, meaning)) => format!("{meaning} ({cause})"),
        None => cause.to_owned(),
    }
}
