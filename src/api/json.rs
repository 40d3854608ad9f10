//! JSON as a request's body brings it: read once, and no member of any object twice.
//!
//! RFC 8259 (section 4) leaves open what a repeated name means, so that two readers may see two different bodies. I-JSON
//! (RFC 7493, section 2.3) forbids it, and so do we, all the way down.

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};

use super::problem::POINTER_BYTES_MAX;
use crate::{contract::Faults, domain::pointer::escape};

/// Reads a body. Of a member that is there more than once the last one counts, and its place is a fault.
pub(super) fn read(bytes: &[u8], faults: &mut Faults) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Reader { place: None, faults }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Where a value stands: a list from the inside out, which lives on the stack and costs nothing while all is well.
#[derive(Clone, Copy)]
struct Place<'a> {
    token: Token<'a>,
    within: Option<&'a Place<'a>>,
}

#[derive(Clone, Copy)]
enum Token<'a> {
    Name(&'a str),
    Index(usize),
}

impl Place<'_> {
    /// The pointer to this place, or to the innermost place around it whose pointer is not too long.
    fn pointer(&self) -> String {
        let mut tokens = Vec::new();
        let mut place = Some(self);
        while let Some(Place { token, within }) = place {
            tokens.push(*token);
            place = *within;
        }
        let mut pointer = String::new();
        for token in tokens.into_iter().rev() {
            let end = pointer.len();
            let written = match token {
                Token::Name(name) if name.len() < POINTER_BYTES_MAX => write!(pointer, "/{}", escape(name)),
                Token::Name(_) => Err(fmt::Error),
                Token::Index(index) => write!(pointer, "/{index}"),
            };
            if written.is_err() || pointer.len() > POINTER_BYTES_MAX {
                pointer.truncate(end);
                break;
            }
        }
        pointer
    }
}

/// Reads the value at a place.
struct Reader<'a> {
    place: Option<&'a Place<'a>>,
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
            let place = Place {
                token: Token::Index(read.len()),
                within: self.place,
            };
            let item = Reader {
                place: Some(&place),
                faults: &mut *self.faults,
            };
            match items.next_element_seed(item)? {
                Some(value) => {
                    // Room for one, where `push` makes room for four: many small arrays are no larger than they must be.
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
            let place = Place {
                token: Token::Name(&name),
                within: self.place,
            };
            let value = members.next_value_seed(Reader {
                place: Some(&place),
                faults: &mut *self.faults,
            })?;
            // The same; but the body itself, and the object in one of its fields, are seldom so small.
            if read.is_empty() && self.place.is_some_and(|place| place.within.is_some()) {
                read = Map::with_capacity(1);
            }
            match read.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    // A name is one fault, however often it is there.
                    if repeated.insert(entry.key().clone()) {
                        add_repeated(entry.key(), self.place, self.faults);
                    }
                    entry.insert(value);
                }
            }
        }
        Ok(Value::Object(read))
    }
}

fn add_repeated(name: &str, within: Option<&Place<'_>>, faults: &mut Faults) {
    if faults.is_full() {
        faults.count(1);
        return;
    }
    let token = Token::Name(name);
    faults.add_with(Place { token, within }.pointer(), || {
        ("duplicate_field", "is there more than once")
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
    fn a_pointer_that_would_be_too_long_names_what_is_around_its_place() {
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
