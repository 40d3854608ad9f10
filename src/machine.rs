//! This machine as the network sees it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How old the list of this machine's addresses may be. Addresses come and go while it runs (DHCP, a floating address that
/// fails over), and listing them takes tens of microseconds, too long for every connection.
const OWN_ADDRESSES_AGE_MAX: Duration = Duration::from_secs(5);

/// This machine's addresses, and when they were listed.
static OWN_ADDRESSES: Mutex<Option<(Instant, Vec<IpAddr>)>> = Mutex::new(None);

/// Whether `address` belongs to one of this machine's interfaces, as of a few seconds ago.
#[must_use]
pub fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let mut known = OWN_ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = known
        .as_ref()
        .is_some_and(|(at, _)| at.elapsed() < OWN_ADDRESSES_AGE_MAX);
    if !fresh {
        let addresses = if_addrs::get_if_addrs().map(|interfaces| {
            let addresses = interfaces.iter().map(|interface| interface.ip().to_canonical());
            addresses.collect()
        });
        let addresses = addresses.unwrap_or_else(|cause| {
            // The last list is better than none.
            tracing::warn!(exception.message = %cause, "cannot list this machine's addresses");
            known.take().map(|(_, addresses)| addresses).unwrap_or_default()
        });
        *known = Some((Instant::now(), addresses));
    }
    known
        .as_ref()
        .is_some_and(|(_, addresses)| addresses.contains(&address))
}

/// The address that this machine would send from to reach `address`. Sends nothing.
///
/// # Errors
/// If there is no route to `address`, or no address to send from: a machine without IPv6, for example.
pub fn source(address: IpAddr) -> io::Result<IpAddr> {
    // Connecting a UDP socket only looks up the route. Any port will do.
    const PORT: u16 = 9;
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, PORT))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_those_of_the_interfaces() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(is_own(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()));
        assert!(!is_own(Ipv4Addr::new(8, 8, 8, 8).into()));
        assert!(!is_own(Ipv4Addr::UNSPECIFIED.into()));
    }

    #[test]
    fn the_source_is_the_address_that_would_send() {
        assert_eq!(source(Ipv4Addr::LOCALHOST.into()).unwrap(), Ipv4Addr::LOCALHOST);
        assert!(source(Ipv4Addr::BROADCAST.into()).is_err());
    }
}
