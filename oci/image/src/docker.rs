//! Docker archives, as `docker save`, `podman save` and others write them, made into OCI images.
//!
//! `manifest.json` lists images by the paths of their configuration and layers. Those become blobs as they are;
//! an OCI manifest is written for them, always the same one for the same content. Layers are plain tars in most
//! archives; where they are compressed, their first bytes say how. The oldest form keeps a layer as `<id>/layer.tar`
//! and stores one that is there twice as a link.

use std::collections::HashMap;

use oci_spec::image::Digest;
use serde::Deserialize;
use serde_json::json;
use tar::EntryType;

use crate::{
    digest::from_hex,
    document,
    error::Error,
    header::Member,
    image::{Image, read_document},
    ingest::{Blobs, Ingest},
    limits::{DOCKER_FILES, DOCKER_IMAGES, DOCKER_LINKS, Limits},
    path::normalise,
    resolve::{Search, Wish},
    stream::Encoding,
};

const MANIFEST: &str = "manifest.json";
/// What old archives hold beside images' parts.
const OF_NO_USE: [&str; 3] = ["repositories", "VERSION", "json"];

/// The files of an archive that may be parts of images, by their paths.
#[derive(Debug, Default)]
pub(crate) struct Files {
    stored: HashMap<String, Digest>,
    /// From a path to the one that it stands for.
    links: HashMap<String, String>,
}

/// Whether an image's part may be at this path.
pub(crate) fn may_be_part(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    !path.starts_with("blobs/") && !OF_NO_USE.contains(&name)
}

impl Files {
    /// Remembers what a file is, in place of what was there before.
    pub(crate) fn put(&mut self, path: String, digest: Digest) -> Result<(), Error> {
        self.make_room()?;
        self.links.remove(&path);
        self.stored.insert(path, digest);
        Ok(())
    }

    /// Remembers a link; other kinds of members are no parts of images.
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
        self.make_room()?;
        self.stored.remove(&path);
        self.links.insert(path, target);
        Ok(())
    }

    fn make_room(&self) -> Result<(), Error> {
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
        let normal = normalise(named.as_bytes()).ok();
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
        Err(missing("where links lead round in a circle"))
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

/// The one image of the archive that is wanted, its manifest among the blobs.
pub(crate) fn resolve(
    ingest: &mut Ingest,
    manifest: &[u8],
    files: &Files,
    wish: Wish<'_>,
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
        // What is not wanted need not be whole.
        let manifest = match wish.name.is_any_of(&names) {
            true => Some(convert(ingest, &config, &image.layers, files, limits)?),
            false => None,
        };
        found.push((names, manifest));
    }
    let mut search = Search::new(&*ingest, wish, limits);
    for (names, manifest) in found {
        match manifest {
            Some(manifest) => search.read(&manifest, names)?,
            None => search.pass_over(&names),
        }
    }
    search.verdict(MANIFEST)
}

/// Writes the OCI manifest; its digest.
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
    ingest.put(manifest.to_string().as_bytes())
}

/// The path that a link's target means, seen from the directory that the link is in; `None` if outside.
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
mod tests {
    use super::*;
    use crate::digest::digest_of;

    fn link(target: &str, kind: EntryType) -> Member {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_link_name_literal(target).unwrap();
        Member::new(&header, crate::header::Extension::default()).unwrap()
    }

    #[test]
    fn links_are_followed_within_the_archive() {
        let mut files = Files::default();
        let digest = digest_of(b"layer");
        files.put("a/layer.tar".to_owned(), digest.clone()).unwrap();
        for (path, target, kind) in [
            ("b/layer.tar", "../a/layer.tar", EntryType::Symlink),
            ("c/layer.tar", "../b/layer.tar", EntryType::Symlink),
            ("d/layer.tar", "a/layer.tar", EntryType::Link),
            ("loop", "loop", EntryType::Symlink),
        ] {
            files
                .put_link(path.to_owned(), &link(target, kind))
                .unwrap();
        }
        for path in ["a/layer.tar", "./b/layer.tar", "c/layer.tar", "d/layer.tar"] {
            assert_eq!(files.find(path).unwrap(), digest, "{path}");
        }
        assert!(
            files
                .find("loop")
                .unwrap_err()
                .to_string()
                .contains("circle")
        );
        assert!(
            files
                .find("../a")
                .unwrap_err()
                .to_string()
                .contains("no path")
        );
        assert!(
            files
                .find("x")
                .unwrap_err()
                .to_string()
                .contains("not in the archive")
        );
    }

    #[test]
    fn links_that_lead_out_are_refused() {
        for target in ["/etc/passwd", "../../a", ".."] {
            let error = Files::default()
                .put_link("layer.tar".to_owned(), &link(target, EntryType::Symlink))
                .unwrap_err();
            assert!(error.to_string().contains("leads out"), "{target}: {error}");
        }
    }

    #[test]
    fn files_are_bounded_in_number() {
        let mut files = Files::default();
        for number in 0..DOCKER_FILES {
            files.put(number.to_string(), digest_of(b"")).unwrap();
        }
        let error = files.put("more".to_owned(), digest_of(b"")).unwrap_err();
        assert_eq!(error.code(), "too_large");
    }
}
