//! As much of HTTP/1.1 as both ends of a benchmark on one machine need.

/// A message whose head has arrived.
#[derive(Clone, Copy)]
pub(crate) struct Message {
    /// The length of its head in bytes, including the empty line.
    pub(crate) head: usize,
    /// The length of head and body in bytes.
    pub(crate) whole: usize,
}

/// The message at the start of these bytes; `None` while its head is incomplete.
///
/// # Panics
/// If the body has no `Content-Length`: nobody here sends such a message.
pub(crate) fn message(bytes: &[u8]) -> Option<Message> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let mut body = 0;
    for line in bytes[..head].split(|byte| *byte == b'\n') {
        if let Some(length) = value(line, b"content-length:") {
            body = std::str::from_utf8(length).unwrap().trim().parse().unwrap();
        }
        assert!(
            value(line, b"transfer-encoding:").is_none(),
            "a message without a Content-Length"
        );
    }
    Some(Message {
        head,
        whole: head + body,
    })
}

/// What follows the header's name in a line.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

/// Where `wanted` begins.
pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Writes a request with a JSON body, or without one if `body` is empty.
pub(crate) fn write(request: &mut Vec<u8>, method: &str, path: &str, headers: &str, body: &str) {
    use std::io::Write as _;
    write!(request, "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}").unwrap();
    if body.is_empty() {
        request.extend_from_slice(b"\r\n");
    } else {
        let length = body.len();
        write!(
            request,
            "content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
    }
}
