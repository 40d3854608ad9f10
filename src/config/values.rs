//! How values are written, on the command line and in variables.

use std::net::{Ipv4Addr, SocketAddr};

/// A switch, as people and tools write it. An empty variable is off, as one that is not set.
///
/// # Errors
/// What may be written instead.
pub(super) fn switch(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Ok(true),
        "0" | "off" | "no" | "false" | "" => Ok(false),
        _ => Err("must be 1, on, yes or true; or 0, off, no, false or empty"),
    }
}

/// An address to listen on. A port alone, and `localhost`, mean 127.0.0.1.
///
/// # Errors
/// What may be written instead.
pub fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    let port = text.strip_prefix("localhost:").unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse()
        .map_err(|_| "must be a port, or an address and a port, such as 8080, localhost:8080 or 0.0.0.0:8080")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_written_in_many_ways() {
        for text in ["1", "on", "yes", "true", "True", "YES"] {
            assert_eq!(switch(text), Ok(true), "{text}");
        }
        for text in ["0", "off", "no", "false", "OFF", ""] {
            assert_eq!(switch(text), Ok(false), "{text}");
        }
        for text in ["2", "maybe", "tru", " "] {
            assert!(switch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_may_be_a_port_alone() {
        for (text, address) in [
            ("8080", "127.0.0.1:8080"),
            ("0", "127.0.0.1:0"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(listen_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            "nowhere",
            "70000",
            "localhost",
            "localhost:",
            ":8080",
            "::1:x",
            "example.com:80",
        ] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }
}
