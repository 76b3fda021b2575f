//! Converts Docker archives, as `docker save`, `podman save` and others write them, into OCI images.
//!
//! `manifest.json` lists images by the paths of their configuration and layers. These files become blobs unchanged, and
//! an OCI manifest is generated for them; equal content gives an equal manifest. Layers are plain tars in most archives;
//! otherwise their first bytes identify the compression. The oldest format stores a layer as `<id>/layer.tar`, and a
//! repeated layer as a link.

use std::collections::HashMap;

use oci_spec::image::Digest;
use serde::Deserialize;
use serde_json::json;
use tar::EntryType;

use crate::{
    content::ingest::{Blobs, Ingest},
    digest::from_hex,
    error::Error,
    layer::path::clean,
    layer::stream::Encoding,
    limits::{DOCKER_FILES, DOCKER_IMAGES, DOCKER_LINKS, Limits},
    manifest::document,
    manifest::document::read_document,
    manifest::image::Image,
    manifest::layout_index::{Search, Selection},
    tarball::header::Member,
};

const MANIFEST: &str = "manifest.json";
/// Files of old archives that no image refers to.
const IGNORED: [&str; 3] = ["repositories", "VERSION", "json"];

/// The files of an archive that may be parts of images, by their paths.
#[derive(Debug, Default)]
pub(crate) struct Files {
    stored: HashMap<String, Digest>,
    /// From a link's path to its target.
    links: HashMap<String, String>,
}

/// Whether an image may refer to this path.
pub(crate) fn may_be_part(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    !path.starts_with("blobs/") && !IGNORED.contains(&name)
}

impl Files {
    /// Records a file, in place of an earlier one at its path.
    pub(crate) fn put(&mut self, path: String, digest: Digest) -> Result<(), Error> {
        self.check_count()?;
        self.links.remove(&path);
        self.stored.insert(path, digest);
        Ok(())
    }

    /// Records a link; other kinds of members cannot be part of an image.
    pub(crate) fn put_link(&mut self, path: String, member: &Member) -> Result<(), Error> {
        let link = String::from_utf8_lossy(&member.link);
        let target = match member.kind {
            EntryType::Symlink => beside(&path, &link),
            EntryType::Link => beside("", &link),
            _ => return Ok(()),
        };
        let target = target.ok_or_else(|| Error::NotAnArchive {
            reason: format!("its link {path:?} leads out of it, to {link:?}"),
        })?;
        self.check_count()?;
        self.stored.remove(&path);
        self.links.insert(path, target);
        Ok(())
    }

    fn check_count(&self) -> Result<(), Error> {
        if self.stored.len() + self.links.len() < DOCKER_FILES {
            return Ok(());
        }
        Err(Error::TooLarge {
            what: "the number of the archive's files outside of blobs/".to_owned(),
            limit: DOCKER_FILES.to_string(),
        })
    }

    fn find(&self, named: &str) -> Result<Digest, Error> {
        let missing =
            |why| Error::malformed(MANIFEST, format!("it names the file {named:?}, {why}"));
        let normal = clean(named.as_bytes()).ok();
        let mut path = normal
            .and_then(|path| String::from_utf8(path).ok())
            .ok_or_else(|| missing("which is no path within the archive"))?;
        if let Some(blob) = path.strip_prefix("blobs/sha256/").and_then(from_hex) {
            return Ok(blob);
        }
        for _ in 0..=DOCKER_LINKS {
            if let Some(digest) = self.stored.get(&path) {
                return Ok(digest.clone());
            }
            path = self
                .links
                .get(&path)
                .ok_or_else(|| missing("which is not in the archive"))?
                .clone();
        }
        Err(missing("where links form a cycle"))
    }
}

/// One image, as `manifest.json` lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The selected image of the archive; its generated manifest is added to the blobs.
pub(crate) fn resolve(
    ingest: &mut Ingest,
    manifest: &[u8],
    files: &Files,
    selection: Selection<'_>,
    limits: &Limits,
) -> Result<Image, Error> {
    let listed: Vec<Listed> = document::parse(MANIFEST, manifest)?;
    if listed.len() > DOCKER_IMAGES {
        return Err(Error::TooLarge {
            what: "the number of the archive's images".to_owned(),
            limit: DOCKER_IMAGES.to_string(),
        });
    }
    let mut found = Vec::new();
    for image in listed {
        let config = files.find(&image.config)?;
        let mut names = image.repo_tags.unwrap_or_default();
        names.push(config.to_string());
        // Images that are not selected may be incomplete.
        let manifest = match selection.name.matches(&names) {
            true => Some(convert(ingest, &config, &image.layers, files, limits)?),
            false => None,
        };
        found.push((names, manifest));
    }
    let mut search = Search::new(&*ingest, selection, limits);
    for (names, manifest) in found {
        match manifest {
            Some(manifest) => search.read(&manifest, names)?,
            None => search.skip(&names),
        }
    }
    search.result(MANIFEST)
}

/// Adds the OCI manifest, and returns its digest.
fn convert(
    ingest: &mut Ingest,
    config: &Digest,
    layers: &[String],
    files: &Files,
    limits: &Limits,
) -> Result<Digest, Error> {
    let config_bytes = read_document(&*ingest, "the image's configuration", config, None, limits)?;
    let layers: Result<Vec<_>, Error> = layers
        .iter()
        .map(|path| {
            let digest = files.find(path)?;
            let missing = || Error::BlobMissing {
                what: format!("the layer {path}"),
                digest: digest.clone(),
            };
            let (file, bytes) = ingest.find(&digest)?.ok_or_else(missing)?;
            let encoding = Encoding::sniff(&file)?;
            Ok(json!({
                "mediaType": encoding.media_type().to_string(),
                "digest": digest.to_string(),
                "size": bytes,
            }))
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.to_string(),
            "size": config_bytes.len(),
        },
        "layers": layers?,
    });
    ingest.insert(manifest.to_string().as_bytes())
}

/// The path of a link's target, relative to the directory of the link; `None` if it is outside of the archive.
fn beside(link: &str, target: &str) -> Option<String> {
    let mut names: Vec<&str> = link.split('/').collect();
    names.pop();
    if target.starts_with('/') {
        return None;
    }
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

#[cfg(test)]
mod tests;
