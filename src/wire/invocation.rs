//! The envelope of a call and of its answer (`protocol/invocation.md §1`).
//!
//! Sent complete, read leniently: senders of three generations leave members out, and carry bodies as msgpack bin, str,
//! array or nil.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use crate::{
    error::{Error, Result},
    wire::{Entity, chunk, codec},
};

/// Longest envelope that is decoded, bytes: a body at the chunk threshold with room for names, token and trace. NATS
/// servers pass 1 MiB by default, so a longer one is a mistake or an attack.
pub const MAX_ENVELOPE_BYTES: usize = 1024 * 1024;

/// First bytes set aside for a body written as an array, whatever length it announces.
const FIRST_ARRAY_BYTES: usize = 4096;

/// A call on its way to an actor or provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation<'a> {
    /// Who calls.
    pub origin: Entity,
    /// Who is called.
    pub target: Entity,
    /// `Trait.Method`.
    pub operation: String,
    /// The body, empty when it is in the object store.
    #[serde(serialize_with = "serde_bytes::serialize", deserialize_with = "body", borrow, default)]
    pub msg: Cow<'a, [u8]>,
    /// Any unique text; the answer repeats it.
    pub id: String,
    /// The anti-forgery token (`protocol/invocation.md §3`).
    pub encoded_claims: String,
    /// The sending host, or what the sender believes it is.
    #[serde(default)]
    pub host_id: String,
    /// True length of the body, bytes; `None` when the sender is of the generation without it.
    #[serde(default)]
    pub content_length: Option<u64>,
    /// W3C trace headers.
    #[serde(rename = "traceContext", default, deserialize_with = "super::json::null_is_default")]
    pub trace_context: BTreeMap<String, String>,
}

impl Invocation<'_> {
    /// Reads an envelope.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) with the text other hosts use.
    pub fn decode(bytes: &[u8]) -> Result<Invocation<'_>> {
        Self::read(bytes).map_err(|error| error.context("Failed to deserialize invocation"))
    }

    /// As [`Invocation::decode`], with the bare reason: providers put other words before it.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), or [`Kind::Limit`](crate::error::Kind::Limit) for a longer one.
    pub fn read(bytes: &[u8]) -> Result<Invocation<'_>> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(Error::limit(format!("it has {} bytes, at most {MAX_ENVELOPE_BYTES} are read", bytes.len())));
        }
        codec::read(bytes).map_err(|cause| Error::invalid(cause.to_string()))
    }

    /// Writes the envelope, every member present.
    ///
    /// # Errors
    /// None in practice; see [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    /// URL of the origin as tokens carry it.
    pub fn origin_url(&self) -> String {
        self.origin.url()
    }

    /// URL of the target with the operation, as tokens carry it.
    pub fn target_url(&self) -> String {
        format!("{}/{}", self.target.url(), self.operation)
    }

    /// Whether the body is in the object store.
    pub fn is_stored(&self) -> bool {
        chunk::is_stored(self.content_length, self.msg.len())
    }
}

/// The answer to an [`Invocation`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvocationResponse<'a> {
    /// The body, empty when it is in the object store or when there is an error.
    #[serde(serialize_with = "serde_bytes::serialize", deserialize_with = "body", borrow, default)]
    pub msg: Cow<'a, [u8]>,
    /// The id of the invocation answered.
    #[serde(default)]
    pub invocation_id: String,
    /// Why it failed; `None` on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// True length of the body, bytes; 0 for errors. Some SDKs cannot read an answer without it.
    #[serde(default)]
    pub content_length: Option<u64>,
    /// W3C trace headers.
    #[serde(rename = "traceContext", default, deserialize_with = "super::json::null_is_default")]
    pub trace_context: BTreeMap<String, String>,
    /// The instance that answered; nobody reads it.
    #[serde(default)]
    pub instance_id: String,
}

impl<'a> InvocationResponse<'a> {
    /// The answer `body` to the invocation `id`.
    pub fn success(id: impl Into<String>, body: impl Into<Cow<'a, [u8]>>) -> Self {
        let msg = body.into();
        Self { content_length: Some(msg.len() as u64), msg, invocation_id: id.into(), ..Self::default() }
    }

