//! JSON as a person types it to MessagePack as an actor reads it, and back.
//!
//! Used by `latticed call`. Objects become maps, numbers keep their kind, and the one thing JSON lacks, bytes, is written
//! `{"$bin":"BASE64"}`. On the way back bytes that are UTF-8 show as text, others in that same form. Pure.

use std::fmt;

use data_encoding::BASE64;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
    ser::Error as _,
};
use serde_json::{Map, Number, Value};

use crate::{
    error::{Error, Result},
    wire::codec,
};

/// The key of the object that stands for bytes.
const BIN: &str = "$bin";

/// The key of the object that shows a MessagePack extension: `{"$ext":[TYPE,"BASE64"]}`. It is shown only, as no actor
/// of this ABI takes one.
const EXT: &str = "$ext";

/// Deepest nesting shown. JSON readers stop at the same depth, and it keeps a hostile answer off our stack.
const MAX_DEPTH: usize = 128;

/// MessagePack for `json`.
///
/// # Errors
/// `Usage`, with line and column, when it is no JSON; also when `$bin` is no base64.
pub fn encode(json: &str) -> Result<Vec<u8>> {
    let value: Value =
        serde_json::from_str(json).map_err(|cause| Error::usage(format!("the payload is no JSON: {cause}")))?;
    check_bytes(&value)?;
    codec::encode(&Out(&value))
}

/// What an actor answered, as JSON. No bytes at all, the answer of many operations, is `null`.
///
/// # Errors
/// `Invalid` when it is not exactly one MessagePack value.
pub fn decode(bytes: &[u8]) -> Result<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let not_shown = |why: String| {
        Error::invalid(format!(
            "the answer of {} bytes cannot be shown as JSON: {why}; --raw writes it as it is",
            bytes.len()
        ))
    };
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(MAX_DEPTH);
    let In(value) = In::deserialize(&mut deserializer).map_err(|cause| not_shown(cause.to_string()))?;
    match rest.len() {
        0 => Ok(value),
        more => Err(not_shown(format!("{more} bytes follow the first MessagePack value"))),
    }
}

/// Refuses a `$bin` that cannot be encoded, with a text for the person who typed it.
fn check_bytes(value: &Value) -> Result<()> {
    match value {
        Value::Array(items) => items.iter().try_for_each(check_bytes),
        Value::Object(map) => match bin(map) {
            Some(Err(why)) => Err(Error::usage(format!("{{\"{BIN}\":…}} in the payload {why}"))),
            Some(Ok(_)) => Ok(()),
            None => map.values().try_for_each(check_bytes),
        },
        _ => Ok(()),
    }
}

/// The bytes that `map` stands for, if it stands for bytes.
fn bin(map: &Map<String, Value>) -> Option<Result<Vec<u8>, String>> {
    let value = map.get(BIN).filter(|_| map.len() == 1)?;
    Some(match value {
        Value::String(text) => BASE64.decode(text.as_bytes()).map_err(|cause| format!("is no padded base64: {cause}")),
        _ => Err("must hold a string of base64".to_owned()),
    })
}

/// JSON on its way out.
struct Out<'a>(&'a Value);

impl Serialize for Out<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => match bin(map) {
                Some(bytes) => serializer.serialize_bytes(&bytes.map_err(S::Error::custom)?),
                None => serializer.collect_map(map.iter().map(|(key, value)| (key, Out(value)))),
            },
            Value::Array(items) => serializer.collect_seq(items.iter().map(Out)),
            plain => plain.serialize(serializer),
        }
    }
}

/// MessagePack on its way in.
struct In(Value);

impl<'de> Deserialize<'de> for In {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Show).map(In)
    }
}

struct Show;

impl<'de> Visitor<'de> for Show {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MessagePack value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    /// Goes by way of text, so that a single-precision 0.1 shows as 0.1 and not as its nearest double.
    fn visit_f32<E: serde::de::Error>(self, value: f32) -> Result<Value, E> {
        self.visit_f64(value.to_string().parse().unwrap_or(f64::from(value)))
    }

