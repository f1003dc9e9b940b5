//! The documents of an image: descriptors, manifests, indexes, configurations.
//!
//! Owns their reading, as hostile input: sizes are unsigned, digests are checked text, and a
//! document is what its media type says or nothing at all (CVE-2021-41190). Never fetches anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};

/// The largest document that is read; registries accept 4 MiB at most.
pub const LARGEST: u64 = 4 << 20;
/// The most layers that an image may have: overlayfs takes 500.
pub const MOST_LAYERS: usize = 500;

/// Media types.
pub mod media {
    /// An OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer, not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer, by gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer, by Zstandard.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's index.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

    /// Whether it is a kind of index.
    pub fn is_index(media: &str) -> bool {
        matches!(media, INDEX | DOCKER_LIST)
    }

    /// Whether it is a kind of manifest.
    pub fn is_manifest(media: &str) -> bool {
        matches!(media, MANIFEST | DOCKER_MANIFEST)
    }

    /// Whether it is a layer that may be had from registries and unpacked.
    pub fn is_layer(media: &str) -> bool {
        matches!(
            media,
            LAYER
                | LAYER_GZIP
                | LAYER_ZSTD
                | "application/vnd.docker.image.rootfs.diff.tar"
                | "application/vnd.docker.image.rootfs.diff.tar.gzip"
                | "application/vnd.docker.image.rootfs.diff.tar.zstd"
                | "application/vnd.oci.image.layer.nondistributable.v1.tar"
                | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
                | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
                | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        )
    }
}

/// Points at content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An operating system and a processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, by Go's names.
    #[serde(default)]
    pub architecture: String,
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// The processor's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    pub fn here() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Platform { architecture: architecture.into(), os: "linux".into(), variant: None }
    }

    /// Reads `os/architecture[/variant]`.
    pub fn parse(text: &str) -> Result<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, architecture] if !os.is_empty() && !architecture.is_empty() => {
                Ok(Platform { architecture: (*architecture).into(), os: (*os).into(), variant: None })
            }
            [os, architecture, variant] => Ok(Platform {
                architecture: (*architecture).into(),
                os: (*os).into(),
                variant: Some((*variant).into()),
            }),
            _ => Err(Error::invalid(format!(
                "the platform {text:?} is not OS/ARCHITECTURE[/VARIANT], such as linux/amd64"
            ))),
        }
    }

    /// Whether content for `self` is what `wanted` asks for.
    pub fn suits(&self, wanted: &Platform) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_none() || self.variant == wanted.variant)
    }
}

/// A manifest: one image for one platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An index: one image for several platforms.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or an index.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl Document {
    /// Reads a document that was announced as `announced` (by a descriptor or a header).
    pub fn read(bytes: &[u8], announced: Option<&str>) -> Result<Document> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            schema_version: Option<u32>,
            media_type: Option<String>,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let doing = || "reading the manifest";
        let shape: Shape = serde_json::from_slice(bytes).doing(doing)?;
        if shape.schema_version == Some(1) {
            return Err(Error::new(
                Kind::Unsupported,
                "the image has a manifest of schema 1, which no current tool writes",
            )
            .hint("push it again with a current tool"));
        }
        let known = announced.filter(|media| media::is_manifest(media) || media::is_index(media));
        if let (Some(known), Some(own)) = (known, &shape.media_type)
            && known != own
        {
            return Err(Error::corrupt(format!(
                "the manifest was announced as {known} and says that it is {own}"
            )));
        }
        let image = shape.config.is_some() || shape.layers.is_some();
        if image && shape.manifests.is_some() {
            return Err(Error::corrupt("the manifest is both an image and an index"));
        }
        let index = match shape.media_type.as_deref().or(known) {
            Some(media) if media::is_index(media) => true,
            Some(media) if media::is_manifest(media) => false,
            Some(media) => return Err(Error::corrupt(format!("{media} is neither an image nor an index"))),
            None => shape.manifests.is_some(),
        };
        if index {
            return serde_json::from_slice(bytes).map(Document::Index).doing(doing);
        }
        let manifest: Manifest = serde_json::from_slice(bytes).doing(doing)?;
        if manifest.layers.len() > MOST_LAYERS {
            return Err(Error::corrupt(format!("the image has more than {MOST_LAYERS} layers")));
        }
        Ok(Document::Manifest(manifest))
    }
}

impl Manifest {
    /// Fails unless this is an image whose layers can be unpacked.
    pub fn check_image(&self) -> Result<()> {
        match self.layers.iter().find(|layer| !media::is_layer(&layer.media_type)) {
            Some(layer) => Err(Error::new(
                Kind::Unsupported,
                format!("a layer is of the type {:?}, which cannot be unpacked", layer.media_type),
            )
            .hint("it may be an artifact and no image")),
            None => Ok(()),
        }
    }
}

