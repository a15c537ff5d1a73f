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

use crate::error::{Error, Result};

/// Room for the fixed words of a request, bytes; a guess that saves growing, not a limit.
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
        let headers: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 6).sum();
        let mut out = ByteBuf::with_capacity(FIXED_BYTES + path.len() + query.len() + headers + reserve);
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

/// Values that are not visible ASCII are left out, as the first-party server does: an actor's header map holds text.
fn write_headers(out: &mut ByteBuf, headers: &HeaderMap) {
    let readable = |name: &HeaderName| headers.get_all(name).iter().filter(|value| value.to_str().is_ok()).count();
    let plain = headers.values().all(|value| value.to_str().is_ok());
    let count = if plain { headers.keys_len() } else { headers.keys().filter(|name| readable(name) > 0).count() };
    write(encode::write_map_len(out, length(count)));
    for name in headers.keys() {
        let count = readable(name);
        if count == 0 {
            continue;
        }
        write(encode::write_str(out, name.as_str()));
        write(encode::write_array_len(out, length(count)));
        for text in headers.get_all(name).iter().filter_map(|value| value.to_str().ok()) {
            write(encode::write_str(out, text));
        }
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
        let Response { status_code, header, body } = rmp_serde::from_slice(&payload)
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
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
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
        while let Some(text) = values.next_element::<Cow<'de, str>>()? {
            let value = HeaderValue::from_str(&text).map_err(|_| {
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
