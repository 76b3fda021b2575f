//! An image: its manifest and its configuration, checked for consistency.

use std::{collections::HashSet, fmt};

use oci_spec::image::{Arch, Descriptor, Digest, ImageConfiguration, ImageManifest, MediaType, Os};
use serde_json::Value;

use super::document::{self, read_document};
use super::healthcheck::Healthcheck;
use crate::{content::ingest::Blobs, error::Error, layer::stream::Encoding, limits::Limits};

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// An operating system and an architecture, in OCI (Go) terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`, `arm64`.
    pub architecture: String,
}

impl Platform {
    /// This machine's platform.
    pub fn host() -> Self {
        Self {
            os: Os::default().to_string(),
            architecture: Arch::default().to_string(),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// A stored image with its parsed documents.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the manifest: the image's identity.
    pub digest: Digest,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfiguration,
    /// The image's health check (Docker's `HEALTHCHECK`), which the OCI's configuration does not have.
    pub healthcheck: Option<Healthcheck>,
}

impl Image {
    /// Each layer's descriptor with its diff-id (digest of the uncompressed tar), lowest first. A repeated layer is
    /// repeated here.
    pub fn layers(&self) -> Vec<(Descriptor, Digest)> {
        let diff_ids = self.config.rootfs().diff_ids().iter();
        // Reading the image has checked that they are digests.
        let diff_ids = diff_ids.filter_map(|diff_id| diff_id.parse().ok());
        self.manifest
            .layers()
            .iter()
            .cloned()
            .zip(diff_ids)
            .collect()
    }

    /// Every blob of the image, each once: layers, configuration, and the manifest last.
    pub fn blobs(&self) -> Vec<Digest> {
        let layers = self.manifest.layers().iter();
        let mut seen = HashSet::new();
        layers
            .chain([self.manifest.config()])
            .map(|blob| blob.digest())
            .chain([&self.digest])
            .filter(|digest| seen.insert(*digest))
            .cloned()
            .collect()
    }

    /// The configuration's platform.
    pub(crate) fn platform(&self) -> Platform {
        Platform {
            os: self.config.os().to_string(),
            architecture: self.config.architecture().to_string(),
        }
    }

    /// Reads the image with this manifest and checks that its documents are consistent. Does not look for the layers.
    pub(crate) fn read(blobs: &dyn Blobs, digest: &Digest, limits: &Limits) -> Result<Self, Error> {
        let bytes = read_document(blobs, "the image's manifest", digest, None, limits)?;
        let manifest: ImageManifest = document::parse("the image's manifest", &bytes)?;
        check_manifest(&manifest, limits)?;
        let config = manifest.config();
        let size = Some(config.size());
        let bytes = read_document(
            blobs,
            "the image's configuration",
            config.digest(),
            size,
            limits,
        )?;
        let what = "the image's configuration";
        let mut config: Value = document::parse(what, &bytes)?;
        let healthcheck = Healthcheck::of(&config);
        set_platform(&mut config);
        lists_of_strings(&mut config);
        let config: ImageConfiguration =
            serde_json::from_value(config).map_err(|source| Error::Document {
                what: what.to_owned(),
                source,
            })?;
        check_config(&config, &manifest)?;
        Ok(Self {
            digest: digest.clone(),
            manifest,
            config,
            healthcheck,
        })
    }
}

/// Fills in this machine's platform where an image does not name any, as Docker does, and maps other names of
/// architectures to Go's.
fn set_platform(config: &mut Value) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    let host = Platform::host();
    for (key, default) in [("os", host.os), ("architecture", host.architecture)] {
        let name = config.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let name = match name.as_str() {
            "" => default,
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            _ => name,
        };
        config.insert(key.to_owned(), name.into());
    }
}

/// Replaces a string where a list is expected by a list of it, as Docker does.
fn lists_of_strings(config: &mut Value) {
    for key in ["Entrypoint", "Cmd"] {
        let value = config.pointer_mut(&format!("/config/{key}"));
        if let Some(value) = value.filter(|value| value.is_string()) {
            let text = value.take();
            *value = match text.as_str() {
                Some("") => Value::Null,
                _ => Value::Array(vec![text]),
            };
        }
    }
}

fn check_manifest(manifest: &ImageManifest, limits: &Limits) -> Result<(), Error> {
    let refuse = |reason: &str| Err(Error::malformed("the image's manifest", reason));
    if manifest.schema_version() != 2 {
        return refuse("its schemaVersion is not 2");
    }
    match manifest.config().media_type() {
        MediaType::ImageConfig => {}
        MediaType::Other(name) if name == DOCKER_CONFIG => {}
        other => {
            let what = format!("a configuration of type {other}");
            return Err(Error::Unsupported {
                what,
                hint: ": this is no container image; build one of its files (`FROM scratch`, `COPY`)",
            });
        }
    }
    let layers = manifest.layers();
    if layers.is_empty() {
        return refuse("it has no layers");
    }
    if layers.len() > limits.layers {
        let what = format!("the number of the image's layers ({})", layers.len());
        return Err(Error::TooLarge {
            what,
            limit: limits.layers.to_string(),
        });
    }
    if let Some(foreign) = layers.iter().find(|layer| is_foreign(layer.media_type())) {
        return Err(Error::Unsupported {
            what: format!(
                "the foreign layer {} ({})",
                foreign.digest(),
                foreign.media_type()
            ),
            hint: ": its content may not be distributed, so it is not stored; \
                   use a base image without such layers",
        });
    }
    let unknown = layers
        .iter()
        .map(Descriptor::media_type)
        .find(|it| Encoding::of(it).is_none());
    unknown.map_or(Ok(()), |media_type| {
        Err(Error::Unsupported {
            what: format!("a layer of type {media_type}"),
            hint: "; layers are tar, tar+gzip or tar+zstd",
        })
    })
}

/// Whether only the vendor may distribute a layer (OCI image specification, "Non-Distributable Layers").
fn is_foreign(media_type: &MediaType) -> bool {
    let name = media_type.to_string();
    name.contains(".layer.nondistributable.") || name.contains(".rootfs.foreign.")
}

fn check_config(config: &ImageConfiguration, manifest: &ImageManifest) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::malformed("the image's configuration", reason));
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != manifest.layers().len() {
        let (here, there) = (diff_ids.len(), manifest.layers().len());
        return refuse(format!(
            "it has {here} diff_ids, and the manifest has {there} layers"
        ));
    }
    if config.rootfs().typ() != "layers" {
        return refuse(format!(
            "its rootfs is of type {:?}, not \"layers\"",
            config.rootfs().typ()
        ));
    }
    for diff_id in diff_ids {
        match diff_id.parse::<Digest>() {
            Ok(digest) => crate::digest::hex(&digest).map(drop)?,
            Err(error) => return refuse(format!("{diff_id:?} is no diff_id: {error}")),
        }
    }
    Ok(())
}
