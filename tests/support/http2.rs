//! HTTP/2 frame by frame, for what no client would send.

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header in HPACK (RFC 7541), neither indexed nor compressed; its name is one of the static table.
pub(crate) fn field(name: u8, value: &str) -> Vec<u8> {
    let name = if name < 15 { vec![name] } else { vec![15, name - 15] };
    let length = match value.len() {
        short @ ..127 => vec![u8::try_from(short).unwrap()],
        long => vec![127, u8::try_from(long - 127).unwrap() & 127],
    };
    assert!(value.len() < 127 + 128, "two bytes are enough here");
    [&name, &length, value.as_bytes()].concat()
}

/// The header block of a request.
pub(crate) fn block(method: &str, path: &str, token: Option<&str>) -> Vec<u8> {
    let fields = [
        field(1, "localhost"),
        field(2, method),
        field(4, path),
        field(6, "http"),
    ];
    let authorization = token.map(|token| field(23, &format!("Bearer {token}")));
    [fields.concat(), authorization.unwrap_or_default()].concat()
}

pub(crate) fn get(stream: u32, path: &str, token: Option<&str>) -> Vec<u8> {
    let block = block("GET", path, token);
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}
