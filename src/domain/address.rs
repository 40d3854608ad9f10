//! Which addresses deliveries may go to.
//!
//! A customer's URL is hostile until shown otherwise (server-side request forgery), so only globally routable unicast
//! addresses are allowed; anything else needs an operator who allows its network explicitly. The tables follow the IANA
//! special-purpose registries (RFC 6890 and its updates) and are sometimes stricter: ranges where no ordinary receiver
//! lives are refused even if they are reachable.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The operator's policy on which addresses deliveries may go to, beyond the public ones.
///
/// The default allows public addresses and nothing else.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allowed_networks: Vec<IpNet>,
    denied_networks: Vec<IpNet>,
    own_addresses: Vec<IpAddr>,
    is_own: Option<fn(IpAddr) -> bool>,
}

impl AddressPolicy {
    /// A policy that allows public addresses and `allowed_networks`, and refuses `own_addresses` (this node's) unless
    /// an allowed network contains them.
    ///
    /// IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2) is treated as the IPv4 address inside, in networks and addresses
    /// alike.
    #[must_use]
    pub fn new(allowed_networks: Vec<IpNet>, own_addresses: Vec<IpAddr>) -> Self {
        Self {
            allowed_networks: allowed_networks.into_iter().map(canonical_network).collect(),
            own_addresses: own_addresses
                .into_iter()
                .map(|address| address.to_canonical())
                .collect(),
            ..Self::default()
        }
    }

    /// The same policy, but refusing `denied_networks` even where they are public or part of an allowed network.
    #[must_use]
    pub fn denying(self, denied_networks: Vec<IpNet>) -> Self {
        Self {
            denied_networks: denied_networks.into_iter().map(canonical_network).collect(),
            ..self
        }
    }

    /// The same policy, but also refusing addresses that `is_own` recognizes as this node's, unless an allowed network
    /// contains them. It is a function because a machine's addresses change while it runs.
    #[must_use]
    pub fn refusing_own(self, is_own: fn(IpAddr) -> bool) -> Self {
        Self {
            is_own: Some(is_own),
            ..self
        }
    }

    /// Whether a delivery may go to `address`.
    ///
    /// A denied network refuses what it contains, and an allowed network allows what it contains. The exception is an
    /// address that carries an IPv4 address to a translator (NAT64's well-known prefix, 6to4): there the IPv4 address
    /// inside must be allowed as well, since allowing the route to the translator says nothing about what lies behind
    /// it (RFC 6052, section 3.1, forbids non-global IPv4 in the well-known prefix anyway).
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let contained = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        if contained(&self.denied_networks) {
            return false;
        }
        if contained(&self.allowed_networks) {
            return translated_ipv4(address).is_none_or(|inside| self.allows(IpAddr::V4(inside)));
        }
        is_public(address)
            && !self.own_addresses.contains(&address)
            && self.is_own.is_none_or(|is_own| !is_own(address))
    }
}

/// Refused IPv4 ranges: the IANA IPv4 Special-Purpose Address Registry, multicast, and one address of a cloud provider.
const IPV4_REFUSED: [Ipv4Net; 19] = [
    ipv4(0, 0, 0, 0, 8),        // "this network" (RFC 791, section 3.2)
    ipv4(10, 0, 0, 0, 8),       // private use (RFC 1918)
    ipv4(100, 64, 0, 0, 10),    // shared address space behind carriers' NAT (RFC 6598)
    ipv4(127, 0, 0, 0, 8),      // loopback (RFC 1122, section 3.2.1.3)
    ipv4(168, 63, 129, 16, 32), // Azure's platform address: public by number, the host's own by routing
    ipv4(169, 254, 0, 0, 16),   // link-local (RFC 3927), where clouds serve their metadata
    ipv4(172, 16, 0, 0, 12),    // private use (RFC 1918)
    ipv4(192, 0, 0, 0, 24),     // IETF protocol assignments (RFC 6890)
    ipv4(192, 0, 2, 0, 24),     // documentation, TEST-NET-1 (RFC 5737)
    ipv4(192, 31, 196, 0, 24),  // AS112 sink of reverse look-ups (RFC 7535)
    ipv4(192, 52, 193, 0, 24),  // automatic multicast tunneling (RFC 7450)
    ipv4(192, 88, 99, 0, 24),   // 6to4 relays, deprecated (RFC 7526)
    ipv4(192, 168, 0, 0, 16),   // private use (RFC 1918)
    ipv4(192, 175, 48, 0, 24),  // AS112 direct delegation (RFC 7534)
    ipv4(198, 18, 0, 0, 15),    // benchmarking (RFC 2544)
    ipv4(198, 51, 100, 0, 24),  // documentation, TEST-NET-2 (RFC 5737)
    ipv4(203, 0, 113, 0, 24),   // documentation, TEST-NET-3 (RFC 5737)
    ipv4(224, 0, 0, 0, 4),      // multicast (RFC 5771)
    ipv4(240, 0, 0, 0, 4),      // reserved (RFC 1112, section 4) and the limited broadcast (RFC 919)
];