    /// JSON has no NaN and no infinity: they show as text.
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(match std::str::from_utf8(value) {
            Ok(text) => text.into(),
            Err(_) => Map::from_iter([(BIN.to_owned(), BASE64.encode(value).into())]).into(),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(In(item)) = sequence.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    /// Keys that are no text show as their JSON: `{1: true}` as `{"1": true}`.
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((In(key), In(value))) = entries.next_entry()? {
            let key = match key {
                Value::String(text) => text,
                other => other.to_string(),
            };
            map.insert(key, value);
        }
        Ok(map.into())
    }

    /// rmp-serde hands an extension over as a pair of its type and its bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let (kind, bytes) = <(i8, serde_bytes::ByteBuf)>::deserialize(deserializer)
            .map_err(|cause| D::Error::custom(format!("an extension is malformed: {cause}")))?;
        Ok(serde_json::json!({ EXT: [kind, BASE64.encode(&bytes)] }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{error::Kind, wire::interface::HttpRequest};

    #[test]
    fn json_becomes_the_request_an_actor_reads() {
        let typed = r#"{"method":"GET","path":"/","queryString":"a=b","header":{"host":["x"]},"body":{"$bin":"/wA="}}"#;
        let request: HttpRequest = codec::decode("request", &encode(typed).expect("JSON")).expect("an HTTP request");
        assert_eq!((request.method.as_str(), request.query_string.as_str()), ("GET", "a=b"));
        assert_eq!(request.header.get("host"), Some(&vec!["x".to_owned()]));
        assert_eq!(request.body, [0xff, 0]);
    }

    #[test]
    fn each_kind_of_value_has_its_bytes() {
        for (typed, bytes) in [
            ("null", vec![0xc0]),
            ("true", vec![0xc3]),
            ("7", vec![7]),
            ("-1", vec![0xff]),
            ("18446744073709551615", vec![0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
            ("1.5", vec![0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]),
            ("\"a\"", vec![0xa1, b'a']),
            ("[1,[]]", vec![0x92, 1, 0x90]),
            ("{\"$bin\":\"/w==\"}", vec![0xc4, 1, 0xff]),
            (
                "{\"$bin\":\"\",\"more\":1}",
                vec![0x82, 0xa4, b'$', b'b', b'i', b'n', 0xa0, 0xa4, b'm', b'o', b'r', b'e', 1],
            ),
        ] {
            assert_eq!(encode(typed).expect(typed), bytes, "{typed}");
        }
    }

    #[test]
    fn what_is_typed_wrongly_is_explained() {
        for (typed, part) in [
            ("", "EOF"),
            ("{n:1}", "line 1 column 2"),
            ("{\"a\":[{\"$bin\":\"%\"}]}", "no padded base64"),
            ("{\"$bin\":5}", "string of base64"),
            (&"[".repeat(1000), "recursion"),
        ] {
            let error = encode(typed).expect_err(typed);
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.text().contains(part), "{error}");
        }
    }

    #[test]
    fn answers_show_as_json() {
        for (bytes, shown) in [
            (vec![], json!(null)),
            (vec![0xc0], json!(null)),
            (vec![0xc4, 2, b'o', b'k'], json!("ok")),
            (vec![0xc4, 1, 0xff], json!({"$bin": "/w=="})),
            (vec![0xa1, 0xff], json!({"$bin": "/w=="})),
            (vec![0x82, 1, 0xc3, 0xa1, b'k', 0x91, 0xc0], json!({"1": true, "k": [null]})),
            (vec![0xca, 0x3d, 0xcc, 0xcc, 0xcd], json!(0.1)),
            (vec![0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], json!("NaN")),
            (vec![0xd4, 5, 0xff], json!({"$ext": [5, "/w=="]})),
        ] {
            assert_eq!(decode(&bytes).expect("shown"), shown, "{bytes:?}");
        }
    }

    #[test]
    fn answers_that_are_something_else_are_refused_with_the_remedy() {
        let deep = vec![0x91; 100_000];
        for bytes in [&[0xc1][..], &[0x92, 1], &[1, 2], &[0xdd, 255, 255, 255, 255], &[0xc6, 255, 255, 255, 255], &deep]
        {
            let error = decode(bytes).expect_err("no value");
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.text().contains("--raw"), "{error}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[^$]{0,9}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[^$]{0,5}", inner, 0..4)
                    .prop_map(|map| Value::from(Map::from_iter(map))),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_back(value in any_json()) {
            prop_assert_eq!(decode(&encode(&value.to_string()).expect("JSON")).expect("MessagePack"), value);
        }

        #[test]
        fn any_bytes_are_shown_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
