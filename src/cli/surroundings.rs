//! What `doctor` checks on this machine: the limit of open files, and the ports that a server needs.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use super::{
    healthcheck,
    report::{Found, Report},
};
use crate::{config::MetricsListen, server::descriptors};

/// Open files that a server with default options needs to accept as many connections as it may.
const FILES_WANTED: u64 = 5500;

/// Runs the checks. `is_tls` says how the API is served.
pub(super) async fn check(report: &mut Report, listen: SocketAddr, is_tls: bool, metrics_listen: MetricsListen) {
    report.tell("open files", &open_files());
    report
        .check("api port", port(listen, is_tls, "/healthz", "\"status\":\"ok\""))
        .await;
    if let MetricsListen::At(address) = metrics_listen {
        report
            .check("metrics port", port(address, false, "/metrics", "process_cpu_seconds"))
            .await;
    }
}

fn open_files() -> Found {
    let limit = descriptors::raise_limit()?;
    let said = format!("up to {limit} (a server with default options needs {FILES_WANTED})");
    if limit >= FILES_WANTED {
        Ok(said)
    } else {
        Err(format!("{said}: set LimitNOFILE=65536, or ulimit -n").into())
    }
}

/// Whether a port is free, or a server of ours answers there.
async fn port(address: SocketAddr, is_tls: bool, path: &str, sign: &str) -> Found {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("{address} is free")),
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
            let answer = healthcheck::get(address, is_tls, path).await;
            if answer.is_ok_and(|answer| answer.contains(sign)) {
                Ok(format!("a server answers on {address}"))
            } else {
                Err(format!("{address} is in use by another program, or by a server with other TLS options").into())
            }
        }
        Err(cause) => Err(format!("cannot listen on {address}: {cause}").into()),
    }
}
