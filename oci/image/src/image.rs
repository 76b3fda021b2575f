//! An image: its manifest and its configuration, checked against each other.

use std::{collections::HashSet, fmt, fs::File, io::Read};

use oci_spec::image::{Arch, Descriptor, Digest, ImageConfiguration, ImageManifest, MediaType, Os};

use crate::{
    digest::digest_like, document, error::Error, ingest::Blobs, limits::Limits, stream::Encoding,
};

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The kind of machine an image must be for, in OCI (Go) terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`, `arm64`.
    pub architecture: String,
}

impl Platform {
    /// The machine that this program runs on.
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

/// An image of the store, its documents parsed.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the manifest: the image's identity.
    pub digest: Digest,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfiguration,
}

impl Image {
    /// Each layer's descriptor with its diff-id (digest of the uncompressed tar), lowest first. A layer
    /// that is in the image twice is here twice.
    pub fn layers(&self) -> Vec<(Descriptor, Digest)> {
        let diff_ids = self.config.rootfs().diff_ids().iter();
        // Whether they are digests was checked when the image was read.
        let diff_ids = diff_ids.filter_map(|diff_id| diff_id.parse().ok());
        self.manifest
            .layers()
            .iter()
            .cloned()
            .zip(diff_ids)
            .collect()
    }

    /// Every blob of the image, each once: layers, configuration, and the manifest at the end.
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

    /// The platform that the configuration names.
    pub(crate) fn platform(&self) -> Platform {
        Platform {
            os: self.config.os().to_string(),
            architecture: self.config.architecture().to_string(),
        }
    }

    /// Reads the image with this manifest and checks that its documents make sense together; whether the
    /// layers are there is another question.
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
        let config: ImageConfiguration = document::parse("the image's configuration", &bytes)?;
        check_config(&config, &manifest)?;
        Ok(Self {
            digest: digest.clone(),
            manifest,
            config,
        })
    }
}

/// A document among the blobs; its size, where a descriptor tells it, and its digest are checked.
pub(crate) fn read_document(
    blobs: &dyn Blobs,
    what: &str,
    digest: &Digest,
    size: Option<u64>,
    limits: &Limits,
) -> Result<Vec<u8>, Error> {
    let missing = || Error::BlobMissing {
        what: what.to_owned(),
        digest: digest.clone(),
    };
    let (path, actual) = blobs.find(digest)?.ok_or_else(missing)?;
    if let Some(expected) = size.filter(|size| *size != actual) {
        return Err(Error::SizeMismatch {
            what: what.to_owned(),
            expected,
            actual,
        });
    }
    document::check_size(what, actual, limits)?;
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(actual).read_to_end(&mut bytes))
        .map_err(|source| Error::io("read", &path, source))?;
    let actual = digest_like(digest, &bytes);
    if actual != *digest {
        let what = what.to_owned();
        return Err(Error::DigestMismatch {
            what,
            expected: digest.clone(),
            actual,
        });
    }
    Ok(bytes)
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
                hint: ": this is no container image",
            });
        }
    }
    let layers = manifest.layers();
    if layers.is_empty() {
        return refuse("it has no layers, so there is nothing to run");
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
            hint: ": its content may not be distributed, so it is neither stored nor fetched from elsewhere; \
                   build the image upon a base without such layers",
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

/// Whether a layer is one that only its vendor hands out (OCI image specification, "Non-Distributable Layers").
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
