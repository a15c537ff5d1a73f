//! `HttpServer.HandleRequest` in bytes (`protocol/interfaces.md §2`): from hyper's types to MessagePack and back.
//!
//! Written straight from the parsed request into the invocation's payload, and read with the answer's body left where it
//! is: one allocation in, none for the body out. Property tests hold it to `wire::interface::{HttpRequest,
//! HttpResponse}`, which other rooms and tests use. No I/O.

use std::{borrow::Cow, fmt};

use hyper::{
    HeaderMap, StatusCode,
    body::Bytes,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use rmp::encode::{self, ByteBuf};
use serde::{
    Deserialize,
    de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    error::{Error, Result},
    wire::codec,
};

/// Bytes of the fixed words of a request with their markers and lengths, at most.
const FIXED_BYTES: usize = 96;

/// Header lines an actor may answer with. Clients give up at about as many; more is an invalid answer.
const RESPONSE_HEADERS_MAX: usize = 256;

/// Bytes of header names and values an actor may answer with. More is an invalid answer.
const RESPONSE_HEADER_BYTES_MAX: usize = 64 * 1024;

/// A request on its way to an actor: everything but the body, which is appended as it arrives.
pub struct RequestPayload {
    bytes: Vec<u8>,
    /// Where the body's length goes, if it was not known beforehand.
    length_at: Option<usize>,
    body_at: usize,
}

impl RequestPayload {
    /// Starts the payload of a request whose body has `length` bytes, or an unknown number. `reserve` bytes of the body
    /// are allotted at once.
    pub fn new(parts: &Parts, length: Option<u32>, reserve: usize) -> Self {
        let path = parts.uri.path();
        let query = parts.uri.query().unwrap_or("");
        let mut out = ByteBuf::with_capacity(Self::head_len(parts) + reserve);
        write(encode::write_map_len(&mut out, 5));
        write(encode::write_str(&mut out, "method"));
        write(encode::write_str(&mut out, parts.method.as_str()));
        write(encode::write_str(&mut out, "path"));
        write(encode::write_str(&mut out, path));
        write(encode::write_str(&mut out, "queryString"));
        write(encode::write_str(&mut out, query));
        write(encode::write_str(&mut out, "header"));
        write_headers(&mut out, &parts.headers);
        write(encode::write_str(&mut out, "body"));
        let length_at = match length {
            Some(length) => {
                write(encode::write_bin_len(&mut out, length));
                None
            }
            None => {
                // The widest form, so that the length can be filled in when it is known.
                out.as_mut_vec().extend_from_slice(&[rmp::Marker::Bin32.to_u8(), 0, 0, 0, 0]);
                Some(out.as_slice().len() - 4)
            }
        };
        let bytes = out.into_vec();
        Self { body_at: bytes.len(), bytes, length_at }
    }

    /// Bytes that everything but the body takes at most.
    pub fn head_len(parts: &Parts) -> usize {
        // A name has up to 5 bytes before it, a value up to 5, the list of values up to 5. A byte of Latin-1 becomes two.
        let bytes = |value: &HeaderValue| if value.to_str().is_ok() { value.len() } else { 2 * value.len() };
        let headers: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + bytes(value) + 15).sum();
        FIXED_BYTES
            + parts.method.as_str().len()
            + parts.uri.path_and_query().map_or(0, |text| text.as_str().len())
            + headers
    }

    /// Appends a piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// Bytes of the body so far.
    pub fn body_len(&self) -> usize {
        self.bytes.len() - self.body_at
    }

    /// The whole payload.
    pub fn finish(mut self) -> Vec<u8> {
        if let Some(at) = self.length_at {
            // Bodies stay below `MAX_CONTENT_LEN_LIMIT_BYTES`, so the length fits.
            let length = u32::try_from(self.body_len()).unwrap_or(u32::MAX);
            self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
        self.bytes
    }
}

fn write_headers(out: &mut ByteBuf, headers: &HeaderMap) {
    write(encode::write_map_len(out, length(headers.keys_len())));
    for name in headers.keys() {
        write(encode::write_str(out, name.as_str()));
        write(encode::write_array_len(out, length(headers.get_all(name).iter().count())));
        for value in headers.get_all(name) {
            write(encode::write_str(out, &text(value)));
        }
    }
}

/// A value as text, which is what an actor's header map holds. Clients write UTF-8 beyond ASCII today; what is none is Latin-1,
/// as HTTP had it from the beginning, so that every byte arrives as some character. The first-party server leaves such values
/// out, and an actor cannot tell that from their absence.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    match str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    }
}

