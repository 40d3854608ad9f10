//! Requests that the operator sends by hand: to wherever they say.

use std::{error::Error, path::Path, time::Duration};

use crate::{
    delivery::{resolver::Resolver, sender::Sender},
    domain::{address::AddressPolicy, destination::DestinationPolicy},
    server,
};

/// A sender to any URL, since the operator names it. It trusts the authorities of `tls_ca_file` besides the public ones.
pub(super) fn sender(
    resolver: Resolver,
    timeout: Duration,
    tls_ca_file: Option<&Path>,
) -> Result<Sender, Box<dyn Error>> {
    let extra = server::authorities(tls_ca_file)?;
    let policy = DestinationPolicy {
        allow_http: true,
        addresses: AddressPolicy::new(vec!["0.0.0.0/0".parse()?, "::/0".parse()?], Vec::new()),
        allowed_ports: None,
    };
    Ok(Sender::new(resolver, policy, timeout, extra)?)
}
