//! What each policy decides about a URL.

use super::*;

fn strict() -> DestinationPolicy {
    DestinationPolicy::default()
}

/// The policy of an operator who allows the loopback addresses and one private network.
fn opened(allow_http: bool) -> DestinationPolicy {
    let networks = ["127.0.0.0/8", "::1/128", "10.0.0.0/8"].map(|text| text.parse().unwrap());
    DestinationPolicy {
        allow_http,
        addresses: AddressPolicy::new(networks.to_vec(), vec![]),
        allowed_ports: None,
    }
}

fn verdict(text: &str, policy: &DestinationPolicy) -> String {
    match Destination::parse(text, policy) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => word(error.code()),
    }
}

/// The code as it is on the wire.
fn word(code: FaultCode) -> String {
    serde_json::to_value(code).unwrap().as_str().unwrap().to_owned()
}

/// A row is a verdict followed by the URLs it is expected for, separated by spaces.
#[track_caller]
fn assert_verdicts(policy: &DestinationPolicy, row: &str) {
    let (expected, texts) = row.split_once(' ').unwrap();
    for text in texts.split_ascii_whitespace() {
        assert_eq!(verdict(text, policy), expected, "{text:?}");
    }
}

/// The default policy's verdicts, with their URLs.
const STRICT_VERDICTS: [&str; 8] = [
    // Ordinary URLs, and hosts that only look like refused ones.
    "accepted \
     https://example.com https://example.com/ https://your-service.example.com/webhooks/kallima \
     https://example.com:8443/hook?token=a%20b&user=a@b.example HTTPS://EXAMPLE.com./Hook \
     https://bücher.example/straße https://xn--bcher-kva.example/ https://8.8.8.8/hook \
     https://[2606:4700:4700::1111]:444/ https://[::ffff:8.8.8.8]/ https://hooks_internal.example.com/ \
     https://notlocalhost/ https://localhost.example.com/ https://mylocal/ https://home.arpa.example/ \
     https://127.0.0.1.example.com/ https://localdomain.example.com/ https://notlocaldomain/ https://a--b.example/ \
     https://_dmarc.example.com/ https://xn--80ak6aa92e.example/ https://例え.テスト/",
    // Other schemes, before anything else is checked.
    "https_required \
     http://example.com/ http://127.0.0.1/ http://user:pass@example.com/#part ftp://example.com/ \
     file:///etc/passwd gopher://127.0.0.1/ gopher://127.0.0.1:6379/_FLUSHALL ws://example.com/ \
     wss://example.com/ data:text/plain,hello javascript:alert(1) httpss://example.com/ localhost:8080/hook \
     blob:https://example.com/1 view-source:https://example.com/",
    // Refused IPv4 addresses, in every spelling that the parser accepts.
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
    // Refused IPv6 addresses, including IPv4 inside IPv6.
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
     https://router.home.arpa/ https://home.arpa./ https://localhost.localdomain/ https://LOCALHOST.localdomain./ \
     https://localdomain/ https://localhost6/ https://localhost6.localdomain6/ https://ip6-localhost/ \
     https://ip6-loopback/ https://ｌｏｃａｌｈｏｓｔ．ｌｏｃａｌｄｏｍａｉｎ/",
    // User info, even when it is empty.
    "user_info \
     https://user:pass@example.com/ https://user@example.com/ https://:pass@example.com/ \
     https://@example.com/ https://:@example.com/ https://example.com@127.0.0.1/ \
     https://example.com:443@127.0.0.1/ https://127.0.0.1@example.com/ https://a@b@example.com/ \
     https://example.com%2f@127.0.0.1/",
    // A fragment, even when it is empty.
    "fragment \
     https://example.com/#part https://example.com/# https://example.com#@127.0.0.1/ https://127.0.0.1/#part",
    // Not a URL, or one that programs read in different ways.
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
     https://foo..example.com/ https://-/ https://-./ https://-.example.com/ https://-a.example.com/ \
     https://a-.example.com/ https://example.com-/ https://a.-.example.com/ https://ex!ample.com/ https://a*b.example/ \
     https://a'b.example/ https://a,b.example/ https://a=b.example/ https://a~b.example/ https://a(b).example/ \
     https://xn--/ https://xn--a.example/ https://xn--zzzzzzzzzzzz.example/",
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
fn the_length_is_counted_in_the_ascii_form() {
    let of_length = |length: usize| format!("https://example.com/{}", "x".repeat(length - 20));
    assert_eq!(verdict(&of_length(URL_LENGTH_MAX), &strict()), "accepted");
    assert_eq!(verdict(&of_length(URL_LENGTH_MAX + 1), &strict()), "too_long");
    // Each of these is six characters in the ASCII form.
    let encoded = |count: usize| format!("https://example.com/{}", "é".repeat(count));
    assert_eq!(verdict(&encoded((URL_LENGTH_MAX - 20) / 6), &strict()), "accepted");
    assert_eq!(verdict(&encoded((URL_LENGTH_MAX - 20) / 6 + 1), &strict()), "too_long");
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
        "accepted http://localhost.localdomain/",
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
    let text = "HTTPS://Example.com/a/../b?q";
    let destination = Destination::parse(text, &strict()).unwrap();
    assert_eq!(destination.as_str(), text);
    assert_eq!(destination.to_string(), text);
    assert_eq!(destination.url().as_str(), "https://example.com/b?q");
    assert_eq!(destination.host(), Host::Domain("example.com"));
    assert_eq!(destination.port(), 443);
    assert_eq!(Destination::from_stored(text), Ok(destination));
}

#[test]
fn an_internationalized_url_is_kept_in_its_ascii_form() {
    for (text, ascii) in [
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example/"),
        ("https://bücher。example/", "https://xn--bcher-kva.example/"),
        ("https://faß.example/", "https://xn--fa-hia.example/"),
        (
            "https://bücher.example/a/../Straße?q=ü",
            "https://xn--bcher-kva.example/Stra%C3%9Fe?q=%C3%BC",
        ),
        ("https://example.com/é", "https://example.com/%C3%A9"),
    ] {
        let destination = Destination::parse(text, &strict()).unwrap();
        assert_eq!(destination.as_str(), ascii, "{text}");
        assert_eq!(destination.url().as_str(), ascii, "{text}");
        assert_eq!(Destination::from_stored(ascii), Ok(destination), "{text}");
    }
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
        assert_eq!(word(Destination::from_stored(text).unwrap_err().code()), code, "{text}");
    }
}

#[test]
fn messages_are_clear() {
    for case in [
        "http://example.com/ must begin with https://",
        "https://a:b@example.com/ must not carry a user name or password",
        "https://example.com/#a must not have a fragment",
        "https://example.com:0/ uses port 0, which this service does not deliver to",
        "https://127.1/ points to an address that this service does not deliver to (127.0.0.1)",
        "https://[::1]/ points to an address that this service does not deliver to (::1)",
        "https://LOCALHOST./ points to a name that is not publicly resolvable (localhost)",
        "https:// is not a valid URL: empty host",
        "https://a\tb/ is not a valid URL: it contains white space or a control character",
    ] {
        let (text, message) = case.split_once(' ').unwrap();
        assert_eq!(Destination::parse(text, &strict()).unwrap_err().to_string(), message);
    }
    assert_eq!(
        DestinationError::TooLong.to_string(),
        "is longer than 2048 characters in its ASCII form"
    );
}
