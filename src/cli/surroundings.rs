//! What `doctor` checks on this machine: the limit of open files, and the ports that a server needs.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::report::{Found, Report};
use crate::{config::MetricsListen, server::descriptors};

/// Open files that a server with default options needs to accept as many connections as it may.
const FILES_WANTED: u64 = 5500;

/// How much of a response is read, in bytes: enough to recognize the server.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Runs the checks.
pub(super) async fn check(report: &mut Report, listen: SocketAddr, metrics_listen: MetricsListen) {
    report.tell("open files", &open_files());
    report
        .check("api port", port(listen, "/healthz", "\"status\":\"ok\""))
        .await;
    if let MetricsListen::At(address) = metrics_listen {
        report
            .check("metrics port", port(address, "/metrics", "process_cpu_seconds"))
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
async fn port(address: SocketAddr, path: &str, sign: &str) -> Found {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("{address} is free")),
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
            if ask(address, path).await.is_ok_and(|answer| answer.contains(sign)) {
                Ok(format!("a server answers on {address}"))
            } else {
                Err(format!("{address} is in use by another program").into())
            }
        }
        Err(cause) => Err(format!("cannot listen on {address}: {cause}").into()),
    }
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
