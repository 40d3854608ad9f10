//! Requests as files: header lines, an empty line, the body.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::domain::verification::SignedHeaders;

/// How much is read of a file or of standard input, in bytes: far more than any delivery has.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads a file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |cause: io::Error| format!("cannot read {}: {cause}", path.display());
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    source
        .take(INPUT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(format!("{} has more than 16 MiB", path.display()));
    }
    Ok(bytes)
}

/// Splits a request at the first empty line into its headers and its body. Without an empty line all of it is headers.
pub(super) fn split(request: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    for line in request.split_inclusive(|byte| *byte == b'\n') {
        let end = at + line.len();
        if line.trim_ascii().is_empty() {
            return (&request[..at], &request[end..]);
        }
        at = end;
    }
    (request, &[])
}

/// The headers of a signature among lines of `Name: value`, whatever the case of the names. Lines of another form, such
/// as a request's first one, are skipped. Of a repeated header, the first one counts.
pub(super) fn headers(lines: &str) -> SignedHeaders {
    SignedHeaders::read(|name| {
        let mut fields = lines.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(given, _)| given.trim().eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_split_at_its_first_empty_line() {
        for (request, head, body) in [
            (
                "POST / HTTP/1.1\r\nA: b\r\n\r\n{}\n",
                "POST / HTTP/1.1\r\nA: b\r\n",
                "{}\n",
            ),
            ("A: b\n\n\n{}", "A: b\n", "\n{}"),
            ("A: b\n", "A: b\n", ""),
            ("\n{}", "", "{}"),
            ("", "", ""),
        ] {
            assert_eq!(
                split(request.as_bytes()),
                (head.as_bytes(), body.as_bytes()),
                "{request:?}"
            );
        }
    }

    #[test]
    fn headers_are_found_whatever_their_case() {
        let found =
            headers("POST /a:b HTTP/1.1\r\nKALLIMA-signature:  t=1,v1=x \r\nWebhook-Id: a\r\nwebhook-id: b\r\n");
        assert_eq!(found.kallima_signature.as_deref(), Some("t=1,v1=x"));
        assert_eq!(found.webhook_id.as_deref(), Some("a"));
        assert_eq!(found.webhook_signature, None);
    }
}
