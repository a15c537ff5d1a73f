//! From a manifest to the layer that is the artifact (`protocol/config.md §6`).
//!
//! Pure. An image has one layer here: that of a module or of a provider archive. The reference host concatenates what has
//! several; no tool makes such, and what they would be together nobody could name by its digest.

use std::collections::BTreeMap;

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
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
}

/// Marks an entry that says something about another one and is none itself.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// What such an entry has for its platform.
const UNKNOWN: &str = "unknown";

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
        Some(manifests) => choose(manifests, &Processor::of_this_board()).map(Described::Index),
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

/// A processor as registries call it, and the highest variant of it that it is.
struct Processor {
    architecture: &'static str,
    variant: u32,
}

impl Processor {
    fn of_this_board() -> Self {
        let machine = rustix::system::uname();
        Self::named(std::env::consts::ARCH, &machine.machine().to_string_lossy())
    }

    /// A program for `program` on a kernel that calls itself `machine`: `armv7l`, `aarch64`.
    fn named(program: &'static str, machine: &str) -> Self {
        match program {
            "x86_64" => Self { architecture: "amd64", variant: 1 },
            "aarch64" => Self { architecture: "arm64", variant: 8 },
            "x86" => Self { architecture: "386", variant: 0 },
            "arm" => {
                let digits = machine.strip_prefix("armv").and_then(|rest| rest.chars().next()?.to_digit(10));
                // A 64-bit kernel runs programs of the older ones.
                Self { architecture: "arm", variant: digits.unwrap_or(8) }
            }
            other => Self { architecture: other, variant: 0 },
        }
    }

    /// How well what is made for `platform` suits, the higher the better; nothing where it does not run.
    fn suits(&self, platform: &Platform) -> Option<u32> {
        let wanted = platform.variant.strip_prefix('v').unwrap_or(&platform.variant);
        let wanted = if wanted.is_empty() { Some(0) } else { wanted.parse().ok() };
        let fits = platform.os == "linux" && platform.architecture == self.architecture;
        wanted.filter(|wanted| fits && (*wanted <= self.variant || self.variant == 0))
    }
}

/// Whether the entry is about another one: a signature, a description of how it was made.
fn is_about_another(descriptor: &Descriptor) -> bool {
    let unknown = |platform: &Platform| platform.os == UNKNOWN && platform.architecture == UNKNOWN;
    descriptor.annotations.contains_key(REFERENCE_TYPE) || descriptor.platform.as_ref().is_some_and(unknown)
}

/// The one for this board: what runs anywhere, else what is made for its processor, else the one without a platform, else the
/// only one.
fn choose(manifests: &[Descriptor], own: &Processor) -> Result<Digest> {
    let manifests: Vec<&Descriptor> = manifests.iter().filter(|descriptor| !is_about_another(descriptor)).collect();
    let platform = |descriptor: &&Descriptor| descriptor.platform.as_ref().is_some_and(is_wasm);
    let wasm = manifests.iter().copied().find(platform);
    let made = || {
        let suiting = manifests.iter().filter_map(|one| Some((own.suits(one.platform.as_ref()?)?, *one)));
        // The first of those that suit equally.
        suiting.rev().max_by_key(|(suits, _)| *suits).map(|(_, descriptor)| descriptor)
    };
    let mut anywhere = manifests.iter().copied().filter(|descriptor| descriptor.platform.is_none());
    let anywhere = anywhere.next().filter(|_| anywhere.next().is_none());
    let only = if let [only] = *manifests { Some(only) } else { None };
    match wasm.or_else(made).or(anywhere).or(only) {
        Some(descriptor) => digest_of(descriptor),
        None => {
            let platforms: Vec<String> = manifests
                .iter()
                .filter_map(|descriptor| descriptor.platform.as_ref())
                .take(20)
                .map(|platform| {
                    let variant = if platform.variant.is_empty() { "" } else { "/" };
                    format!("{:?}", format!("{}/{}{variant}{}", platform.os, platform.architecture, platform.variant))
                })
                .collect();
            Err(Error::invalid(format!(
                "it is made for {}, not for linux/{} and not for wasm; push it for that too",
                if platforms.is_empty() { "nothing".to_owned() } else { platforms.join(", ") },
                own.architecture
            )))
        }
    }
}

/// `wasip1/wasm`, `wasm/wasm32` and their like.
fn is_wasm(platform: &Platform) -> bool {
    matches!(platform.architecture.as_str(), "wasm" | "wasm32")
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
        let found = index(vec![foreign(), entry(2, "linux", Processor::of_this_board().architecture)]).unwrap();
        assert_eq!(found, Described::Index(digest(2).1));
        let found = index(vec![entry(2, "linux", Processor::of_this_board().architecture), entry(3, "wasip1", "wasm")])
            .unwrap();
        assert_eq!(found, Described::Index(digest(3).1));
        assert_eq!(index(vec![foreign()]).unwrap(), Described::Index(digest(1).1), "the only one");
        assert!(index(vec![foreign(), entry(2, "linux", "ppc64le")]).unwrap_err().text().contains("ppc64le"));
        assert!(index(vec![]).unwrap_err().text().contains("nothing"));

        // What only describes another entry is no choice, and does not stand in the way of one.
        let about = || entry(9, "unknown", "unknown");
        let without = json!({"digest": digest(4).0, "size": 1});
        for artifact in [entry(4, "wasm", "wasm32"), entry(4, "linux", "s390x"), without.clone()] {
            let found = index(vec![about(), artifact.clone(), about()]).unwrap();
            assert_eq!(found, Described::Index(digest(4).1), "{artifact}");
        }
        let found = index(vec![foreign(), without, about()]).unwrap();
        assert_eq!(found, Described::Index(digest(4).1), "one without a platform runs anywhere");
        let mut annotated = entry(9, "linux", Processor::of_this_board().architecture);
        annotated["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        assert_eq!(index(vec![annotated, foreign()]).unwrap(), Described::Index(digest(1).1));
    }

    #[test]
    fn a_board_gets_the_highest_variant_that_it_runs() {
        let of = |variant: &str, byte: u8| {
            let platform = json!({"os": "linux", "architecture": "arm", "variant": variant});
            json!({"digest": digest(byte).0, "size": 1, "platform": platform})
        };
        let all = [of("v5", 5), of("v6", 6), of("v7", 7), of("", 1)];
        let choice = |entries: &[serde_json::Value], program, machine| {
            let entries: Vec<Descriptor> =
                entries.iter().map(|entry| serde_json::from_value(entry.clone()).unwrap()).collect();
            choose(&entries, &Processor::named(program, machine)).ok()
        };
        for (machine, byte) in [("armv5tel", 5), ("armv6l", 6), ("armv7l", 7), ("armv8l", 7), ("aarch64", 7)] {
            assert_eq!(choice(&all, "arm", machine), Some(digest(byte).1), "{machine}");
        }
        assert_eq!(choice(&[of("v7", 7), of("v8", 8)], "arm", "armv6l"), None);
        assert_eq!(choice(&[of("", 1), of("v7", 7)], "arm", "armv6l"), Some(digest(1).1));
        assert_eq!(choice(&all[..2], "aarch64", "aarch64"), None);
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
