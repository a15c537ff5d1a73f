//! From a manifest to the layer that is the artifact (`protocol/config.md §6`).
//!
//! Pure. An image has one layer here: that of a module or of a provider archive. The reference host concatenates what has
//! several; no tool makes such, and what they would be together nobody could name by its digest.

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    store::Digest,
};

/// Largest manifest, bytes. One of an artifact has 600; an index of twenty platforms 10 000. A larger one is refused while
/// it is read.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 10;

/// What is asked for, best known first.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                          application/vnd.docker.distribution.manifest.v2+json, \
                          application/vnd.docker.distribution.manifest.list.v2+json";

/// Media types of layers that are the artifact itself, as they are: of `wash push` (archives, modules), of images put
/// together by hand, and of the tools that came after.
const LAYERS: [&str; 6] = [
    "application/vnd.wasmcloud.provider.archive.layer.v1+par",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/wasm",
    "application/vnd.oci.image.layer.v1.tar",
    "application/octet-stream",
];

/// What a manifest says.
#[derive(Debug, PartialEq, Eq)]
pub enum Described {
    /// The artifact.
    Layer {
        /// Its SHA-256.
        digest: Digest,
        /// Its length.
        bytes: u64,
    },
    /// Another manifest, for this board.
    Index(Digest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// Of an index.
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// Reads the manifest `bytes`.
///
/// # Errors
/// `Invalid` when it is none, or describes nothing that this host runs.
pub fn read(bytes: &[u8], media_type: Option<&str>) -> Result<Described> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|cause| {
        let what = media_type.unwrap_or("no media type");
        Error::invalid(format!("its manifest ({what}) cannot be read: {cause}; push it anew"))
    })?;
    if manifest.schema_version != 2 {
        return Err(Error::invalid(format!(
            "its manifest has the schema version {}, this host reads 2; push it anew with a newer tool",
            manifest.schema_version
        )));
    }
    match &manifest.manifests {
        Some(manifests) => choose(manifests).map(Described::Index),
        None => layer(&manifest.layers),
    }
}

fn layer(layers: &[Descriptor]) -> Result<Described> {
    let known: Vec<&Descriptor> = layers.iter().filter(|layer| LAYERS.contains(&&*layer.media_type)).collect();
    match *known {
        [layer] => Ok(Described::Layer { digest: digest_of(layer)?, bytes: layer.size }),
        [] => {
            let types: Vec<String> = layers.iter().take(5).map(|layer| format!("{:?}", layer.media_type)).collect();
            Err(Error::invalid(format!(
                "it is no actor and no provider archive: its layers are of the types {}; push the signed file with \
                 `wash push`",
                if types.is_empty() { "none".to_owned() } else { types.join(", ") }
            )))
        }
        _ => {
            Err(Error::invalid(format!("it has {} layers instead of one; push it anew as a single file", known.len())))
        }
    }
}

/// The one for this board: what runs anywhere, else what is made for its processor, else the only one.
fn choose(manifests: &[Descriptor]) -> Result<Digest> {
    let of = |descriptor: &&Descriptor, os: Option<&str>, architecture: &str| {
        descriptor
            .platform
            .as_ref()
            .is_some_and(|platform| platform.architecture == architecture && os.is_none_or(|os| platform.os == os))
    };
    let wasm = manifests.iter().find(|descriptor| of(descriptor, None, "wasm"));
    let own = manifests.iter().find(|descriptor| of(descriptor, Some("linux"), architecture()));
    let only = if let [only] = manifests { Some(only) } else { None };
    match wasm.or(own).or(only) {
        Some(descriptor) => digest_of(descriptor),
        None => {
            let platforms: Vec<String> = manifests
                .iter()
                .filter_map(|descriptor| descriptor.platform.as_ref())
                .take(20)
                .map(|platform| format!("{:?}", format!("{}/{}", platform.os, platform.architecture)))
                .collect();
            Err(Error::invalid(format!(
                "it is made for {}, not for linux/{} and not for wasm; push it for that too",
                if platforms.is_empty() { "nothing".to_owned() } else { platforms.join(", ") },
                architecture()
            )))
        }
    }
}

/// The processor of this board as registries call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    let digest = descriptor.digest.strip_prefix("sha256:").and_then(|digest| digest.parse().ok());
    digest.ok_or_else(|| {
        let shown: String = descriptor.digest.chars().take(80).collect();
        Error::invalid(format!("its manifest names a content by {shown:?}, which is no SHA-256 digest; push it anew"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn described(value: &serde_json::Value) -> Result<Described> {
        read(value.to_string().as_bytes(), None)
    }

    fn digest(byte: u8) -> (String, Digest) {
        (format!("sha256:{}", Digest([byte; 32])), Digest([byte; 32]))
    }

    #[test]
    fn the_layer_of_each_tool_is_found_and_others_are_passed_over() {
        let (text, expected) = digest(1);
        for media_type in LAYERS {
            let manifest = json!({"schemaVersion": 2, "config": {"mediaType": "x", "digest": text, "size": 2}, "layers": [
                {"mediaType": "application/vnd.example.readme", "digest": digest(9).0, "size": 1},
                {"mediaType": media_type, "digest": text, "size": 77, "annotations": {"org.example": "x"}},
            ]});
            assert_eq!(described(&manifest).unwrap(), Described::Layer { digest: expected, bytes: 77 });
        }
    }

    #[test]
    fn what_is_no_artifact_says_what_it_is() {
        let refusal = |value| described(&value).unwrap_err().text().to_owned();
        let container = json!({"schemaVersion": 2, "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(1).0, "size": 77}]});
        assert!(refusal(container).contains("tar+gzip"));
        let two = json!({"schemaVersion": 2, "layers": [
            {"mediaType": LAYERS[1], "digest": digest(1).0, "size": 7}, {"mediaType": LAYERS[1], "digest": digest(2).0}]});
        assert!(refusal(two).contains("2 layers"));
        assert!(refusal(json!({"schemaVersion": 1, "fsLayers": []})).contains("version 1"));
        assert!(
            refusal(json!({"schemaVersion": 2, "layers": [{"mediaType": LAYERS[0], "digest": "sha512:00"}]}))
                .contains("sha512")
        );
        assert!(read(b"<html>", Some("text/html")).unwrap_err().text().contains("text/html"));
    }

    #[test]
    fn an_index_leads_to_what_runs_here() {
        let entry = |byte, os: &str, architecture: &str| {
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(byte).0, "size": 1,
                   "platform": {"os": os, "architecture": architecture}})
        };
        let index = |entries: Vec<serde_json::Value>| described(&json!({"schemaVersion": 2, "manifests": entries}));
        let foreign = || entry(1, "linux", "s390x");
        let found = index(vec![foreign(), entry(2, "linux", architecture())]).unwrap();
        assert_eq!(found, Described::Index(digest(2).1));
        let found = index(vec![entry(2, "linux", architecture()), entry(3, "wasip1", "wasm")]).unwrap();
        assert_eq!(found, Described::Index(digest(3).1));
        assert_eq!(index(vec![foreign()]).unwrap(), Described::Index(digest(1).1), "the only one");
        assert!(index(vec![foreign(), entry(2, "linux", "ppc64le")]).unwrap_err().text().contains("ppc64le"));
        assert!(index(vec![]).unwrap_err().text().contains("nothing"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_in_one_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(error) = read(&bytes, None) {
                prop_assert!(!error.text().chars().any(char::is_control));
            }
        }
    }
}
