//! When a body travels through the object store instead of the message, and under what name (`protocol/invocation.md §6`).

use std::time::Duration;

/// Bodies longer than this go through the object store, bytes. The old SDKs and the Rust host use it both ways; the Elixir
/// host sends requests above 700 KiB so, which [`is_stored`] reads as well.
pub const THRESHOLD_BYTES: usize = 900 * 1024;

/// Longest body that is fetched, bytes: what a guest of this ABI can take in beside its own code. A longer one is refused
/// unfetched, since its size is announced in the envelope.
pub const MAX_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// What a call with a stored body may take longer than another; the SDKs' figure.
pub const EXTRA_TIME: Duration = Duration::from_secs(13);

/// Whether a body of `length` bytes must be stored before the message is sent.
pub fn must_store(length: usize) -> bool {
    length > THRESHOLD_BYTES
}

/// Whether the body of a received message is in the store. True for every sender's threshold: the envelope announces more
/// bytes than it holds.
pub fn is_stored(content_length: Option<u64>, received: usize) -> bool {
    content_length.is_some_and(|length| length > received as u64)
}

/// Name of the object that holds the request body of the invocation `id`.
pub fn request_object(id: &str) -> String {
    id.to_owned()
}

/// Name of the object that holds the response body of the invocation `id`.
pub fn response_object(id: &str) -> String {
    format!("{id}-r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_itself_still_travels_in_the_message() {
        assert!(!must_store(921_600));
        assert!(must_store(921_601));
    }

    #[test]
    fn both_generations_of_senders_are_read() {
        assert!(is_stored(Some(1_000_000), 0));
        assert!(is_stored(Some(750_000), 0));
        assert!(!is_stored(Some(750_000), 750_000));
        assert!(!is_stored(Some(0), 0));
        assert!(!is_stored(None, 0));
    }

    #[test]
    fn objects_are_named_after_the_invocation() {
        assert_eq!((request_object("bigid").as_str(), response_object("bigid").as_str()), ("bigid", "bigid-r"));
    }
}