fn length(count: usize) -> u32 {
    u32::try_from(count).expect("a request head holds far fewer headers than u32 counts")
}

fn write<T, E: fmt::Debug>(result: std::result::Result<T, E>) {
    result.expect("writing to memory cannot fail");
}

/// An actor's answer, checked.
#[derive(Debug)]
pub struct Answer {
    /// 200–599.
    pub status: StatusCode,
    /// Without those that belong to the connection rather than to the answer.
    pub headers: HeaderMap,
    /// The body, shared with the payload it came in.
    pub body: Bytes,
}

impl Answer {
    /// Reads and checks `payload`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Invalid`]: not an `HttpResponse`, or one that HTTP cannot carry; the text says what.
    pub fn decode(payload: Vec<u8>) -> Result<Self> {
        let Response { status_code, header, body } = codec::read(&payload)
            .map_err(|cause| Error::invalid(format!("the actor's answer is not an HttpResponse: {cause}")))?;
        let status = StatusCode::from_u16(status_code).ok().filter(|status| (200..600).contains(&status.as_u16()));
        let Some(status) = status else {
            return Err(Error::invalid(format!(
                "the actor answered with status {status_code}: it must be from 200 to 599"
            )));
        };
        let headers = header.0;
        let body = match body {
            Cow::Owned(bytes) => Bytes::from(bytes),
            Cow::Borrowed(slice) => {
                // `slice` lies within `payload`, which is what it was borrowed from.
                let start = slice.as_ptr() as usize - payload.as_ptr() as usize;
                let range = start..start + slice.len();
                Bytes::from(payload).slice(range)
            }
        };
        Ok(Self { status, headers, body })
    }
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(rename = "statusCode")]
    status_code: u16,
    #[serde(default)]
    header: ResponseHeaders,
    #[serde(with = "serde_bytes", borrow, default)]
    body: Cow<'a, [u8]>,
}

/// Response headers read straight into hyper's map.
#[derive(Default)]
struct ResponseHeaders(HeaderMap);

impl<'de> Deserialize<'de> for ResponseHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = ResponseHeaders;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of header names to lists of values")
            }

            fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
                Ok(ResponseHeaders::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut headers = HeaderMap::new();
                let mut bytes = 0;
                while let Some(name) = map.next_key::<&'de str>()? {
                    let parsed = HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| A::Error::custom(format_args!("{name:?} is not a header name")))?;
                    if belongs_to_the_connection(&parsed) {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    map.next_value_seed(Values { name: parsed, headers: &mut headers, bytes: &mut bytes })?;
                }
                Ok(ResponseHeaders(headers))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

struct Values<'a> {
    name: HeaderName,
    headers: &'a mut HeaderMap,
    bytes: &'a mut usize,
}

impl<'de> serde::de::DeserializeSeed<'de> for Values<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of header values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> std::result::Result<(), A::Error> {
        while let Some(text) = values.next_element::<&'de str>()? {
            let value = HeaderValue::from_str(text).map_err(|_| {
                A::Error::custom(format_args!("the value of {} holds characters no header may hold", self.name))
            })?;
            *self.bytes += self.name.as_str().len() + value.len();
            if self.headers.len() >= RESPONSE_HEADERS_MAX || *self.bytes > RESPONSE_HEADER_BYTES_MAX {
                return Err(A::Error::custom(format_args!(
                    "more than {RESPONSE_HEADERS_MAX} headers or {RESPONSE_HEADER_BYTES_MAX} bytes of them"
                )));
            }
            self.headers.append(self.name.clone(), value);
        }
        Ok(())
    }
}

