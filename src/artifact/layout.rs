//! The words of an OCI image layout as our archives use it: index, manifests, media types (OCI image-spec 1.1).
//!
//! Pure. One manifest an artifact, shaped as `wash push` shapes it, so that other tools can copy an archive into a registry.
//! Everything this board knows of an artifact beyond that travels in annotations of the index.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    artifact::inventory::{Referred, parse_digest},
    error::{Error, Result},
    store::Digest,
};

/// Name and content of the file that says what this is.
pub const MARKER: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);

/// Name of the index.
pub const INDEX: &str = "index.json";

/// Folder of everything else, by digest.
pub const BLOBS: &str = "blobs/sha256/";

/// The configuration of every artifact, as `wash push` writes it.
pub const CONFIG: &[u8] = b"{}";

/// Artifacts of one archive at most: as many as a board remembers references.
pub const MAX_ARTIFACTS: usize = 256;

/// Longest index or manifest that is read, bytes. Ours have 1 KiB an artifact; registries limit a manifest to 4 MiB.
pub const MAX_WORDS_BYTES: u64 = 4 << 20;

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What the reference of a tag is called by other tools.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Annotations of our own: JSON texts.
const REFERENCES: &str = "dev.latticed.references";
const NAMES: &str = "dev.latticed.names";

/// Layers and the configurations that go with them (`protocol/config.md §6`).
const ACTOR: (&str, &str) =
    ("application/vnd.module.wasm.content.layer.v1+wasm", "application/vnd.wasmcloud.actor.archive.config");
const PROVIDER: (&str, &str) =
    ("application/vnd.wasmcloud.provider.archive.layer.v1+par", "application/vnd.wasmcloud.provider.archive.config");

/// How a WebAssembly module begins.
const WASM_MAGIC: &[u8] = b"\0asm";

/// An artifact of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Of its content.
    pub digest: Option<Digest>,
    /// Length of its content.
    pub bytes: u64,
    /// Of the manifest that lists it in the archive.
    pub manifest: Option<Digest>,
    /// What stood for it where it came from.
    pub references: Vec<Referred>,
    /// Under which names it was offered there.
    pub names: Vec<String>,
}

/// The manifest of content that begins with `beginning`.
pub fn manifest(digest: Digest, bytes: u64, beginning: &[u8]) -> Vec<u8> {
    let (layer, config) = if beginning.starts_with(WASM_MAGIC) { ACTOR } else { PROVIDER };
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": config,
            "digest": format!("sha256:{}", Digest::of(CONFIG)),
            "size": CONFIG.len(),
        },
        "layers": [{ "mediaType": layer, "digest": format!("sha256:{digest}"), "size": bytes }],
    })
    .to_string()
    .into_bytes()
}

/// The index of `items`, each with the digest and length of its manifest.
///
/// # Errors
/// `Internal`: never in practice.
pub fn index(items: &[(Item, Digest, u64)]) -> Result<Vec<u8>> {
    let manifests = items.iter().map(|(item, manifest, bytes)| {
        let mut annotations = serde_json::Map::new();
        if let Some(referred) = item.references.first() {
            annotations.insert(REF_NAME.into(), referred.reference.clone().into());
        } else if let Some(name) = item.names.first() {
            annotations.insert(REF_NAME.into(), name.clone().into());
        }
        annotations.insert(REFERENCES.into(), text(&item.references)?.into());
        annotations.insert(NAMES.into(), text(&item.names)?.into());
        Ok(json!({
            "mediaType": MANIFEST_TYPE,
            "digest": format!("sha256:{manifest}"),
            "size": bytes,
            "annotations": annotations,
        }))
    });
    let manifests: Vec<Value> = manifests.collect::<Result<_>>()?;
    Ok(json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests }).to_string().into_bytes())
}

fn text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|cause| Error::internal(format!("cannot write JSON: {cause}")))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// Checks the file that says what this is.
///
/// # Errors
/// `Invalid` for another kind or version.
pub fn check_marker(text: &[u8]) -> Result<()> {
    let marker: Marker = serde_json::from_slice(text)
        .map_err(|cause| Error::invalid(format!("its file {} cannot be read: {cause}", MARKER.0)))?;
    match marker.image_layout_version.split('.').next() {
        Some("1") => Ok(()),
        _ => Err(Error::invalid("it is an image layout of another version than 1")),
    }
}

