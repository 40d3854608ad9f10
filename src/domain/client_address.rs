//! Which address a request came from.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The address that a request came from: its connection's peer or, if the operator trusts that peer as a proxy, the
/// address that the proxy reports.
///
/// `forwarded` holds the values of `X-Forwarded-For`, in order. Each proxy appends its own peer at the right, and
/// everything to the left of that is hearsay: the right-most address that is not a trusted proxy is the one that a
/// trusted proxy has seen. An entry that is not an address ends the search, since no trusted proxy can have written
/// what precedes it.
#[must_use]
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted_proxies: &[IpNet],
) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted_proxies.iter().any(|network| network.contains(address));
    let mut nearest = peer.to_canonical();
    for entry in forwarded.flat_map(|value| value.split(',')).rev() {
        if !is_trusted(&nearest) {
            break;
        }
        let Some(address) = parse(entry.trim()) else { break };
        nearest = address;
    }
    nearest
}

/// Parses an address as proxies write it: plain, in brackets, with a port.
fn parse(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(entry).parse().ok();
    let address = address.or_else(|| entry.parse().ok().map(|address: SocketAddr| address.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_believed_as_far_as_it_is_trusted() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (peer, forwarded, expected) in [
            ("192.0.2.1", vec![], "192.0.2.1"),
            // The header of an untrusted peer is ignored.
            ("192.0.2.1", vec!["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", vec!["198.51.100.7"], "198.51.100.7"),
            // What the client itself wrote is to the left of what the proxy saw.
            ("10.0.0.1", vec!["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            (
                "10.0.0.1",
                vec!["203.0.113.9", "198.51.100.7 , 10.0.0.2"],
                "198.51.100.7",
            ),
            ("10.0.0.1", vec!["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", vec!["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", vec![""], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.7:4711"], "198.51.100.7"),
            ("fd00::1", vec!["[2001:db8::7]"], "2001:db8::7"),
            ("fd00::1", vec!["[2001:db8::7]:443"], "2001:db8::7"),
            ("::ffff:10.0.0.1", vec!["::ffff:198.51.100.7"], "198.51.100.7"),
        ] {
            let found = client_address(peer.parse().unwrap(), forwarded.iter().copied(), &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn without_trust_the_peer_is_the_client() {
        let peer = "10.0.0.1".parse().unwrap();
        assert_eq!(client_address(peer, ["198.51.100.7"].into_iter(), &[]), peer);
    }
}