    /// The answer that the invocation `id` failed with `error`.
    pub fn failure(id: impl Into<String>, error: impl Into<String>) -> Self {
        Self { invocation_id: id.into(), error: Some(error.into()), content_length: Some(0), ..Self::default() }
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid).
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(Error::limit(format!(
                "the answer has {} bytes, at most {MAX_ENVELOPE_BYTES} are read",
                bytes.len()
            )));
        }
        codec::read(bytes).map_err(|cause| Error::invalid(format!("cannot decode the answer: {cause}")))
    }

    /// Writes the answer.
    ///
    /// # Errors
    /// None in practice; see [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    /// Whether the body is in the object store.
    pub fn is_stored(&self) -> bool {
        self.error.is_none() && chunk::is_stored(self.content_length, self.msg.len())
    }
}

/// Reads a body however it was packed; without a copy where it lies in the message as it is.
fn body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, [u8]>, D::Error> {
    struct Body;

    impl<'de> Visitor<'de> for Body {
        type Value = Cow<'de, [u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes as bin, str, array or nil")
        }

        fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(bytes))
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            Ok(Cow::Owned(bytes.to_vec()))
        }

        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text.as_bytes()))
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.as_bytes().to_vec()))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(&[]))
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(&[]))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut bytes = Vec::with_capacity(items.size_hint().unwrap_or_default().min(FIRST_ARRAY_BYTES));
            while let Some(byte) = items.next_element::<u8>()? {
                bytes.push(byte);
            }
            Ok(Cow::Owned(bytes))
        }
    }

    deserializer.deserialize_any(Body)
}

