//! Which URLs deliveries may go to, as far as the URL itself tells.
//!
//! This is the first of two checks (server-side request forgery). The second checks the addresses that a name resolves
//! to, whenever a connection is made, since DNS may change in between. URLs are parsed by the WHATWG URL Standard, and
//! hosts are compared as parsed, never as text: what the parser makes of `0x7f.1` or `①②⑦.⓪.⓪.①` is what the connection
//! would go to.

use std::{
    cell::Cell,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Serialize, Serializer};
use url::{Host, SyntaxViolation, Url};
use utoipa::openapi::{ObjectBuilder, Schema, SchemaFormat, Type};

use crate::domain::{address::AddressPolicy, fault_code::FaultCode};

/// The longest URL, in characters.
pub const URL_LENGTH_MAX: usize = 2048;

/// The operator's policy on which URLs may be registered and delivered to. The default is the strictest: `https` to
/// public addresses, on any port.
#[derive(Clone, Debug, Default)]
pub struct DestinationPolicy {
    /// Whether `http` is allowed as well as `https`.
    pub allow_http: bool,
    /// Which addresses are allowed.
    pub addresses: AddressPolicy,
    /// The only allowed ports; `None` allows any. Port 0 is never allowed.
    pub allowed_ports: Option<Vec<u16>>,
}

impl DestinationPolicy {
    /// Whether deliveries may use this scheme (in lower case).
    #[must_use]
    pub fn allows_scheme(&self, scheme: &str) -> bool {
        scheme == "https" || self.allow_http && scheme == "http"
    }

    /// Whether a delivery may go to this port.
    #[must_use]
    pub fn allows_port(&self, port: u16) -> bool {
        port != 0 && self.allowed_ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }
}

/// A URL that deliveries may go to.
///
/// It is shown (`Display`, [`Destination::as_str`]) as the customer wrote it, since clients compare it with what they
/// sent, and used ([`Destination::url`]) as it was parsed. A URL that is not ASCII is shown in its ASCII form: the host
/// in Punycode (RFC 5891), the rest percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    text: String,
    url: Url,
}

/// Why a URL is not a valid destination. The messages continue a sentence that starts with "url", as in "url must not have
/// a fragment".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// The text has more than [`URL_LENGTH_MAX`] characters.
    #[error("is longer than {URL_LENGTH_MAX} characters in its ASCII form")]
    TooLong,
    /// The text is not a URL, or is one that parsers disagree about.
    #[error("is not a valid URL: {0}")]
    InvalidUrl(String),
    /// The scheme is not `https` (or `http`, if the operator allows it).
    #[error("must begin with https://")]
    HttpsRequired,
    /// The URL has a user name, a password, or the `@` that would end them.
    #[error("must not carry a user name or password")]
    UserInfo,
    /// The URL has a `#`, even with nothing after it.
    #[error("must not have a fragment")]
    Fragment,
    /// Port 0, or a port that isn't on the operator's list.
    #[error("uses port {0}, which this service does not deliver to")]
    PortRefused(u16),
    /// The host is an address that is not allowed.
    #[error("points to an address that this service does not deliver to ({0})")]
    AddressRefused(IpAddr),
    /// The host is a name that never leads to a public address.
    #[error("points to a name that is not publicly resolvable ({0})")]
    NameRefused(String),
}

impl DestinationError {
    /// The error code for programs. Refused names and refused addresses share one.
    #[must_use]
    pub const fn code(&self) -> FaultCode {
        match self {
            Self::TooLong => FaultCode::TooLong,
            Self::InvalidUrl(_) => FaultCode::InvalidUrl,
            Self::HttpsRequired => FaultCode::HttpsRequired,
            Self::UserInfo => FaultCode::UserInfo,
            Self::Fragment => FaultCode::Fragment,
            Self::PortRefused(_) => FaultCode::PortRefused,
            Self::AddressRefused(_) | Self::NameRefused(_) => FaultCode::AddressRefused,
        }
    }
}

impl Destination {
    /// Validates a URL that a customer registers.
    pub fn parse(text: &str, policy: &DestinationPolicy) -> Result<Self, DestinationError> {
        check_characters(text)?;
        let (url, noted) = parse_with_notes(text)?;
        // The scheme comes first: with a scheme it doesn't know, the parser takes `127.0.0.1` for a name.
        if !policy.allows_scheme(url.scheme()) {
            return Err(DestinationError::HttpsRequired);
        }
        if noted.slashes_differ {
            return Err(invalid("the scheme must be followed by exactly two slashes"));
        }
        if noted.has_user_info || !url.username().is_empty() || url.password().is_some() {
            return Err(DestinationError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(DestinationError::Fragment);
        }
        let destination = Self::of(text, url)?;
        check_port(destination.port(), policy)?;
        check_host(&destination.host(), &policy.addresses)?;
        Ok(destination)
    }

    fn of(text: &str, url: Url) -> Result<Self, DestinationError> {
        let text = if text.is_ascii() { text } else { url.as_str() };
        if text.len() > URL_LENGTH_MAX {
            return Err(DestinationError::TooLong);
        }
        Ok(Self {
            text: text.to_owned(),
            url,
        })
    }

    /// Reads a URL that was validated when it was registered. Today's policy may differ; what counts is the check made
    /// when a connection is made.
    pub fn from_stored(text: &str) -> Result<Self, DestinationError> {
        let (url, _) = parse_with_notes(text)?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(DestinationError::HttpsRequired);
        }
        if !url.has_host() {
            return Err(invalid("it has no host"));
        }
        Ok(Self {
            text: text.to_owned(),
            url,
        })
    }