/// Headers that say how bytes travel on this connection. The server decides them; an actor that could would break the
/// framing for the next request.
fn belongs_to_the_connection(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 6] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TRAILER,
        header::UPGRADE,
        header::TE,
    ];
    NAMES.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use data_encoding::HEXLOWER;
    use hyper::{
        Request,
        body::Bytes,
        header::{HeaderName, HeaderValue},
    };
    use proptest::prelude::*;

    use super::{Answer, RequestPayload};
    use crate::wire::{
        codec,
        interface::{HttpRequest, HttpResponse},
    };

    fn vector(name: &str) -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/interfaces.json");
        let text = std::fs::read_to_string(path).expect("the vectors");
        let vectors: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        HEXLOWER.decode(vectors["HttpServer.HandleRequest"][name].as_str().expect("a text").as_bytes()).expect("hex")
    }

    #[test]
    fn the_request_of_the_contract_is_written_byte_for_byte() {
        let expected = vector("request_hex");
        let request: HttpRequest = codec::decode("request", &expected).unwrap();
        assert_eq!(codec::encode(&request).unwrap(), expected);
        let (parts, ()) = Request::builder()
            .method(request.method.as_str())
            .uri(format!("{}?{}", request.path, request.query_string))
            .header("content-type", "text/plain")
            .body(())
            .unwrap()
            .into_parts();
        assert_eq!(RequestPayload::new(&parts, Some(0), 0).finish(), expected);
    }

    #[test]
    fn the_response_of_the_contract_is_read() {
        let bytes = vector("response_hex");
        let response: HttpResponse = codec::decode("response", &bytes).unwrap();
        assert_eq!(codec::encode(&response).unwrap(), bytes);
        let answer = Answer::decode(bytes).unwrap();
        assert_eq!(answer.status, response.status_code);
        assert!(answer.headers.is_empty());
        assert_eq!(answer.body, response.body);
    }

    #[test]
    fn the_body_of_an_answer_is_read_in_every_form_and_not_copied() {
        let payload =
            codec::encode(&HttpResponse { status_code: 200, body: vec![7; 1000], ..Default::default() }).unwrap();
        let range = payload.as_ptr() as usize..payload.as_ptr() as usize + payload.len();
        let answer = Answer::decode(payload).unwrap();
        assert_eq!(answer.body, vec![7; 1000]);
        assert!(range.contains(&(answer.body.as_ptr() as usize)));
        let forms: [(&str, &[u8]); 5] =
            [("a26869", b"hi"), ("920205", &[2, 5]), ("c402ffee", &[0xff, 0xee]), ("a0", b""), ("90", b"")];
        for (body, expected) in forms {
            let payload = format!("82aa737461747573436f6465ccc8a4626f6479{body}");
            let answer = Answer::decode(HEXLOWER.decode(payload.as_bytes()).unwrap()).unwrap();
            assert_eq!(answer.body, expected, "{body}");
        }
        let missing = HEXLOWER.decode(b"81aa737461747573436f6465ccc8").unwrap();
        assert_eq!(Answer::decode(missing).unwrap().body, Bytes::new());
    }

    fn token() -> impl Strategy<Value = String> {
        "[a-z][a-z0-9-]{0,12}"
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_the_wire_type_reads(
            method in "[A-Z]{1,8}",
            path in "/[a-zA-Z0-9/%._~-]{0,40}",
            query in "[a-zA-Z0-9=&%._~-]{0,40}",
            headers in prop::collection::vec((token(), "[ -~]{0,20}"), 0..30),
            body in prop::collection::vec(any::<u8>(), 0..300),
            known: bool,
        ) {
            let mut builder = Request::builder().method(method.as_str()).uri(format!("{path}?{query}"));
            let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, value) in &headers {
                let value = value.trim();
                builder = builder.header(name, value);
                expected.entry(name.clone()).or_default().push(value.to_owned());
            }
            let (parts, ()) = builder.body(()).unwrap().into_parts();
            let mut payload = RequestPayload::new(&parts, known.then_some(body.len() as u32), body.len() / 2);
            for piece in body.chunks(7) {
                payload.push(piece);
            }
            prop_assert_eq!(payload.body_len(), body.len());
            prop_assert!(payload.bytes.len() - body.len() <= RequestPayload::head_len(&parts));
            let read: HttpRequest = codec::decode("request", &payload.finish()).unwrap();
            prop_assert_eq!(read, HttpRequest { method, path, query_string: query, header: expected, body });
        }

        #[test]
        fn an_answer_is_read_as_the_wire_type_wrote_it(
            status_code in 200u16..600,
            headers in prop::collection::btree_map(
                token().prop_map(|name| format!("x-{name}")),
                prop::collection::vec("[!-~]{0,20}", 0..4),
                0..10,
            ),
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let response = HttpResponse { status_code, header: headers.clone(), body: body.clone() };
            let answer = Answer::decode(codec::encode(&response).unwrap()).unwrap();
            prop_assert_eq!(answer.status.as_u16(), status_code);
            prop_assert_eq!(answer.body, body);
            prop_assert_eq!(answer.headers.len(), headers.values().map(Vec::len).sum::<usize>());
            for (name, values) in headers {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                let read: Vec<_> = answer.headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
                prop_assert_eq!(read, values.iter().map(String::as_bytes).collect::<Vec<_>>());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Answer::decode(bytes);
        }

        #[test]
        fn no_damage_panics(at in 0usize..60, byte: u8) {
            let header = BTreeMap::from([("x-a".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
            let mut bytes = codec::encode(&HttpResponse { status_code: 200, header, body: vec![1, 2, 3] }).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Answer::decode(bytes);
        }
    }
}