/// The only IPv6 range that IANA hands out as global unicast (RFC 4291, section 2.4, and IANA's IPv6 address space
/// registry). Everything outside it is refused without a list that could be incomplete: loopback, IPv4-compatible,
/// NAT64, discard-only, segment routing, unique local, link-local, site-local, multicast.
const IPV6_GLOBAL_UNICAST: Ipv6Net = ipv6([0x2000, 0], 3);

/// Refused parts of the global unicast range: the IANA IPv6 Special-Purpose Address Registry.
const IPV6_REFUSED: [Ipv6Net; 4] = [
    ipv6([0x2001, 0], 23),     // IETF protocol assignments (RFC 2928), Teredo (RFC 4380) among them
    ipv6([0x2001, 0xdb8], 32), // documentation (RFC 3849)
    IPV6_6TO4,
    ipv6([0x3fff, 0], 20), // documentation (RFC 9637)
];

/// 6to4 (RFC 3056): a relay's IPv4 address follows the first 16 bits.
const IPV6_6TO4: Ipv6Net = ipv6([0x2002, 0], 16);

/// NAT64's well-known prefix (RFC 6052, section 2.1): the IPv4 address is the last 32 bits.
const IPV6_NAT64: Ipv6Net = ipv6([0x64, 0xff9b], 96);

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !IPV4_REFUSED.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            IPV6_GLOBAL_UNICAST.contains(&address) && !IPV6_REFUSED.iter().any(|network| network.contains(&address))
        }
    }
}

/// The IPv4 address that a translator on the route would send to, if `address` carries one.
///
/// NAT64's local-use prefix (`64:ff9b:1::/48`, RFC 8215) isn't here: where it holds the IPv4 address is up to the
/// operator.
fn translated_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let octets = address.octets();
    if IPV6_NAT64.contains(&address) {
        return Some(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]));
    }
    IPV6_6TO4
        .contains(&address)
        .then(|| Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5]))
}

/// Turns a network of IPv4-mapped addresses into the IPv4 network, since addresses are compared in that form.
fn canonical_network(network: IpNet) -> IpNet {
    const MAPPED_PREFIX_BITS: u8 = 96;
    let IpNet::V6(mapped) = network else { return network };
    let inside = mapped
        .network()
        .to_ipv4_mapped()
        .zip(mapped.prefix_len().checked_sub(MAPPED_PREFIX_BITS));
    inside
        .and_then(|(address, bits)| Ipv4Net::new(address, bits).ok())
        .map_or(network, IpNet::V4)
}

