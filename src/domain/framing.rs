//! Where one request on a connection ends and the next begins (RFC 9112, section 6).
//!
//! hyper decides this, too, but forgives what must not be forgiven: a request with both `Content-Length` and
//! `Transfer-Encoding`, which two parsers in a row can read as two different messages (request smuggling), reaches the
//! service without a trace of the former header. So we parse the bytes here as well, before hyper sees them.

/// The longest line that is parsed, in bytes; hyper refuses longer ones, as it limits heads and chunk extensions.
const LINE_BYTES_MAX: usize = 32 * 1024;

/// Marks a request after the last one whose framing [`Framing`] understood.
#[derive(Clone, Copy, Debug)]
pub struct UnclearFraming;

/// Tracks the framing of the bytes that a client sends on one connection.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    /// The beginning of a line whose end has not arrived yet.
    line: Vec<u8>,
    head: Head,
    understood: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// This many bytes of a body are still to come.
    Body(u64),
    ChunkSize,
    /// This many bytes of a chunk are still to come.
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// The framing is ambiguous, so no request is understood from here on.
    Lost,
}

/// What the head that is being received says so far.
#[derive(Debug, Default)]
struct Head {
    has_begun: bool,
    length: Length,
    coding: Coding,
}

/// What `Content-Length` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    None,
    Bytes(u64),
    /// Several values, or one that is not a number.
    Unclear,
}

/// What `Transfer-Encoding` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    /// Anything other than a single `chunked`.
    Other,
}

impl Framing {
    /// Parses the next bytes that arrived.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Lost => return,
                State::Body(left) => self.skip(bytes, left, State::Body, State::Head),
                State::ChunkData(left) => self.skip(bytes, left, State::ChunkData, State::ChunkEnd),
                State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers => self.take_line(bytes),
            };
        }
    }

    /// How many requests had a complete head that says unambiguously where the request ends. Any request after these
    /// must be refused and the connection closed.
    #[must_use]
    pub fn understood(&self) -> u64 {
        self.understood
    }

    /// Whether a request's head has arrived in part.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        self.state == State::Head && (self.head.has_begun || !self.line.is_empty())
    }

    /// Whether the body of a request has arrived in part only.
    #[must_use]
    pub fn is_in_body(&self) -> bool {
        !matches!(self.state, State::Head | State::Lost)
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64, more: fn(u64) -> State, then: State) -> &'a [u8] {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - here as u64;
        self.state = if left == 0 { then } else { more(left) };
        &bytes[here..]
    }

    /// Consumes the bytes up to the end of the line and, if the end is among them, parses the line.
    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            if self.line.len() + bytes.len() > LINE_BYTES_MAX {
                self.lose();
            } else {
                self.line.extend_from_slice(bytes);
            }
            return &[];
        };
        let (here, rest) = (&bytes[..end], &bytes[end + 1..]);
        if self.line.is_empty() {
            self.read_line(here);
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(here);
            self.read_line(&line);
        }
        rest
    }

    fn read_line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.state {
            State::Head if line.is_empty() && !self.head.has_begun => {}
            State::Head if line.is_empty() => self.end_head(),
            State::Head => self.head.read_line(line),
            State::ChunkSize => match chunk_size(line) {
                Some(0) => self.state = State::Trailers,
                Some(size) => self.state = State::ChunkData(size),
                None => self.lose(),
            },
            State::ChunkEnd if line.is_empty() => self.state = State::ChunkSize,
            State::ChunkEnd => self.lose(),
            State::Trailers if line.is_empty() => self.state = State::Head,
            State::Trailers | State::Body(_) | State::ChunkData(_) | State::Lost => {}
        }
    }

    fn end_head(&mut self) {
        let Head { length, coding, .. } = std::mem::take(&mut self.head);
        self.state = match (length, coding) {
            (Length::None | Length::Bytes(0), Coding::None) => State::Head,
            (Length::Bytes(length), Coding::None) => State::Body(length),
            (Length::None, Coding::Chunked) => State::ChunkSize,
            (Length::Unclear, _) | (_, Coding::Other) | (Length::Bytes(_), Coding::Chunked) => return self.lose(),
        };
        self.understood += 1;
    }

    fn lose(&mut self) {
        self.line = Vec::new();
        self.state = State::Lost;
    }
}

