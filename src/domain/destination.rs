//! Which URLs deliveries may go to, as far as the URL itself tells.
//!
//! This is the first of two checks (server-side request forgery). The second is made on the addresses
//! that a name resolves to, when a connection is made, since a name may change its mind in between.
//! URLs are read by the WHATWG URL Standard, and hosts are compared as parsed, never as text: what the
//! parser makes of `0x7f.1` or `①②⑦.⓪.⓪.①` is what the connection would go to.

use std::{
    cell::Cell,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use url::{Host, SyntaxViolation, Url};

use crate::domain::address::AddressPolicy;

/// How many characters a URL may have.
pub const URL_LENGTH_MAX: usize = 2048;

/// The operator's word on which URLs may be registered. The default is the strictest: `https` to public
/// addresses, at any port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationPolicy {
    /// Whether `http` is allowed besides `https`.
    pub allow_http: bool,
    /// Which addresses are allowed.
    pub addresses: AddressPolicy,
    /// The only ports that are allowed; `None` for any. Port 0 never is.
    pub allowed_ports: Option<Vec<u16>>,
}

/// A URL that deliveries may go to.
///
/// It is written (`Display`, [`Destination::as_str`]) as the customer wrote it, since clients compare
/// it with what they sent, and used ([`Destination::url`]) as it was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    text: String,
    url: Url,
}

/// Why a URL is not a destination. The messages go on after "url", as in "url must use https".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// The text has more than [`URL_LENGTH_MAX`] characters.
    #[error("is longer than {URL_LENGTH_MAX} characters")]
    TooLong,
    /// The text is no URL, or one that parsers disagree about.
    #[error("is not a valid URL: {0}")]
    InvalidUrl(String),
    /// The scheme is not `https` (nor `http`, where the operator allows it).
    #[error("must use https")]
    HttpsRequired,
    /// There is a user name, a password, or the `@` behind which they would end.
    #[error("must not carry a user name or password")]
    UserInfo,
    /// There is a `#`, even with nothing behind it.
    #[error("must not have a fragment")]
    Fragment,
    /// Port 0, or a port that isn't on the operator's list.
    #[error("uses port {0}, which this service does not deliver to")]
    PortRefused(u16),
    /// The host is an address that is not allowed.
    #[error("points to an address that is not publicly routable ({0})")]
    AddressRefused(IpAddr),
    /// The host is a name that never leads to a public address.
    #[error("points to a name that is not publicly resolvable ({0})")]
    NameRefused(String),
}

impl DestinationError {
    /// The error in one word for programs. Refused names and refused addresses share theirs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::InvalidUrl(_) => "invalid_url",
            Self::HttpsRequired => "https_required",
            Self::UserInfo => "user_info",
            Self::Fragment => "fragment",
            Self::PortRefused(_) => "port_refused",
            Self::AddressRefused(_) | Self::NameRefused(_) => "address_refused",
        }
    }
}