    /// The URL as the customer wrote it, or in its ASCII form if that was not ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL as parsed.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The host as parsed.
    #[must_use]
    pub fn host(&self) -> Host<&str> {
        // An `http` or `https` URL always has a host; the empty name would resolve to nothing.
        self.url.host().unwrap_or(Host::Domain(""))
    }

    /// The port; the scheme's default if the URL names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        // Both schemes have a known port; 0 would be refused.
        self.url.port_or_known_default().unwrap_or(0)
    }
}

/// The schema of a destination in responses. `utoipa` attributes take no constant.
pub(super) fn url_schema() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::Custom("uri".to_owned())))
        .max_length(Some(URL_LENGTH_MAX))
        .into()
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Names that by definition never lead to a public host, together with all names below them, other than `localhost`:
/// multicast DNS (RFC 6762), ICANN's reservation for private use (2024), and home networks (RFC 8375).
const PRIVATE_NAMES: [&str; 3] = ["local", "internal", "home.arpa"];

/// Names of the loopback addresses, together with all names below them: `localhost` (RFC 6761, section 6.3), and the
/// names that distributions add in `/etc/hosts`, such as `localhost.localdomain`.
const LOOPBACK_NAMES: [&str; 6] = [
    "localhost",
    "localhost6",
    "localdomain",
    "localdomain6",
    "ip6-localhost",
    "ip6-loopback",
];

/// Limits on host names (RFC 1035, section 2.3.4), without the trailing dot.
const NAME_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

/// Syntax violations that the parser noticed and forgave.
#[derive(Clone, Copy, Default)]
struct Notes {
    slashes_differ: bool,
    has_user_info: bool,
}

impl Notes {
    fn with(mut self, violation: SyntaxViolation) -> Self {
        self.slashes_differ |= violation == SyntaxViolation::ExpectedDoubleSlash;
        self.has_user_info |= violation == SyntaxViolation::EmbeddedCredentials;
        self
    }
}

/// Refuses what the URL Standard would strip or rewrite: other programs that read the same text don't, and such
/// disagreement is how filters are bypassed. RFC 3986 allows none of it in a URL.
fn check_characters(text: &str) -> Result<(), DestinationError> {
    if text.chars().count() > URL_LENGTH_MAX {
        return Err(DestinationError::TooLong);
    }
    if text
        .chars()
        .any(|character| character.is_whitespace() || character.is_control())
    {
        return Err(invalid("it contains white space or a control character"));
    }
    if text.contains('\\') {
        return Err(invalid("it contains a backslash"));
    }
    Ok(())
}

/// Parses the URL and keeps the parser's notes that matter. The parsed URL alone doesn't distinguish `https:a` and
/// `https:///a` from `https://a`, nor the empty user name of `https://@a` from no user name.
fn parse_with_notes(text: &str) -> Result<(Url, Notes), DestinationError> {
    let notes = Cell::new(Notes::default());
    let note = |violation| notes.set(notes.get().with(violation));
    let url = Url::options().syntax_violation_callback(Some(&note)).parse(text);
    Ok((url.map_err(|error| invalid(error.to_string()))?, notes.get()))
}

fn check_port(port: u16, policy: &DestinationPolicy) -> Result<(), DestinationError> {
    if policy.allows_port(port) {
        Ok(())
    } else {
        Err(DestinationError::PortRefused(port))
    }
}

fn check_host(host: &Host<&str>, addresses: &AddressPolicy) -> Result<(), DestinationError> {
    let address = match *host {
        Host::Domain(name) => return check_name(name, addresses),
        Host::Ipv4(address) => IpAddr::V4(address),
        Host::Ipv6(address) => IpAddr::V6(address),
    };
    if addresses.allows(address) {
        Ok(())
    } else {
        Err(DestinationError::AddressRefused(address))
    }
}

/// Checks a host name, which the parser has lower-cased and converted to ASCII.
fn check_name(name: &str, addresses: &AddressPolicy) -> Result<(), DestinationError> {
    // A trailing dot only marks the name as complete; it names the same host.
    let complete = name.strip_suffix('.').unwrap_or(name);
    if complete.len() > NAME_LENGTH_MAX || !complete.split('.').all(is_label) {
        return Err(invalid("its host name has an empty, too long or malformed part"));
    }
    let is_loopback = LOOPBACK_NAMES.iter().any(|loopback| is_or_is_below(complete, loopback));
    let loopback_refused = is_loopback && !addresses.allows(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if loopback_refused || PRIVATE_NAMES.iter().any(|private| is_or_is_below(complete, private)) {
        return Err(DestinationError::NameRefused(complete.to_owned()));
    }
    Ok(())
}

/// Whether this can be a label of a host name: letters, digits, and hyphens except at either end (RFC 1123, section
/// 2.1). Underscores are accepted: they are not allowed in host names, but some receivers have them.
fn is_label(label: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LABEL_LENGTH_MAX).contains(&label.len())
        && label.bytes().all(is_inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether `name` is `parent`, or a name below it: `notlocalhost` is neither.
fn is_or_is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn invalid(reason: impl Into<String>) -> DestinationError {
    DestinationError::InvalidUrl(reason.into())
}

#[cfg(test)]
mod tests;
