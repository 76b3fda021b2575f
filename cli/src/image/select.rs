//! Selects one of the images in an archive or layout, and finds its blobs. An archive that is not understood here is left
//! to the controller, which then receives it as a whole.

use std::{collections::HashMap, io};

use bytes::Bytes;
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest};
use serde::{Deserialize, de::DeserializeOwned};
use tucano_oci_image::digest_of;

use super::files::{FileRange, Files};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];
/// Prefixes that tools put before short names.
const DEFAULT_REGISTRIES: [&str; 3] = ["docker.io/library/", "docker.io/", "localhost/"];
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;

/// An image, and where each of its blobs is.
#[derive(Debug)]
pub(super) struct SelectedImage {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) manifest: Bytes,
    /// Without duplicates.
    pub(super) blobs: Vec<(Digest, FileRange)>,
}

/// Why no image was selected.
#[derive(Debug, thiserror::Error)]
pub(super) enum SelectError {
    /// The format is not supported here; the controller may support it.
    #[error("its format is not supported")]
    NotUnderstood,
    /// Several match.
    #[error("it holds several images ({}): select one with the key `image` of the configuration, such as image = \"name:tag\"", .0.join(", "))]
    Ambiguous(Vec<String>),
    /// None has the name or the platform.
    #[error("it holds no image {wanted}; it holds {}", has.join(", "))]
    NoMatch { wanted: String, has: Vec<String> },
    /// A file could not be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Whether the files look like one of the supported formats.
pub(super) fn is_supported(files: &Files) -> bool {
    match files.find("oci-layout") {
        Ok(Some(_)) => document::<ImageIndex>(files, "index.json").is_ok(),
        _ => document::<Vec<DockerImage>>(files, "manifest.json").is_ok(),
    }
}

/// The only image for `platform` (`os/architecture`), and of that `name` where one is given.
pub(super) fn select_image(
    files: &Files,
    name: Option<&str>,
    platform: &str,
) -> Result<SelectedImage, SelectError> {
    let mut selection = Selection {
        files,
        name,
        platform,
        matching: Vec::new(),
        others: Vec::new(),
    };
    if files.find("oci-layout")?.is_some() {
        let index: ImageIndex = document(files, "index.json")?;
        selection.index(&index, &[], 0)?;
    } else {
        selection.docker(document(files, "manifest.json")?)?;
    }
    selection.into_result()
}

struct Selection<'a> {
    files: &'a Files,
    name: Option<&'a str>,
    platform: &'a str,
    matching: Vec<(String, SelectedImage)>,
    others: Vec<String>,
}

/// An entry of `manifest.json`, which `docker save` and `podman save` write.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Selection<'_> {
    fn index(
        &mut self,
        index: &ImageIndex,
        names: &[String],
        depth: usize,
    ) -> Result<(), SelectError> {
        for descriptor in index.manifests() {
            let mut names = names.to_vec();
            names.extend(names_of(descriptor.annotations().as_ref()));
            if let Some(platform) = descriptor.platform() {
                let other = format!("{}/{}", platform.os(), platform.architecture());
                if other != self.platform {
                    self.skip_platform(&names, descriptor.digest(), &other);
                    continue;
                }
            }
            let kind = descriptor.media_type().to_string();
            match kind.contains("index") || kind.contains("manifest.list") {
                true if depth >= MAX_DEPTH => return Err(SelectError::NotUnderstood),
                true => {
                    let nested: ImageIndex = blob_document(self.files, descriptor.digest())?;
                    self.index(&nested, &names, depth + 1)?;
                }
                false => self.image(descriptor, &names)?,
            }
        }
        Ok(())
    }

    fn image(&mut self, descriptor: &Descriptor, names: &[String]) -> Result<(), SelectError> {
        let digest = descriptor.digest();
        if !self.is_wanted(names, digest) {
            self.others.push(shown(names, digest));
            return Ok(());
        }
        let bytes = self.files.document(&path_of(digest)?)?;
        let bytes = bytes.ok_or(SelectError::NotUnderstood)?;
        let manifest: ImageManifest = parse(&bytes)?;
        let config: ImageConfiguration = blob_document(self.files, manifest.config().digest())?;
        let platform = format!("{}/{}", config.os(), config.architecture());
        if platform != self.platform {
            self.skip_platform(names, digest, &platform);
            return Ok(());
        }
        let mut blobs = Vec::new();
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            let range = self.files.find(&path_of(blob.digest())?)?;
            push_once(
                &mut blobs,
                blob.digest(),
                range.ok_or(SelectError::NotUnderstood)?,
            );
        }
        let selected = SelectedImage {
            digest: digest.clone(),
            media_type: descriptor.media_type().to_string(),
            manifest: bytes.into(),
            blobs,
        };
        self.add(shown(names, digest), selected);
        Ok(())
    }

    /// Images of a Docker archive, which have no manifest: one is made. Their layers are uncompressed, so that their diff-ids
    /// are their digests.
    fn docker(&mut self, images: Vec<DockerImage>) -> Result<(), SelectError> {
        for image in images {
            let config = self.files.document(&image.config)?;
            let config = config.ok_or(SelectError::NotUnderstood)?;
            let names = image.repo_tags.clone().unwrap_or_default();
            let id = digest_of(&config);
            if !self.is_wanted(&names, &id) {
                self.others.push(shown(&names, &id));
                continue;
            }
            let parsed: ImageConfiguration = parse(&config)?;
            let platform = format!("{}/{}", parsed.os(), parsed.architecture());
            if platform != self.platform {
                self.skip_platform(&names, &id, &platform);
                continue;
            }
            let selected = self.docker_image(&image, &config, parsed.rootfs().diff_ids())?;
            self.add(shown(&names, &id), selected);
        }
        Ok(())
    }

    fn docker_image(
        &self,
        image: &DockerImage,
        config: &[u8],
        diff_ids: &[String],
    ) -> Result<SelectedImage, SelectError> {
        if image.layers.len() != diff_ids.len() {
            return Err(SelectError::NotUnderstood);
        }
        let mut blobs = Vec::new();
        let mut layers = Vec::new();
        for (layer, diff_id) in image.layers.iter().zip(diff_ids) {
            let digest: Digest = diff_id.parse().map_err(|_| SelectError::NotUnderstood)?;
            path_of(&digest)?;
            let range = self.files.find(layer)?.ok_or(SelectError::NotUnderstood)?;
            let magic = range.read(0, range.bytes.min(4))?;
            if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
                return Err(SelectError::NotUnderstood);
            }
            layers.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": diff_id, "size": range.bytes,
            }));
            push_once(&mut blobs, &digest, range);
        }
        let id = digest_of(config);
        let range = self
            .files
            .find(&image.config)?
            .ok_or(SelectError::NotUnderstood)?;
        push_once(&mut blobs, &id, range);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": id.to_string(), "size": config.len(),
            },
            "layers": layers,
        });
        let manifest = Bytes::from(manifest.to_string());
        Ok(SelectedImage {
            digest: digest_of(&manifest),
            media_type: MANIFEST.to_owned(),
            manifest,
            blobs,
        })
    }

    fn add(&mut self, name: String, image: SelectedImage) {
        if self
            .matching
            .iter()
            .all(|(_, other)| other.digest != image.digest)
        {
            self.matching.push((name, image));
        }
    }

    fn skip_platform(&mut self, names: &[String], digest: &Digest, platform: &str) {
        // Attestations have this platform.
        if platform != "unknown/unknown" {
            self.others
                .push(format!("{} for {platform}", shown(names, digest)));
        }
    }

    fn is_wanted(&self, names: &[String], digest: &Digest) -> bool {
        let same = |wanted: &str| names.iter().any(|name| is_same(name, wanted));
        self.name
            .is_none_or(|wanted| wanted == digest.as_ref() as &str || same(wanted))
    }

    fn into_result(mut self) -> Result<SelectedImage, SelectError> {
        if self.matching.len() > 1 {
            let names = self.matching.into_iter().map(|(name, _)| name);
            return Err(SelectError::Ambiguous(names.collect()));
        }
        if let Some((_, image)) = self.matching.pop() {
            return Ok(image);
        }
        if self.others.is_empty() {
            return Err(SelectError::NotUnderstood);
        }
        self.others.sort();
        self.others.dedup();
        let name = self
            .name
            .map_or_else(String::new, |name| format!("{name:?} "));
        Err(SelectError::NoMatch {
            wanted: format!("{name}for {}", self.platform),
            has: self.others,
        })
    }
}