const fn ipv4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn ipv6(start: [u16; 2], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(start[0], start[1], 0, 0, 0, 0, 0, 0), bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn networks(list: &[&str]) -> AddressPolicy {
        AddressPolicy::new(list.iter().map(|text| text.parse().unwrap()).collect(), vec![])
    }

    #[track_caller]
    fn assert_allows(policy: &AddressPolicy, text: &str, allowed: bool) {
        assert_eq!(policy.allows(address(text)), allowed, "{text}");
    }

    /// For each refused range: the public address before it, its first, its last, the public address after it.
    const IPV4_EDGES: [(&str, &str, &str, &str); 17] = [
        ("", "0.0.0.0", "0.255.255.255", "1.0.0.0"),
        ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
        ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
        ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
        ("168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"),
        ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
        ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
        ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
        ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
        ("192.31.195.255", "192.31.196.0", "192.31.196.255", "192.31.197.0"),
        ("192.52.192.255", "192.52.193.0", "192.52.193.255", "192.52.194.0"),
        ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
        ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
        ("192.175.47.255", "192.175.48.0", "192.175.48.255", "192.175.49.0"),
        ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
        ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
        ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
    ];

    #[test]
    fn ipv4_ranges_are_refused_to_their_edges_and_no_further() {
        let policy = AddressPolicy::default();
        for (before, first, last, after) in IPV4_EDGES {
            for refused in [first, last] {
                assert_allows(&policy, refused, false);
                assert_allows(&policy, &format!("::ffff:{refused}"), false);
            }
            for allowed in [before, after].into_iter().filter(|text| !text.is_empty()) {
                assert_allows(&policy, allowed, true);
                assert_allows(&policy, &format!("::ffff:{allowed}"), true);
            }
        }
    }

    #[test]
    fn ipv4_multicast_and_everything_above_is_refused() {
        let policy = AddressPolicy::default();
        assert_allows(&policy, "223.255.255.255", true);
        for refused in [
            "224.0.0.0",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.254",
            "255.255.255.255",
        ] {
            assert_allows(&policy, refused, false);
        }
    }

    #[test]
    fn ipv6_ranges_are_refused_to_their_edges_and_no_further() {
        const LOW: &str = "ffff:ffff:ffff:ffff:ffff:ffff";
        let policy = AddressPolicy::default();
        for (before, first, last, after) in [
            ("2000:ffff", "2001:0", "2001:1ff", "2001:200"),
            ("2001:db7", "2001:db8", "2001:db8", "2001:db9"),
            ("2001:ffff", "2002:0", "2002:ffff", "2003:0"),
            ("3ffe:ffff", "3fff:0", "3fff:fff", "3fff:1000"),
        ] {
            assert_allows(&policy, &format!("{before}:{LOW}"), true);
            assert_allows(&policy, &format!("{first}::"), false);
            assert_allows(&policy, &format!("{last}:{LOW}"), false);
            assert_allows(&policy, &format!("{after}::"), true);
        }
        for (text, allowed) in [
            ("1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("2000::", true),
            ("2606:4700:4700::1111", true),
            ("2a00:1450:4001:81b::200e", true),
            ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("4000::", false),
        ] {
            assert_allows(&policy, text, allowed);
        }
    }

    #[test]
    fn ipv6_outside_the_global_unicast_space_is_refused() {
        let policy = AddressPolicy::default();
        for (first, last) in [
            ("::", "::1"),
            ("::2", "::ffff:ffff"),
            ("::127.0.0.1", "::8.8.8.8"),
            ("::ffff:0:7f00:1", "::ffff:0:808:808"),
            ("64:ff9b::", "64:ff9b::ffff:ffff"),
            ("64:ff9b::7f00:1", "64:ff9b::808:808"),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
            ("100::", "100::ffff:ffff:ffff:ffff"),
            ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fd00:ec2::254", "fd20:ce::254"),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_allows(&policy, first, false);
            assert_allows(&policy, last, false);
        }
    }

    #[test]
    fn transition_addresses_are_refused_whatever_is_inside() {
        let policy = AddressPolicy::default();
        for refused in [
            "2002:7f00:1::",
            "2002:808:808::",
            "2001:0:7f00:1::",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        ] {
            assert_allows(&policy, refused, false);
        }
    }

    #[test]
    fn an_operators_network_allows_what_it_contains() {
        let policy = networks(&["10.1.0.0/16", "fd00:1::/32", "168.63.129.16/32", "64:ff9b:1::/48"]);
        for (text, allowed) in [
            ("10.0.255.255", false),
            ("10.1.0.0", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("::ffff:10.1.2.3", true),
            ("::ffff:10.2.2.3", false),
            ("fd00:1::5", true),
            ("fd00:2::5", false),
            ("168.63.129.16", true),
            ("64:ff9b:1::a00:1", true),
            ("127.0.0.1", false),
            ("8.8.8.8", true),
        ] {
            assert_allows(&policy, text, allowed);
        }
    }

    #[test]
    fn a_network_written_as_ipv4_mapped_is_the_ipv4_network() {
        let policy = networks(&["::ffff:10.0.0.0/104"]);
        assert_allows(&policy, "10.255.255.255", true);
        assert_allows(&policy, "::ffff:10.0.0.1", true);
        assert_allows(&policy, "11.0.0.0", true);
        assert_allows(&policy, "127.0.0.1", false);
    }

    #[test]
    fn all_of_ipv6_does_not_bring_ipv4_with_it() {
        let policy = networks(&["::/0"]);
        for (text, allowed) in [
            ("::1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::808:808", true),
        ] {
            assert_allows(&policy, text, allowed);
        }
    }

    #[test]
    fn behind_an_allowed_translator_the_ipv4_inside_is_checked() {
        let public_only = networks(&["64:ff9b::/96", "2002::/16"]);
        let private_too = networks(&["64:ff9b::/96", "2002::/16", "10.0.0.0/8"]);
        for (text, by_public_only, by_private_too) in [
            ("64:ff9b::808:808", true, true),
            ("64:ff9b::a00:1", false, true),
            ("64:ff9b::7f00:1", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("2002:808:808::1", true, true),
            ("2002:a00:1::1", false, true),
            ("2002:7f00:1::1", false, false),
            ("64:ff9b:0:0:0:1:808:808", false, false),
        ] {
            assert_allows(&public_only, text, by_public_only);
            assert_allows(&private_too, text, by_private_too);
        }
    }

    #[test]
    fn own_addresses_are_refused_unless_an_allowed_network_contains_them() {
        let own = || vec![address("8.8.4.4"), address("2606:4700::1"), address("::ffff:1.1.1.1")];
        let policy = AddressPolicy::new(vec![], own());
        for refused in ["8.8.4.4", "::ffff:8.8.4.4", "2606:4700::1", "1.1.1.1"] {
            assert_allows(&policy, refused, false);
        }
        for allowed in ["8.8.4.5", "2606:4700::2", "1.1.1.2"] {
            assert_allows(&policy, allowed, true);
        }
        let overruled = AddressPolicy::new(vec!["8.8.4.0/24".parse().unwrap()], own());
        assert_allows(&overruled, "8.8.4.4", true);
        assert_allows(&overruled, "1.1.1.1", false);
        let translated = AddressPolicy::new(vec!["64:ff9b::/96".parse().unwrap()], own());
        assert_allows(&translated, "64:ff9b::808:404", false);
    }

    #[test]
    fn addresses_that_are_found_to_be_own_are_refused_unless_an_allowed_network_contains_them() {
        let is_own = |address: IpAddr| address == IpAddr::from([8, 8, 4, 4]);
        let policy = AddressPolicy::default().refusing_own(is_own);
        for (text, allowed) in [("8.8.4.4", false), ("::ffff:8.8.4.4", false), ("8.8.4.5", true)] {
            assert_allows(&policy, text, allowed);
        }
        assert_allows(&networks(&["8.8.4.0/24"]).refusing_own(is_own), "8.8.4.4", true);
    }

    #[test]
    fn a_denied_network_is_refused_whatever_else_is_allowed() {
        let denied = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        let policy = AddressPolicy::default().denying(denied(&["8.8.0.0/16", "2606:4700::/32", "::ffff:9.9.9.0/120"]));
        for (text, allowed) in [
            ("8.7.255.255", true),
            ("8.8.0.0", false),
            ("::ffff:8.8.255.255", false),
            ("8.9.0.0", true),
            ("2606:4700::1", false),
            ("2606:4701::1", true),
            ("9.9.9.9", false),
            ("127.0.0.1", false),
        ] {
            assert_allows(&policy, text, allowed);
        }
        let inside = networks(&["10.0.0.0/8", "64:ff9b::/96"]).denying(denied(&["10.1.0.0/16", "8.8.0.0/16"]));
        for (text, allowed) in [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("64:ff9b::a00:1", true),
            ("64:ff9b::a01:1", false),
            ("64:ff9b::808:808", false),
        ] {
            assert_allows(&inside, text, allowed);
        }
    }
}