#[cfg(test)]
mod tests {
    use data_encoding::{HEXLOWER, HEXUPPER};
    use proptest::prelude::*;
    use serde_json::Value;
    use sha2::{Digest, Sha256};

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/invocation.json")).unwrap()
    }

    fn hex(value: &Value) -> Vec<u8> {
        HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
    }

    #[test]
    fn every_recorded_invocation_is_read_and_hashes_as_recorded() {
        let vectors = vectors();
        let cases = vectors["invocations"].as_array().unwrap();
        assert!(cases.len() >= 5);
        for case in cases {
            let bytes = hex(&case["msgpack_hex"]);
            let invocation = Invocation::decode(&bytes).unwrap();
            assert_eq!(invocation.origin_url(), case["origin_url"], "{}", case["name"]);
            assert_eq!(invocation.target_url(), case["target_url"], "{}", case["name"]);
            assert_eq!(invocation.operation, case["operation"]);
            assert_eq!(invocation.encoded_claims, case["jwt"]);
            let body = match case["msg_hex"].as_str().unwrap() {
                "1000000 bytes of 0x61" => vec![0x61; 1_000_000],
                text => HEXLOWER.decode(text.as_bytes()).unwrap(),
            };
            assert_eq!(invocation.is_stored(), body.len() == 1_000_000, "{}", case["name"]);
            assert_eq!(invocation.content_length, Some(body.len() as u64));
            if !invocation.is_stored() {
                assert_eq!(*invocation.msg, body);
            }
            let hash = [case["origin_url"].as_str(), case["target_url"].as_str(), case["operation"].as_str()]
                .iter()
                .fold(Sha256::new(), |hash, part| hash.chain_update(part.unwrap()))
                .chain_update(&body);
            assert_eq!(HEXUPPER.encode(&hash.finalize()), case["hash"]);
        }
    }

    #[test]
    fn all_nine_members_are_sent() {
        let bytes = Invocation { content_length: Some(0), ..Invocation::default() }.encode().unwrap();
        let members: BTreeMap<String, serde::de::IgnoredAny> = rmp_serde::from_slice(&bytes).unwrap();
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "content_length",
                "encoded_claims",
                "host_id",
                "id",
                "msg",
                "operation",
                "origin",
                "target",
                "traceContext"
            ]
        );
    }

    #[test]
    fn a_written_invocation_reads_back_and_its_body_is_bin() {
        let invocation = Invocation {
            origin: Entity::actor("M1"),
            target: Entity::provider("V1", "wasmcloud:keyvalue", "default"),
            operation: "KeyValue.Get".into(),
            msg: Cow::Borrowed(b"mykey"),
            id: "1".into(),
            encoded_claims: "a.b.c".into(),
            host_id: "N1".into(),
            content_length: Some(5),
            trace_context: [("traceparent".to_owned(), "00-1-2-01".to_owned())].into(),
        };
        let bytes = invocation.encode().unwrap();
        assert!(bytes.windows(7).any(|window| window == b"\xc4\x05mykey"));
        assert_eq!(Invocation::decode(&bytes).unwrap(), invocation);
    }

    #[test]
    fn every_recorded_response_is_read() {
        let responses = &vectors()["responses"];
        let ok = hex(&responses["ok_msgpack_hex"]);
        let ok = InvocationResponse::decode(&ok).unwrap();
        assert_eq!((&*ok.msg, ok.error.as_deref()), (&[0xc3][..], None));
        let failed = hex(&responses["error_msgpack_hex"]);
        let failed = InvocationResponse::decode(&failed).unwrap();
        assert_eq!((failed.error.as_deref(), failed.content_length), (Some("boom"), Some(0)));
        for (case, body) in [("msg_as_msgpack_str", &b"\x7fabc"[..]), ("msg_as_msgpack_str_not_utf8", &b"\xffabc"[..])]
        {
            let bytes = hex(&responses[case]["hex"]);
            let response = InvocationResponse::decode(&bytes).unwrap();
            assert_eq!((&*response.msg, response.is_stored()), (body, false));
        }
        let bytes = hex(&responses["msg_as_empty_array_no_invocation_id"]["hex"]);
        let response = InvocationResponse::decode(&bytes).unwrap();
        assert_eq!(response.error.as_deref(), Some("Invocation received for actor Mxxx that is not running"));
        assert!(response.msg.is_empty() && response.invocation_id.is_empty());
    }

    #[test]
    fn everything_a_live_provider_answered_is_read() {
        let live: Value = serde_json::from_str(include_str!("../../tests/vectors/provider_live.json")).unwrap();
        let mut seen = 0;
        for step in live["steps"].as_array().unwrap().iter().filter(|step| step.get("msg_len").is_some()) {
            let bytes = hex(&step["reply_hex"]);
            let response = InvocationResponse::decode(&bytes).unwrap();
            assert_eq!(response.error.as_deref(), step["error"].as_str(), "{}", step["step"]);
            assert_eq!(response.msg.len() as u64, step["msg_len"]);
            assert_eq!(response.content_length, step["content_length"].as_u64());
            assert_eq!(response.is_stored(), step["content_length"] == 1_000_000);
            seen += 1;
        }
        assert!(seen > 10);
    }

    #[test]
    fn bodies_are_read_from_arrays_and_nil() {
        let array = InvocationResponse::decode(b"\x81\xa3msg\x93\x01\xcc\xff\x02").unwrap();
        assert_eq!(*array.msg, [1, 255, 2]);
        assert!(InvocationResponse::decode(b"\x81\xa3msg\xc0").unwrap().msg.is_empty());
        assert!(InvocationResponse::decode(b"\x81\xa3msg\xdd\xff\xff\xff\xff").is_err());
        assert!(InvocationResponse::decode(b"\x81\xa3msg\xdb\xff\xff\xff\xff").is_err());
        let refused = Invocation::decode(b"\x81\xa3msg\x92\x01\xcd\x01\x00").unwrap_err();
        assert!(refused.text().starts_with("Failed to deserialize invocation: "), "{refused}");
    }

    #[test]
    fn an_answer_always_says_how_long_it_is() {
        let bytes = InvocationResponse::failure("1", "no").encode().unwrap();
        assert_eq!(InvocationResponse::decode(&bytes).unwrap().content_length, Some(0));
        let bytes = InvocationResponse::success("1", &b"abc"[..]).encode().unwrap();
        assert_eq!(InvocationResponse::decode(&bytes).unwrap().content_length, Some(3));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Invocation::decode(&bytes);
            let _ = InvocationResponse::decode(&bytes);
        }

        #[test]
        fn any_answer_reads_back(id in ".{0,40}", body: Vec<u8>, error: Option<String>) {
            let answer = match error {
                Some(error) => InvocationResponse::failure(id, error),
                None => InvocationResponse::success(id, body),
            };
            let bytes = answer.encode().unwrap();
            prop_assert_eq!(InvocationResponse::decode(&bytes).unwrap(), answer);
        }
    }
}
