//! Which image of those in an archive or layout is meant, and of what it consists. What this does not understand, it
//! leaves to the controller, which then gets the whole archive.

use std::{collections::HashMap, io};

use bytes::Bytes;
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest};
use serde::{Deserialize, de::DeserializeOwned};
use tucano_oci_image::digest_of;

use super::files::{Extent, Files};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];
/// What tools put before the short names that people write.
const PLACES: [&str; 3] = ["docker.io/library/", "docker.io/", "localhost/"];
/// Most indexes within indexes.
const DEPTH: usize = 4;

/// An image, and where its blobs are.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) manifest: Bytes,
    /// Each once.
    pub(super) blobs: Vec<(Digest, Extent)>,
}

/// Why none was chosen.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoChoice {
    /// It is not understood here.
    #[error("not understood")]
    Unclear,
    /// There is more than one.
    #[error("it holds several images: {}: say which by the key `image` of the configuration, such as image = \"name:tag\"", .0.join(", "))]
    Several(Vec<String>),
    /// There is none of that name, or for that platform.
    #[error("it holds no image {wanted}: it has {}", has.join(", "))]
    None { wanted: String, has: Vec<String> },
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Whether it can be an image of a kind that is known here.
pub(super) fn is_known(files: &Files) -> bool {
    match files.find("oci-layout") {
        Ok(Some(_)) => document::<ImageIndex>(files, "index.json").is_ok(),
        _ => document::<Vec<Saved>>(files, "manifest.json").is_ok(),
    }
}

/// The one image that is meant by `name`, where one is given, for `platform` (`os/architecture`).
pub(super) fn choose(
    files: &Files,
    name: Option<&str>,
    platform: &str,
) -> Result<Chosen, NoChoice> {
    let mut choice = Choice {
        files,
        name,
        platform,
        fitting: Vec::new(),
        others: Vec::new(),
    };
    if files.find("oci-layout")?.is_some() {
        let index: ImageIndex = document(files, "index.json")?;
        choice.index(&index, &[], 0)?;
    } else {
        choice.docker(document(files, "manifest.json")?)?;
    }
    choice.verdict()
}

struct Choice<'a> {
    files: &'a Files,
    name: Option<&'a str>,
    platform: &'a str,
    fitting: Vec<(String, Chosen)>,
    others: Vec<String>,
}