impl Destination {
    /// Judges a URL that a customer wants deliveries to go to.
    pub fn parse(text: &str, policy: &DestinationPolicy) -> Result<Self, DestinationError> {
        check_characters(text)?;
        let (url, noted) = parse_with_notes(text)?;
        // The scheme comes first: of a scheme it doesn't know, the parser takes `127.0.0.1` for a name.
        if !(url.scheme() == "https" || policy.allow_http && url.scheme() == "http") {
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
        let destination = Self {
            text: text.to_owned(),
            url,
        };
        check_port(destination.port(), policy)?;
        check_host(&destination.host(), &policy.addresses)?;
        Ok(destination)
    }

    /// Reads back a URL that was judged when it came in. Today's policy may be another one; what
    /// counts then is the check that is made when a connection is made.
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

    /// The URL as the customer wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL as it is used.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The host, as it was parsed.
    #[must_use]
    pub fn host(&self) -> Host<&str> {
        // An `http` or `https` URL always has a host; the empty name would resolve to nothing.
        self.url.host().unwrap_or(Host::Domain(""))
    }

    /// The port, that of the scheme where the URL names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        // Both schemes have a known port; 0 would be refused.
        self.url.port_or_known_default().unwrap_or(0)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Names that by definition never lead to a public host, with everything below them, besides `localhost`:
/// multicast DNS (RFC 6762), ICANN's reservation for private use (2024), and home networks (RFC 8375).
const PRIVATE_NAMES: [&str; 3] = ["local", "internal", "home.arpa"];

/// The name of the loopback addresses, with everything below it (RFC 6761, section 6.3).
const LOOPBACK_NAME: &str = "localhost";

/// Limits on host names (RFC 1035, section 2.3.4), without the dot at the end.
const NAME_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

/// What the parser noticed and forgave.
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

/// Refuses what the URL Standard would strip or rewrite: other programs that read the same text don't,
/// and such disagreement is what bypasses are made of. RFC 3986 allows none of it in a URL.
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

/// Parses, and keeps of the parser's notes those that matter. The parsed URL doesn't tell `https:a` and
/// `https:///a` from `https://a`, nor the empty user name of `https://@a` from none.
fn parse_with_notes(text: &str) -> Result<(Url, Notes), DestinationError> {
    let notes = Cell::new(Notes::default());
    let note = |violation| notes.set(notes.get().with(violation));
    let url = Url::options().syntax_violation_callback(Some(&note)).parse(text);
    Ok((url.map_err(|error| invalid(error.to_string()))?, notes.get()))
}

fn check_port(port: u16, policy: &DestinationPolicy) -> Result<(), DestinationError> {
    let listed = policy.allowed_ports.as_ref().is_none_or(|ports| ports.contains(&port));
    if port != 0 && listed {
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

/// Judges a host name, which the parser has brought to lower case and to its ASCII form.
fn check_name(name: &str, addresses: &AddressPolicy) -> Result<(), DestinationError> {
    // One dot at the end only says that the name is complete; it names the same host.
    let complete = name.strip_suffix('.').unwrap_or(name);
    let well_formed = complete.len() <= NAME_LENGTH_MAX
        && complete
            .split('.')
            .all(|label| (1..=LABEL_LENGTH_MAX).contains(&label.len()));
    if !well_formed {
        return Err(invalid("its host name has an empty or too long part"));
    }
    let loopback_refused =
        is_or_is_below(complete, LOOPBACK_NAME) && !addresses.allows(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if loopback_refused || PRIVATE_NAMES.iter().any(|private| is_or_is_below(complete, private)) {
        return Err(DestinationError::NameRefused(complete.to_owned()));
    }
    Ok(())
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
mod tests {
    use super::*;

    fn strict() -> DestinationPolicy {
        DestinationPolicy::default()
    }

    /// An operator who allows the loopback addresses and one private network.
    fn opened(allow_http: bool) -> DestinationPolicy {
        let networks = ["127.0.0.0/8", "::1/128", "10.0.0.0/8"].map(|text| text.parse().unwrap());
        DestinationPolicy {
            allow_http,
            addresses: AddressPolicy::new(networks.to_vec(), vec![]),
            allowed_ports: None,
        }
    }

    fn verdict(text: &str, policy: &DestinationPolicy) -> &'static str {
        Destination::parse(text, policy).map_or_else(|error| error.code(), |_| "accepted")
    }

    /// A row is a verdict and the URLs that it is expected for, separated by spaces.
    #[track_caller]
    fn assert_verdicts(policy: &DestinationPolicy, row: &str) {
        let (expected, texts) = row.split_once(' ').unwrap();
        for text in texts.split_ascii_whitespace() {
            assert_eq!(verdict(text, policy), expected, "{text:?}");
        }
    }

    /// What the default policy says, and to which URLs.
    const STRICT_VERDICTS: [&str; 8] = [
        // Ordinary URLs, and hosts that only look like refused ones.
        "accepted \
         https://example.com https://example.com/ https://your-service.example.com/webhooks/kallima \
         https://example.com:8443/hook?token=a%20b&user=a@b.example HTTPS://EXAMPLE.com./Hook \
         https://bücher.example/straße https://xn--bcher-kva.example/ https://8.8.8.8/hook \
         https://[2606:4700:4700::1111]:444/ https://[::ffff:8.8.8.8]/ https://hooks_internal.example.com/ \
         https://notlocalhost/ https://localhost.example.com/ https://mylocal/ https://home.arpa.example/ \
         https://127.0.0.1.example.com/",
        // Other schemes, before anything else is judged.
        "https_required \
         http://example.com/ http://127.0.0.1/ http://user:pass@example.com/#part ftp://example.com/ \
         file:///etc/passwd gopher://127.0.0.1/ gopher://127.0.0.1:6379/_FLUSHALL ws://example.com/ \
         wss://example.com/ data:text/plain,hello javascript:alert(1) httpss://example.com/ localhost:8080/hook \
         blob:https://example.com/1 view-source:https://example.com/",
        // Refused IPv4 addresses, in every spelling that the parser takes for one.
        "address_refused \
         https://127.0.0.1/ https://127.0.0.1./ https://127.1/ https://127.0.1/ https://127.255.255.254/ \
         https://2130706433/ https://017700000001/ https://0x7f000001/ https://0x7F.1/ https://0177.0.0.1/ \
         https://0177.0.0.01/ https://0x7f.0x0.0x0.0x1/ https://0x7f.0.0.01/ https://0/ https://0.0.0.0/ \
         https://00000000/ https://0x/ https://①②⑦.⓪.⓪.①/ https://１２７.０.０.１/ https://127。0。0。1/ \
         https://127\u{ff0e}0\u{ff0e}0\u{ff0e}1/ https://127.0.0.1\u{200b}/ https://127\u{ad}.0.0.1/ \
         https://%31%32%37.0.0.1/ https://127%2e0%2e0%2e1/ https://127.0.0.1:443/ https://127.0.0.1:8443/ \
         https://10.0.0.1/ https://172.16.0.1/ https://192.168.0.1/ https://3232235521/ https://100.64.0.1/ \
         https://100.100.100.200/ https://168.63.129.16/metadata https://169.254.169.254/latest/meta-data/ \
         https://2852039166/latest/meta-data/ https://0xa9fea9fe/ https://169.254.43518/ https://169.16689662/ \
         https://0251.0376.0251.0376/ https://192.0.0.192/ https://224.0.0.1/ https://255.255.255.255/ \
         https://4294967295/",
        // Refused IPv6 addresses, IPv4 inside IPv6 among them.
        "address_refused \
         https://[::]/ https://[::1]/ https://[0:0:0:0:0:0:0:1]/ \
         https://[0000:0000:0000:0000:0000:0000:0000:0001]/ https://[::1]:8443/ https://[::ffff:127.0.0.1]/ \
         https://[::ffff:7f00:1]/ https://[::FFFF:7F00:1]/ https://[0:0:0:0:0:ffff:127.0.0.1]/ \
         https://[::ffff:169.254.169.254]/ https://[::ffff:a9fe:a9fe]/ https://[::ffff:0:127.0.0.1]/ \
         https://[::127.0.0.1]/ https://[64:ff9b::7f00:1]/ https://[64:ff9b::169.254.169.254]/ \
         https://[64:ff9b::8.8.8.8]/ https://[64:ff9b:1::7f00:1]/ https://[2002:7f00:1::]/ \
         https://[2002:a9fe:a9fe::1]/ https://[2001:0:7f00:1::]/ https://[2001:db8::1]/ https://[fd00:ec2::254]/ \
         https://[fc00::1]/ https://[fe80::1]/ https://[fec0::1]/ https://[ff02::1]/ https://[100::1]/ \
         https://[5f00::1]/",
        // Private names.
        "address_refused \
         https://localhost/ https://localhost./ https://LOCALHOST./ https://LocalHost:8443/ \
         https://foo.localhost/ https://foo.bar.LOCALHOST./ https://%6cocalhost/ https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/ \
         https://local\u{ad}host/ https://printer.local/ https://local/ https://metadata.google.internal/ \
         https://metadata.google.internal./ https://METADATA.GOOGLE.INTERNAL/ https://metadata。google。internal/ \
         https://router.home.arpa/ https://home.arpa./",
        // User info, even when it is empty.
        "user_info \
         https://user:pass@example.com/ https://user@example.com/ https://:pass@example.com/ \
         https://@example.com/ https://:@example.com/ https://example.com@127.0.0.1/ \
         https://example.com:443@127.0.0.1/ https://127.0.0.1@example.com/ https://a@b@example.com/ \
         https://example.com%2f@127.0.0.1/",
        // A fragment, even when it is empty.
        "fragment \
         https://example.com/#part https://example.com/# https://example.com#@127.0.0.1/ https://127.0.0.1/#part",
        // No URL at all, or one that programs read in different ways.
        "invalid_url \
         https https: https:// https:/// https://:443/ https://?query https://. https://.. //example.com/ /hook \
         example.com https:example.com https:/example.com https:///example.com https:127.0.0.1 \
         https:\\\\127.0.0.1\\ https://example.com\\@127.0.0.1/ https://example.com/\\ https://example.com/\0 \
         https://example.com/\u{7f} https://example.com/\u{85} https://example.com/\u{a0} \
         https://example.com/\u{2028} https://exa%20mple.com/ https://exa%00mple.com/ \
         https://example.com%2f.evil.example/ https://localhost%23.example.com/ https://[fe80::1%25eth0]/ \
         https://[fe80::1%eth0]/ https://[::1/ https://[127.0.0.1]/ https://::1/ https://256.0.0.1/ \
         https://127.0.0.1.1/ https://0x100000000/ https://08.0.0.1/ https://foo.127/ https://example.com:65536/ \
         https://example.com:-1/ https://example.com:https/ https://localhost../ https://.localhost/ \
         https://foo..example.com/",
    ];

    #[test]
    fn the_default_policy_accepts_public_https_urls_and_nothing_else() {
        for row in STRICT_VERDICTS {
            assert_verdicts(&strict(), row);
        }
    }

    #[test]
    fn white_space_is_refused_instead_of_stripped() {
        for text in [
            "",
            "https://exa mple.com/",
            " https://example.com/",
            "https://example.com/ ",
            "https://example.com/a b",
            "https://example.com/\n",
            "ht\ntps://127.0.0.1/",
            "https://127.0\t.0.1/",
            "https://local\rhost/",
        ] {
            assert_eq!(verdict(text, &strict()), "invalid_url", "{text:?}");
        }
    }

    #[test]
    fn names_and_their_parts_have_a_length() {
        let (label, name) = ("a".repeat(LABEL_LENGTH_MAX), "a.".repeat(122));
        for (host, expected) in [
            (format!("{label}.example"), "accepted"),
            (format!("a{label}.example"), "invalid_url"),
            (format!("{name}bcdefghij."), "accepted"),
            (format!("{name}bcdefghijk."), "invalid_url"),
        ] {
            assert_eq!(verdict(&format!("https://{host}/"), &strict()), expected, "{host}");
        }
    }

    #[test]
    fn the_length_is_counted_in_characters() {
        let of_length = |length: usize| format!("https://example.com/{}", "é".repeat(length - 20));
        assert_eq!(verdict(&of_length(URL_LENGTH_MAX), &strict()), "accepted");
        assert_eq!(verdict(&of_length(URL_LENGTH_MAX + 1), &strict()), "too_long");
    }

    #[test]
    fn ports_are_any_but_zero_or_the_operators() {
        assert_verdicts(&strict(), "port_refused https://example.com:0/ https://a.example:000/");
        assert_verdicts(&strict(), "accepted https://example.com:1/ https://example.com:65535/");
        let listed = DestinationPolicy {
            allowed_ports: Some(vec![443, 8443, 0]),
            ..strict()
        };
        assert_verdicts(&listed, "accepted https://example.com/ https://example.com:8443/");
        assert_verdicts(&listed, "port_refused https://example.com:22/ https://example.com:0/");
    }

    #[test]
    fn an_operator_can_open_http_and_loopback() {
        for row in [
            "accepted http://localhost:3000/hook http://app.localhost/ http://127.0.0.1:8080/ http://example.com/",
            "accepted https://[::1]/ https://[::ffff:10.0.0.1]/",
            "address_refused http://192.168.0.1/ http://a.internal/ http://[fd00::1]/",
            "https_required ftp://localhost/",
            "user_info http://a@localhost/",
        ] {
            assert_verdicts(&opened(true), row);
        }
        assert_verdicts(&opened(false), "https_required http://localhost/");
        let http_only = DestinationPolicy {
            allow_http: true,
            ..strict()
        };
        assert_verdicts(&http_only, "address_refused http://localhost/ http://127.1/");
    }

    #[test]
    fn the_customers_text_is_kept_and_the_parsed_url_is_used() {
        let text = "HTTPS://Bücher.example/a/../Straße?q";
        let destination = Destination::parse(text, &strict()).unwrap();
        assert_eq!(destination.as_str(), text);
        assert_eq!(destination.to_string(), text);
        assert_eq!(
            destination.url().as_str(),
            "https://xn--bcher-kva.example/Stra%C3%9Fe?q"
        );
        assert_eq!(destination.host(), Host::Domain("xn--bcher-kva.example"));
        assert_eq!(destination.port(), 443);
        assert_eq!(Destination::from_stored(text), Ok(destination));
    }

    #[test]
    fn stored_urls_are_read_back_whatever_the_policy_says_now() {
        let destination = Destination::from_stored("http://127.0.0.1:8080/hook").unwrap();
        assert_eq!(
            (destination.host(), destination.port()),
            (Host::Ipv4(Ipv4Addr::LOCALHOST), 8080)
        );
        assert_eq!(Destination::from_stored("http://localhost").unwrap().port(), 80);
        for (text, code) in [
            ("file:///etc/passwd", "https_required"),
            ("https://", "invalid_url"),
            ("", "invalid_url"),
        ] {
            assert_eq!(Destination::from_stored(text).unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn messages_are_clear() {
        for case in [
            "http://example.com/ must use https",
            "https://a:b@example.com/ must not carry a user name or password",
            "https://example.com/#a must not have a fragment",
            "https://example.com:0/ uses port 0, which this service does not deliver to",
            "https://127.1/ points to an address that is not publicly routable (127.0.0.1)",
            "https://[::1]/ points to an address that is not publicly routable (::1)",
            "https://LOCALHOST./ points to a name that is not publicly resolvable (localhost)",
            "https:// is not a valid URL: empty host",
            "https://a\tb/ is not a valid URL: it contains white space or a control character",
        ] {
            let (text, message) = case.split_once(' ').unwrap();
            assert_eq!(Destination::parse(text, &strict()).unwrap_err().to_string(), message);
        }
        assert_eq!(DestinationError::TooLong.to_string(), "is longer than 2048 characters");
    }
}
