//! `verify`: whether a request is one of ours; if not, which check failed, and what the header would have been.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::{
    SecretOption,
    finding::{self, Finding},
    input,
};
use crate::{
    cli::CommandResult,
    clock::Clock,
    domain::verification::{SignedHeaders, TOLERANCE_S},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct VerifyOptions {
    #[command(flatten)]
    secret: SecretOption,

    /// The request as it arrived: header lines, an empty line, the body. `-` is standard input, and the default unless
    /// headers are given.
    #[arg(value_name = "REQUEST", conflicts_with_all = ["headers", "header", "body"])]
    request: Option<PathBuf>,

    /// The headers, one `Name: value` per line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    headers: Option<PathBuf>,

    /// A header, `Name: value` (may be repeated).
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", conflicts_with = "headers")]
    header: Vec<String>,

    /// The exact bytes of the body; `-` is standard input, and the default where headers are given.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,

    /// The receiver's clock in unix seconds (default: now).
    #[arg(long, value_name = "SECONDS")]
    at: Option<i64>,

    /// How far the timestamp may be from the receiver's clock.
    #[arg(long, default_value_t = TOLERANCE_S)]
    tolerance_s: u64,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Checks both signatures. Fails where one that is there is wrong, and where none is there.
pub(in crate::cli) fn run(options: &VerifyOptions, clock: &Clock) -> CommandResult {
    let (headers, body) = request(options)?;
    let now_s = options.at.unwrap_or_else(|| clock.now().as_unix_seconds());
    let findings = finding::findings(&options.secret.secret, &headers, &body, now_s, options.tolerance_s);
    if options.json {
        println!("{}", findings.iter().map(Finding::as_json).collect::<Value>());
    } else {
        let lines = findings.iter().flat_map(Finding::lines);
        lines.for_each(|line| anstream::println!("{line}"));
    }
    if finding::is_genuine(&findings) {
        Ok(())
    } else {
        Err("a receiver must refuse this request".into())
    }
}

fn request(options: &VerifyOptions) -> Result<(SignedHeaders, Vec<u8>), String> {
    let stdin = || PathBuf::from("-");
    let lines = match &options.headers {
        Some(path) if path == Path::new("-") && options.body.as_deref().unwrap_or(path) == path => {
            return Err(
                "--headers and --body cannot both be standard input; give the whole request instead".to_owned(),
            );
        }
        Some(path) => input::read(path)?,
        None if !options.header.is_empty() => options.header.join("\n").into_bytes(),
        None if options.body.is_some() => return Err("--body needs --header or --headers".to_owned()),
        None => {
            let request = input::read(&options.request.clone().unwrap_or_else(stdin))?;
            let (head, body) = input::split(&request);
            return Ok((input::headers(&String::from_utf8_lossy(head)), body.to_vec()));
        }
    };
    let body = input::read(&options.body.clone().unwrap_or_else(stdin))?;
    Ok((input::headers(&String::from_utf8_lossy(&lines)), body))
}
