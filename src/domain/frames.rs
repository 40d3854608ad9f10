//! What an HTTP/2 client sends (RFC 9113, section 4), as far as the limits on it need to know.
//!
//! h2 validates the frames, but does not report that a header block has begun and not ended, nor how many frames a
//! client has sent that request nothing. So we parse the bytes here as well, before h2 sees them.

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

const END_HEADERS: u8 = 4;

/// Tracks the frames that a client sends on one connection, after the preface.
#[derive(Debug, Default)]
pub struct Frames {
    /// The beginning of a frame's header whose end has not arrived yet.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    kind: u8,
    /// Bytes of the frame's payload that are still to come.
    payload_left: usize,
    /// Whether a header block has begun and not ended.
    is_block_open: bool,
    /// Whether the frame ends the header block.
    ends_block: bool,
    resets: u64,
    idle: u64,
}

impl Frames {
    /// Parses the next bytes that arrived.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = if self.payload_left > 0 {
                self.skip(bytes)
            } else {
                self.take_header(bytes)
            };
        }
    }

    /// Whether a frame or a header block has arrived in part. A request's body does not count: it has a deadline of its
    /// own.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        self.is_block_open || self.header_bytes > 0 || self.payload_left > 0 && self.kind != DATA
    }

    /// How many requests the client has canceled.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// How many frames belonged to no request: pings, settings, windows, empty ones.
    #[must_use]
    pub fn idle(&self) -> u64 {
        self.idle
    }

    fn skip<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let here = self.payload_left.min(bytes.len());
        self.payload_left -= here;
        if self.payload_left == 0 {
            self.end_frame();
        }
        &bytes[here..]
    }

    fn take_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let here = (HEADER_BYTES - self.header_bytes).min(bytes.len());
        self.header[self.header_bytes..][..here].copy_from_slice(&bytes[..here]);
        self.header_bytes += here;
        if self.header_bytes == HEADER_BYTES {
            self.begin_frame();
        }
        &bytes[here..]
    }

    fn begin_frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.header_bytes = 0;
        self.kind = kind;
        self.payload_left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let is_block = kind == HEADERS || kind == CONTINUATION;
        if is_block {
            self.is_block_open = true;
            self.ends_block = flags & END_HEADERS != 0;
        }
        self.resets += u64::from(kind == RST_STREAM);
        self.idle += u64::from(!is_block && kind != DATA || self.payload_left == 0);
        if self.payload_left == 0 {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        if self.ends_block {
            self.is_block_open = false;
            self.ends_block = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// Feeds the bytes in pieces of each size, and returns the result.
    fn follow(bytes: &[u8]) -> (bool, u64, u64) {
        let by = |size: usize| {
            let mut frames = Frames::default();
            bytes.chunks(size).for_each(|piece| frames.feed(piece));
            (frames.is_in_head(), frames.resets(), frames.idle())
        };
        let whole = by(bytes.len().max(1));
        for size in 1..bytes.len() {
            assert_eq!(by(size), whole, "in pieces of {size} bytes");
        }
        whole
    }

    #[test]
    fn a_header_block_is_open_until_it_says_that_it_ends() {
        let (open, ends) = (frame(HEADERS, 0, b"abc"), frame(CONTINUATION, END_HEADERS, b"d"));
        assert!(follow(&open).0);
        assert!(follow(&[&open[..], &frame(CONTINUATION, 0, b"")].concat()).0);
        assert!(!follow(&[&open[..], &ends].concat()).0);
        assert!(!follow(&frame(HEADERS, END_HEADERS, b"abc")).0);
        assert!(follow(&frame(HEADERS, END_HEADERS, b"abc")[..11]).0);
        assert!(!follow(&frame(HEADERS, END_HEADERS, b"")).0);
    }

    #[test]
    fn a_part_of_a_frame_is_a_head_unless_it_is_data() {
        assert!(!follow(b"").0);
        assert!(follow(&frame(6, 0, b"12345678")[..4]).0);
        assert!(follow(&frame(6, 0, b"12345678")[..12]).0);
        assert!(!follow(&frame(6, 0, b"12345678")).0);
        assert!(!follow(&frame(DATA, 0, b"12345678")[..12]).0);
        assert!(follow(&frame(DATA, 0, b"12345678")[..8]).0);
    }

    #[test]
    fn what_is_no_part_of_a_request_is_counted() {
        let frames = [
            frame(HEADERS, END_HEADERS, b"abc"),
            frame(DATA, 0, b"abc"),
            frame(RST_STREAM, 0, &[0, 0, 0, 8]),
            frame(DATA, 0, b""),
            frame(4, 1, b""),
            frame(6, 0, &[0; 8]),
        ];
        assert_eq!(follow(&frames.concat()), (false, 1, 4));
    }
}
