//! The words of a JetStream object store: where an object's chunks and its description are, and the requests for them.
//!
//! An object is a number of chunks under one subject and a description, JSON, under another; a new description replaces
//! the old one and names new chunks. Pure: [`super::bucket`] asks and stores. Every client of the field writes this
//! layout (NATS ADR-20), so objects put by `nats object put` are read and ours are read by it.

use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    store::Digest,
    wire::json::{self, null_is_default},
};

/// What a reference to an object begins with.
pub const SCHEME: &str = "nats://";

/// Longest name of a bucket, characters: stream names beyond it are refused by servers with file stores.
const MAX_BUCKET_BYTES: usize = 128;

/// Longest name of an object, bytes. It travels in a subject, four thirds as long; servers take 4 KiB of control line.
const MAX_NAME_BYTES: usize = 1024;

/// Longest description that is read, bytes. Ours have 400; others may hang headers and metadata on theirs.
pub const MAX_INFO_BYTES: usize = 64 * 1024;

/// How an object's digest begins.
const DIGEST_MARK: &str = "SHA-256=";

/// An object in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket, letters, digits, `_` and `-`.
    pub bucket: String,
    /// The object, anything but nothing.
    pub name: String,
}

impl Place {
    /// Reads `nats://BUCKET/NAME`, with or without a digest behind it, which is not looked at.
    ///
    /// # Errors
    /// `Invalid`, saying which part is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let form = |what: &str| Error::invalid(format!("{what}; write {SCHEME}BUCKET/NAME, with @sha256:… to pin it"));
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| form("it is no reference to an object store"))?;
        let (bucket, name) = rest.split_once('/').ok_or_else(|| form("it names a bucket and no object in it"))?;
        let name = name.rsplit_once("@sha256:").map_or(name, |(name, _)| name);
        if name.is_empty() {
            return Err(form("it names a bucket and no object in it"));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(Error::invalid(format!("the object's name has more than {MAX_NAME_BYTES} bytes")));
        }
        Ok(Self { bucket: bucket_name(bucket)?, name: name.to_owned() })
    }

    /// Where the description is.
    pub fn info_subject(&self) -> String {
        format!("$O.{}.M.{}", self.bucket, BASE64URL.encode(self.name.as_bytes()))
    }

    /// Where the chunks with the identity `nuid` are.
    pub fn chunk_subject(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bucket)
    }

    /// The reference that pins `digest`.
    pub fn pinned(&self, digest: Digest) -> String {
        format!("{SCHEME}{}/{}@sha256:{digest}", self.bucket, self.name)
    }
}

/// `text`, if a bucket can have that name.
///
/// # Errors
/// `Invalid`.
pub fn bucket_name(text: &str) -> Result<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if text.is_empty() || text.len() > MAX_BUCKET_BYTES || !text.bytes().all(good) {
        return Err(Error::invalid(format!(
            "the bucket cannot have that name: letters, digits, _ and - are allowed, {MAX_BUCKET_BYTES} at most"
        )));
    }
    Ok(text.to_owned())
}

/// The stream behind `bucket`.
pub fn stream(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

/// Where every description of `bucket` is.
pub fn all_infos(bucket: &str) -> String {
    format!("$O.{bucket}.M.>")
}

/// The request that makes the bucket as other clients make it: on disk, one replica, read without a detour.
pub fn create_request(bucket: &str) -> String {
    format!(
        concat!(
            r#"{{"name":"{}","subjects":["$O.{}.C.>","$O.{}.M.>"],"retention":"limits","max_consumers":-1,"#,
            r#""max_msgs_per_subject":-1,"max_msgs":-1,"max_bytes":-1,"allow_direct":true,"mirror_direct":false,"#,
            r#""deny_delete":false,"sealed":false,"deny_purge":false,"allow_rollup_hdrs":true,"max_age":0,"#,
            r#""max_msg_size":-1,"storage":"file","discard":"new","num_replicas":1,"duplicate_window":120000000000}}"#
        ),
        stream(bucket),
        bucket,
        bucket
    )
}

/// Asks for the newest message of a subject.
pub fn newest_request(subject: &str) -> String {
    serde_json::json!({ "last_by_subj": subject }).to_string()
}

/// Asks for the first message of a subject, wildcards allowed, whose number is at least `from`.
pub fn next_request(subject: &str, from: u64) -> String {
    serde_json::json!({ "seq": from, "next_by_subj": subject }).to_string()
}

/// Asks for the headers of every message of a subject, one after the other, to `inbox`, at `bits_per_second`. It ends by
/// itself when nobody listens on `inbox` any more.
pub fn headers_request(bucket: &str, subject: &str, inbox: &str, bits_per_second: u64) -> String {
    let config = serde_json::json!({
        "deliver_subject": inbox, "deliver_policy": "all", "ack_policy": "none", "filter_subject": subject,
        "max_deliver": -1, "replay_policy": "instant", "headers_only": true, "rate_limit_bps": bits_per_second,
        "mem_storage": true, "num_replicas": 1,
    });
    serde_json::json!({ "stream_name": stream(bucket), "config": config }).to_string()
}

/// Asks to remove everything under a subject.
pub fn purge_request(subject: &str) -> String {
    serde_json::json!({ "filter": subject }).to_string()
}

/// An object's description.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What kind of object, where that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
    /// The bucket it is in.
    #[serde(default)]
    pub bucket: String,
    /// Which chunks are its.
    #[serde(default)]
    pub nuid: String,
    /// All of it, bytes.
    #[serde(default)]
    pub size: u64,
    /// In how many chunks.
    #[serde(default)]
    pub chunks: u64,
    /// When it was put, RFC 3339.
    #[serde(default, deserialize_with = "null_is_default")]
    pub mtime: String,
    /// `SHA-256=` and the digest in base64url.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// It was removed, and this says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// What is special about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// It is another object by another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// Longest chunk, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_chunk_size: Option<u64>,
}