fn names_of(annotations: Option<&HashMap<String, String>>) -> Vec<String> {
    let name = |key: &&str| annotations?.get(*key).cloned();
    NAMES.iter().filter_map(name).collect()
}

fn shown(names: &[String], digest: &Digest) -> String {
    names.first().cloned().unwrap_or_else(|| digest.to_string())
}

/// Layouts often name the tag alone; then only the tag is compared.
fn is_same(name: &str, wanted: &str) -> bool {
    let is_tag_only = !name.contains([':', '/', '@']);
    let (repository, tag) = parts(name);
    let (wanted_repository, wanted_tag) = parts(wanted);
    match is_tag_only {
        true => name == wanted_tag || name == wanted,
        false => (repository, tag) == (wanted_repository, wanted_tag),
    }
}

/// The name without a default registry, and its tag; `latest` where it has neither tag nor digest.
fn parts(name: &str) -> (&str, &str) {
    let short = DEFAULT_REGISTRIES
        .iter()
        .find_map(|place| name.strip_prefix(place))
        .unwrap_or(name);
    if let Some(parts) = short.split_once('@') {
        return parts;
    }
    match short.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (short, "latest"),
    }
}

fn push_once(blobs: &mut Vec<(Digest, FileRange)>, digest: &Digest, range: FileRange) {
    if blobs.iter().all(|(other, _)| other != digest) {
        blobs.push((digest.clone(), range));
    }
}

fn path_of(digest: &Digest) -> Result<String, SelectError> {
    match digest.algorithm().as_ref() {
        "sha256" => Ok(format!("blobs/sha256/{}", digest.digest())),
        _ => Err(SelectError::NotUnderstood),
    }
}

fn blob_document<T: DeserializeOwned>(files: &Files, digest: &Digest) -> Result<T, SelectError> {
    document(files, &path_of(digest)?)
}

fn document<T: DeserializeOwned>(files: &Files, name: &str) -> Result<T, SelectError> {
    parse(&files.document(name)?.ok_or(SelectError::NotUnderstood)?)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SelectError> {
    serde_json::from_slice(bytes).map_err(|_| SelectError::NotUnderstood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_registries_and_tags_are_optional_in_names() {
        for (name, wanted) in [
            ("1.0", "hello:1.0"),
            ("latest", "hello:latest"),
            ("docker.io/library/hello:latest", "hello:latest"),
            ("localhost/hello:1", "hello:1"),
            ("registry:5000/hello:1", "registry:5000/hello:1"),
        ] {
            assert!(is_same(name, wanted), "{name} {wanted}");
        }
        for (name, wanted) in [
            ("1.0", "hello:1.1"),
            ("hello:1", "hello:2"),
            ("other.example/hello:1", "hello:1"),
            ("registry:5000/hello", "registry:5000/hello:1"),
        ] {
            assert!(!is_same(name, wanted), "{name} {wanted}");
        }
    }
}
