//! Reading the JSON of a request's body, in which no object may have a member twice.
//!
//! RFC 8259 (section 4) leaves open what a repeated name means, so two readers may see different bodies. I-JSON (RFC 7493,
//! section 2.3) forbids it, and so do we, at every depth.

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};

use super::problem::POINTER_BYTES_MAX;
use crate::{
    contract::Faults,
    domain::{fault_code::FaultCode, pointer::escape},
};

/// Parses a body. If a member is repeated, the last one counts, and its pointer becomes a fault.
pub(super) fn read(bytes: &[u8], faults: &mut Faults) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Reader { location: None, faults }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Where a value is: a linked list from the inside out, which lives on the stack and costs nothing while nothing is wrong.
#[derive(Clone, Copy)]
struct Location<'a> {
    segment: Segment<'a>,
    within: Option<&'a Location<'a>>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Name(&'a str),
    Index(usize),
}

impl Location<'_> {
    /// The pointer to this value, or to the innermost value around it whose pointer is not too long.
    fn pointer(&self) -> String {
        let mut segments = Vec::new();
        let mut location = Some(self);
        while let Some(Location { segment, within }) = location {
            segments.push(*segment);
            location = *within;
        }
        let mut pointer = String::new();
        for segment in segments.into_iter().rev() {
            let end = pointer.len();
            let written = match segment {
                Segment::Name(name) if name.len() < POINTER_BYTES_MAX => write!(pointer, "/{}", escape(name)),
                Segment::Name(_) => Err(fmt::Error),
                Segment::Index(index) => write!(pointer, "/{index}"),
            };
            if written.is_err() || pointer.len() > POINTER_BYTES_MAX {
                pointer.truncate(end);
                break;
            }
        }
        pointer
    }
}

/// Reads the value at a location.
struct Reader<'a> {
    location: Option<&'a Location<'a>>,
    faults: &'a mut Faults,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        loop {
            let location = Location {
                segment: Segment::Index(read.len()),
                within: self.location,
            };
            let item = Reader {
                location: Some(&location),
                faults: &mut *self.faults,
            };
            match items.next_element_seed(item)? {
                Some(value) => {
                    // Capacity for one, where `push` would reserve four: many small arrays take no more memory than they must.
                    if read.is_empty() {
                        read.reserve_exact(1);
                    }
                    read.push(value);
                }
                None => return Ok(Value::Array(read)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        let mut repeated = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            let location = Location {
                segment: Segment::Name(&name),
                within: self.location,
            };
            let value = members.next_value_seed(Reader {
                location: Some(&location),
                faults: &mut *self.faults,
            })?;
            // As above; but the body itself, and an object in one of its fields, are seldom that small.
            if read.is_empty() && self.location.is_some_and(|location| location.within.is_some()) {
                read = Map::with_capacity(1);
            }
            match read.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    // One fault per name, however often it is repeated.
                    if repeated.insert(entry.key().clone()) {
                        add_repeated(entry.key(), self.location, self.faults);
                    }
                    entry.insert(value);
                }
            }
        }
        Ok(Value::Object(read))
    }
}

fn add_repeated(name: &str, within: Option<&Location<'_>>, faults: &mut Faults) {
    if faults.is_full() {
        faults.count(1);
        return;
    }
    let segment = Segment::Name(name);
    faults.add_with(Location { segment, within }.pointer(), || {
        (FaultCode::DuplicateField, "appears more than once")
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::contract::FAULTS_MAX;

    fn pointers(text: &str) -> Vec<String> {
        let mut faults = Faults::default();
        read(text.as_bytes(), &mut faults).unwrap();
        faults.listed().iter().map(|fault| fault.pointer.clone()).collect()
    }

    #[test]
    fn it_reads_what_serde_json_reads() {
        for text in [
            "null",
            " {\"a\": [true, -1, 2.50, 1e300, 18446744073709551616, \"\\u00e4\\n\"], \"b\": {\"\": {}}, \"c\": []} ",
            "[[[{}]]]",
        ] {
            let mut faults = Faults::default();
            let value = read(text.as_bytes(), &mut faults).unwrap();
            assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
            assert_eq!(
                value.to_string(),
                serde_json::from_str::<Value>(text).unwrap().to_string()
            );
            assert!(faults.is_empty());
        }
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for text in [
            "",
            "{",
            "{}{}",
            "{\"a\": 1e400}",
            "\"\\ud800\"",
            "\u{feff}{}",
            "{1: 2}",
            &deep,
        ] {
            let ours = read(text.as_bytes(), &mut Faults::default()).unwrap_err();
            let theirs = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(ours.to_string(), theirs.to_string());
        }
    }

    #[test]
    fn a_repeated_name_is_one_fault_wherever_it_is() {
        assert_eq!(pointers(r#"{"a": 1, "b": 2, "a": 3, "a": 4}"#), ["/a"]);
        assert_eq!(
            pointers(r#"{"a": 1, "\u0061": 3}"#),
            ["/a"],
            "an escape changes no name"
        );
        assert_eq!(
            pointers(r#"{"d": [0, {"x/y": {"": 1, "": 2}, "z": 1, "z": 2}], "e": {"z": 1}}"#),
            ["/d/1/x~1y/", "/d/1/z"]
        );
        let value = read(br#"{"a": 1, "b": 2, "a": 3}"#, &mut Faults::default()).unwrap();
        assert_eq!(value, json!({ "a": 3, "b": 2 }));
    }

    #[test]
    fn a_pointer_that_would_be_too_long_names_what_is_around_it() {
        let long = "n".repeat(POINTER_BYTES_MAX);
        assert_eq!(
            pointers(&format!(r#"{{"a": {{"{long}": {{"b": 1, "b": 2, "c": 1, "c": 2}}}}}}"#)),
            ["/a"]
        );
        let slashes = "/".repeat(POINTER_BYTES_MAX / 2);
        assert_eq!(pointers(&format!(r#"{{"{slashes}": 1, "{slashes}": 2}}"#)), [""]);
    }

    #[test]
    fn past_the_list_repeated_names_are_counted() {
        let members: Vec<String> = (0..512).flat_map(|name| vec![format!("\"{name}\":0"); 3]).collect();
        let mut faults = Faults::default();
        read(format!("{{{}}}", members.join(",")).as_bytes(), &mut faults).unwrap();
        let (listed, more) = faults.into_parts();
        assert_eq!((listed.len(), more), (FAULTS_MAX, 412));
    }
}
