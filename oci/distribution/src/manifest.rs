//! Parses OCI's and Docker's manifests and indexes as far as a registry needs them.

use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageManifest, MediaType};
use serde::{Deserialize, de::DeserializeOwned, de::IgnoredAny};
use serde_json::Value;
use tucano_oci_image::digest_of;

use crate::{error::Error, limits::DESCRIPTORS};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Layers that only their vendor may distribute, which are not pushed.
const FOREIGN: [&str; 4] = [
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
];

/// The parts of a manifest or index that a registry uses.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The digest of its bytes.
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: u64,
    /// The subject of this manifest.
    pub(crate) subject: Option<Digest>,
    /// The type by which referrers are filtered.
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: Option<Value>,
    /// The references that the repository must have.
    pub(crate) targets: Vec<Target>,
}

/// A reference of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    /// Whether it is a manifest, not a blob.
    pub(crate) is_manifest: bool,
}

/// Distinguishes an index from a manifest independently of its type.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

impl Manifest {
    /// Parses a document of this `content_type`.
    ///
    /// # Errors
    /// Why it is invalid.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, Error> {
        let kind: Kind = parse(bytes)?;
        let media_type = media_type(&kind, content_type)?;
        let is_index = match media_type.as_str() {
            OCI_INDEX | DOCKER_LIST => true,
            OCI_MANIFEST | DOCKER_MANIFEST => false,
            other => {
                let expected = "supported are OCI manifests and indexes, and Docker's of schema 2";
                return Err(invalid(format!(
                    "its type {other:?} is unknown: {expected}"
                )));
            }
        };
        // Readers that use the type and readers that use the content must agree.
        if is_index != kind.manifests.is_some()
            || is_index == (kind.config.is_some() || kind.layers.is_some())
        {
            return Err(invalid(format!(
                "its content does not match the type {media_type}"
            )));
        }
        let manifest = match is_index {
            true => Self::index(bytes, media_type)?,
            false => Self::image(bytes, media_type)?,
        };
        match manifest.targets.len() > DESCRIPTORS {
            true => Err(invalid(format!(
                "it has more than {DESCRIPTORS} descriptors"
            ))),
            false => Ok(manifest),
        }
    }

    fn image(bytes: &[u8], media_type: String) -> Result<Self, Error> {
        let manifest: ImageManifest = parse(bytes)?;
        check_schema(manifest.schema_version())?;
        let pushed = |it: &&Descriptor| !FOREIGN.contains(&it.media_type().to_string().as_str());
        let blobs = manifest
            .layers()
            .iter()
            .filter(pushed)
            .chain([manifest.config()]);
        let own_type = manifest.artifact_type().as_ref();
        Ok(Self {
            digest: digest_of(bytes),
            media_type,
            bytes: bytes.len() as u64,
            subject: subject(manifest.subject())?,
            artifact_type: Some(
                own_type
                    .unwrap_or(manifest.config().media_type())
                    .to_string(),
            ),
            annotations: json(manifest.annotations())?,
            targets: blobs
                .map(|it| target(it, false))
                .collect::<Result<_, _>>()?,
        })
    }

    fn index(bytes: &[u8], media_type: String) -> Result<Self, Error> {
        let index: ImageIndex = parse(bytes)?;
        check_schema(index.schema_version())?;
        let manifests = index.manifests().iter();
        Ok(Self {
            digest: digest_of(bytes),
            media_type,
            bytes: bytes.len() as u64,
            subject: subject(index.subject())?,
            artifact_type: index.artifact_type().as_ref().map(MediaType::to_string),
            annotations: json(index.annotations())?,
            targets: manifests
                .map(|it| target(it, is_manifest(it)))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The `Content-Type` and the `mediaType` must be equal; one of them is enough.
fn media_type(kind: &Kind, content_type: Option<&str>) -> Result<String, Error> {
    let content_type = content_type.map(|it| it.split(';').next().unwrap_or(it).trim());
    match (content_type, kind.media_type.as_deref()) {
        (Some(outside), Some(inside)) if outside != inside => Err(invalid(format!(
            "its Content-Type is {outside:?}, and its mediaType {inside:?}"
        ))),
        (Some(media_type), _) | (None, Some(media_type)) => Ok(media_type.to_owned()),
        (None, None) => Err(invalid(
            "it has neither Content-Type nor mediaType".to_owned(),
        )),
    }
}

fn is_manifest(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type().to_string();
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&media_type.as_str())
}

fn target(descriptor: &Descriptor, is_manifest: bool) -> Result<Target, Error> {
    Ok(Target {
        digest: known(descriptor.digest())?,
        bytes: descriptor.size(),
        is_manifest,
    })
}

fn subject(descriptor: &Option<Descriptor>) -> Result<Option<Digest>, Error> {
    descriptor.as_ref().map(|it| known(it.digest())).transpose()
}

fn known(digest: &Digest) -> Result<Digest, Error> {
    Ok(crate::name::digest(digest.as_ref())?)
}

fn check_schema(version: u32) -> Result<(), Error> {
    match version {
        2 => Ok(()),
        other => Err(invalid(format!("its schemaVersion is {other}, not 2"))),
    }
}

fn json(
    annotations: &Option<std::collections::HashMap<String, String>>,
) -> Result<Option<Value>, Error> {
    let json = annotations.as_ref().map(serde_json::to_value).transpose();
    json.map_err(|error| invalid(error.to_string()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))
}

fn invalid(reason: String) -> Error {
    Error::ManifestInvalid(reason)
}

#[cfg(test)]
mod tests;