impl Head {
    fn read_line(&mut self, line: &[u8]) {
        if !self.has_begun {
            // The request line.
            self.has_begun = true;
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = digits(value, 10).map_or(Length::Unclear, Length::Bytes);
            self.length = match self.length {
                Length::None => length,
                known if known == length => known,
                Length::Bytes(_) | Length::Unclear => Length::Unclear,
            };
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.coding = match self.coding {
                Coding::None if value.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
                Coding::None | Coding::Chunked | Coding::Other => Coding::Other,
            };
        }
    }
}

/// The size of a chunk; its line may have extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    digits(size.trim_ascii_end(), 16)
}

/// Parses a number of digits only: `parse` would accept a sign, too.
fn digits(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let plain = text.chars().all(|letter| letter.is_digit(radix));
    plain.then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests are understood, both with all bytes at once and one by one.
    #[track_caller]
    fn understood(text: &str) -> u64 {
        let mut at_once = Framing::default();
        at_once.feed(text.as_bytes());
        let mut one_by_one = Framing::default();
        text.bytes().for_each(|byte| one_by_one.feed(&[byte]));
        assert_eq!(at_once.understood(), one_by_one.understood(), "{text}");
        assert_eq!(at_once.is_in_head(), one_by_one.is_in_head(), "{text}");
        at_once.understood()
    }

    #[test]
    fn consecutive_requests_are_distinguished() {
        let plain = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let sized = "POST / HTTP/1.1\r\nContent-Length: 24\r\n\r\nGET / HTTP/1.1\r\na: b\r\n\r\n";
        let twice = "POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n\
             2;a=b\r\n\n\n\r\nA \r\n0123456789\r\n0\r\ntrailer: x\r\n\r\n";
        let bare = "\r\n\nPOST / HTTP/1.1\ncontent-length: 1\n\nx";
        for texts in [
            vec![plain, plain],
            vec![sized, plain, twice, chunked, bare, sized],
            vec![chunked, chunked, plain],
        ] {
            assert_eq!(understood(&texts.concat()), texts.len() as u64, "{texts:?}");
        }
    }

    #[test]
    fn a_request_with_an_ambiguous_end_is_not_understood_nor_is_what_follows() {
        let plain = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        for fields in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 4",
            "transfer-encoding: chunked\r\ncontent-length: nonsense",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding:",
            "Content-Length: 4\r\nContent-Length: 5",
            "Content-Length: +4",
            "Content-Length: 4, 4",
            "Content-Length:",
        ] {
            let doubtful = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n");
            assert_eq!(understood(&[plain, &doubtful, plain].concat()), 1, "{fields}");
        }
        let no_size = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nx\r\n\r\n";
        assert_eq!(understood(&[no_size, plain].concat()), 1);
        let too_long = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n";
        assert_eq!(understood(&[too_long, plain].concat()), 1);
    }

    #[test]
    fn a_head_has_begun_with_its_first_letter() {
        let mut framing = Framing::default();
        for (text, is_in_head) in [
            ("", false),
            ("\r\n", false),
            ("P", true),
            ("OST / HTTP/1.1\r\n", true),
            ("content-length: 1\r\n\r\n", false),
            ("x", false),
            ("G", true),
        ] {
            framing.feed(text.as_bytes());
            assert_eq!(framing.is_in_head(), is_in_head, "{text:?}");
        }
    }

    #[test]
    fn an_endless_line_is_not_buffered() {
        let mut framing = Framing::default();
        for _ in 0..1000 {
            framing.feed(&[b'x'; 1000]);
        }
        assert_eq!((framing.line.len(), framing.is_in_head()), (0, false));
    }
}