/// Reads an index: each artifact with its manifest, and nothing of its content yet.
///
/// # Errors
/// `Invalid`, `Limit`.
pub fn read_index(text: &[u8]) -> Result<Vec<Item>> {
    let unreadable = |cause: serde_json::Error| Error::invalid(format!("its {INDEX} cannot be read: {cause}"));
    let index: Index = serde_json::from_slice(text).map_err(unreadable)?;
    if index.manifests.len() > MAX_ARTIFACTS {
        return Err(Error::limit(format!("it holds more than {MAX_ARTIFACTS} artifacts")));
    }
    let items = index.manifests.into_iter().map(|descriptor| {
        if descriptor.media_type != MANIFEST_TYPE {
            return Err(Error::invalid(format!(
                "its {INDEX} lists {:?}, which is no manifest of one artifact",
                descriptor.media_type
            )));
        }
        let listed = |name: &str| descriptor.annotations.get(name).map(String::as_str);
        let references = match (listed(REFERENCES), listed(REF_NAME)) {
            (Some(text), _) => serde_json::from_str(text).map_err(unreadable)?,
            (None, Some(name)) => vec![Referred { reference: name.to_owned(), manifest: None }],
            (None, None) => Vec::new(),
        };
        let names = listed(NAMES).map(serde_json::from_str).transpose().map_err(unreadable)?.unwrap_or_default();
        Ok(Item { manifest: Some(parse_digest(&descriptor.digest)?), references, names, ..Item::default() })
    });
    items.collect()
}

/// Reads a manifest: digest and length of its one layer that is an actor or a provider archive.
///
/// # Errors
/// `Invalid` when there is none, or more than one.
pub fn read_manifest(text: &[u8]) -> Result<(Digest, u64)> {
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|cause| Error::invalid(format!("a manifest cannot be read: {cause}")))?;
    let known = |layer: &&Descriptor| layer.media_type == ACTOR.0 || layer.media_type == PROVIDER.0;
    let mut layers: Vec<_> = manifest.layers.iter().filter(known).collect();
    if layers.is_empty() {
        // Other tools call them otherwise.
        layers = manifest.layers.iter().collect();
    }
    match layers[..] {
        [layer] => Ok((parse_digest(&layer.digest)?, layer.size)),
        _ => Err(Error::invalid("a manifest lists no one layer that is an actor or a provider archive")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let digest = Digest::of(b"\0asm....");
        let manifest = manifest(digest, 8, b"\0asm");
        assert!(String::from_utf8_lossy(&manifest).contains("wasm.content.layer"));
        assert_eq!(read_manifest(&manifest).unwrap(), (digest, 8));
        let item = Item {
            manifest: Some(Digest::of(&manifest)),
            references: vec![Referred { reference: "https://example.org/a#sha256=00".into(), manifest: None }],
            names: vec!["echo".into()],
            ..Item::default()
        };
        let index = index(&[(item.clone(), Digest::of(&manifest), manifest.len() as u64)]).unwrap();
        assert_eq!(read_index(&index).unwrap(), [item]);
        check_marker(MARKER.1.as_bytes()).unwrap();
    }

    #[test]
    fn layouts_of_other_tools_are_read_and_what_is_none_is_refused() {
        let hex = "0a".repeat(32);
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST_TYPE, "digest": format!("sha256:{hex}"),
            "size": 7, "annotations": {"org.opencontainers.image.ref.name": "registry.example.org/echo:1"}}]});
        let items = read_index(index.to_string().as_bytes()).unwrap();
        assert_eq!(items[0].references[0].reference, "registry.example.org/echo:1");
        for bad in [json!({}), json!({"manifests": [{"mediaType": INDEX_TYPE, "digest": "sha256:00", "size": 1}]})] {
            assert!(read_index(bad.to_string().as_bytes()).is_err(), "{bad}");
        }
        assert!(read_manifest(br#"{"layers":[]}"#).is_err() && read_manifest(b"[").is_err());
        assert!(check_marker(br#"{"imageLayoutVersion":"2.0.0"}"#).is_err() && check_marker(b"").is_err());
    }
}