/// An image of `docker save` and `podman save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Choice<'_> {
    fn index(
        &mut self,
        index: &ImageIndex,
        names: &[String],
        depth: usize,
    ) -> Result<(), NoChoice> {
        for descriptor in index.manifests() {
            let mut names = names.to_vec();
            names.extend(names_of(descriptor.annotations().as_ref()));
            if let Some(platform) = descriptor.platform() {
                let other = format!("{}/{}", platform.os(), platform.architecture());
                if other != self.platform {
                    self.pass_over(&names, descriptor.digest(), &other);
                    continue;
                }
            }
            let kind = descriptor.media_type().to_string();
            match kind.contains("index") || kind.contains("manifest.list") {
                true if depth >= DEPTH => return Err(NoChoice::Unclear),
                true => {
                    let nested: ImageIndex = blob_document(self.files, descriptor.digest())?;
                    self.index(&nested, &names, depth + 1)?;
                }
                false => self.image(descriptor, &names)?,
            }
        }
        Ok(())
    }

    fn image(&mut self, descriptor: &Descriptor, names: &[String]) -> Result<(), NoChoice> {
        let digest = descriptor.digest();
        if !self.is_wanted(names, digest) {
            self.others.push(shown(names, digest));
            return Ok(());
        }
        let bytes = self.files.document(&path_of(digest)?)?;
        let bytes = bytes.ok_or(NoChoice::Unclear)?;
        let manifest: ImageManifest = parse(&bytes)?;
        let config: ImageConfiguration = blob_document(self.files, manifest.config().digest())?;
        let platform = format!("{}/{}", config.os(), config.architecture());
        if platform != self.platform {
            self.pass_over(names, digest, &platform);
            return Ok(());
        }
        let mut blobs = Vec::new();
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            let extent = self.files.find(&path_of(blob.digest())?)?;
            push_once(&mut blobs, blob.digest(), extent.ok_or(NoChoice::Unclear)?);
        }
        let chosen = Chosen {
            digest: digest.clone(),
            media_type: descriptor.media_type().to_string(),
            manifest: bytes.into(),
            blobs,
        };
        self.take(shown(names, digest), chosen);
        Ok(())
    }

    /// Gives the image of a Docker archive a manifest. Its layers are plain tars there, so that their diff-ids are their
    /// digests.
    fn docker(&mut self, saved: Vec<Saved>) -> Result<(), NoChoice> {
        for image in saved {
            let config = self.files.document(&image.config)?;
            let config = config.ok_or(NoChoice::Unclear)?;
            let names = image.repo_tags.clone().unwrap_or_default();
            let id = digest_of(&config);
            if !self.is_wanted(&names, &id) {
                self.others.push(shown(&names, &id));
                continue;
            }
            let parsed: ImageConfiguration = parse(&config)?;
            let platform = format!("{}/{}", parsed.os(), parsed.architecture());
            if platform != self.platform {
                self.pass_over(&names, &id, &platform);
                continue;
            }
            let chosen = self.saved(&image, &config, parsed.rootfs().diff_ids())?;
            self.take(shown(&names, &id), chosen);
        }
        Ok(())
    }

    fn saved(&self, image: &Saved, config: &[u8], diff_ids: &[String]) -> Result<Chosen, NoChoice> {
        if image.layers.len() != diff_ids.len() {
            return Err(NoChoice::Unclear);
        }
        let mut blobs = Vec::new();
        let mut layers = Vec::new();
        for (layer, diff_id) in image.layers.iter().zip(diff_ids) {
            let digest: Digest = diff_id.parse().map_err(|_| NoChoice::Unclear)?;
            path_of(&digest)?;
            let extent = self.files.find(layer)?.ok_or(NoChoice::Unclear)?;
            let magic = extent.read(0, extent.bytes.min(4))?;
            if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
                return Err(NoChoice::Unclear);
            }
            layers.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": diff_id, "size": extent.bytes,
            }));
            push_once(&mut blobs, &digest, extent);
        }
        let id = digest_of(config);
        let extent = self.files.find(&image.config)?.ok_or(NoChoice::Unclear)?;
        push_once(&mut blobs, &id, extent);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": id.to_string(), "size": config.len(),
            },
            "layers": layers,
        });
        let manifest = Bytes::from(manifest.to_string());
        Ok(Chosen {
            digest: digest_of(&manifest),
            media_type: MANIFEST.to_owned(),
            manifest,
            blobs,
        })
    }

    fn take(&mut self, name: String, chosen: Chosen) {
        if self
            .fitting
            .iter()
            .all(|(_, it)| it.digest != chosen.digest)
        {
            self.fitting.push((name, chosen));
        }
    }

    fn pass_over(&mut self, names: &[String], digest: &Digest, platform: &str) {
        // Attestations go by a platform that no machine has.
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

    fn verdict(mut self) -> Result<Chosen, NoChoice> {
        if self.fitting.len() > 1 {
            let names = self.fitting.into_iter().map(|(name, _)| name);
            return Err(NoChoice::Several(names.collect()));
        }
        if let Some((_, chosen)) = self.fitting.pop() {
            return Ok(chosen);
        }
        if self.others.is_empty() {
            return Err(NoChoice::Unclear);
        }
        self.others.sort();
        self.others.dedup();
        let name = self.name.map_or_else(String::new, |it| format!("{it:?} "));
        Err(NoChoice::None {
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

/// A layout often tells the tag only, which then is all that counts.
fn is_same(name: &str, wanted: &str) -> bool {
    let is_tag_only = !name.contains([':', '/', '@']);
    let (repository, tag) = parts(name);
    let (wanted_repository, wanted_tag) = parts(wanted);
    match is_tag_only {
        true => name == wanted_tag || name == wanted,
        false => (repository, tag) == (wanted_repository, wanted_tag),
    }
}

/// The name without a default registry, and its tag: `latest` where it has neither tag nor digest.
fn parts(name: &str) -> (&str, &str) {
    let short = PLACES
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

fn push_once(blobs: &mut Vec<(Digest, Extent)>, digest: &Digest, extent: Extent) {
    if blobs.iter().all(|(other, _)| other != digest) {
        blobs.push((digest.clone(), extent));
    }
}

fn path_of(digest: &Digest) -> Result<String, NoChoice> {
    match digest.algorithm().as_ref() {
        "sha256" => Ok(format!("blobs/sha256/{}", digest.digest())),
        _ => Err(NoChoice::Unclear),
    }
}

fn blob_document<T: DeserializeOwned>(files: &Files, digest: &Digest) -> Result<T, NoChoice> {
    document(files, &path_of(digest)?)
}

fn document<T: DeserializeOwned>(files: &Files, name: &str) -> Result<T, NoChoice> {
    parse(&files.document(name)?.ok_or(NoChoice::Unclear)?)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NoChoice> {
    serde_json::from_slice(bytes).map_err(|_| NoChoice::Unclear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_people_mean_them() {
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
