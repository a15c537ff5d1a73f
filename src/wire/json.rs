//! JSON in two manners: what we shape ourselves is written without heap of its own, what others shape is read with limits.
//!
//! Fixed-shape messages (acks, ping replies, events, heartbeats) go through serde-json-core into a buffer the caller keeps.
//! Everything that comes from outside is read by serde_json, never more than a stated number of bytes.

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Longest control request that is read, bytes. The largest real ones carry a provider's configuration or a link's values
/// and stay below 16 KiB; a longer one is refused before it is parsed.
pub const MAX_REQUEST_BYTES: usize = 256 * 1024;

/// First size of a buffer that has none yet, bytes: holds any event but a heartbeat of a busy host.
const FIRST_BUFFER_BYTES: usize = 1024;

/// Writes `value` over what `buffer` held. The buffer grows when it must and keeps its size, so that a message written
/// again and again allocates nothing.
///
/// # Errors
/// [`Kind::Limit`](crate::error::Kind::Limit): the text would be longer than `limit_bytes`.
pub fn write(buffer: &mut Vec<u8>, limit_bytes: usize, value: &(impl Serialize + ?Sized)) -> Result<()> {
    let mut size = buffer.capacity().clamp(FIRST_BUFFER_BYTES.min(limit_bytes), limit_bytes);
    loop {
        buffer.resize(size, 0);
        match serde_json_core::to_slice(value, buffer) {
            Ok(written) => {
                buffer.truncate(written);
                return Ok(());
            }
            // `BufferFull` is the only error the writer has.
            Err(_) if size < limit_bytes => size = (size * 2).min(limit_bytes),
            Err(_) => {
                buffer.clear();
                return Err(Error::limit(format!("a message is longer than the {limit_bytes} bytes it may have")));
            }
        }
    }
}

/// Writes `value`, which holds secrets, into memory that is wiped when it goes. The text is measured first: a buffer that grows
/// would leave copies behind.
///
/// # Errors
/// `value` cannot be JSON.
pub fn secret(value: &impl Serialize) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let mut measured = Measured(0);
    serde_json::to_writer(&mut measured, value)?;
    // One more for the end of a line.
    let mut text = Zeroizing::new(Vec::with_capacity(measured.0 + 1));
    serde_json::to_writer(&mut *text, value)?;
    Ok(text)
}

/// Counts what is written.
struct Measured(usize);

impl std::io::Write for Measured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads a JSON message of at most `limit_bytes`.
///
/// # Errors
/// [`Kind::Limit`](crate::error::Kind::Limit) when it is longer, else [`Kind::Invalid`](crate::error::Kind::Invalid);
/// the text is `what` followed by the reason, which repeats no value: it may be a secret, and the text goes into logs.
pub fn read<T: DeserializeOwned>(what: &str, bytes: &[u8], limit_bytes: usize) -> Result<T> {
    if bytes.len() > limit_bytes {
        return Err(Error::limit(format!("{what}: it has {} bytes, at most {limit_bytes} are read", bytes.len())));
    }
    serde_json::from_slice(bytes)
        .map_err(|cause| Error::invalid(format!("{what}: {}", without_value(&cause.to_string()))))
}

/// `text` of the reader without the value it complains of: `invalid type: string "…", expected a map`.
fn without_value(text: &str) -> String {
    let complains = text.starts_with("invalid type: ") || text.starts_with("invalid value: ");
    match (text.find(['"', '`']), text.rfind(", expected ")) {
        (Some(value), Some(expected)) if complains && value < expected => {
            format!("{}{}", text[..value].trim_end(), &text[expected..])
        }
        _ => text.to_owned(),
    }
}

/// For members where `null` means the same as absence.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A JSON object written from an iterator that is made anew each time: no map need exist.
pub struct Pairs<F>(pub F);

impl<F, I, K, V> Serialize for Pairs<F>
where
    F: Fn() -> I,
    I: Iterator<Item = (K, V)>,
    K: Serialize,
    V: Serialize,
{
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map((self.0)())
    }
}

/// A JSON array written from an iterator that is made anew each time.
pub struct Items<F>(pub F);

impl<F, I> Serialize for Items<F>
where
    F: Fn() -> I,
    I: Iterator,
    I::Item: Serialize,
{
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    proptest! {
        #[test]
        fn any_text_survives_our_writer(map: BTreeMap<String, String>) {
            let mut buffer = Vec::new();
            write(&mut buffer, 1 << 20, &map).unwrap();
            prop_assert_eq!(serde_json::from_slice::<BTreeMap<String, String>>(&buffer).unwrap(), map);
        }
    }

    #[test]
    fn a_buffer_grows_to_its_limit_and_is_kept() {
        let mut buffer = Vec::new();
        write(&mut buffer, 5000, &"x".repeat(4000)).unwrap();
        assert_eq!(buffer.len(), 4002);
        let (at, room) = (buffer.as_ptr(), buffer.capacity());
        write(&mut buffer, 5000, &"y").unwrap();
        assert_eq!((buffer.as_slice(), buffer.as_ptr(), buffer.capacity()), (&b"\"y\""[..], at, room));
        assert_eq!(write(&mut buffer, 5000, &"x".repeat(5000)).unwrap_err().kind(), Kind::Limit);
        assert!(buffer.is_empty());
        write(&mut buffer, 10, &"z").unwrap();
    }

    #[test]
    fn a_long_request_is_refused_unread() {
        let error = read::<String>("Invalid thing", &[b'x'; 11], 10).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
    }

    #[test]
    fn iterators_become_objects_and_arrays() {
        let pairs = [("a", 1), ("b", 2)];
        let mut buffer = Vec::new();
        write(&mut buffer, 100, &Pairs(|| pairs.iter().copied())).unwrap();
        assert_eq!(buffer, br#"{"a":1,"b":2}"#);
        write(&mut buffer, 100, &Items(|| pairs.iter().map(|pair| pair.0))).unwrap();
        assert_eq!(buffer, br#"["a","b"]"#);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        type Values = std::collections::BTreeMap<String, String>;
        for (body, said) in [
            (r#"{"a":{"PASSWORD":12345678}}"#, "invalid type: integer, expected a string at line 1 column 25"),
            (r#"{"a":"sword, expected fish"}"#, "invalid type: string, expected a map at line 1 column 27"),
            (r#"{"a":7"#, "invalid type: integer, expected a map at line 1 column 6"),
        ] {
            let read = read::<std::collections::BTreeMap<String, Values>>("it", body.as_bytes(), 1000);
            assert_eq!(read.unwrap_err().text(), format!("it: {said}"));
        }
        assert_eq!(without_value("missing field `lattice` at line 1"), "missing field `lattice` at line 1");
    }
}