/// Where another object is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The object; none for a link to a whole bucket.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// The bucket.
    #[serde(default)]
    pub bucket: String,
}

impl Info {
    /// Reads a description.
    ///
    /// # Errors
    /// `Invalid` or `Limit`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        json::read("the description of the object cannot be read", bytes, MAX_INFO_BYTES)
    }

    /// Where the object it links to is, if it is a link.
    ///
    /// # Errors
    /// `Invalid`: it links to a bucket and not to an object.
    pub fn link(&self) -> Result<Option<Place>> {
        let Some(link) = self.options.as_ref().and_then(|options| options.link.as_ref()) else { return Ok(None) };
        if link.name.is_empty() {
            return Err(Error::invalid("it is a link to a bucket and not to an object"));
        }
        Ok(Some(Place { bucket: bucket_name(&link.bucket)?, name: link.name.clone() }))
    }

    /// The digest of its content, where the description has one that can be read.
    pub fn content_digest(&self) -> Option<Digest> {
        let text = self.digest.strip_prefix(DIGEST_MARK)?.trim_end_matches('=');
        Some(Digest(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()?))
    }

    /// How a description says `digest`.
    pub fn digest_text(digest: Digest) -> String {
        format!("{DIGEST_MARK}{}", BASE64URL.encode(&digest.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn references_name_a_bucket_and_an_object() {
        let place = |bucket: &str, name: &str| Place { bucket: bucket.into(), name: name.into() };
        assert_eq!(Place::parse("nats://actors/echo").unwrap(), place("actors", "echo"));
        assert_eq!(Place::parse("nats://a-b_1/site/a@b.wasm").unwrap(), place("a-b_1", "site/a@b.wasm"));
        let pinned = place("actors", "echo").pinned(Digest([10; 32]));
        assert_eq!(pinned, format!("nats://actors/echo@sha256:{}", "0a".repeat(32)));
        assert_eq!(Place::parse(&pinned).unwrap(), place("actors", "echo"));
        for bad in ["nats://actors", "nats://actors/", "nats:///echo", "nats://a.b/echo", "nats://a*/x", "file://x"] {
            assert_eq!(Place::parse(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }

    /// As the `nats` tool and the library of the same name write it.
    #[test]
    fn descriptions_of_other_clients_are_read() {
        let text = br#"{"name":"echo","options":{"max_chunk_size":131072,"link":null},"bucket":"actors","nuid":"N1",
            "size":5,"mtime":"2026-01-01T00:00:00Z","chunks":1,"description":null,"headers":{"X":["y"]},
            "digest":"SHA-256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="}"#;
        let info = Info::parse(text).unwrap();
        assert_eq!((info.size, info.chunks, info.nuid.as_str()), (5, 1, "N1"));
        assert_eq!(info.content_digest(), Some(Digest::of(b"hello")));
        assert_eq!(info.link().unwrap(), None);
        assert_eq!(Info::digest_text(Digest::of(b"hello")), info.digest);
        let unpadded = Info { digest: info.digest.trim_end_matches('=').to_owned(), ..Info::default() };
        assert_eq!(unpadded.content_digest(), Some(Digest::of(b"hello")));
        assert_eq!(Info { digest: "MD5=00".into(), ..Info::default() }.content_digest(), None);

        let link = Info::parse(br#"{"name":"a","options":{"link":{"name":"b","bucket":"other"}}}"#).unwrap();
        assert_eq!(link.link().unwrap(), Some(Place { bucket: "other".into(), name: "b".into() }));
        let bucket = Info::parse(br#"{"name":"a","options":{"link":{"bucket":"other"}}}"#).unwrap();
        assert_eq!(bucket.link().unwrap_err().kind(), Kind::Invalid);
        assert!(Info::parse(&[b' '; MAX_INFO_BYTES + 1]).is_err());
    }

    #[test]
    fn subjects_are_those_of_the_layout() {
        let place = Place::parse("nats://actors/echo").unwrap();
        assert_eq!(place.info_subject(), "$O.actors.M.ZWNobw==");
        assert_eq!(place.chunk_subject("N1"), "$O.actors.C.N1");
        assert_eq!(next_request("$O.a.C.\"", 7), r#"{"next_by_subj":"$O.a.C.\"","seq":7}"#);
        let made: serde_json::Value = serde_json::from_str(&create_request("actors")).unwrap();
        assert_eq!(made["subjects"], serde_json::json!(["$O.actors.C.>", "$O.actors.M.>"]));
    }
}
