//! The README's tour runs as written, to its end.

use std::{net::TcpListener, path::Path, process::Stdio};

use tokio::process::Command;

use super::read;

/// The lines of the tour that are to be pasted.
fn tour() -> String {
    let readme = read("README.md");
    let (_, tour) = readme
        .split_once("\n## A tour of five minutes\n")
        .expect("there is a tour");
    let (_, commands) = tour.split_once("```sh\n").expect("it has commands");
    commands.split("```").next().unwrap().to_owned()
}

#[tokio::test]
async fn the_tour_can_be_pasted_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Ports are replaced, since others may be in use; everything else runs as written.
    let script = tour().replace("PORT=9100", &format!("PORT={port}"));
    // Nothing is left running, however it ends.
    let script = format!("trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{script}");
    let binary = Path::new(env!("CARGO_BIN_EXE_kallima-webhooks")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("timeout");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KALLIMA_")) {
        command.env_remove(name);
    }
    command
        .args(["60", "bash", "-m", "-e", "-o", "pipefail", "-c", &script])
        .env("PATH", path)
        .env("TMPDIR", folder.path())
        .env("KALLIMA_LISTEN", "0")
        .env("KALLIMA_METRICS_LISTEN", "off")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}\n{complaint}");
    for seen in [
        "evt_",
        "humanization.completed  attempt 1",
        "Kallima-Signature  verifies",
        "→ 200",
        "whsec_",
        "\"response_status\": 401",
        "Kallima-Signature  the signature does not match",
        "→ 401",
    ] {
        assert!(printed.contains(seen), "no {seen:?} in\n{printed}\n{complaint}");
    }
}
