//! The `traceparent` header of W3C Trace Context (<https://www.w3.org/TR/trace-context/>): which trace a request
//! belongs to, and which span caused it. Not OpenTelemetry's propagator: it accepts headers that the specification calls
//! malformed (ids that are too short, a sign, a trailing dash), and adds an empty `tracestate` to its own.

use std::fmt;

/// A trace, and the span in it that causes what follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

/// How long the text of version 00 is.
const LENGTH: usize = 55;

impl TraceParent {
    /// `None` if an id is zero, which means no id.
    #[must_use]
    pub const fn new(trace_id: u128, span_id: u64, sampled: bool) -> Option<Self> {
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            sampled,
        })
    }

    /// Parses the header. `None` if it is malformed, which means that it must be ignored (section 3.2.2.5).
    ///
    /// An unknown later version is parsed as version 00 (section 3.2.4): more may follow after a dash.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let mut fields = known.split('-');
        let mut field = |length: usize| fields.next().and_then(|digits| hex(digits, length));
        let (version, trace_id, span_id, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        if !fits {
            return None;
        }
        Self::new(trace_id, u64::try_from(span_id).ok()?, flags & 1 == 1)
    }

    /// The same trace, with another span as the cause of what follows; unchanged if that id is zero.
    #[must_use]
    pub fn child(self, span_id: u64) -> Self {
        Self::new(self.trace_id, span_id, self.sampled).unwrap_or(self)
    }

    /// The trace's id.
    #[must_use]
    pub const fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The span's id.
    #[must_use]
    pub const fn span_id(self) -> u64 {
        self.span_id
    }

    /// Whether the caller records its trace.
    #[must_use]
    pub const fn sampled(self) -> bool {
        self.sampled
    }
}

/// Parses exactly `length` lowercase hexadecimal digits.
fn hex(digits: &str, length: usize) -> Option<u128> {
    let lowercase = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    if digits.len() != length || !digits.bytes().all(lowercase) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

impl fmt::Display for TraceParent {
    /// Version 00. The one flag that it defines is kept, all others are zero (section 3.2.2.5.2).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            sampled,
        } = self;
        write!(
            formatter,
            "00-{trace_id:032x}-{span_id:016x}-{:02x}",
            u8::from(*sampled)
        )
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_well_formed_header_is_parsed() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (text, written) in [
            (EXAMPLE.to_owned(), EXAMPLE.to_owned()),
            (format!("00-{trace}-{span}-00"), format!("00-{trace}-{span}-00")),
            // Unknown flags are not passed on.
            (format!("00-{trace}-{span}-ff"), EXAMPLE.to_owned()),
            (format!("00-{trace}-{span}-02"), format!("00-{trace}-{span}-00")),
            // A later version is parsed as far as this one goes.
            (format!("cc-{trace}-{span}-01"), EXAMPLE.to_owned()),
            (format!("cc-{trace}-{span}-01-what-comes"), EXAMPLE.to_owned()),
        ] {
            let read = TraceParent::parse(&text).map(|parent| parent.to_string());
            assert_eq!(read.as_deref(), Some(written.as_str()), "{text}");
        }
    }

    #[test]
    fn a_malformed_header_is_ignored() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for text in [
            String::new(),
            "nonsense".to_owned(),
            format!("ff-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{trace}-{span}-01-"),
            format!("cc-{trace}-{span}-01.more"),
            format!("00-{trace}-{span}-0"),
            format!("00-{trace}-{span}"),
            format!("0-{trace}-{span}-001"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}-{span}-0x"),
            format!("00-{trace}-{span}-+1"),
            format!(" {EXAMPLE}"),
            format!("00_{trace}_{span}_01"),
            "é".repeat(40),
        ] {
            assert_eq!(TraceParent::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn a_child_is_of_the_same_trace() {
        let parent = TraceParent::parse(EXAMPLE).unwrap();
        let child = parent.child(0xab);
        assert_eq!(
            child.to_string(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-01"
        );
        assert_eq!(parent.child(0), parent, "zero is not a span id");
    }
}