impl Index {
    /// The entry for `wanted`.
    pub fn choose(&self, wanted: &Platform) -> Result<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| media::is_manifest(&entry.media_type));
        let found =
            images().find(|entry| entry.platform.as_ref().is_some_and(|platform| platform.suits(wanted)));
        let only = || match images().collect::<Vec<_>>().as_slice() {
            [one] if one.platform.is_none() => Some(*one),
            _ => None,
        };
        found.or_else(only).ok_or_else(|| {
            let there: Vec<String> = images()
                .filter_map(|entry| entry.platform.as_ref())
                .map(|platform| format!("{}/{}", platform.os, platform.architecture))
                .collect();
            Error::new(
                Kind::NotFound,
                format!("the image is not there for {}/{}", wanted.os, wanted.architecture),
            )
            .hint(format!("choose one of {} with --platform", there.join(", ")))
        })
    }
}

/// The configuration of an image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Config {
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The platform.
    #[serde(flatten)]
    pub platform: Platform,
    /// How to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Run>,
    /// Its layers, by the digest of what is in them.
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<History>>,
    /// What is not known here, kept for the next writer.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the layers' archives, not compressed, lowest first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

/// How an image wants to be run. Untrusted: what it names is resolved inside its root only.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Run {
    /// `user[:group]`, names or numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// The program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Where it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The signal that stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// What is not known here.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// How a layer came to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Whoever did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// No layer belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// Reads a configuration and holds it against its manifest.
    pub fn read(bytes: &[u8], manifest: &Manifest) -> Result<Config> {
        let config: Config = serde_json::from_slice(bytes).doing(|| "reading the image's configuration")?;
        let (listed, layers) = (config.rootfs.diff_ids.len(), manifest.layers.len());
        if listed != layers {
            return Err(Error::corrupt(format!(
                "the image's configuration lists {listed} layers, its manifest {layers}"
            )));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media: &str, size: &str) -> String {
        format!(r#"{{"mediaType":"{media}","digest":"{}","size":{size}}}"#, Digest::of(b""))
    }

    #[test]
    fn a_document_is_one_thing_only() {
        let config = descriptor(media::CONFIG, "0");
        let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
        assert!(Document::read(both.as_bytes(), None).is_err());
        let plain = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        assert!(matches!(Document::read(plain.as_bytes(), None), Ok(Document::Manifest(_))));
        assert!(Document::read(plain.as_bytes(), Some(media::INDEX)).is_err());
        let typed = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{config},"layers":[]}}"#,
            media::MANIFEST
        );
        assert!(Document::read(typed.as_bytes(), Some(media::DOCKER_MANIFEST)).is_err());
        assert!(Document::read(br#"{"schemaVersion":1}"#, None).is_err());
    }

    #[test]
    fn hostile_documents_are_refused() {
        for size in ["-1", "18446744073709551616", "1.5", "\"1\""] {
            let text =
                format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, descriptor(media::CONFIG, size));
            assert!(Document::read(text.as_bytes(), None).is_err(), "{size}");
        }
        let bad = r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:../../x","size":1},"layers":[]}"#;
        assert!(Document::read(bad.as_bytes(), None).is_err());
        let deep = "[".repeat(100_000);
        assert!(Document::read(deep.as_bytes(), None).is_err());
        let layer = descriptor(media::LAYER, "1");
        let many = vec![layer; MOST_LAYERS + 1].join(",");
        let text =
            format!(r#"{{"schemaVersion":2,"config":{},"layers":[{many}]}}"#, descriptor(media::CONFIG, "1"));
        assert!(Document::read(text.as_bytes(), None).is_err());
    }

    #[test]
    fn the_platform_decides() {
        let entry = |arch: &str| {
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":1,"platform":{{"os":"linux","architecture":"{arch}"}}}}"#,
                media::MANIFEST,
                Digest::of(arch.as_bytes())
            )
        };
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entry("arm64"), entry("amd64"));
        let Ok(Document::Index(index)) = Document::read(text.as_bytes(), Some(media::INDEX)) else {
            panic!()
        };
        let wanted = Platform::parse("linux/amd64").unwrap();
        assert_eq!(index.choose(&wanted).unwrap().digest, Digest::of(b"amd64"));
        let told = index.choose(&Platform::parse("linux/s390x").unwrap()).unwrap_err().to_string();
        assert!(told.contains("linux/arm64, linux/amd64"), "{told}");
    }
}
